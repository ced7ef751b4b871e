// A hidden layer that several others share gives back what none of them maps any more, whatever
// they do meanwhile and whenever the machine stops; and nothing that one of them still maps.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkStore } from "../../engine/core/check.js";
import type { Client } from "../sim/client.js";
import { cutPower, FEW_BLOCKS, finish, flush, read, smallPool, write } from "../sim/small-pool.js";
import { requireAllSeen } from "../sim/space.js";
import { drain, ended, type Holds, isKind, track, until } from "../sim/steps.js";

const test = suite("sweep");
const STORE: Holds = isKind("commit", "durable");

/** Volumes a and b over what a was when b was made: 18 sectors in spans 0, 1 and 2. */
async function overShared(options = {}): Promise<Client> {
  const client = await smallPool(options);
  const { world } = client;
  await write(client, "a", 0, 8);
  await write(client, "a", 510, 6);
  await write(client, "a", 1030, 4);
  await world.run(client.cloneVolume("a", "b"));
  await world.run(client.open("b"));
  return client;
}

async function settled(client: Client): Promise<void> {
  await client.world.run(client.pool.settle());
  await client.world.quiesce();
  await requireAllSeen(client.world);
}

const owned = (client: Client): number => checkStore(client.world.store).ownedBlocks;

test("what both have written over comes free, and nothing else", async () => {
  const client = await overShared();
  const { world } = client;
  await write(client, "a", 0, 6);
  await write(client, "b", 2, 6);
  await world.run(client.discard("b", { sector: 0, count: 1 }));
  await settled(client);
  // 2 to 5 are written over by both, 0 by the one and discarded by the other.
  assert.is(owned(client), 18 + 6 + 6 - 5);
  const info = await world.run(client.pool.info());
  assert.is(info?.value.usedBytes, 25 * 4096);
  assert.is(info?.value.reclaim.spansSwept, 1);
  await read(client, "a", 0, 16);
  await read(client, "b", 0, 16);
  // Its block of the span goes with the last slot that it owns.
  await write(client, "a", 6, 2);
  await world.run(client.discard("b", { sector: 1, count: 1 }));
  await settled(client);
  assert.is(owned(client), 10 + 8 + 6);
  await cutPower(client);
  await finish(client);
});

test("a child without an index block of its own maps everything", async () => {
  const client = await overShared();
  const { world } = client;
  // It has more index blocks than the other, and none of the span.
  await write(client, "b", 514, 2);
  await write(client, "b", 1030, 1);
  await world.run(client.snapshot("b", "s"));
  await write(client, "a", 0, 8);
  await write(client, "b", 0, 8);
  await settled(client);
  assert.is(owned(client), 18 + 3 + 16);
  await world.run(client.deleteSnapshot("b@s"));
  await settled(client);
  assert.is(owned(client), 10 + 3 + 16);
  await cutPower(client);
  await finish(client);
});

test("hidden layers on the way down are looked through", async () => {
  const client = await overShared();
  const { world } = client;
  // b goes on over a hidden layer of its own, which has nothing of span 0 and some of span 1.
  await write(client, "b", 512, 2);
  await world.run(client.cloneVolume("b", "c"));
  await world.run(client.open("c"));
  for (const name of ["a", "b", "c"]) {
    await write(client, name, 0, 7);
    await write(client, name, 510, 5);
  }
  await settled(client);
  assert.is(owned(client), 3 * 12 + (18 - 12));
  for (const name of ["a", "b", "c"]) await read(client, name, 0, 16);
  await cutPower(client);
  await settled(client);
  await finish(client);
});

test("the interval sweeps what was changed enough, and the pool as it was found is left", async () => {
  const client = await overShared();
  const { world } = client;
  for (const name of ["a", "b"]) await write(client, name, 0, 3);
  world.tick();
  await world.quiesce();
  world.tick();
  await world.quiesce();
  assert.is(owned(client), 18 + 3);
  for (const name of ["a", "b"]) {
    await write(client, name, 4, 2);
    await flush(client, name);
  }
  await cutPower(client);
  world.tick();
  await world.quiesce();
  assert.is(owned(client), 18 + 7);
  await settled(client);
  assert.is(owned(client), 18 + 5);
  await finish(client);
});

test("a full pool is swept before a write is refused", async () => {
  const client = await overShared({ dataBlocks: FEW_BLOCKS });
  const { world } = client;
  for (const name of ["a", "b"]) await write(client, name, 0, 8);
  // 18 + 16 are taken, of which 8 can come back.
  await write(client, "a", 30, 30);
  await write(client, "b", 40, 8);
  const done = await world.run(client.write("b", { sector: 50, count: 1 }));
  assert.is(done?.value, "no-space");
  await world.run(client.checkpoint());
  await requireAllSeen(world);
  await finish(client);
});

test("a swept block is not written again while a read knows it", async () => {
  const client = await overShared({ dataBlocks: FEW_BLOCKS });
  const { world } = client;
  await write(client, "a", 0, 8);
  const reading = track(client.read("b", { sector: 0, count: 8 }));
  await world.settle();
  const late = isKind("read");
  assert.ok(await ended(world, track(client.write("b", { sector: 0, count: 8 })), late));
  for (let turn = 0; turn < 2; turn++) {
    world.tick();
    await drain(world, late);
  }
  // 34 are taken, and 8 of them are on their way back.
  assert.is(owned(client), 26);
  const filling = track(client.write("a", { sector: 20, count: 31 }));
  await drain(world, late);
  assert.is(filling.value, "no-space");
  assert.ok(await ended(world, reading));
  await world.quiesce();
  await write(client, "a", 20, 31);
  await finish(client);
});

test("a layer that is folded into one that was swept takes over what the store has", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await write(client, "a", 510, 4);
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 2, 3);
  await world.run(client.discard("a", { sector: 0, count: 1 }));
  // Memory has its index block as it was, for a hidden layer that two share.
  await world.run(client.cloneVolume("a", "b"));
  await world.run(client.open("b"));
  for (const name of ["a", "b"]) {
    await write(client, name, 2, 4);
    await read(client, name, 0, 8);
  }
  await settled(client);
  assert.is(owned(client), 8 + 8);
  await world.run(client.deleteSnapshot("a@s"));
  await settled(client);
  // 1 is mapped by both; 510 to 513 too; 0 and what was at 2 and 3 is seen by nobody.
  assert.is(owned(client), 8 + 5);
  for (const name of ["a", "b"]) {
    await write(client, name, 0, 2);
    await read(client, name, 0, 16);
  }
  await cutPower(client);
  await finish(client);
});

test("a sweep that is cut anywhere is a sweep or none", async () => {
  for (const transactions of ["none", "all"] as const) {
    for (let at = 0, past = false; !past; at++) {
      const client = await overShared();
      const { world } = client;
      for (const name of ["a", "b"]) {
        await write(client, name, 0, 7);
        await write(client, name, 510, 5);
      }
      await world.run(client.checkpoint());
      const settling = track(client.pool.settle());
      const before = world.stepCount;
      past = !(await until(world, () => world.stepCount - before === at));
      // What is written now may take what has just come free.
      track(client.write("a", { sector: 20, count: 10 }));
      track(client.discard("b", { sector: 3, count: 9 }));
      await drain(world, STORE);
      await cutPower(client, { keep: at % 2 === 0 ? "all" : "random", transactions, seed: at });
      await client.compareAll();
      assert.is.not(settling.state, "failed");
      await settled(client);
      await finish(client);
    }
  }
});

test("those who share it may be snapshotted, cloned, deleted and written while it is swept", async () => {
  const changes: ((client: Client) => Promise<unknown>)[] = [
    (client) => client.snapshot("a", "t"),
    (client) => client.cloneVolume("a", "c"),
    (client) => client.deleteVolume("a"),
    (client) => client.write("b", { sector: 6, count: 5 }),
  ];
  for (const change of changes) {
    for (let at = 0, past = false; !past; at++) {
      const client = await overShared();
      const { world } = client;
      for (const name of ["a", "b"]) await write(client, name, 0, 7);
      await write(client, "a", 510, 3);
      const settling = track(client.pool.settle());
      const before = world.stepCount;
      past = !(await until(world, () => world.stepCount - before === at));
      assert.ok(await ended(world, track(change(client))));
      await ended(world, settling);
      await settled(client);
      await client.compareAll();
      await cutPower(client, { keep: "random", seed: at });
      await finish(client);
    }
  }
});

test("a sweep that fails for want of room in the store is tried again", async () => {
  const client = await overShared();
  const { world } = client;
  for (const name of ["a", "b"]) await write(client, name, 0, 7);
  await world.run(client.checkpoint());
  const settling = track(client.pool.settle());
  await until(world, () => world.choices().some(isKind("commit")));
  await until(world, () => world.checkpointPhase === "none" && world.choices().some(STORE));
  world.store.failNextCommit("ENOSPC");
  await world.quiesce();
  if (settling.state === "waiting") await ended(world, settling);
  await settled(client);
  assert.is(owned(client), 18 + 7);
  await cutPower(client);
  await finish(client);
});

test.run();

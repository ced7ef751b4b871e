// A frozen child with more index blocks than one transaction may put hands them up to the deleted
// layer that it is to absorb, batch by batch, whatever goes on below it and whenever the machine
// stops.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkStore } from "../../engine/core/check.js";
import { findSnapshot } from "../../engine/store/catalogue.js";
import { getLayer } from "../../engine/store/layers.js";
import type { Client } from "../sim/client.js";
import {
  cutAfterEachStep,
  cutPower,
  finish,
  flush,
  read,
  smallPool,
  write,
} from "../sim/small-pool.js";
import { ended, type Holds, isKind, take, track, until } from "../sim/steps.js";

const test = suite("hand-up");
const STORE: Holds = isKind("commit", "durable");

/** Volume a over its snapshots t and s, which have spans 0, 1 and 2 each; a has nothing yet. */
async function overTwo(options = {}): Promise<Client> {
  const client = await smallPool({ absorbFrom: 1, absorbMost: 0, ...options });
  const { world } = client;
  await write(client, "a", 0, 8);
  await write(client, "a", 510, 6);
  await write(client, "a", 1030, 4);
  await world.run(client.snapshot("a", "s"));
  await world.run(client.checkpoint());
  await write(client, "a", 2, 4);
  await write(client, "a", 514, 4);
  await write(client, "a", 1032, 1);
  await world.run(client.discard("a", { sector: 510, count: 1 }));
  await world.run(client.checkpoint());
  await world.run(client.snapshot("a", "t"));
  await world.quiesce();
  return client;
}

const layersOf = (client: Client): number => checkStore(client.world.store).layers;

/** Of the snapshot t, by itself. */
function leftOf(client: Client): number {
  const { layer } = findSnapshot(client.world.store, "a", "t") ?? {};
  assert.ok(layer !== undefined);
  return getLayer(client.world.store, layer).indexBlocks;
}

test("a snapshot hands up what it has, and gets all that there is", async () => {
  const client = await overTwo();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  await world.quiesce();
  assert.is(world.handedUp, 3);
  assert.is(world.absorbed, 1);
  assert.is(layersOf(client), 2);
  assert.is(leftOf(client), 3);
  // Of 18 sectors that the deleted one had, 7 are in nobody's contents any more; 9 were written.
  assert.is(checkStore(world.store).ownedBlocks, 19);
  assert.is((await world.run(client.pool.info()))?.value.usedBytes, 19 * 4096);
  // Nobody has looked at any of it since: what memory had of the deleted one is not it.
  for (const sector of [0, 512, 1030]) await read(client, "a", sector, 8);
  await write(client, "a", 3, 2);
  await client.compareAll();
  await cutPower(client);
  await finish(client);
});

test("a live child has the layer folded into it, whatever it has", async () => {
  const client = await overTwo();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@t"));
  await world.quiesce();
  await write(client, "a", 0, 1);
  await world.run(client.checkpoint());
  await world.run(client.deleteSnapshot("a@s"));
  await world.quiesce();
  assert.is(world.handedUp, 0);
  assert.is(layersOf(client), 1);
  await cutPower(client);
  await finish(client);
});

test("nothing is handed up while records of it are in the journal", async () => {
  for (const keep of ["none", "all"] as const) {
    const client = await smallPool({ absorbFrom: 1, absorbMost: 0 });
    const { world } = client;
    await write(client, "a", 0, 8);
    await world.run(client.snapshot("a", "s"));
    await world.run(client.checkpoint());
    await write(client, "a", 2, 2);
    await world.run(client.deleteSnapshot("a@s"));
    // The checkpoint that the deletion waits for has begun before this record, and the child is
    // frozen before it ends.
    assert.ok(await until(world, () => world.checkpointPhase === "batches"));
    assert.ok(await ended(world, track(client.write("a", { sector: 3, count: 4 })), STORE));
    assert.ok(await ended(world, track(client.snapshot("a", "t"))));
    assert.is(world.checkpointPhase, "last");
    assert.is(layersOf(client), 3);
    assert.ok(await until(world, () => world.handedUp > 0));
    assert.ok(await until(world, () => leftOf(client) === 0));
    await cutPower(client, { keep, transactions: "all" });
    await world.quiesce();
    assert.is(layersOf(client), 2);
    await finish(client);
  }
});

test("a cut after any step finds every block owned, or free, and the rest goes on", async () => {
  const client = await overTwo({ indexCacheBytes: 4 * 2400 });
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  await write(client, "a", 0, 2);
  await flush(client, "a");
  await cutAfterEachStep(client, track(client.pool.settle()));
  assert.is(layersOf(client), 2);
  await finish(client);
});

test("half of it is handed up when the daemon is killed: the next one goes on", async () => {
  const client = await overTwo();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  assert.ok(await until(world, () => leftOf(client) === 2));
  await cutPower(client, { keep: "all", transactions: "all" });
  await world.quiesce();
  assert.is(world.handedUp, 2);
  assert.is(layersOf(client), 2);
  await finish(client);
});

test("below it all goes on: looks-up, writes, clones, snapshots and deletions", async () => {
  const changes: ((client: Client) => Promise<unknown>)[] = [
    (client) => client.write("a", { sector: 1, count: 3 }),
    (client) => client.read("a", { sector: 508, count: 8 }),
    (client) => client.snapshot("a", "u"),
    (client) => client.cloneSnapshot("a@t", "c"),
    (client) => client.deleteSnapshot("a@t"),
    (client) => client.deleteVolume("a"),
  ];
  for (const change of changes) {
    for (let at = 0, past = false; !past; at++) {
      const client = await overTwo({ indexCacheBytes: 2 * 2400 });
      const { world } = client;
      await world.run(client.deleteSnapshot("a@s"));
      const before = world.stepCount;
      past = !(await until(world, () => world.stepCount - before === at));
      assert.ok(await ended(world, track(change(client))));
      await world.quiesce();
      await client.compareAll();
      assert.is(checkStore(world.store).problems.join(), "");
      await cutPower(client, { keep: "random", seed: at });
      await finish(client);
    }
  }
});

test("a look-up between the commit and its durability finds the same", async () => {
  const client = await overTwo();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  assert.ok(await until(world, () => world.foldPhase === "hand up"));
  await take(world, isKind("commit"));
  assert.is(leftOf(client), 2);
  for (const sector of [0, 508, 1030]) {
    assert.ok(await ended(world, track(client.read("a", { sector, count: 8 })), STORE));
  }
  const writing = track(client.write("a", { sector: 4, count: 3 }));
  assert.ok(await ended(world, writing, STORE));
  await cutPower(client, { transactions: "none" });
  await finish(client);
});

test("one that fails for want of room in the store is tried again", async () => {
  const client = await overTwo();
  const { world } = client;
  await world.run(client.deleteSnapshot("a@s"));
  assert.ok(await until(world, () => world.foldPhase === "hand up"));
  world.store.failNextCommit("ENOSPC");
  await world.quiesce();
  world.tick();
  await world.quiesce();
  assert.is(layersOf(client), 2);
  assert.is(leftOf(client), 3);
  await cutPower(client);
  await finish(client);
});

test.run();

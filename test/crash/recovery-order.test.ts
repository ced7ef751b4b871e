// Recovery on what it cannot trust yet, and of layers that nobody names any more.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { cutPower, finish, flush, smallPool, write } from "../sim/small-pool.js";
import { drain, ended, isKind, take, track, until } from "../sim/steps.js";

const test = suite("recovery order");

test("killed, recovered in part, then without power: what was read is durable before it counts", async () => {
  let replayed = 0;
  for (let seed = 1; seed <= 8; seed++) {
    for (let at = 0; ; at++) {
      const client = await smallPool();
      const { world } = client;
      await write(client, "a", 0, 4);
      await write(client, "a", 500, 4);
      void client.flush("a");
      await drain(world, isKind("write-durable"));
      world.kill(seed);
      client.died("kill");
      const before = world.stepCount;
      const opened = await world.open({ interrupt: () => world.stepCount - before === at });
      if (!opened) {
        world.cutPower("none", seed, (limit) => limit - 1);
        client.died("power");
        await world.open();
      }
      replayed += world.recovered?.replayedRecords ?? 0;
      await client.resume();
      await finish(client);
      if (opened) break;
    }
  }
  assert.ok(replayed > 0, "the journal block landed, some time");
});

test("what a recovered pool has shown once, no power cut takes back", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await flush(client, "a");
  // In place: it is in the device's cache, and nowhere else.
  await write(client, "a", 0, 4);
  world.kill(1);
  client.died("kill");
  await world.open();
  await client.resume();
  await cutPower(client);
  await finish(client);
});

test("records of a deleted layer are replayed: a checkpoint may have put half of what they say", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await flush(client, "a");
  await world.run(client.close("a"));
  const checkpoint = track(client.checkpoint());
  assert.ok(await until(world, () => world.checkpointPhase === "batches"));
  await take(world, isKind("commit"));
  const deleting = track(client.deleteVolume("a"));
  await world.settle();
  assert.ok(await ended(world, deleting));
  assert.is(checkpoint.state, "waiting", "its last transaction comes after the deletion");
  await cutPower(client);
  assert.is(world.recovered?.replayedRecords, 1);
  await finish(client);
});

test("a checkpoint cut anywhere leaves a store that the journal completes", async () => {
  for (let at = 0, done = false; !done; at++) {
    for (const transactions of ["all", "none"] as const) {
      const client = await smallPool();
      const { world } = client;
      await write(client, "a", 0, 4);
      await write(client, "a", 520, 4);
      await world.run(client.snapshot("a", "s"));
      await write(client, "a", 2, 4);
      await flush(client, "a");
      const checkpoint = track(client.checkpoint());
      const before = world.stepCount;
      await until(world, () => checkpoint.state === "done" || world.stepCount - before === at);
      done = checkpoint.state === "done";
      await cutPower(client, { transactions });
      await finish(client);
    }
  }
});

test("records of a frozen layer and of its child are replayed in the order of the tree", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 8);
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 2, 2);
  await world.run(client.cloneSnapshot("a@s", "b"));
  await world.run(client.open("b"));
  await write(client, "b", 4, 2);
  await flush(client, "a");
  await flush(client, "b");
  await cutPower(client);
  assert.is(world.recovered?.replayedRecords, 3);
  await finish(client);
});

test("an epoch is never used twice, though there was nothing to replay", async () => {
  const client = await smallPool();
  const { world } = client;
  const epochs = [world.recovered?.epoch];
  for (let i = 0; i < 3; i++) {
    await cutPower(client);
    epochs.push(world.recovered?.epoch);
  }
  assert.is(new Set(epochs).size, 4);
  await finish(client);
});

test.run();

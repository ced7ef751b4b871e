// The instant of a snapshot: what the gate holds, when it opens, and that nobody else opens it.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../native/native.js";
import {
  addVolume,
  counters,
  cutPower,
  finish,
  flush,
  smallPool,
  write,
} from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, take, track } from "../sim/steps.js";

const test = suite("branching");
const DURABLE: Holds = isKind("durable");
const WRITES: Holds = isKind("write");

test("the gate of a snapshot opens when its transaction is durable, not when it is committed", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, DURABLE);
  assert.is(snapshot.state, "waiting");
  const writing = track(client.write("a", { sector: 0, count: 2 }));
  const flushing = track(client.flush("a"));
  await drain(world, DURABLE);
  assert.is(
    writing.state,
    "waiting",
    "a record of the new layer would be in the journal before it",
  );
  assert.is(flushing.state, "done");
  assert.is((await counters(client)).gateWaits, 1);
  await cutPower(client, { keep: "all" });
  await finish(client);
});

test("two snapshots at once do not open each other's gate", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const snapshots = [track(client.snapshot("a", "s")), track(client.snapshot("a", "t"))];
  for (const snapshot of snapshots) {
    await drain(world, DURABLE);
    const writing = track(client.write("a", { sector: 0, count: 2 }));
    await drain(world, DURABLE);
    assert.is(writing.state, "waiting");
    await take(world, DURABLE);
    assert.ok(await ended(world, snapshot, DURABLE));
  }
  await drain(world);
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("a snapshot has the writes that ended before it, after any crash", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const late = track(client.write("a", { sector: 2, count: 4 }));
  await world.settle();
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, WRITES);
  assert.is(snapshot.state, "waiting", "a write is under way");
  assert.is((await counters(client)).gateWaits, 0, "it flushes before it closes the gate");
  assert.ok(await ended(world, snapshot));
  assert.is(late.value, "ok");
  await cutPower(client);
  await finish(client);
});

test("a snapshot has what was written before the volume was closed, after any crash", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.close("a"));
  await world.run(client.snapshot("a", "s"));
  await cutPower(client);
  await finish(client);
});

test("reads go on while a snapshot holds the writes", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  const snapshot = track(client.snapshot("a", "s"));
  await drain(world, DURABLE);
  assert.ok(await ended(world, track(client.read("a", { sector: 0, count: 8 })), DURABLE));
  assert.ok(await ended(world, snapshot));
  await finish(client);
});

test("a group of volumes is frozen at one instant", async () => {
  const client = await smallPool();
  const { world } = client;
  await addVolume(client, "b");
  await write(client, "a", 0, 4);
  await write(client, "b", 0, 4);
  const slow = track(client.write("a", { sector: 500, count: 2 }));
  await world.settle();
  // The data path numbers volumes in the order in which they were opened.
  const frozen = track(native.volumeFreeze(world.pool.handle, [1, 2]));
  await world.settle();
  const after = track(client.write("b", { sector: 500, count: 2 }));
  await drain(world, WRITES);
  assert.is(frozen.state, "waiting", "a write to a is under way");
  assert.is(after.state, "waiting", "b stands still, though nothing of it was under way");
  assert.ok(await ended(world, slow));
  assert.ok(await ended(world, frozen));
  assert.is(after.state, "waiting");
  await Promise.all([1, 2].map((id) => world.run(native.volumeThaw(world.pool.handle, id, 0))));
  assert.ok(await ended(world, after));
  await finish(client);
});

test("a frozen group is durable", async () => {
  const client = await smallPool();
  const { world } = client;
  await addVolume(client, "b");
  void client.write("b", { sector: 4, count: 4 });
  void client.write("a", { sector: 0, count: 4 });
  await drain(world, isKind("flush"));
  const frozen = track(native.volumeFreeze(world.pool.handle, [1, 2]));
  await drain(world, isKind("write-durable"));
  assert.is(frozen.state, "waiting");
  assert.ok(await ended(world, frozen));
  await Promise.all([1, 2].map((id) => world.run(native.volumeThaw(world.pool.handle, id, 0))));
  await finish(client);
});

test("a clone writes nothing of its origin's, and its origin nothing of the clone's", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 40);
  await flush(client, "a");
  await world.run(client.checkpoint());
  await world.run(client.cloneVolume("a", "b"));
  await world.run(client.open("b"));
  await write(client, "b", 0, 10);
  await write(client, "a", 5, 10);
  await world.run(client.discard("b", { sector: 20, count: 10 }));
  await world.run(client.discard("a", { sector: 25, count: 10 }));
  await flush(client, "a");
  await flush(client, "b");
  await cutPower(client, { keep: "random", seed: 3 });
  await finish(client);
});

test.run();

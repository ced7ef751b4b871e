// A freed block is handed out again when its release is durable and nobody uses it any more, and
// the free map in the store is at every moment that of the store's own tail.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkStore } from "../../engine/core/check.js";
import {
  addVolume,
  counters,
  cutPower,
  FEW_BLOCKS,
  finish,
  flush,
  smallPool,
  write,
} from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, take, track, until } from "../sim/steps.js";

const test = suite("freed blocks");
const STORE: Holds = isKind("commit", "durable");
const READS: Holds = isKind("read");

test("a freed block is not written again before the checkpoint of its release is durable", async () => {
  const client = await smallPool({ dataBlocks: FEW_BLOCKS });
  await write(client, "a", 0, 60);
  await flush(client, "a");
  await client.world.run(client.checkpoint());
  await client.world.run(client.discard("a", { sector: 0, count: 8 }));
  // Four blocks are left; the eight that were freed are not to be had while the store stands still.
  const writing = track(client.write("a", { sector: 500, count: 8 }));
  await drain(client.world, STORE);
  assert.is(writing.state, "waiting");
  await cutPower(client, { keep: "all" });
  await client.world.run(client.open("a"));
  await client.world.run(client.discard("a", { sector: 0, count: 8 }));
  await write(client, "a", 500, 8);
  await cutPower(client, { keep: "all" });
  await finish(client);
});

test("a freed block is not written again before a read that began earlier has ended", async () => {
  const client = await smallPool({ dataBlocks: FEW_BLOCKS });
  const { world } = client;
  await write(client, "a", 0, 60);
  await flush(client, "a");
  await world.run(client.checkpoint());
  await addVolume(client, "b");
  const reading = track(client.read("a", { sector: 0, count: 8 }));
  await drain(world, READS);
  assert.ok(await ended(world, track(client.discard("a", { sector: 0, count: 8 })), READS));
  assert.ok(await ended(world, track(client.flush("a")), READS));
  assert.ok(await ended(world, track(client.checkpoint()), READS));
  const writing = track(client.write("b", { sector: 500, count: 8 }));
  await drain(world, READS);
  assert.is.not(writing.value, "ok", "its blocks are still being read");
  const { releasesHeldByIo = 0, releasesHeldByReads } = await counters(client);
  assert.ok(releasesHeldByIo > 0);
  assert.is(releasesHeldByReads, releasesHeldByIo);
  assert.ok(await ended(world, reading));
  await drain(world);
  await write(client, "b", 500, 8);
  await finish(client);
});

test("a discard waits for a write in place to the same block: it would land in its next owner's", async () => {
  const client = await smallPool({ dataBlocks: FEW_BLOCKS });
  const { world } = client;
  await write(client, "a", 0, 60);
  await flush(client, "a");
  await addVolume(client, "b");
  const writing = track(client.write("a", { sector: 0, count: 2 }));
  await world.settle();
  const late = isKind("write");
  const discarding = track(client.discard("a", { sector: 0, count: 8 }));
  await drain(world, late);
  assert.is(writing.state, "waiting");
  assert.is(discarding.state, "waiting");
  assert.ok(await ended(world, track(client.checkpoint()), late));
  assert.ok(await ended(world, writing));
  assert.ok(await ended(world, discarding));
  await world.run(client.checkpoint());
  await write(client, "b", 500, 8);
  await cutPower(client, { keep: "random" });
  await finish(client);
});

test("the free map of a checkpoint knows no record that came after the records it covers", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await flush(client, "a");
  await write(client, "a", 0, 4); // in place: something to flush, and no record
  const checkpoint = track(client.checkpoint());
  // Its commit is under way: these are applied, and are not part of it.
  await drain(world, isKind("flush"));
  void client.write("a", { sector: 500, count: 3 });
  void client.discard("a", { sector: 0, count: 2 });
  await drain(world, isKind("flush"));
  assert.ok(await ended(world, checkpoint));
  await cutPower(client);
  await finish(client);
});

test("no index block goes to the store before its records are durable", async () => {
  const client = await smallPool();
  const { world } = client;
  const volatile = isKind("flush", "write-durable");
  await write(client, "a", 0, 4);
  await flush(client, "a");
  await write(client, "a", 0, 4); // in place: something to flush, and no record
  void client.checkpoint();
  await drain(world, volatile);
  // The checkpoint copies these with the rest.
  void client.write("a", { sector: 8, count: 3 });
  void client.discard("a", { sector: 0, count: 2 });
  await drain(world, volatile);
  await take(world, isKind("flush"));
  await drain(world, volatile);
  await cutPower(client, { transactions: "all" });
  await finish(client);
});

test("a block freed while a checkpoint is under way stays allocated in the store until the next", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await flush(client, "a");
  await world.run(client.checkpoint());
  await write(client, "a", 500, 4);
  const checkpoint = track(client.checkpoint());
  assert.ok(await until(world, () => world.checkpointPhase === "batches"));
  await take(world, isKind("commit"));
  assert.ok(await ended(world, track(client.discard("a", { sector: 0, count: 4 })), STORE));
  assert.ok(await ended(world, track(client.write("a", { sector: 510, count: 4 })), STORE));
  assert.ok(await ended(world, checkpoint));
  await cutPower(client, { transactions: "all" });
  assert.is(checkStore(world.store).ownedBlocks, 8);
  await finish(client);
});

test("what changes while a checkpoint is under way goes to the store with the next", async () => {
  const client = await smallPool({ indexCacheBytes: 2 * 2400 });
  const { world } = client;
  await write(client, "a", 0, 4);
  await write(client, "a", 520, 4);
  const checkpoint = track(client.checkpoint());
  assert.ok(await until(world, () => world.checkpointPhase === "batches"));
  // Both index blocks are copied, and not yet durable.
  await take(world, isKind("commit"));
  assert.ok(await ended(world, track(client.write("a", { sector: 8, count: 4 })), STORE));
  assert.ok(await ended(world, track(client.discard("a", { sector: 522, count: 1 })), STORE));
  assert.ok(await ended(world, track(client.flush("a")), STORE));
  assert.ok(await ended(world, checkpoint));
  await world.run(client.checkpoint());
  await cutPower(client);
  assert.is(world.recovered?.replayedRecords, 0);
  await finish(client);
});

test("a layer is reclaimed after a checkpoint that began when it was deleted already", async () => {
  for (let at = 0, quiet = false; !quiet; at++) {
    const client = await smallPool();
    const { world } = client;
    await addVolume(client, "b");
    await write(client, "a", 0, 4);
    await world.run(client.checkpoint());
    await world.run(client.deleteVolume("a"));
    // The checkpoint for it is through when b, with records that it does not cover, is deleted.
    let checkpointed = false;
    const reclaims = (): boolean => {
      checkpointed ||= world.checkpointPhase === "last";
      return checkpointed && world.checkpointPhase === "none" && world.choices().some(STORE);
    };
    assert.ok(await until(world, reclaims));
    assert.ok(await ended(world, track(client.write("b", { sector: 0, count: 4 })), STORE));
    assert.ok(await ended(world, track(client.flush("b")), STORE));
    await world.run(client.deleteVolume("b"));
    const before = world.stepCount;
    quiet = !(await until(world, () => world.stepCount - before === at));
    await cutPower(client, { transactions: at % 2 === 0 ? "all" : "none" });
    await finish(client);
  }
});

test("nothing is lost of what was lent and not written", async () => {
  const client = await smallPool({ dataBlocks: FEW_BLOCKS });
  for (let round = 0; round < 4; round++) {
    await write(client, "a", 8 * round, 8);
    await flush(client, "a");
    await cutPower(client, { keep: "random", seed: round });
    await client.world.run(client.open("a"));
  }
  await write(client, "a", 0, FEW_BLOCKS - 8);
  await write(client, "a", 500, 8);
  await finish(client);
});

test("who asks for a checkpoint while one runs gets one that begins later", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0);
  const first = track(client.checkpoint());
  assert.ok(await until(world, () => world.checkpointPhase === "last"));
  assert.ok(await ended(world, track(client.write("a", { sector: 8, count: 1 })), STORE));
  const second = track(client.checkpoint());
  assert.ok(await ended(world, second));
  assert.is(first.state, "done");
  await flush(client, "a");
  await cutPower(client);
  assert.is(world.recovered?.replayedRecords, 0);
  await finish(client);
});

test.run();

// What a flush promises, and in which order it does things.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { decodeJournalBlock } from "../../engine/store/journal.js";
import { native } from "../../native/native.js";
import type { Client } from "../sim/client.js";
import { counters, cutPower, finish, flush, smallPool, write } from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, take, track, until } from "../sim/steps.js";
import type { Choice } from "../sim/world.js";

const test = suite("journal order");
const STORE: Holds = isKind("commit", "durable");
const JOURNAL: Holds = isKind("write-durable");
const FLUSH: Holds = isKind("flush");

test("no journal block is issued before the data that it points to is flushed", async () => {
  const client = await smallPool();
  void client.write("a", { sector: 0, count: 4 });
  await drain(client.world, FLUSH);
  const flushing = track(client.flush("a"));
  await drain(client.world, FLUSH);
  assert.is(client.world.choices().filter(JOURNAL).length, 0, "the data is still volatile");
  await take(client.world, FLUSH);
  assert.is(client.world.choices().filter(JOURNAL).length, 1);
  assert.is(flushing.state, "waiting");
  await cutPower(client, { keep: "all" });
  await finish(client);
});

test("a flush is acknowledged when its records are durable, not before", async () => {
  const client = await smallPool();
  void client.write("a", { sector: 0, count: 4 });
  await drain(client.world, FLUSH);
  const flushing = track(client.flush("a"));
  await drain(client.world, JOURNAL);
  assert.is(flushing.state, "waiting");
  assert.ok(await ended(client.world, flushing));
  await cutPower(client);
  await finish(client);
});

test("a write with FUA in place is acknowledged when the record that maps its block is durable", async () => {
  const client = await smallPool();
  void client.write("a", { sector: 0, count: 4 });
  await drain(client.world, JOURNAL);
  const writing = track(client.write("a", { sector: 1, count: 1 }, { fua: true }));
  await drain(client.world, JOURNAL);
  assert.is(writing.state, "waiting");
  assert.ok(await ended(client.world, writing));
  await cutPower(client);
  await finish(client);
});

test("what was acknowledged survives the death of the process, flushed or not", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 2, 4);
  await world.run(client.discard("a", { sector: 0, count: 1 }));
  await write(client, "a", 3, 1);
  world.kill(1);
  client.died("kill");
  await world.open();
  await client.resume();
  await finish(client);
});

test("a flush covers what was written before the volume was closed and opened again", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.close("a"));
  await world.run(client.open("a"));
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("flushes are acknowledged in the journal's order: a block held back holds back those after it", async () => {
  const client = await smallPool();
  void client.write("a", { sector: 0, count: 1 });
  await drain(client.world, FLUSH);
  const first = track(client.flush("a"));
  await drain(client.world, JOURNAL);
  const held = client.world.choices().find(JOURNAL) as Choice;
  const isHeld: Holds = ({ kind, offset }) => kind === held.kind && offset === held.offset;
  void client.write("a", { sector: 1, count: 1 });
  await drain(client.world, isHeld);
  const second = track(client.flush("a"));
  await drain(client.world, isHeld);
  assert.is(first.state, "waiting");
  assert.is(second.state, "waiting", "its own block may be durable, the one before it is not");
  await cutPower(client, { keep: "completed" });
  await finish(client);
});

test("a commit takes no record whose data was written after its device flush was issued", async () => {
  const client = await smallPool();
  void client.write("a", { sector: 0, count: 1 });
  await drain(client.world, FLUSH);
  void client.flush("a");
  await drain(client.world, FLUSH);
  // This one is written while the flush is under way, which does not cover it.
  void client.write("a", { sector: 7, count: 2 });
  await drain(client.world, FLUSH);
  await take(client.world, FLUSH);
  await take(client.world, JOURNAL);
  await cutPower(client);
  await finish(client);
});

test("a write that completes while a flush is under way is left to the next flush", async () => {
  const client = await smallPool();
  void client.write("a", { sector: 0, count: 1 });
  await drain(client.world, FLUSH);
  const first = track(client.flush("a"));
  await drain(client.world, FLUSH);
  void client.write("a", { sector: 7, count: 2 });
  await drain(client.world, FLUSH);
  const second = track(client.flush("a"));
  await drain(client.world, FLUSH);
  assert.ok(await ended(client.world, first));
  assert.ok(await ended(client.world, second));
  await cutPower(client);
  await finish(client);
});

test("a flush covers what a killed daemon had left in the device's cache", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  world.kill(1);
  client.died("kill");
  await world.open();
  await client.resume();
  await world.run(client.open("a"));
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

/** Two journal blocks under way in one write, of which only the later one survives. */
async function gap(seed: number): Promise<Client | null> {
  const client = await smallPool({ atomicUnit: 4096 });
  const { world } = client;
  // Every second sector: each is a record of its own, and a block holds 168 of them.
  for (let sector = 0; sector < 360; sector += 2) {
    void client.write("a", { sector, count: 1 });
    if (sector % 40 === 38) await drain(world, FLUSH);
  }
  void client.flush("a");
  const long: Holds = ({ kind, length }) => kind === "write-durable" && length > 4096;
  await drain(world, long);
  const { offset } = world.choices().find(long) as Choice;
  await cutPowerOnly(client, seed);
  const sequence = (offset - world.superblock.journalOffsetBytes) / 4096;
  const isThere = (at: number): boolean => {
    const bytes = native.deviceRead(world.device, offset + (at - sequence) * 4096, 4096);
    return decodeJournalBlock(bytes)?.sequence === at;
  };
  if (!isThere(sequence) && isThere(sequence + 1)) return client;
  world.destroy();
  return null;
}

async function cutPowerOnly(client: Client, seed: number): Promise<void> {
  client.world.cutPower("random", seed, () => 0);
  client.died("power");
}

test("a journal block of an earlier epoch does not count, be its sequence the right one", async () => {
  let found = 0;
  for (let seed = 1; seed <= 40 && found < 2; seed++) {
    const client = await gap(seed);
    if (client === null) continue;
    found++;
    await client.world.open();
    assert.is(
      client.world.recovered?.lostBlocks,
      1,
      "one was issued, and is not part of the journal",
    );
    await client.resume();
    await client.world.run(client.open("a"));
    // The block of the new epoch takes the lost one's place: right before the old one.
    await write(client, "a", 1);
    await flush(client, "a");
    await cutPower(client);
    assert.ok((client.world.recovered?.replayedBlocks ?? 0) > 0);
    await finish(client);
  }
  assert.ok(found > 0, "some seed keeps the later block only");
});

test("a full journal makes writes wait, and never waits itself for the checkpoint that empties it", async () => {
  const client = await smallPool();
  const { world } = client;
  let sector = 0;
  let waiting = track(client.write("a", { sector, count: 1 }));
  while (await ended(world, waiting, STORE)) {
    assert.ok(sector < 64, "a journal of 64 blocks takes no more than that");
    assert.ok(
      await ended(world, track(client.flush("a")), STORE),
      "what is applied can be flushed",
    );
    waiting = track(client.write("a", { sector: ++sector, count: 1 }));
  }
  assert.ok(sector > 16, `${sector} writes found room`);
  assert.is((await counters(client)).journalWaits, 1);
  const more = [500, 502, 504].map((at) => track(client.write("a", { sector: at, count: 1 })));
  await drain(world, STORE);
  assert.ok(more.every(({ state }) => state === "waiting"));
  assert.ok(await ended(world, track(client.flush("a")), STORE), "a flush needs no room");
  assert.ok(
    await ended(world, track(client.write("a", { sector: 0, count: 1 })), STORE),
    "in place",
  );
  assert.ok(await until(world, () => [waiting, ...more].every(({ state }) => state === "done")));
  assert.equal(
    [waiting, ...more].map(({ value }) => value),
    ["ok", "ok", "ok", "ok"],
  );
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("room for what is acknowledged and not durable comes back by commits, not by checkpoints", async () => {
  const client = await smallPool({ dataBlocks: 2400 });
  const { world } = client;
  for (let sector = 0; sector < 1024; sector += 256) await write(client, "a", sector, 256);
  await flush(client, "a");
  await world.run(client.checkpoint());
  // In all they take more than the memory that outlives the process has; the journal has room.
  const works = Array.from({ length: 32 }, (_, at) =>
    track(client.discard("a", { sector: 32 * at, count: 32 })),
  );
  for (let sector = 0; sector < 1024; sector += 32) {
    works.push(track(client.write("a", { sector, count: 32 })));
  }
  for (const work of works) assert.ok(await ended(world, work, STORE), "no checkpoint is needed");
  assert.ok(((await counters(client)).journalWaits ?? 0) > 0);
  world.kill(1);
  client.died("kill");
  await world.open();
  await client.resume();
  await finish(client);
});

test("the journal goes round and round", async () => {
  const client = await smallPool();
  for (let i = 0; i < 200; i++) {
    await write(client, "a", i % 40, 2);
    await client.world.run(client.discard("a", { sector: i % 40, count: 1 }));
    await flush(client, "a");
    if (i % 50 === 49) await cutPower(client, { keep: "random", seed: i });
    if (i % 50 === 49) await client.world.run(client.open("a"));
  }
  await finish(client);
});

test.run();

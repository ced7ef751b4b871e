// A look-up takes the nearest layer, be its index block dirty in memory, on its way to the store,
// or in the store only.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Client } from "../sim/client.js";
import { addVolume, counters, finish, read, smallPool, write } from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, take, track } from "../sim/steps.js";

const test = suite("nearest layer");
const ANSWER: Holds = isKind("answer");
const FEW_ENTRIES = 2 * 2400;

/**
 * The store has sector 0 of the oldest layer; the one between is dirty in memory; "a" is on top,
 * and cold.
 */
async function dirtyBetween(indexCacheBytes = 100 * 2400): Promise<Client> {
  const client = await smallPool({ indexCacheBytes });
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.checkpoint());
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 0, 2);
  await world.run(client.snapshot("a", "t"));
  await world.run(client.close("a"));
  await world.run(client.open("a"));
  return client;
}

test("an index block that is dirty in memory is nearer than an ancestor's in the store", async () => {
  const client = await dirtyBetween();
  await read(client, "a", 0, 8);
  await finish(client);
});

test("an answer that was read before a checkpoint does not count after it", async () => {
  const client = await dirtyBetween(FEW_ENTRIES);
  const { world } = client;
  await addVolume(client, "b");
  const reading = track(client.read("a", { sector: 0, count: 8 }));
  await take(world, isKind("question"));
  assert.ok(await ended(world, track(client.checkpoint()), ANSWER));
  // What was dirty is in the store now, and is pushed out of memory.
  await write(client, "b", 0, 1);
  await write(client, "b", 520, 1);
  await drain(world, ANSWER);
  assert.is(reading.state, "waiting");
  assert.ok(await ended(world, reading));
  assert.is((await counters(client)).indexStaleAnswers, 1);
  await finish(client);
});

test("how long an answer takes is counted, from the question to those who waited", async () => {
  const client = await dirtyBetween(FEW_ENTRIES);
  const { world } = client;
  await addVolume(client, "b");
  await world.run(client.pool.setLimits("b", { iops: 1 }));
  const before = await counters(client);
  const readings = [0, 1].map(() => track(client.read("a", { sector: 0, count: 4 })));
  await drain(world, ANSWER);
  // Time goes on with those who wait for their limit only.
  const writes = [0, 1, 2].map((sector) => track(client.write("b", { sector, count: 1 })));
  for (const write of writes) assert.ok(await ended(world, write, ANSWER));
  for (const reading of readings) assert.is(reading.state, "waiting");
  for (const reading of readings) assert.ok(await ended(world, reading));
  const after = await counters(client);
  const grown = (name: string): number => (after[name] ?? 0) - (before[name] ?? 0);
  assert.is(grown("indexAnswers"), 1);
  assert.ok(grown("indexAnswerNanoseconds") >= 1e9, `${grown("indexAnswerNanoseconds")} ns`);
  await finish(client);
});

test("a clone that has nothing of its own reads what its origin had, at any depth", async () => {
  const client = await smallPool({ indexCacheBytes: FEW_ENTRIES });
  const { world } = client;
  for (let depth = 0; depth < 6; depth++) {
    await write(client, "a", 4 * depth, 6);
    await world.run(client.snapshot("a", `s${depth}`));
    if (depth % 2 === 0) await world.run(client.checkpoint());
  }
  await world.run(client.close("a"));
  await world.run(client.open("a"));
  await read(client, "a", 0, 40);
  await read(client, "a", 500, 24);
  assert.ok(((await counters(client)).indexInheritedDepthMax ?? 0) >= 1);
  await finish(client);
});

test("index blocks that memory has no room for are found again in the store", async () => {
  const client = await smallPool({ indexCacheBytes: FEW_ENTRIES });
  const { world } = client;
  await addVolume(client, "b");
  for (const name of ["a", "b"]) {
    for (const sector of [0, 520, 1030]) await write(client, name, sector, 4);
  }
  await world.run(client.checkpoint());
  for (const name of ["a", "b", "a"]) {
    for (const sector of [0, 520, 1030]) await read(client, name, sector, 8);
  }
  assert.ok(((await counters(client)).indexEvictions ?? 0) > 3);
  await world.run(client.snapshot("a", "s"));
  for (const sector of [0, 520, 1030]) await write(client, "a", sector + 2, 4);
  await world.run(client.checkpoint());
  for (const sector of [0, 520, 1030]) await read(client, "a", sector, 8);
  await finish(client);
});

test("an inherited block is copied, whichever way its index block came to be known", async () => {
  for (const indexCacheBytes of [FEW_ENTRIES, 100 * 2400]) {
    const client = await dirtyBetween(indexCacheBytes);
    await write(client, "a", 1, 2);
    await read(client, "a", 0, 8);
    await client.world.run(client.checkpoint());
    await write(client, "a", 0, 1);
    await finish(client);
  }
});

test.run();

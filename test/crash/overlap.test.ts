// Changes of one block at a time: copies are made once, halves are not lost, order is kept.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { IO_OP } from "../../native/native.js";
import { versionsIn } from "../sim/blocks.js";
import type { Client } from "../sim/client.js";
import { counters, cutPower, finish, flush, smallPool, write } from "../sim/small-pool.js";
import { drain, ended, isKind, take, track } from "../sim/steps.js";

const test = suite("overlap");
const LARGE = { blockSizeBytes: 16384, dataBlocks: 200 };

/** What a sector reads, as the version of its first unit. */
async function versionOf(client: Client, sector: number): Promise<number | null> {
  const done = await client.world.run(client.pool.io("a", IO_OP.read, sector * 4096, 4096));
  assert.ok(done !== null && done.value.status === "ok");
  return versionsIn(done.value.data)[0] ?? null;
}

test("two writes that both need a copy of one block: the second waits, and finds it owned", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.snapshot("a", "s"));
  const first = track(client.write("a", { sector: 0, count: 2 }));
  const second = track(client.write("a", { sector: 1, count: 2 }));
  await world.settle();
  assert.is((await counters(client)).overlapWaits, 1);
  assert.is(world.choices().filter(isKind("write")).length, 1);
  assert.ok((await ended(world, first)) && (await ended(world, second)));
  // Versions are given in the order of submission: 5 and 6 to the first, 7 and 8 to the second.
  assert.equal(
    [await versionOf(client, 0), await versionOf(client, 1), await versionOf(client, 2)],
    [5, 7, 8],
  );
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("two parts of one block, both copied: neither loses the other's half", async () => {
  for (const shared of [false, true]) {
    const client = await smallPool(LARGE);
    const { world } = client;
    if (shared) {
      await write(client, "a", 0, 4);
      await world.run(client.snapshot("a", "s"));
    }
    const parts = [0, 1, 2, 3].map((sector) => track(client.write("a", { sector, count: 1 })));
    await world.settle();
    assert.is((await counters(client)).overlapWaits, 3);
    for (const part of parts) assert.ok(await ended(world, part));
    const versions: (number | null)[] = [];
    for (const sector of [0, 1, 2, 3]) versions.push(await versionOf(client, sector));
    assert.equal(versions, shared ? [5, 6, 7, 8] : [1, 2, 3, 4]);
    await finish(client);
  }
});

test("a partial write over an inherited block keeps the rest of it, in the origin and in the copy", async () => {
  const client = await smallPool(LARGE);
  const { world } = client;
  await write(client, "a", 0, 12);
  await world.run(client.snapshot("a", "s"));
  await write(client, "a", 2, 4);
  await world.run(client.writeZeroes("a", { sector: 9, count: 2 }));
  await flush(client, "a");
  await cutPower(client, { keep: "none" });
  await finish(client);
});

test("a partial write into a hole leaves zeroes around it, not what was there before", async () => {
  const client = await smallPool(LARGE);
  await write(client, "a", 5, 2);
  await flush(client, "a");
  await cutPower(client);
  await finish(client);
});

test("a discard leaves the ragged ends of its range alone", async () => {
  const client = await smallPool(LARGE);
  const { world } = client;
  await write(client, "a", 0, 16);
  await world.run(client.discard("a", { sector: 1, count: 10 }));
  await world.run(client.discard("a", { sector: 13, count: 2 }));
  await flush(client, "a");
  assert.is((await counters(client)).discardedOwnedSlots, 1);
  await finish(client);
});

test("a write and a discard of one block take effect in the order in which they came", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.snapshot("a", "s"));
  const writing = track(client.write("a", { sector: 0, count: 4 }));
  const discarding = track(client.discard("a", { sector: 1, count: 2 }));
  const again = track(client.write("a", { sector: 2, count: 1 }));
  await drain(world, isKind("write"));
  assert.ok([writing, discarding, again].every(({ state }) => state === "waiting"));
  for (const work of [writing, discarding, again]) assert.ok(await ended(world, work));
  const versions: (number | null)[] = [];
  for (const sector of [0, 1, 2, 3]) versions.push(await versionOf(client, sector));
  assert.equal(versions, [5, 0, 9, 8]);
  await finish(client);
});

test("a wide write waits for every narrow one before it, and holds up those after it", async () => {
  const client = await smallPool();
  const { world } = client;
  const works = [
    track(client.write("a", { sector: 2, count: 1 })),
    track(client.write("a", { sector: 6, count: 1 })),
    track(client.write("a", { sector: 0, count: 8 })),
    track(client.write("a", { sector: 4, count: 1 })),
  ];
  await world.settle();
  assert.is((await counters(client)).overlapWaits, 2);
  const writes = (): number => world.choices().filter(isKind("write")).length;
  assert.is(writes(), 2);
  await take(world, isKind("write"));
  assert.is(writes(), 1);
  for (const work of works) assert.ok(await ended(world, work));
  assert.is(await versionOf(client, 4), 11);
  await finish(client);
});

test("writes to different blocks do not wait for each other", async () => {
  const client = await smallPool();
  const { world } = client;
  const works = [0, 8, 16, 24].map((sector) => track(client.write("a", { sector, count: 8 })));
  await world.settle();
  assert.is(world.choices().length, 4);
  for (const work of works) assert.ok(await ended(world, work));
  await finish(client);
});

test.run();

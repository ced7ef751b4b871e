// What a diff says against what the two snapshots read as, sector by sector: every sector that
// differs is in it, as data or as zero, and no other one is.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { ChangedRange } from "../../engine/core/api.js";
import { diffSnapshots } from "../../engine/core/diff.js";
import { IO_OP } from "../../native/native.js";
import { type Random, seeded } from "../prng.js";
import type { Client } from "../sim/client.js";
import { cutPower, finish, SECTORS, smallPool, write } from "../sim/small-pool.js";
import { drain, track } from "../sim/steps.js";

const test = suite("diff");
const SECTOR = 4096;

type Kind = "data" | "zero";

async function collect(client: Client, base: string | null, target: string, startBytes = 0) {
  const ref = (snapshot: string) => ({ volume: "a", snapshot });
  const request = { base: base === null ? null : ref(base), target: ref(target), startBytes };
  const all = async (): Promise<ChangedRange[]> => {
    const found: ChangedRange[] = [];
    for await (const batch of client.pool.diff(request)) found.push(...batch);
    return found;
  };
  const done = await client.world.run(all());
  return done?.value ?? [];
}

function bySector(ranges: ChangedRange[]): Map<number, Kind> {
  const kinds = new Map<number, Kind>();
  let end = 0;
  for (const { offsetBytes, lengthBytes, zero } of ranges) {
    assert.ok(offsetBytes >= end && lengthBytes > 0, "ranges are in order and do not overlap");
    end = offsetBytes + lengthBytes;
    for (let at = offsetBytes; at < end; at += SECTOR)
      kinds.set(at / SECTOR, zero ? "zero" : "data");
  }
  return kinds;
}

async function contents(client: Client, snapshot: string): Promise<Buffer> {
  const { world, pool } = client;
  const name = `a@${snapshot}`;
  await world.run(pool.hold(name));
  const parts: Buffer[] = [];
  for (let sector = 0; sector < SECTORS; sector += 40) {
    const io = pool.io(name, IO_OP.read, sector * SECTOR, 40 * SECTOR);
    const done = await world.run(io);
    assert.is(done?.value.status, "ok");
    parts.push(Buffer.from(done?.value.data ?? []));
  }
  await world.run(pool.release(name));
  return Buffer.concat(parts);
}

async function compare(client: Client, base: string | null, target: string): Promise<void> {
  const after = await contents(client, target);
  const before = base === null ? Buffer.alloc(after.length) : await contents(client, base);
  const expected = new Map<number, Kind>();
  const zeroes = Buffer.alloc(SECTOR);
  for (let sector = 0; sector < SECTORS; sector++) {
    const at = sector * SECTOR;
    const now = after.subarray(at, at + SECTOR);
    if (now.equals(before.subarray(at, at + SECTOR))) continue;
    expected.set(sector, now.equals(zeroes) ? "zero" : "data");
  }
  const ranges = await collect(client, base, target);
  assert.equal([...bySector(ranges)], [...expected], `${base} to ${target}`);
  // Begun in the middle, it is the rest.
  for (const start of [1, 4, 511, 512, 513, 1000, SECTORS]) {
    const rest = bySector(await collect(client, base, target, start * SECTOR));
    assert.equal(
      [...rest],
      [...expected].filter(([sector]) => sector >= start),
    );
  }
}

async function someChanges(client: Client, random: Random): Promise<void> {
  const { world } = client;
  for (let change = 0; change < 6; change++) {
    const sector = random.pick([0, 3, 8, 500, 508, 512, 520, 1000, 1030]);
    const range = { sector, count: 1 + random.below(9) };
    const kind = random.below(4);
    if (kind === 0) await world.run(client.discard("a", range));
    else if (kind === 1) await world.run(client.writeZeroes("a", range));
    else await world.run(client.write("a", range));
  }
}

for (let seed = 1; seed <= 4; seed++) {
  test(`every pair of snapshots, seed ${seed}`, async () => {
    const client = await smallPool();
    const { world } = client;
    const random = seeded(seed);
    const names = ["s0", "s1", "s2", "s3"];
    for (const name of names) {
      await someChanges(client, random);
      await world.run(client.snapshot("a", name));
      if (random.below(2) === 0) await world.run(client.checkpoint());
    }
    await someChanges(client, random);
    const everyPair = async (left: string[]): Promise<void> => {
      for (const [at, target] of left.entries()) {
        await compare(client, null, target);
        for (const base of left.slice(0, at)) await compare(client, base, target);
      }
    };
    await everyPair(names);
    await cutPower(client, { keep: "random", seed });
    await world.run(client.deleteSnapshot("a@s1"));
    await world.run(world.pool.settle());
    await everyPair(["s0", "s2", "s3"]);
    await finish(client);
  });
}

test("what is not on one line is refused, with the reason", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.snapshot("a", "s"));
  await world.run(client.snapshot("a", "t"));
  await world.run(client.rollBack("a@s"));
  await world.run(client.snapshot("a", "u"));
  const refused = async (base: string, target: string, message: RegExp, startBytes = 0) => {
    const tried = track(collect(client, base, target, startBytes));
    await drain(world);
    assert.match((tried.error as Error).message, message);
  };
  await refused("t", "s", /a@t is newer than a@s/);
  await refused("t", "u", /a@u does not descend from a@t/);
  await refused("s", "nothing", /there is no snapshot a@nothing/);
  await refused("s", "t", /is not an offset in a@t/, (SECTORS + 1) * SECTOR);
  await refused("s", "t", /is not an offset in a@t/, -1);
  await finish(client);
});

test("a snapshot that is deleted in the middle ends the diff", async () => {
  const client = await smallPool();
  const { world } = client;
  await write(client, "a", 0, 4);
  await world.run(client.snapshot("a", "s"));
  const parts = {
    store: world.store,
    blockSizeBytes: SECTOR,
    checkpoint: async () => {
      await client.deleteSnapshot("a@s");
      await client.snapshot("a", "s");
    },
  };
  const request = { base: null, target: { volume: "a", snapshot: "s" }, startBytes: 0 };
  const tried = track(diffSnapshots(parts, request).next());
  await drain(world);
  assert.match((tried.error as Error).message, /was deleted while it was compared/);
  await finish(client);
});

test.run();

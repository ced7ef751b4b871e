// A pool that grows, cut at every step: afterwards it is the old pool or the new one, opens, and
// can be grown again. While it is served, nobody gets a new block before it is durably the pool's.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { BLOCKS_PER_CHUNK } from "../../engine/base/constants.js";
import { checkStore } from "../../engine/core/check.js";
import { grow, planGrow } from "../../engine/core/grow.js";
import { recover } from "../../engine/core/recovery.js";
import { replaceSuperblocks } from "../../engine/core/superblocks.js";
import { findGrowRecord, getPoolRecord } from "../../engine/store/catalogue.js";
import { decodeSuperblock, type Superblock } from "../../engine/store/superblock.js";
import { seeded } from "../prng.js";
import type { Client } from "../sim/client.js";
import { ModelStore } from "../sim/model-store.js";
import { ReferencePool, SUPERBLOCK } from "../sim/reference-pool.js";
import {
  addVolume,
  cutPower,
  FEW_BLOCKS,
  finish,
  flush,
  smallPool,
  write,
} from "../sim/small-pool.js";
import { drain, ended, type Holds, isKind, track, until } from "../sim/steps.js";

const test = suite("grow");
const UNIT = 512;
const COPIES = [0, 64 * 1024];
const LARGER = planGrow(SUPERBLOCK, SUPERBLOCK.deviceSizeBytes + 2 ** 20);

/** Counts what may be cut; from the one numbered `last` on, nothing happens any more. */
class Steps {
  taken = 0;

  constructor(readonly last: number = Number.POSITIVE_INFINITY) {}

  async take(): Promise<void> {
    if (this.taken >= this.last) await new Promise(() => undefined);
    this.taken++;
  }
}

/** What was written is durable, whole or in part, only when it is flushed. */
class CutDevice {
  readonly sizeBytes = LARGER.deviceSizeBytes + 2 ** 20;
  readonly #durable: Buffer;
  #live: Buffer;
  steps = new Steps();

  constructor(bytes: Buffer) {
    this.#durable = Buffer.from(bytes);
    this.#live = Buffer.from(bytes);
  }

  read(offsetBytes: number, lengthBytes: number): Uint8Array {
    return this.#live.subarray(offsetBytes, offsetBytes + lengthBytes);
  }

  write(offsetBytes: number, bytes: Uint8Array): void {
    this.#live.set(bytes, offsetBytes);
  }

  async flush(): Promise<void> {
    await this.steps.take();
    this.#live.copy(this.#durable);
  }

  /** Of what was not flushed: nothing (seed 0), all (1), or the units that the seed says. */
  cut(seed: number): void {
    const random = seeded(seed);
    for (let at = 0; at < this.#durable.length; at += UNIT) {
      const unit = this.#live.subarray(at, at + UNIT);
      if (unit.equals(this.#durable.subarray(at, at + UNIT))) continue;
      if (seed === 1 || (seed > 1 && random.oneIn(2))) unit.copy(this.#durable, at);
    }
    this.#live = Buffer.from(this.#durable);
    this.steps = new Steps();
  }

  generations(): (bigint | undefined)[] {
    return COPIES.map((offset) => decodeSuperblock(this.read(offset, 4096))?.generation);
  }
}

async function referencePool(): Promise<ReferencePool> {
  const pool = new ReferencePool(new ModelStore(), seeded(1));
  await pool.create();
  for (let step = 0; step < 20; step++) await pool.step();
  pool.commit();
  return pool;
}

async function cutAt(step: number, seed: number): Promise<"done" | "cut"> {
  const pool = await referencePool();
  const device = new CutDevice(pool.device.bytes);
  const steps = new Steps(step);
  device.steps = steps;
  const store = pool.store.copy({ schedule: () => steps.take() });
  let how: "done" | "cut" = "cut";
  void grow(store, device, LARGER).then(() => {
    how = "done";
  });
  for (let turn = 0; turn < 40; turn++) await new Promise((resolve) => setImmediate(resolve));
  device.cut(seed);
  const options = { schedule: () => Promise.resolve() };
  await opens(
    store.crash(true, (n) => seed % n, options),
    device,
    how,
  );
  return how;
}

async function opens(store: ModelStore, device: CutDevice, how: "done" | "cut"): Promise<void> {
  const { superblock, grew } = await recover(store, device);
  if (grew) await replaceSuperblocks(device, superblock);
  assert.ok(same(superblock, SUPERBLOCK) || same(superblock, LARGER));
  if (how === "done") assert.ok(same(superblock, LARGER), "what was done stays done");
  assert.is(getPoolRecord(store).dataBlocks, superblock.dataBlocks);
  assert.is(findGrowRecord(store), undefined);
  const current = BigInt(superblock.generation);
  if (grew) assert.equal(device.generations(), [current, current], "both copies are whole again");
  assert.equal(checkStore(store).problems, []);
  const again = planGrow(superblock, LARGER.deviceSizeBytes + 2 ** 20);
  await grow(store, device, again);
  assert.ok(same((await recover(store, device)).superblock, again));
}

const same = (a: Superblock, b: Superblock): boolean => JSON.stringify(a) === JSON.stringify(b);

for (let seed = 0; seed < 8; seed++) {
  test(`cut at every step, seed ${seed}`, async () => {
    let step = 0;
    while ((await cutAt(step, seed)) === "cut") step++;
    assert.is(step, 6, "two transactions of two steps, and two flushes");
  });
}

test("a device of another generation is refused", async () => {
  const pool = await referencePool();
  const store = pool.store.copy();
  await grow(store, new CutDevice(pool.device.bytes), LARGER);
  const old = new CutDevice(pool.device.bytes);
  const refused = await recover(store, old).catch((error: Error) => error.message);
  assert.match(String(refused), /generation is 1 on the device and 2 in the store/);
});

test("smaller, equal and impossible sizes are refused", () => {
  const { deviceSizeBytes } = SUPERBLOCK;
  for (const size of [deviceSizeBytes - 4096, deviceSizeBytes, deviceSizeBytes + 1, 2 ** 50, 0]) {
    assert.throws(() => planGrow(SUPERBLOCK, size));
  }
});

const SUPERBLOCKS: Holds = isKind("superblock");
/** More than the chunk of the free map in which the old end is. */
const ROOM = 2 * BLOCKS_PER_CHUNK;

async function fullPool(roomBlocks: number): Promise<Client> {
  const client = await smallPool({ dataBlocks: FEW_BLOCKS, roomBlocks });
  await write(client, "a", 0, FEW_BLOCKS);
  await flush(client, "a");
  return client;
}

test("a full pool that grows while it is served goes on", async () => {
  const client = await fullPool(ROOM);
  const { world } = client;
  const full = await world.run(client.write("a", { sector: 500, count: 8 }));
  assert.is(full?.value, "no-space");
  await world.run(client.grow(40));
  await write(client, "a", 500, 40);
  await world.run(client.grow(ROOM - 40));
  const info = await world.run(client.pool.info());
  assert.is(info?.value.freeBytes, (ROOM - 40) * 4096);
  for (let sector = 560; sector < 1000; sector += 40) await write(client, "a", sector, 40);
  await flush(client, "a");
  await cutPower(client);
  assert.is(world.superblock.dataBlocks, FEW_BLOCKS + ROOM);
  await finish(client);
});

test("a new block is nobody's before it is durably the pool's", async () => {
  const client = await fullPool(100);
  const { world } = client;
  const growing = track(client.grow(100));
  await drain(world, SUPERBLOCKS);
  const early = track(client.write("a", { sector: 500, count: 8 }));
  assert.ok(await ended(world, early, SUPERBLOCKS));
  assert.is(early.value, "no-space");
  assert.ok(await ended(world, growing));
  await write(client, "a", 500, 8);
  await finish(client);
});

for (const keep of ["none", "all", "random"] as const) {
  test(`cut at every step while it is served, ${keep} survives`, async () => {
    for (let at = 0, quiet = false; !quiet; at++) {
      const client = await fullPool(100);
      const { world } = client;
      void client.grow(60).then(async () => {
        await client.write("a", { sector: 500, count: 24 });
        await client.flush("a");
      });
      const before = world.stepCount;
      quiet = !(await until(world, () => world.stepCount - before === at));
      await cutPower(client, { keep, seed: at, transactions: at % 2 === 0 ? "all" : "none" });
      await world.run(client.open("a"));
      if (world.grown === 0) await world.run(client.grow(60));
      await write(client, "a", 500, 24);
      await finish(client);
    }
  });
}

test("what a backup has the superblocks say does not undo a grow", async () => {
  const client = await smallPool({ dataBlocks: 400, roomBlocks: 100 });
  const { world } = client;
  await write(client, "a", 0, 8);
  await world.run(client.grow(100));
  const backup = (async () => {
    for await (const _part of client.pool.backUpMetadata()) {
      // It is made, and kept nowhere.
    }
  })();
  await world.run(backup);
  await addVolume(client, "b");
  await write(client, "b", 0, 8);
  const { reclaims } = world;
  await world.run(client.deleteVolume("b"));
  await world.run(client.pool.settle());
  assert.is(world.reclaims, reclaims + 1);
  await finish(client);
});

test.run();

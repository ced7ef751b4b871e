// A small pool with something of everything in it: volumes, snapshots, clones, a layer that is
// hidden and one that is dead, what was checkpointed and what is only in the journal. What each of
// them reads as is kept beside it, so that a pool that was made long ago can be compared still.
import { isDeepStrictEqual } from "node:util";
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import { makeLog } from "../../engine/base/log.js";
import { createPool } from "../../engine/core/format.js";
import type { Pool } from "../../engine/core/pool.js";
import { type OpenedPool, openRealPool } from "../../engine/open-pool.js";
import { IO_OP } from "../../native/native.js";

/** Version by sector; what is not there is a hole. */
type Image = Map<number, number>;

export interface SampleContents {
  sizeBytes: number;
  /** [first sector, sectors, version] of each run. */
  runs: [number, number, number][];
}

export interface Sample {
  volumes: Record<string, SampleContents>;
  /** By `volume@snapshot`. */
  snapshots: Record<string, SampleContents>;
}

const SECTORS = 1040;
const SIZE_BYTES = SECTORS * SECTOR_BYTES;
const LONGEST_READ = 128;

export function openSamplePool(path: string): Promise<OpenedPool> {
  const indexCacheBytes = 1024 * 1024;
  return openRealPool({ path, metaPath: null, indexCacheBytes, log: makeLog("fatal") });
}

/** Makes the pool in a new folder; it is left open, with records that are only in the journal. */
export async function writeSamplePool(path: string): Promise<Sample> {
  const journalBytes = 64 * SECTOR_BYTES;
  await createPool(path, { sizeBytes: 16 * 1024 * 1024, journalBytes, sparse: true });
  const { pool } = await openSamplePool(path);
  const sample = new SampleWriter(pool);
  await sample.create("db");
  await sample.write("db", 0, 16);
  await sample.write("db", 500, 24);
  await sample.write("db", 1000, 40);
  await sample.snapshot("db", "old");
  await sample.clone("db@old", "keeper-1");
  await sample.clone("db@old", "keeper-2");
  await sample.write("db", 8, 4);
  await sample.discard("db", 504, 4);
  await sample.snapshot("db", "monday");
  await pool.checkpoint();
  // The layer of db@old is hidden from here on: it has three children.
  await sample.deleteSnapshot("db", "old");
  await sample.clone("db@monday", "branch");
  await sample.write("branch", 2, 2);
  await sample.write("keeper-1", 510, 4);
  await sample.create("gone");
  await sample.write("gone", 100, 10);
  await pool.checkpoint();
  await sample.write("branch", 700, 3);
  await sample.snapshot("branch", "first");
  await sample.discard("branch", 1004, 8);
  await sample.write("db", 20, 4);
  await sample.write("keeper-2", 0, 2);
  await sample.write("gone", 105, 10);
  // Dead, and not reclaimed: that takes a checkpoint.
  await sample.deleteVolume("gone");
  return sample.contents();
}

/** Reads everything, snapshots through clones, and compares it. */
export async function compareSamplePool(pool: Pool, sample: Sample): Promise<void> {
  const volumes = (await pool.listVolumes()).map(({ name }) => name);
  const snapshots = (await pool.listSnapshots()).map(({ volume, name }) => `${volume}@${name}`);
  same("volumes", volumes, Object.keys(sample.volumes));
  same("snapshots", snapshots, Object.keys(sample.snapshots));
  for (const [name, expected] of Object.entries(sample.volumes)) {
    await compareVolume(pool, name, expected);
  }
  for (const [key, expected] of Object.entries(sample.snapshots)) {
    const [volume, snapshot] = key.split("@") as [string, string];
    await pool.cloneVolume({ volume, snapshot }, "temporary");
    await compareVolume(pool, "temporary", expected);
    await pool.deleteVolume("temporary");
  }
}

/** Deletes everything; nothing may be left. */
export async function emptySamplePool(pool: Pool): Promise<void> {
  for (const { name } of await pool.listVolumes()) await pool.deleteVolume(name);
  for (const { volume, name } of await pool.listSnapshots())
    await pool.deleteSnapshot(volume, name);
  await pool.settle();
  const { usedBytes } = await pool.info();
  const { clean, layers, ownedBlocks } = await pool.check();
  assert(clean && layers === 0 && ownedBlocks === 0, "nothing is left in the store");
  assert(usedBytes === 0, `${usedBytes} bytes are still in use`);
}

class SampleWriter {
  readonly #pool: Pool;
  readonly #volumes = new Map<string, Image>();
  readonly #snapshots = new Map<string, Image>();
  #version = 0;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  async create(name: string): Promise<void> {
    await this.#pool.createVolume(name, SIZE_BYTES);
    this.#volumes.set(name, new Map());
  }

  /** Written, and flushed. */
  async write(name: string, sector: number, count: number): Promise<void> {
    const version = ++this.#version;
    await changeVolume(this.#pool, name, IO_OP.write, sector, sectorsOf(sector, count, version));
    const image = this.#image(name);
    for (let i = 0; i < count; i++) image.set(sector + i, version);
  }

  async discard(name: string, sector: number, count: number): Promise<void> {
    await changeVolume(this.#pool, name, IO_OP.discard, sector, count);
    const image = this.#image(name);
    for (let i = 0; i < count; i++) image.delete(sector + i);
  }

  async snapshot(volume: string, snapshot: string): Promise<void> {
    await this.#pool.createSnapshot(volume, snapshot);
    this.#snapshots.set(`${volume}@${snapshot}`, new Map(this.#image(volume)));
  }

  async clone(key: string, name: string): Promise<void> {
    const [volume, snapshot] = key.split("@") as [string, string];
    await this.#pool.cloneVolume({ volume, snapshot }, name);
    this.#volumes.set(name, new Map(this.#snapshots.get(key)));
  }

  async deleteSnapshot(volume: string, snapshot: string): Promise<void> {
    await this.#pool.deleteSnapshot(volume, snapshot);
    this.#snapshots.delete(`${volume}@${snapshot}`);
  }

  async deleteVolume(name: string): Promise<void> {
    await this.#pool.deleteVolume(name);
    this.#volumes.delete(name);
  }

  contents(): Sample {
    const all = (images: Map<string, Image>): Record<string, SampleContents> =>
      Object.fromEntries([...images].map(([name, image]) => [name, contentsOf(image)]));
    return { volumes: all(this.#volumes), snapshots: all(this.#snapshots) };
  }

  #image(name: string): Image {
    const image = this.#volumes.get(name);
    assert(image !== undefined, `there is a volume ${name}`);
    return image;
  }
}

/** `change`: the bytes of a write, or how many sectors are discarded. Flushed. */
async function changeVolume(
  pool: Pool,
  name: string,
  op: number,
  sector: number,
  change: Uint8Array | number,
): Promise<void> {
  const data = typeof change === "number" ? null : change;
  const bytes = typeof change === "number" ? change * SECTOR_BYTES : change.length;
  await pool.hold(name);
  const done = await pool.io(name, op, sector * SECTOR_BYTES, bytes, data);
  const flushed = await pool.io(name, IO_OP.flush, 0, 0);
  await pool.release(name);
  assert(done.status === "ok" && flushed.status === "ok", `${name}: ${done.status}`);
}

async function compareVolume(pool: Pool, name: string, expected: SampleContents): Promise<void> {
  const volume = await pool.getVolume(name);
  assert(volume.sizeBytes === expected.sizeBytes, `${name} has ${volume.sizeBytes} bytes`);
  const whole = Buffer.alloc(expected.sizeBytes);
  for (const [sector, count, version] of expected.runs) {
    whole.set(sectorsOf(sector, count, version), sector * SECTOR_BYTES);
  }
  await pool.hold(name);
  for (let at = 0; at < whole.length; at += LONGEST_READ * SECTOR_BYTES) {
    const part = whole.subarray(at, at + LONGEST_READ * SECTOR_BYTES);
    const { status, data } = await pool.io(name, IO_OP.read, at, part.length);
    assert(status === "ok", `reading ${name} ends with ${status}`);
    assert(part.equals(data ?? Buffer.alloc(0)), `${name} is as it was written, at ${at}`);
  }
  await pool.release(name);
}

/** Each sector says which it is, and of which version. */
function sectorsOf(first: number, count: number, version: number): Buffer {
  const sectors = Array.from({ length: count }, (_, i) =>
    Buffer.alloc(SECTOR_BYTES, `sector ${first + i} version ${version}\n`),
  );
  return Buffer.concat(sectors);
}

function contentsOf(image: Image): SampleContents {
  const runs: [number, number, number][] = [];
  for (const [sector, version] of [...image].sort(([a], [b]) => a - b)) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] + last[1] === sector && last[2] === version) last[1]++;
    else runs.push([sector, 1, version]);
  }
  return { sizeBytes: SIZE_BYTES, runs };
}

function same(what: string, found: string[], expected: string[]): void {
  const equal = isDeepStrictEqual([...found].sort(), [...expected].sort());
  assert(equal, `${what}: there are ${found.join(", ")}, and not ${expected.join(", ")}`);
}

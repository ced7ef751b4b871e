// One state that a power cut leaves, looked at on this machine: the file system of the store is
// repaired as a mount would, LMDB's file is taken out of it, recovery runs on an overlay, and every
// volume is read off the data device and compared with what was promised by then.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES, SLOTS_PER_SPAN } from "../../engine/base/constants.js";
import { checkStore } from "../../engine/core/check.js";
import { openDataDevice } from "../../engine/core/data-device.js";
import { recoverInMemory } from "../../engine/core/offline-check.js";
import { readSuperblock } from "../../engine/core/recovery.js";
import { listSnapshots, listVolumes } from "../../engine/store/catalogue.js";
import { getBlock } from "../../engine/store/codec-index-block.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import { openEnvironment } from "../../engine/store/lmdb-environment.js";
import { LmdbReader } from "../../engine/store/lmdb-store.js";
import type { StoreReader } from "../../engine/store/store.js";
import { blockOffset } from "../../engine/store/superblock.js";
import { CUT_SECTORS, CUT_VOLUMES, type CutStep } from "./power-cut-workload.js";
import { VersionBook } from "./version-book.js";

/** e2fsck: nothing was wrong, or all of it was repaired. */
const FSCK_DONE = new Set([0, 1]);

export interface CutImages {
  /** A copy of the store's file system, which is repaired here. */
  meta: string;
  /** Where the store is in it. */
  store: string;
  data: string;
  /** A folder to work in; empty, and removed afterwards. */
  work: string;
}

/** What must be there after `flushed` steps: `steps[flushed]` may be, in part. */
export async function compareCut(
  images: CutImages,
  steps: readonly CutStep[],
  flushed: number,
): Promise<void> {
  const { meta, work } = images;
  mkdirSync(work);
  const fsck = spawnSync("e2fsck", ["-fy", meta], { encoding: "utf8" });
  assert(FSCK_DONE.has(fsck.status ?? -1), `e2fsck: ${fsck.stdout}${fsck.stderr}`);
  const dump = `dump /${images.store}/data.mdb ${join(work, "data.mdb")}`;
  const dumped = spawnSync("debugfs", ["-R", dump, meta], { encoding: "utf8" });
  assert(existsSync(join(work, "data.mdb")), `debugfs: ${dumped.stderr}`);
  const environment = openEnvironment(work, "read");
  const device = openDataDevice(images.data, "r");
  try {
    const store = await recoverInMemory(new LmdbReader(environment), device);
    const { problems } = checkStore(store);
    assert(problems.length === 0, problems.join("; "));
    compareContents(store, steps, flushed, (block) => {
      const offset = blockOffset(readSuperblock(device), block);
      return device.read(offset, SECTOR_BYTES);
    });
  } finally {
    device.close();
    await environment.root.close();
    rmSync(work, { recursive: true });
  }
}

function compareContents(
  store: StoreReader,
  steps: readonly CutStep[],
  flushed: number,
  readBlock: (block: number) => Uint8Array,
): void {
  const { volumes, snapshots, unsure } = expected(steps, flushed);
  const layers = new Map(listVolumes(store).map(({ name, record }) => [name, record.layer]));
  assert([...layers.keys()].sort().join() === CUT_VOLUMES.join(), `volumes: ${[...layers.keys()]}`);
  for (const { volume, name, record } of listSnapshots(store)) {
    const key = `${volume}@${name}`;
    assert(snapshots.has(key) || unsure.has(key), `${key} is there`);
    layers.set(key, record.layer);
  }
  for (const key of snapshots.keys()) {
    assert(layers.has(key) || unsure.has(key), `${key} is not there`);
  }
  const lineage = new Lineage();
  for (const [name, layer] of layers) {
    const book = volumes.get(name) ?? snapshots.get(name);
    // A snapshot that was under way: its sectors are compared when it is acknowledged.
    if (book === undefined) continue;
    const whole = Buffer.alloc(CUT_SECTORS * SECTOR_BYTES);
    for (let sector = 0; sector < CUT_SECTORS; sector++) {
      const span = Math.floor(sector / SLOTS_PER_SPAN);
      const raw = lookupNearest(store, lineage, layer, span)?.block.raw;
      const block = raw === undefined ? 0 : getBlock(raw, sector % SLOTS_PER_SPAN);
      if (block !== 0) whole.set(readBlock(block), sector * SECTOR_BYTES);
    }
    book.settle(0, whole, `after step ${flushed - 1}: ${name}`);
  }
}

/** Books of all that was flushed, with the next step's writes as what may be there too. */
function expected(
  steps: readonly CutStep[],
  flushed: number,
): {
  volumes: Map<string, VersionBook>;
  snapshots: Map<string, VersionBook>;
  unsure: Set<string>;
} {
  const volumes = new Map(CUT_VOLUMES.map((name) => [name, new VersionBook()]));
  const snapshots = new Map<string, VersionBook>();
  const unsure = new Set<string>();
  const bookOf = (name: string): VersionBook => volumes.get(name) ?? new VersionBook();
  for (const { writes, snapshot, remove } of steps.slice(0, flushed)) {
    for (const [name, sector, count, version] of writes) {
      bookOf(name).acknowledged(sector, count, version);
    }
    if (snapshot !== null) snapshots.set(snapshot.join("@"), bookOf(snapshot[0]).copy());
    if (remove !== null) snapshots.delete(remove.join("@"));
  }
  const next = steps[flushed];
  if (next !== undefined) {
    for (const [name, sector, count, version] of next.writes) {
      bookOf(name).submitted(sector, count, version);
    }
    for (const key of [next.snapshot, next.remove]) if (key !== null) unsure.add(key.join("@"));
  }
  return { volumes, snapshots, unsure };
}

// What must be true of a pool whatever was done to it: the store is what docs/format.md promises,
// the names are those in the books, space is accounted for, and nothing is left when everything was
// deleted. Knows nothing of the load that led there.
import { assert } from "../../engine/base/assert.js";
import { SECTOR_BYTES } from "../../engine/base/constants.js";
import type { SnapshotInfo, VolumeInfo } from "../../engine/core/api.js";
import { checkStore } from "../../engine/core/check.js";
import { getSpaceRecord } from "../../engine/store/catalogue.js";
import type { Books } from "./books.js";
import type { World } from "./world.js";

/** The names that a pool knows. */
export interface Found {
  /** And sizes in bytes. */
  volumes: Map<string, number>;
  /** By `volume@snapshot`. */
  snapshots: Set<string>;
  /** As the pool lists them. */
  listed: { volumes: VolumeInfo[]; snapshots: SnapshotInfo[] };
}

export async function findNames(world: World): Promise<Found> {
  const volumes = (await world.run(world.pool.listVolumes()))?.value ?? [];
  const snapshots = (await world.run(world.pool.listSnapshots()))?.value ?? [];
  return {
    volumes: new Map(volumes.map(({ name, sizeBytes }) => [name, sizeBytes])),
    snapshots: new Set(snapshots.map(({ volume, name }) => `${volume}@${name}`)),
    listed: { volumes, snapshots },
  };
}

export function compareNames(found: Found, books: Books): void {
  const expected = [...books.volumes.values()].map((v) => `${v.name} ${v.sectors * SECTOR_BYTES}`);
  const there = [...found.volumes].map(([name, bytes]) => `${name} ${bytes}`);
  same("volumes", there, expected);
  same("snapshots", [...found.snapshots], [...books.snapshots.keys()]);
}

/** Owners, span sets, counts and free map agree, in the store as it is now. */
export function requireCleanStore(world: World): void {
  const { problems } = checkStore(world.store);
  if (problems.length > 0) throw new Error(`the store is not clean: ${problems.join("; ")}`);
}

/** At rest, after a checkpoint, what is in use is what layers own, to the block. */
export async function requireAccounts(world: World): Promise<void> {
  await world.quiesce();
  const report = (await world.run(world.pool.check()))?.value;
  // What the device takes back is in use until it has answered.
  await world.run(world.pool.checkpoint());
  await world.quiesce();
  const info = (await world.run(world.pool.info()))?.value;
  assert(report !== undefined && info !== undefined, "the pool says how it is");
  assert(report.clean, `the store is not clean: ${report.problems.join("; ")}`);
  const owned = checkStore(world.store).ownedBlocks * world.superblock.blockSizeBytes;
  assert(info.usedBytes === owned, `${info.usedBytes} bytes are in use, layers own ${owned}`);
}

/** Everything was deleted: the background work ends, and all space is free. */
export async function requireNothingLeft(world: World): Promise<void> {
  await world.run(world.pool.settle());
  await world.quiesce();
  requireCleanStore(world);
  const { layers, indexBlocks, ownedBlocks } = checkStore(world.store);
  assert(layers === 0 && indexBlocks === 0 && ownedBlocks === 0, "nothing is left in the store");
  assert(getSpaceRecord(world.store).allocatedBlocks === 0, "nothing is left in the free map");
  const info = (await world.run(world.pool.info()))?.value;
  assert(info?.usedBytes === 0, `${info?.usedBytes} bytes are still in use`);
}

function same(what: string, found: string[], expected: string[]): void {
  const a = [...found].sort().join(", ");
  const b = [...expected].sort().join(", ");
  if (a !== b)
    throw new Error(`${what}: there are ${a || "none"}, and there should be ${b || "none"}`);
}

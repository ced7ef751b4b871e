// Makes a pool of a block device by itself: a partition table, a small file system for the store,
// the rest for data; so that the device moves as a whole between machines.
//
// A device that something uses is refused. One that holds anything (a signature, partitions, data
// at its beginning) is refused unless it is said to be overwritten. All else is checked before
// anything is written.
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PandoError } from "./base/errors.js";
import { newUuid } from "./base/random.js";
import { parseSize } from "./base/size.js";
import {
  diskOf,
  isPartition,
  partitionsOf,
  readPartitions,
  requireUnused,
} from "./block-device.js";
import { type DataDevice, openDataDevice } from "./core/data-device.js";
import { type CreatePoolOptions, createPool, planPool } from "./core/format.js";
import { ALIGNMENT_BYTES, encodeGpt, planPartitions } from "./gpt.js";
import { findPartitions } from "./pool-place.js";
import { runCommand } from "./run-command.js";
import type { Superblock } from "./store/superblock.js";

export interface CreateDeviceOptions extends CreatePoolOptions {
  /** Of the partition with the store. */
  metaSizeBytes?: number;
  /** What the device holds is not wanted any more. */
  force?: boolean;
}

const MIN_META_BYTES = parseSize("64MiB");
/**
 * Index blocks take up to 5 KiB for 2 MiB of data that is written at random, and room to rewrite.
 */
const META_SHARE = 1 / 64;
const NOTHING_FOUND = 2;
const AMBIVALENT = 8;

export async function createOnDevice(
  path: string,
  options: CreateDeviceOptions,
): Promise<Superblock> {
  const { metaSizeBytes, force = false, ...ofPool } = options;
  if (isPartition(path)) {
    throw new PandoError("EINVAL", `${path} is a partition: it has none of its own`, {
      path,
      hint: "take the whole device, or say where its store goes: --meta FOLDER",
    });
  }
  requireUnused(path);
  const disk = diskOf(path);
  const bytes = disk.sectors * disk.sectorBytes;
  const metaBytes = metaSizeBytes ?? Math.max(MIN_META_BYTES, Math.floor(bytes * META_SHARE));
  if (metaBytes < MIN_META_BYTES) {
    throw new PandoError("EINVAL", `${metaBytes} bytes are too few for metadata: 64 MiB or more`, {
      path,
      field: "metaSizeBytes",
    });
  }
  const { meta, data } = planPartitions(disk, metaBytes, newUuid);
  planPool(path, ofPool, data.sectors * disk.sectorBytes);
  if (!force) await requireNothing(path);
  for (const partition of partitionsOf(path).values()) requireUnused(partition);

  await runCommand("wipefs", ["--all", "--quiet", path]);
  const device = openDataDevice(path, "r+");
  try {
    const zeroes = new Uint8Array(ALIGNMENT_BYTES);
    const starts = [meta, data].map(({ firstSector }) => firstSector * disk.sectorBytes);
    for (const offset of [0, ...starts, bytes - ALIGNMENT_BYTES]) device.write(offset, zeroes);
    for (const piece of encodeGpt(disk, newUuid(), [meta, data])) {
      device.write(piece.offsetBytes, piece.bytes);
    }
    await device.flush();
  } finally {
    device.close();
  }
  await readPartitions(path, [meta.number, data.number]);
  const nodes = await findPartitions(path);
  await runCommand("mkfs.ext4", ["-q", "-F", "-m", "0", "-L", "pando-meta", nodes.meta]);
  return withMounted(nodes.meta, (folder) =>
    createPool(nodes.data, { ...ofPool, metaPath: join(folder, "meta") }),
  );
}

/** Somewhere of our own: the pool has no lock yet. */
async function withMounted<T>(partition: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "pando-create-"));
  try {
    await runCommand("mount", ["-t", "ext4", "-o", "nodev,nosuid,noexec", partition, folder]);
    try {
      return await work(folder);
    } finally {
      await runCommand("umount", [folder]);
    }
  } finally {
    rmdirSync(folder);
  }
}

async function requireNothing(path: string): Promise<void> {
  const holds = (what: string): never => {
    throw new PandoError("EEXIST", `${path} is not empty: it has ${what}`, {
      path,
      hint: "if nothing on it is needed: --force",
    });
  };
  if (partitionsOf(path).size > 0) holds("partitions");
  const { code, stdout } = await runCommand(
    "blkid",
    ["--probe", path],
    [0, NOTHING_FOUND, AMBIVALENT],
  );
  if (code !== NOTHING_FOUND) holds(stdout.trim().replace(/^\S+: /, "") || "several signatures");
  const device: DataDevice = openDataDevice(path, "r");
  try {
    const length = Math.min(device.sizeBytes, ALIGNMENT_BYTES);
    if (!device.read(0, length).every((byte) => byte === 0)) holds("data in its first MiB");
  } finally {
    device.close();
  }
}

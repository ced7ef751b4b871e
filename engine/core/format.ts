// Making a pool. Everything is checked before anything is touched; what is not empty is refused.
//
//   a folder        data (the device, a file) and meta/ (the store) in it
//   a block device  the device itself, and the store in a folder of its own choice
//   (create-device.ts
//                   makes both on one device)
//
// The store is made first and the superblocks last (B, then A): a device with a valid superblock
// has a store beside it.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
} from "node:fs";
import { open, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { native } from "../../native/native.js";
import {
  BLOCK_SIZES,
  DEFAULT_BLOCK_SIZE,
  DEFAULT_JOURNAL_BYTES,
  FORMAT_VERSION,
  JOURNAL_BLOCK_BYTES,
  JOURNAL_OFFSET,
  MAX_BLOCKS,
  MAX_JOURNAL_BYTES,
  MIN_JOURNAL_BLOCKS,
  SUPERBLOCK_A_OFFSET,
  SUPERBLOCK_B_OFFSET,
} from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import { newUuid } from "../base/random.js";
import {
  putIdsRecord,
  putJournalRecord,
  putPoolRecord,
  putSpaceRecord,
} from "../store/catalogue.js";
import { openLmdbStore } from "../store/lmdb-store.js";
import { DATA_ALIGNMENT_BYTES, encodeSuperblock, type Superblock } from "../store/superblock.js";
import { type DataDevice, openDataDevice } from "./data-device.js";

export interface CreatePoolOptions {
  /** Of the device; needed for a folder, a block device is taken whole without it. */
  sizeBytes?: number;
  blockSizeBytes?: number;
  journalBytes?: number;
  /** A file that takes its space as it is written: its file system's ENOSPC is then the pool's. */
  sparse?: boolean;
  /** Where the store of a pool on a block device goes. */
  metaPath?: string;
}

export interface PoolPaths {
  /** The file or block device. */
  data: string;
  /** The folder of the store. */
  meta: string;
}

/** Where the parts of the pool at `path` are. */
export function poolPaths(path: string, metaPath?: string): PoolPaths {
  if (isBlockDevice(path)) {
    if (metaPath !== undefined) return { data: path, meta: metaPath };
    throw new PandoError("EINVAL", `${path} is a block device: say where its store is`, {
      path,
      field: "metaPath",
    });
  }
  return { data: join(path, "data"), meta: metaPath ?? join(path, "meta") };
}

/** Makes the pool, durably. EEXIST if something is there already. */
export async function createPool(path: string, options: CreatePoolOptions): Promise<Superblock> {
  const paths = poolPaths(path, options.metaPath);
  const onDevice = paths.data === path;
  requireEmpty(paths.meta);
  if (!onDevice) requireEmpty(path);
  requireParent(onDevice ? paths.meta : path);
  const superblock = planPool(path, options, onDevice ? emptyDeviceBytes(path) : undefined);

  const before = [paths.meta, path].filter((folder) => existsSync(folder));
  try {
    if (!onDevice) {
      mkdirSync(path, { recursive: true });
      await makeFile(paths.data, superblock.deviceSizeBytes, options.sparse ?? false);
    }
    await makeStore(paths.meta, superblock);
    await makeDevice(paths.data, superblock);
    for (const folder of new Set([paths.meta, dirname(paths.meta), dirname(dirname(paths.meta))])) {
      await syncFolder(folder);
    }
  } catch (error) {
    removeMade(onDevice ? [] : [paths.data], paths.meta);
    for (const folder of [paths.meta, path]) {
      if (!before.includes(folder)) removeQuietly(() => rmdirSync(folder));
    }
    throw error;
  }
  return superblock;
}

function removeMade(files: string[], meta: string): void {
  for (const file of [...files, join(meta, "data.mdb"), join(meta, "lock.mdb")]) {
    removeQuietly(() => rmSync(file, { force: true }));
  }
}

/** What counts is why the pool could not be made, not what could not be cleaned up after that. */
function removeQuietly(remove: () => void): void {
  try {
    remove();
  } catch {
    return;
  }
}

/** The geometry, all of it checked. */
export function planPool(
  path: string,
  options: CreatePoolOptions,
  deviceBytes: number | undefined,
): Superblock {
  const blockSizeBytes = options.blockSizeBytes ?? DEFAULT_BLOCK_SIZE;
  if (!(BLOCK_SIZES as readonly number[]).includes(blockSizeBytes)) {
    refuse(
      path,
      "blockSizeBytes",
      `a block has ${BLOCK_SIZES.join(", ")} bytes, not ${blockSizeBytes}`,
    );
  }
  const sizeBytes = options.sizeBytes ?? deviceBytes;
  if (sizeBytes === undefined) refuse(path, "sizeBytes", "a pool in a folder needs a size");
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0) {
    refuse(path, "sizeBytes", `${sizeBytes} is not a size`);
  }
  if (options.sizeBytes !== undefined && sizeBytes % blockSizeBytes !== 0) {
    refuse(
      path,
      "sizeBytes",
      `${sizeBytes} bytes are not a multiple of the block size, ${blockSizeBytes}`,
    );
  }
  if (deviceBytes !== undefined && sizeBytes > deviceBytes) {
    refuse(path, "sizeBytes", `the device has ${deviceBytes} bytes, not ${sizeBytes}`);
  }
  const journalBytes = options.journalBytes ?? defaultJournalBytes(sizeBytes);
  const journalBlocks = journalBytes / JOURNAL_BLOCK_BYTES;
  if (!Number.isInteger(journalBlocks) || journalBytes > MAX_JOURNAL_BYTES) {
    refuse(
      path,
      "journalBytes",
      `a journal has a multiple of ${JOURNAL_BLOCK_BYTES} bytes up to ${MAX_JOURNAL_BYTES}`,
    );
  }
  if (journalBlocks < MIN_JOURNAL_BLOCKS) {
    refuse(
      path,
      "journalBytes",
      `a journal has at least ${MIN_JOURNAL_BLOCKS * JOURNAL_BLOCK_BYTES} bytes`,
    );
  }
  const journalEnd = JOURNAL_OFFSET + journalBytes;
  const dataOffsetBytes = Math.ceil(journalEnd / DATA_ALIGNMENT_BYTES) * DATA_ALIGNMENT_BYTES;
  const dataBlocks = Math.floor((sizeBytes - dataOffsetBytes) / blockSizeBytes);
  if (dataBlocks < 1) {
    refuse(
      path,
      "sizeBytes",
      `${sizeBytes} bytes are too few: ${dataOffsetBytes} go to the journal`,
    );
  }
  if (dataBlocks > MAX_BLOCKS) {
    refuse(
      path,
      "blockSizeBytes",
      `${dataBlocks} blocks are more than a pool has; take larger blocks`,
    );
  }
  return {
    version: FORMAT_VERSION,
    blockSizeBytes,
    uuid: newUuid(),
    generation: 1,
    deviceSizeBytes: sizeBytes,
    journalOffsetBytes: JOURNAL_OFFSET,
    journalBlocks,
    dataOffsetBytes,
    dataBlocks,
    epoch: 0,
    reclaims: 0,
  };
}

/** An eighth of a small pool. */
function defaultJournalBytes(sizeBytes: number): number {
  const least = MIN_JOURNAL_BLOCKS * JOURNAL_BLOCK_BYTES;
  const eighth = Math.floor(sizeBytes / 8 / JOURNAL_BLOCK_BYTES) * JOURNAL_BLOCK_BYTES;
  return Math.min(DEFAULT_JOURNAL_BYTES, Math.max(least, eighth));
}

async function makeFile(path: string, bytes: number, sparse: boolean): Promise<void> {
  await writeFile(path, "", { flag: "wx", mode: 0o600 });
  if (sparse) truncateSync(path, bytes);
  else await native.preallocate(path, bytes);
}

async function makeStore(path: string, superblock: Superblock): Promise<void> {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const store = openLmdbStore(path, { create: true });
  try {
    await store.transact((txn) => {
      putPoolRecord(txn, {
        version: superblock.version,
        uuid: superblock.uuid,
        generation: superblock.generation,
        blockSize: superblock.blockSizeBytes,
        dataBlocks: superblock.dataBlocks,
        journalBlocks: superblock.journalBlocks,
      });
      putJournalRecord(txn, { epoch: 1, tail: 0 });
      putIdsRecord(txn, { nextLayer: 1 });
      putSpaceRecord(txn, { allocatedBlocks: 0 });
    });
    await store.sync();
  } finally {
    await store.close();
  }
}

async function makeDevice(path: string, superblock: Superblock): Promise<void> {
  const device = openDataDevice(path, "r+");
  try {
    device.write(superblock.journalOffsetBytes, new Uint8Array(JOURNAL_BLOCK_BYTES));
    await writeSuperblocks(device, superblock);
  } finally {
    device.close();
  }
}

/** B, flush, A, flush: one of them is whole at any moment. */
async function writeSuperblocks(device: DataDevice, superblock: Superblock): Promise<void> {
  const bytes = encodeSuperblock(superblock);
  for (const offset of [SUPERBLOCK_B_OFFSET, SUPERBLOCK_A_OFFSET]) {
    device.write(offset, bytes);
    await device.flush();
  }
}

/** The names in a folder are durable when this settles. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Absent or empty, but for what a fresh file system has. */
function requireEmpty(path: string): void {
  if (!existsSync(path)) return;
  if (!statSync(path).isDirectory()) {
    throw new PandoError("EEXIST", `${path} exists and is not a folder`, { path });
  }
  const found = readdirSync(path).filter((name) => name !== "lost+found");
  if (found.length === 0) return;
  throw new PandoError("EEXIST", `${path} is not empty: ${found.slice(0, 3).join(", ")}`, {
    path,
    hint: "a pool is made in an empty folder",
  });
}

function requireParent(path: string): void {
  const parent = dirname(path);
  if (existsSync(parent)) return;
  throw new PandoError("ENOTFOUND", `${parent} does not exist`, { path: parent });
}

/**
 * The size of a block device whose first MiB is zero: a device in use has a label, a table or a
 * superblock there.
 */
function emptyDeviceBytes(path: string): number {
  const device = openDataDevice(path, "r");
  try {
    const length = Math.min(device.sizeBytes, JOURNAL_OFFSET);
    if (device.read(0, length).every((byte) => byte === 0)) return device.sizeBytes;
  } finally {
    device.close();
  }
  throw new PandoError("EEXIST", `${path} is not empty: there is data in its first MiB`, {
    path,
    hint: `if nothing on it is needed: wipefs --all ${path}, then zero its first MiB`,
  });
}

function isBlockDevice(path: string): boolean {
  return existsSync(path) && statSync(path).isBlockDevice();
}

function refuse(path: string, field: string, message: string): never {
  throw new PandoError("EINVAL", `${path}: ${message}`, { path, field });
}

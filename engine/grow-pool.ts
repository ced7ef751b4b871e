// Makes a pool larger: gives its file, or its partition, or finds on its device, the room, and then
// says so in superblocks and store. While no daemon serves it, the device's lock keeps daemons out
// meanwhile; in one that serves it, core/growth.ts asks for the same, step by step.
import { statSync, truncateSync } from "node:fs";
import { native } from "../native/native.js";
import { PandoError } from "./base/errors.js";
import { type DataDevice, openDataDevice } from "./core/data-device.js";
import { grow, planGrow, settleGrow } from "./core/grow.js";
import type { GrowingPlace, GrowRequest } from "./core/growth.js";
import { comparePool, readSuperblock } from "./core/recovery.js";
import { replaceSuperblocks } from "./core/superblocks.js";
import { withClosedPool } from "./open-pool.js";
import { partitionRoom, sizeOf, takePartitionRoom } from "./partition-room.js";
import { getPoolRecord } from "./store/catalogue.js";
import { openLmdbStore } from "./store/lmdb-store.js";
import type { Store } from "./store/store.js";
import type { Superblock } from "./store/superblock.js";

export interface GrowPoolOptions extends GrowRequest {
  path: string;
  metaPath: string | null;
}

export function growPool(options: GrowPoolOptions): Promise<Superblock> {
  return withClosedPool(options, "write", async (paths) => {
    const device = openDataDevice(paths.data, "r+");
    try {
      // As recovery does: nothing is decided on what may still be volatile.
      await device.flush();
      const isFile = statSync(paths.data).isFile();
      const sizes = { deviceBytes: roomOf(options.path, paths.data), isFile };
      const larger = plan(readSuperblock(device), options, sizes);
      const store = openLmdbStore(paths.meta);
      try {
        if (isFile) await extend(paths.data, larger.deviceSizeBytes, { ...options, fromBytes: 0 });
        else await widen(options.path, paths.data, larger);
        await device.flush();
        await growOpen(store, device, larger);
        return larger;
      } finally {
        await store.close();
      }
    } finally {
      device.close();
    }
  });
}

/** For a pool that this process serves. */
export function growingPlace(path: string, data: string): GrowingPlace {
  const isFile = statSync(data).isFile();
  return {
    plan: (current, request) =>
      plan(current, { ...request, path }, { deviceBytes: roomOf(path, data), isFile }),
    async makeRoom(larger, { sparse }) {
      // What is there is in use.
      const fromBytes = sizeOf(data);
      if (isFile) await extend(data, larger.deviceSizeBytes, { sparse, fromBytes });
      else await widen(path, data, larger);
    },
    device: () => openDataDevice(data, "r+"),
  };
}

/** What it has, or may have without anybody's help. */
function roomOf(path: string, data: string): number {
  return Math.max(sizeOf(data), partitionRoom(path, data) ?? 0);
}

/** Of a block device: what is larger already stays as it is. */
async function widen(path: string, data: string, larger: Superblock): Promise<void> {
  if (larger.deviceSizeBytes > sizeOf(data)) await takePartitionRoom(path, data);
}

/** Everything that can be refused is, before anything is opened for writing. */
function plan(
  superblock: Superblock,
  options: { path: string; sizeBytes: number | null },
  { deviceBytes, isFile }: { deviceBytes: number; isFile: boolean },
): Superblock {
  const { blockSizeBytes } = superblock;
  const wholeDevice = Math.floor(deviceBytes / blockSizeBytes) * blockSizeBytes;
  const sizeBytes = options.sizeBytes ?? (isFile ? null : wholeDevice);
  const { path } = options;
  if (sizeBytes === null) {
    throw new PandoError("EINVAL", `${path}: a pool in a folder needs its new size`, {
      path,
      field: "sizeBytes",
    });
  }
  const larger = planGrow(superblock, sizeBytes);
  if (isFile || sizeBytes <= deviceBytes) return larger;
  throw new PandoError("EINVAL", `${path} has ${deviceBytes} bytes, not ${sizeBytes}`, {
    path,
    field: "sizeBytes",
    hint: "make the device itself larger first",
  });
}

async function growOpen(store: Store, device: DataDevice, larger: Superblock): Promise<void> {
  await store.sync();
  const superblock = readSuperblock(device);
  if (await settleGrow(store, superblock)) await replaceSuperblocks(device, superblock);
  comparePool(superblock, getPoolRecord(store));
  await grow(store, device, larger);
}

/** The file has so many bytes, and what is from `fromBytes` on its blocks, if it is not sparse. */
async function extend(
  path: string,
  sizeBytes: number,
  { sparse, fromBytes }: { sparse: boolean; fromBytes: number },
): Promise<void> {
  const hadBytes = statSync(path).size;
  if (sparse) {
    if (sizeBytes > hadBytes) truncateSync(path, sizeBytes);
    return;
  }
  if (sizeBytes <= fromBytes) return;
  try {
    await native.allocate(path, fromBytes, sizeBytes - fromBytes);
  } catch (cause) {
    truncateSync(path, hadBytes);
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PandoError(
      "ENOSPC",
      `${path} cannot have ${sizeBytes} bytes: ${why}`,
      { path },
      {
        cause,
      },
    );
  }
}

// Makes a pool larger that no daemon serves: gives its file, or finds on its device, the room, and
// then says so in superblocks and store. The device's lock keeps daemons out meanwhile.
import { statSync, truncateSync } from "node:fs";
import { native } from "../native/native.js";
import { PandoError } from "./base/errors.js";
import { type DataDevice, openDataDevice } from "./core/data-device.js";
import { grow, planGrow, settleGrow } from "./core/grow.js";
import { comparePool, readSuperblock } from "./core/recovery.js";
import { replaceSuperblocks } from "./core/superblocks.js";
import { withClosedPool } from "./open-pool.js";
import { getPoolRecord } from "./store/catalogue.js";
import { openLmdbStore } from "./store/lmdb-store.js";
import type { Store } from "./store/store.js";
import type { Superblock } from "./store/superblock.js";

export interface GrowPoolOptions {
  path: string;
  metaPath: string | null;
  /** Of the device; null: all of a block device. */
  sizeBytes: number | null;
  /** A file that takes its space as it is written. */
  sparse: boolean;
}

export function growPool(options: GrowPoolOptions): Promise<Superblock> {
  return withClosedPool(options, "write", async (paths) => {
    const device = openDataDevice(paths.data, "r+");
    try {
      // As recovery does: nothing is decided on what may still be volatile.
      await device.flush();
      const isFile = statSync(paths.data).isFile();
      const larger = plan(device, options, isFile);
      const store = openLmdbStore(paths.meta);
      try {
        const sizes = { sizeBytes: larger.deviceSizeBytes, hadBytes: device.sizeBytes };
        if (isFile) extend(paths.data, { ...sizes, sparse: options.sparse });
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

/** Everything that can be refused is, before anything is opened for writing. */
function plan(device: DataDevice, options: GrowPoolOptions, isFile: boolean): Superblock {
  const superblock = readSuperblock(device);
  const { blockSizeBytes } = superblock;
  const wholeDevice = Math.floor(device.sizeBytes / blockSizeBytes) * blockSizeBytes;
  const sizeBytes = options.sizeBytes ?? (isFile ? null : wholeDevice);
  const { path } = options;
  if (sizeBytes === null) {
    throw new PandoError("EINVAL", `${path}: a pool in a folder needs its new size`, {
      path,
      field: "sizeBytes",
    });
  }
  const larger = planGrow(superblock, sizeBytes);
  if (isFile || sizeBytes <= device.sizeBytes) return larger;
  throw new PandoError("EINVAL", `${path} has ${device.sizeBytes} bytes, not ${sizeBytes}`, {
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

function extend(path: string, to: { sizeBytes: number; hadBytes: number; sparse: boolean }): void {
  const { sizeBytes, hadBytes, sparse } = to;
  if (sparse) {
    if (sizeBytes > hadBytes) truncateSync(path, sizeBytes);
    return;
  }
  try {
    native.preallocate(path, sizeBytes);
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

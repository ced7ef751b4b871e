// Opens a pool for real: picks the adapters (device, LMDB, clock, addon) and puts them together in
// the order that keeps it safe. Nothing else does.
//
//   1. the data device is opened and locked: a second daemon gets no further, and touches nothing
//   2. the store is opened, after its file has been found whole
//   3. recovery brings the store to what the journal says
//   4. the data path starts, and the worker that answers its index misses
import { readFileSync, statSync } from "node:fs";
import { native } from "../native/native.js";
import { AssertionError } from "./base/assert.js";
import { sleep, systemClock } from "./base/clock.js";
import type { DiscardMode } from "./base/config.js";
import { INDEX_BLOCK_BYTES } from "./base/constants.js";
import { DEFAULT_POLICY, type DhchapPolicy } from "./base/dhchap-key.js";
import { isPandoError, PandoError } from "./base/errors.js";
import type { Log } from "./base/log.js";
import { volumeNqn } from "./base/nqn.js";
import { newBytes, newUuid } from "./base/random.js";
import {
  backUpInChild,
  checkPoolInChild,
  inspectPoolInChild,
  repairPoolInChild,
  storeBackupInChild,
  storeCheckInChild,
} from "./check-child.js";
import type { CheckReport } from "./core/api.js";
import { openDataDevice } from "./core/data-device.js";
import type { PoolPaths } from "./core/format.js";
import type { InspectItem, InspectRequest } from "./core/inspect.js";
import { Pool } from "./core/pool.js";
import { type Recovered, recover } from "./core/recovery.js";
import type { RepairReport } from "./core/repair.js";
import { replaceSuperblocks } from "./core/superblocks.js";
import { growingPlace } from "./grow-pool.js";
import { type OpenPlace, type PlaceMode, poolPlace } from "./pool-place.js";
import { getPoolRecord } from "./store/catalogue.js";
import { startIndexService } from "./store/index-service.js";
import { type LmdbStore, openLmdbStore } from "./store/lmdb-store.js";
import type { Superblock } from "./store/superblock.js";
import { type UnflushedMemory, unflushedMemory } from "./unflushed-memory.js";

/** A checkpoint is called for when this part of the index cache is dirty. */
const DIRTY_SHARE = 1 / 4;
/** stat(2): st_blocks are these, whatever the file system's are. */
const STAT_BLOCK_BYTES = 512;
const NO_ALARM = [101, 101, 101];
/** Some milliseconds for each transaction of a fold; some ten where blocks lie everywhere. */
const FOLD = { spans: 32, chunks: 512 };
/**
 * A child with up to so many index blocks absorbs a parent with many times more; its hosts' writes
 * wait for the one transaction, some ten milliseconds.
 */
const ABSORB = { from: 256, times: 4, most: 512, batch: 64 };
/**
 * The chunks of 64 GiB: a transaction that touches them all takes some tens of milliseconds of
 * the control plane's thread.
 */
const RECLAIM = { spans: 512, chunks: 2048 };
/** How long the kernel may take to close what a dead process had open. */
const LOCK_TRIES = 300;
const LOCK_WAIT_MS = 100;

export interface OpenPoolOptions {
  path: string;
  /** Where the store is, if not beside the data. */
  metaPath: string | null;
  indexCacheBytes: number;
  /** Whether free blocks are given back to the device; without it they are not. */
  discard?: DiscardMode;
  /** Percent used at which each alarm level begins; without them there is no alarm. */
  spaceLevels?: readonly number[];
  /** How hosts prove who they are, if not in the usual ways. */
  authentication?: DhchapPolicy;
  log: Log;
}

export interface OpenedPool {
  pool: Pool;
  /** Of the addon, for front ends. */
  handle: number;
  /** What the device writes whole or not at all, in bytes. */
  atomicUnit: number;
  close(): Promise<void>;
}

interface OpenedStore {
  store: LmdbStore;
  memory: UnflushedMemory;
  recovered: Recovered;
}

export async function openRealPool(options: OpenPoolOptions): Promise<OpenedPool> {
  const { path, indexCacheBytes, log } = options;
  const place = await poolPlace(path, options.metaPath);
  const device = await lockDevice(path, place.data);
  let mounted: OpenPlace;
  let opened: OpenedStore;
  try {
    mounted = await place.open("write");
    try {
      opened = await openStore(path, mounted.paths);
    } catch (error) {
      await mounted.close();
      throw error;
    }
  } catch (error) {
    native.deviceClose(device);
    throw error;
  }
  const { paths } = mounted;
  const { store } = opened;
  const { superblock, ...replay } = opened.recovered;
  log.info({ pool: path, uuid: superblock.uuid, ...replay }, "recovered");
  const pool: Pool = new Pool({
    addon: native,
    device,
    store,
    recovered: opened.recovered,
    clock: systemClock,
    log,
    newUuid,
    authentication: { policy: options.authentication ?? DEFAULT_POLICY, newBytes },
    news: {
      disconnect: (uuid, host) =>
        pool.shares.fence(uuid) ?? native.targetDisconnect(pool.handle, volumeNqn(uuid), host),
      connections: (host) => native.targetSessions(pool.handle, host ?? ""),
      resized: (volume) => native.targetVolumeChanged(pool.handle, volume),
      exportsChanged: (hosts) => native.targetExportsChanged(pool.handle, hosts),
    },
    memory: { sharedPath: opened.memory.sharedPath, bootId: opened.memory.bootId },
    path,
    indexCacheBytes,
    dirtyLimit: Math.floor((indexCacheBytes * DIRTY_SHARE) / INDEX_BLOCK_BYTES),
    fold: FOLD,
    absorb: ABSORB,
    reclaim: RECLAIM,
    discard: givesBack(options.discard ?? "off", paths.data),
    keepsRoom: options.discard !== "on" && isFullFile(paths.data),
    spaceLevels: options.spaceLevels ?? NO_ALARM,
    checkStore: storeCheckInChild(paths.meta, () => store.forgetDeadReaders()),
    backups: {
      store: storeBackupInChild(paths.meta, () => store.forgetDeadReaders()),
    },
    writeSuperblocks: (current) => writeSuperblocks(paths.data, current),
    growing: growingPlace(path, paths.data),
  });
  try {
    const index = await startIndexService({
      directory: paths.meta,
      poolId: pool.handle,
      onFailure: (error) => log.error({ err: error }, "an index look-up failed"),
    });
    return {
      pool,
      handle: pool.handle,
      atomicUnit: native.deviceInfo(device).atomicUnit,
      async close() {
        await pool.close();
        await index.close();
        if (pool.checkpointed) opened.memory.remove();
        await mounted.close();
      },
    };
  } catch (error) {
    await pool.close();
    await mounted.close();
    throw error;
  }
}

/**
 * "auto": a file that takes its space as it is written gives it back in the same way. One that has
 * all of its space keeps it, since it was promised, and so does a device: discards cost some of
 * them dearly, and it is the device's owner who knows.
 */
function givesBack(mode: DiscardMode, data: string): boolean {
  if (mode !== "auto") return mode === "on";
  return statSync(data).isFile() && !isFullFile(data);
}

function isFullFile(data: string): boolean {
  const stat = statSync(data);
  return stat.isFile() && stat.blocks * STAT_BLOCK_BYTES >= stat.size;
}

/** A pool that no daemon serves. */
export interface ClosedPoolOptions {
  path: string;
  /** Where the store is, if not beside the data. */
  metaPath: string | null;
}

/** Checks a pool that no daemon serves, and writes nothing. Its lock is held meanwhile. */
export function checkClosedPool(options: ClosedPoolOptions): Promise<CheckReport> {
  return withClosedPool(options, "read", checkPoolInChild);
}

/** Makes anew what is derived; see core/repair.ts. */
export function repairClosedPool(options: ClosedPoolOptions): Promise<RepairReport> {
  return withClosedPool(options, "write", repairPoolInChild);
}

export async function withClosedPool<T>(
  { path, metaPath }: ClosedPoolOptions,
  mode: PlaceMode,
  work: (paths: PoolPaths) => Promise<T>,
): Promise<T> {
  const place = await poolPlace(path, metaPath);
  const device = await lockDevice(path, place.data);
  try {
    const mounted = await place.open(mode);
    try {
      return await work(mounted.paths);
    } finally {
      await mounted.close();
    }
  } catch (error) {
    throw namePool(path, error);
  } finally {
    native.deviceClose(device);
  }
}

/**
 * A copy of the store of a pool that no daemon serves, as it is: its journal stays to be replayed.
 */
export function backUpClosedPool(options: ClosedPoolOptions): AsyncGenerator<Uint8Array> {
  return eachOfClosedPool(options, "read", backUpInChild);
}

/** What lies in a pool that no daemon serves. Its lock is held meanwhile; nothing is written. */
export function inspectClosedPool(
  options: ClosedPoolOptions,
  request: InspectRequest,
): AsyncGenerator<InspectItem[]> {
  return eachOfClosedPool(options, "untouched", (paths) => inspectPoolInChild(paths, request));
}

async function* eachOfClosedPool<T>(
  { path, metaPath }: ClosedPoolOptions,
  mode: PlaceMode,
  work: (paths: PoolPaths) => AsyncIterable<T>,
): AsyncGenerator<T> {
  const place = await poolPlace(path, metaPath);
  const device = await lockDevice(path, place.data);
  try {
    const mounted = await place.open(mode);
    try {
      yield* work(mounted.paths);
    } finally {
      await mounted.close();
    }
  } catch (error) {
    throw namePool(path, error);
  } finally {
    native.deviceClose(device);
  }
}

/**
 * The lock is the device's: it ends with the process, however that ends. Not in the same moment:
 * after a kill the kernel has to take back what the process has asked for, and keeps the device
 * open meanwhile. So a holder that is no longer alive is waited for. One that is not to be seen may
 * have let go since, or is in a namespace of its own: the next try tells.
 */
export async function lockDevice(path: string, data: string): Promise<number> {
  if (statSync(data, { throwIfNoEntry: false }) === undefined) {
    throw new PandoError("ENOTFOUND", `${path} is not a pool: there is no ${data}`, {
      path,
      hint: `pando pool create ${path} --size SIZE makes one`,
    });
  }
  let unseen = 0;
  for (let tries = 1; ; tries++) {
    try {
      return native.deviceOpen(data);
    } catch (cause) {
      const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
      if (code !== "EAGAIN" && code !== "EWOULDBLOCK") throw deviceError(data, cause);
      const holder = lockHolder(data);
      unseen = holder === null ? unseen + 1 : 0;
      const isServed = holder === null ? unseen > 1 : isAlive(holder);
      if (tries === LOCK_TRIES || isServed) {
        const who = holder === null ? "another process" : `process ${holder}`;
        const hint = "stop that daemon, or talk to it: pando --socket PATH pool show";
        throw new PandoError(
          "EBUSY",
          `the pool ${path} is open in ${who}`,
          { path, hint },
          { cause },
        );
      }
      await sleep(LOCK_WAIT_MS);
    }
  }
}

async function openStore(path: string, paths: PoolPaths): Promise<OpenedStore> {
  const device = openDataDevice(paths.data, "r");
  try {
    const store = openLmdbStore(paths.meta);
    try {
      const memory = unflushedMemory(getPoolRecord(store).uuid, paths.meta);
      const unflushed = { memory: memory.read(), bootId: memory.bootId };
      const recovered = await recover(store, device, { unflushed });
      // The device knows of this opening before anything is written to it: see core/superblocks.ts.
      const superblock = { ...recovered.superblock, epoch: recovered.epoch };
      await writeSuperblocks(paths.data, superblock);
      return { store, memory, recovered: { ...recovered, superblock } };
    } catch (error) {
      await store.close();
      throw error;
    }
  } catch (error) {
    throw namePool(path, error);
  } finally {
    device.close();
  }
}

async function writeSuperblocks(data: string, superblock: Superblock): Promise<void> {
  const device = openDataDevice(data, "r+");
  try {
    await replaceSuperblocks(device, superblock);
  } finally {
    device.close();
  }
}

/**
 * An error says which pool it is about, if it does not yet. What recovery asserts is about what it
 * has read: if it does not hold, the store is damaged.
 */
function namePool(path: string, cause: unknown): unknown {
  const error =
    cause instanceof AssertionError
      ? new PandoError("ECORRUPT", `the store contradicts itself: ${cause.message}`, {}, { cause })
      : cause;
  if (!isPandoError(error) || error.message.includes(path)) return error;
  const context = { ...error.context, path };
  return new PandoError(error.code, `${path}: ${error.message}`, context, { cause: error });
}

function deviceError(data: string, cause: unknown): PandoError {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  const why = cause instanceof Error ? cause.message : String(cause);
  const kind = code === "EACCES" || code === "EPERM" ? "EPERM" : "EIO";
  return new PandoError(kind, `${data} does not open: ${why}`, { path: data }, { cause });
}

/**
 * The process that holds the flock on a file, by the kernel's own list; null if it is not on it.
 */
function lockHolder(file: string): number | null {
  const { dev, ino } = statSync(file);
  const hex = (value: number) => value.toString(16).padStart(2, "0");
  // Linux: 12 bits of major from bit 8, 8 bits of minor from bit 0 and the rest from bit 20.
  const major = Math.floor(dev / 256) % 4096;
  const minor = (dev % 256) + Math.floor(dev / 2 ** 20) * 256;
  const place = `${hex(major)}:${hex(minor)}:${ino}`;
  try {
    const lines = readFileSync("/proc/locks", "utf8").split("\n");
    const fields = lines.map((line) => line.trim().split(/\s+/));
    const own = fields.find((field) => field[1] === "FLOCK" && field[5] === place);
    const holder = Number(own?.[4]);
    return Number.isInteger(holder) && holder > 0 ? holder : null;
  } catch {
    // Without /proc there is no name to give; the pool is taken all the same.
    return null;
  }
}

/** A process that is killed and not yet buried has no memory, and does nothing any more. */
function isAlive(pid: number): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/stat`, "utf8");
    const state = status.slice(status.lastIndexOf(")") + 2, status.lastIndexOf(")") + 3);
    return state !== "Z" && state !== "X";
  } catch {
    return false;
  }
}

// The composition root: picks the adapters, starts what serves, and stops it in the opposite order.
// Nothing below knows that it is in a daemon.
//
// Order at start: pools (their locks keep a second daemon out before anything is touched), control
// socket, HTTP, systemd. A failure half-way undoes what was done.
import {
  LOAD_PATTERN,
  type NvmeLoadOptions,
  type NvmeLoadResult,
  native,
} from "../native/native.js";
import type { Finding } from "../nvmf/doctor.js";
import { formatAddress } from "./base/address.js";
import { assert } from "./base/assert.js";
import type { Config, Environment, PoolConfig } from "./base/config.js";
import { PandoError } from "./base/errors.js";
import { type Log, makeLog } from "./base/log.js";
import { isBlockDevice } from "./block-device.js";
import type { CheckReport, PoolService } from "./core/api.js";
import { createPool } from "./core/format.js";
import type { InspectItem, InspectRequest } from "./core/inspect.js";
import type { RepairReport } from "./core/repair.js";
import { type CreateDeviceOptions, createOnDevice } from "./create-device.js";
import { examineMachine } from "./doctor.js";
import { startFrontEnds } from "./front-ends.js";
import { type GrowPoolOptions, growPool } from "./grow-pool.js";
import { startNvmet } from "./kernel-target.js";
import {
  backUpClosedPool,
  type ClosedPoolOptions,
  checkClosedPool,
  inspectClosedPool,
  openRealPool,
  repairClosedPool,
} from "./open-pool.js";
import { restorePool } from "./restore-pool.js";
import { startHttpServer } from "./serve/http.js";
import { makeNotify } from "./serve/notify.js";
import { failureOf, isOpen, type PoolPlace } from "./serve/pools.js";
import { startControlServer } from "./serve/server.js";

export type { Finding } from "../nvmf/doctor.js";
export type { InspectItem, InspectRequest, InspectValue } from "./core/inspect.js";
export type { RepairReport } from "./core/repair.js";
export type { CreateDeviceOptions } from "./create-device.js";

export interface CreatedPool {
  path: string;
  uuid: string;
  sizeBytes: number;
  blockSizeBytes: number;
}

/**
 * What is done with a pool in this process. Passed around, so that tests run everything else
 * without one.
 */
export interface Engine {
  openPool: OpenPool;
  /** The checksum of everything that is written here. */
  crc32c(data: Uint8Array, seed?: number): number;
  createPool(path: string, options: CreateDeviceOptions): Promise<CreatedPool>;
  /** Makes a pool larger that no daemon serves. */
  growPool(options: GrowPoolOptions): Promise<CreatedPool>;
  /** A pool that no daemon serves, as it would be after recovery. Nothing is written. */
  checkPool(options: ClosedPoolOptions): Promise<CheckReport>;
  /** Makes anew what is derived in it, or changes nothing. */
  repairPool(options: ClosedPoolOptions): Promise<RepairReport>;
  /** The bytes of a copy of the store of a pool that no daemon serves. */
  backUpPool(options: ClosedPoolOptions): AsyncIterable<Uint8Array>;
  /** Puts such a copy beside its device again, if it is still true. */
  restorePool(file: string, options: ClosedPoolOptions): Promise<CheckReport>;
  /** What lies in a pool that no daemon serves, in batches. Nothing is written. */
  inspectPool(options: ClosedPoolOptions, request: InspectRequest): AsyncIterable<InspectItem[]>;
  /** Drives a volume over NVMe/TCP, as its host. */
  nvmeLoad(load: NvmeLoad): Promise<NvmeLoadResult>;
  /** What this machine can serve, and what is missing. */
  examineMachine(): Promise<Finding[]>;
}

export type NvmeLoad = Pick<
  NvmeLoadOptions,
  "address" | "port" | "subsystemNqn" | "hostNqn" | "blockBytes" | "queues" | "depth" | "durationMs"
> & { pattern: keyof typeof LOAD_PATTERN };

/** Opens the pool of the configuration and starts its front ends. */
export type OpenPool = (
  config: Config & { readonly pool: string },
  log: Log,
) => Promise<ServingPool>;

export interface ServingPool {
  pool: PoolService;
  close(): Promise<void>;
}

/** The real one. */
export const engine: Engine = {
  async openPool(config, log) {
    const { pool: path, meta: metaPath, indexCacheBytes, spaceLevels } = config;
    const { discard, authentication } = config;
    const limits = { indexCacheBytes, spaceLevels };
    const options = { path, metaPath, ...limits, discard, authentication, log };
    const { pool, handle, atomicUnit, close } = await openRealPool(options);
    let closeAll = close;
    try {
      const frontEnds = await startFrontEnds(handle, config);
      closeAll = () => frontEnds.close().then(close);
      const { nvmet: address, nvmetTls: tls } = config;
      await startNvmet({ pool, handle, address, tls, atomicUnit, log });
      return { pool, close: closeAll };
    } catch (error) {
      await closeAll();
      throw error;
    }
  },
  crc32c: (data, seed) => native.crc32c(data, seed),
  async createPool(path, options) {
    const { metaSizeBytes, force, ...ofPool } = options;
    const byItself = isBlockDevice(path) && options.metaPath === undefined;
    if (!byItself && (metaSizeBytes !== undefined || force === true)) {
      throw new PandoError("EINVAL", `${path} is not a block device that is a pool by itself`, {
        path,
        field: force === true ? "force" : "metaSize",
      });
    }
    const made = byItself ? await createOnDevice(path, options) : await createPool(path, ofPool);
    const { uuid, blockSizeBytes, dataBlocks } = made;
    return { path, uuid, sizeBytes: dataBlocks * blockSizeBytes, blockSizeBytes };
  },
  async growPool(options) {
    const { uuid, blockSizeBytes, dataBlocks } = await growPool(options);
    return { path: options.path, uuid, sizeBytes: dataBlocks * blockSizeBytes, blockSizeBytes };
  },
  checkPool: checkClosedPool,
  repairPool: repairClosedPool,
  backUpPool: backUpClosedPool,
  restorePool,
  inspectPool: inspectClosedPool,
  nvmeLoad({ pattern, ...load }) {
    const rest = { readPercent: 50, regionBytes: 0, opCount: 0, seed: 1 };
    return native.nvmeLoadRun({ ...rest, ...load, pattern: LOAD_PATTERN[pattern] });
  },
  examineMachine,
};

export interface Daemon {
  readonly config: Config;
  readonly log: Log;
  /** The only one, or the first of those that could be opened. */
  readonly pool: PoolService;
  /**
   * Clean: what was acknowledged is durable anyway, this makes the next start faster. Harmless if
   * called again.
   */
  close(): Promise<void>;
}

type Named = PoolConfig & { name: string | null; pool: string };

export interface DaemonOptions {
  config: Config;
  environment: Environment;
  openPool: OpenPool;
}

export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { config, environment } = options;
  const log = makeLog(config.logLevel);
  const notify = makeNotify(environment.notifySocket, log);
  const undo: (() => Promise<void>)[] = [];
  const unwind = async () => {
    for (let stop = undo.pop(); stop !== undefined; stop = undo.pop()) await stop();
  };
  try {
    const pools = await openPools(options, log, undo);
    const pool = pools.find(isOpen)?.pool;
    assert(pool !== undefined, "one of them is open");
    const { socket, api } = config;
    const control = await startControlServer({ pools, socket, api, log });
    undo.push(() => control.close());
    if (config.metrics !== null) {
      const http = await startHttpServer({ pools, address: config.metrics, log });
      undo.push(() => http.close());
    }
    undo.push(() => notify("STOPPING=1"));
    await notify("READY=1");
    log.info({ pool: pools.map(({ path }) => path).join(", "), ...describe(config) }, "serving");
    let closed: Promise<void> | undefined;
    return {
      config,
      log,
      pool,
      close() {
        closed ??= unwind();
        return closed;
      },
    };
  } catch (error) {
    await unwind();
    throw error;
  }
}

/** Of several, those that can be opened; it fails if none can. */
async function openPools(
  { config, openPool }: DaemonOptions,
  log: Log,
  undo: (() => Promise<void>)[],
): Promise<PoolPlace[]> {
  const { pool: path, pools } = config;
  const open = async (one: Named, poolLog: Log): Promise<PoolPlace> => {
    const { pool, close } = await openPool({ ...config, ...one }, poolLog);
    undo.push(close);
    const { advertise, nvmet, nbdSocket } = one;
    return { name: one.name, path: one.pool, pool, places: { advertise, nvmet, nbdSocket } };
  };
  if (pools === null) {
    if (path !== null) return [await open({ ...config, pool: path, name: null }, log)];
    throw new PandoError("EINVAL", "no pool is named", {
      field: "pool",
      hint: 'pando daemon --pool PATH, or "pool" in the configuration file',
    });
  }
  const places: PoolPlace[] = [];
  for (const one of pools) {
    const { name, pool } = one;
    try {
      places.push(await open(one, log.child({ pool: name })));
      log.info({ pool: name, path: pool, ...describePlaces(one) }, "pool opened");
    } catch (failure) {
      // A pool that is damaged, or whose device is away, is no reason to keep the others' hosts.
      log.error({ err: failure, pool: name, path: pool }, "the pool is not served");
      places.push({ name, path: pool, failure });
    }
  }
  const [first] = places;
  if (first !== undefined && !isOpen(first) && !places.some(isOpen)) throw failureOf(first);
  return places;
}

/**
 * Serves until SIGINT or SIGTERM. A second signal kills, as signals do: a clean stop is a courtesy,
 * not a need.
 */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const signalled = waitForSignal();
  await stopOn(signalled, await startDaemon(options));
}

/** For one that is started already. */
export function untilSignal(daemon: Daemon): Promise<void> {
  return stopOn(waitForSignal(), daemon);
}

async function stopOn(signalled: Promise<NodeJS.Signals>, daemon: Daemon): Promise<void> {
  const signal = await signalled;
  daemon.log.info({ signal }, "stopping");
  await daemon.close();
  daemon.log.info("stopped");
}

function waitForSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const signals = ["SIGINT", "SIGTERM"] as const;
    const caught = (signal: NodeJS.Signals) => {
      for (const each of signals) process.off(each, caught);
      resolve(signal);
    };
    for (const each of signals) process.on(each, caught);
  });
}

function describe(config: Config): Record<string, string | null> {
  const { metrics, socket, api } = config;
  return {
    socket,
    ...(config.pools === null ? describePlaces(config) : {}),
    metrics: metrics === null ? null : formatAddress(metrics),
    api: api === null ? null : formatAddress(api.address),
  };
}

function describePlaces({ nbdSocket, target, nvmet }: PoolConfig): Record<string, string | null> {
  return {
    nbdSocket,
    target: target.length === 0 ? null : target.map(formatAddress).join(", "),
    nvmet: nvmet === null ? null : formatAddress(nvmet),
  };
}

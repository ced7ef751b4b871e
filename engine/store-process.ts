// A process that reads a pool's store, says what it has found, and ends. It is a process of its own
// because damage in LMDB's own pages can end whoever reads them (SIGBUS, SIGSEGV, an assertion).
// Nothing is written but by `repair`: the store is opened for reading, and recovery runs on an
// overlay.
//
//   check META              the store alone, while a daemon serves it: says {ready}, waits for a
//                           line, and says {begun} when the state that it checks is fixed
//   check META DATA         a pool that nobody serves, as it would be after recovery
//   repair META DATA        what is derived is made anew, or nothing is changed
//   backup META [DATA]      a copy of the store, on file descriptor 3, then {done}
//   inspect META DATA JSON [WHY]  what lies in it, an {item} each, then {done}; with WHY the store
//                                 is not opened, and that is said in its place
//
// A line of JSON each: {at} and {seen} on the way, {report}, {repaired} or {error} at the end.
import { readSync, writeSync } from "node:fs";
import { isPandoError, PandoError } from "./base/errors.js";
import { checkStore } from "./core/check.js";
import { openDataDevice } from "./core/data-device.js";
import { type InspectRequest, inspect } from "./core/inspect.js";
import { encodeBackup } from "./core/metadata-backup.js";
import { recoverInMemory } from "./core/offline-check.js";
import { readSuperblock } from "./core/recovery.js";
import { planRepair } from "./core/repair.js";
import { replaceSuperblocks } from "./core/superblocks.js";
import { getPoolRecord } from "./store/catalogue.js";
import { type Environment, openEnvironment } from "./store/lmdb-environment.js";
import { LmdbReader, openLmdbStore } from "./store/lmdb-store.js";
import type { Space, StoreReader } from "./store/store.js";
import { answering, say } from "./store-messages.js";
import { unflushedMemory } from "./unflushed-memory.js";

/** Reads between two signs of life. */
const READS_PER_SIGN = 1000;
const BACKUP_FD = 3;

async function main([verb, meta, data, options, dead]: string[]): Promise<void> {
  if (meta === undefined) throw new PandoError("EINVAL", "the folder of a store is missing");
  if (verb === "repair" && data !== undefined) return repairPool(meta, data);
  if (verb === "inspect" && data !== undefined)
    return inspectPool(meta, data, options ?? "{}", dead);
  if (verb === "backup") return backUp(meta, data);
  if (verb !== "check") throw new PandoError("EINVAL", `${verb} is nothing that is done here`);
  const environment = openEnvironment(meta, "read");
  try {
    const reader = new LmdbReader(environment);
    const told = telling(reader);
    if (data !== undefined) {
      const store = await recovered(told, { meta, data });
      say({ report: checkStore(store) });
      return;
    }
    fix(reader);
    say({ report: checkStore(told) });
  } finally {
    await environment.root.close();
  }
}

/** The bytes go to file descriptor 3. */
async function backUp(meta: string, data: string | undefined): Promise<void> {
  const environment = openEnvironment(meta, "read");
  try {
    const reader = new LmdbReader(environment);
    const reclaims = data === undefined ? Number(fix(reader)) : reclaimsOf(data);
    const { uuid } = getPoolRecord(reader);
    for (const bytes of encodeBackup(telling(reader), { uuid, reclaims })) {
      for (let done = 0; done < bytes.length; ) done += writeSync(BACKUP_FD, bytes, done);
    }
    say({ done: true });
  } finally {
    await environment.root.close();
  }
}

function reclaimsOf(data: string): number {
  const device = openDataDevice(data, "r");
  try {
    return readSuperblock(device).reclaims;
  } finally {
    device.close();
  }
}

/**
 * From its return to the end of what is done without an await, all reads are of one state, that of
 * the moment at which the other side said so. Gives what it said.
 */
function fix(reader: LmdbReader): string {
  say({ ready: true });
  const line = Buffer.alloc(64);
  const said = line.toString("latin1", 0, readSync(0, line)).trim();
  reader.refresh();
  getPoolRecord(reader);
  say({ begun: true });
  return said;
}

/**
 * The one that writes: the store, in one transaction, and a superblock that a cut has left behind.
 */
async function repairPool(meta: string, data: string): Promise<void> {
  const device = openDataDevice(data, "r+");
  try {
    await device.flush();
    const store = openLmdbStore(meta);
    try {
      await store.sync();
      const unflushed = unflushedOf(store, meta);
      const { report, recovered, write } = await planRepair(telling(store), device, { unflushed });
      if (report.repaired.length > 0) await store.transact(write);
      if (recovered?.grew === true) await replaceSuperblocks(device, recovered.superblock);
      say({ repaired: report });
    } finally {
      await store.close();
    }
  } finally {
    device.close();
  }
}

/** As it lies there. A store that does not open keeps nobody from looking at the device. */
async function inspectPool(
  meta: string,
  data: string,
  options: string,
  dead: string | undefined,
): Promise<void> {
  const request = JSON.parse(options) as InspectRequest;
  const device = openDataDevice(data, "r");
  try {
    const environment =
      dead === undefined ? openedOrError(meta) : new PandoError("ECORRUPT", dead, { path: meta });
    try {
      const store =
        environment instanceof PandoError ? environment : telling(new LmdbReader(environment));
      for (const item of inspect({ device, store }, request)) say({ item });
      say({ done: true });
    } finally {
      if (!(environment instanceof PandoError)) await environment.root.close();
    }
  } finally {
    device.close();
  }
}

function openedOrError(meta: string): Environment | PandoError {
  try {
    return openEnvironment(meta, "read");
  } catch (error) {
    if (isPandoError(error)) return error;
    throw error;
  }
}

/** The store as recovery would leave it. */
async function recovered(
  store: StoreReader,
  { meta, data }: { meta: string; data: string },
): Promise<StoreReader> {
  const unflushed = unflushedOf(store, meta);
  const device = openDataDevice(data, "r");
  try {
    const told = {
      sizeBytes: device.sizeBytes,
      read: (offsetBytes: number, lengthBytes: number) => {
        say({ at: "the device" });
        return device.read(offsetBytes, lengthBytes);
      },
    };
    return await recoverInMemory(store, told, { unflushed });
  } finally {
    device.close();
  }
}

function unflushedOf(store: StoreReader, meta: string): { memory: Uint8Array; bootId: string } {
  const memory = unflushedMemory(getPoolRecord(store).uuid, meta);
  return { memory: memory.read(), bootId: memory.bootId };
}

/** The reader, with signs of life; and the space is named before it is read. */
function telling(reader: StoreReader): StoreReader {
  let reads = 0;
  let last: Space | null = null;
  const sign = (space: Space): void => {
    if (space !== last) say({ at: space });
    else if (++reads % READS_PER_SIGN === 0) say({ seen: reads });
    last = space;
  };
  return {
    get: (space, key) => {
      sign(space);
      return reader.get(space, key);
    },
    range: (space, options) => {
      sign(space);
      return reader.range(space, options);
    },
    count: (space) => {
      sign(space);
      return reader.count(space);
    },
  };
}

await answering(() => main(process.argv.slice(2)));

// A process that reads a pool's store, says what it has found, and ends. It is a process of its own
// because damage in LMDB's own pages can end whoever reads them (SIGBUS, SIGSEGV, an assertion).
// Nothing is written: the store is opened for reading, and recovery runs on an overlay.
//
//   node check-process.js META           the store alone, while a daemon serves it: says {ready},
//                                        waits for a line, and says {begun} when the state that it
//                                        checks is fixed
//   node check-process.js META DATA      a pool that nobody serves, as it would be after recovery
//
// A line of JSON each: {at} and {seen} on the way, {report} or {error} at the end.
import { readSync, writeSync } from "node:fs";
import { AssertionError } from "./base/assert.js";
import { isPandoError, PandoError } from "./base/errors.js";
import type { CheckMessage } from "./check-messages.js";
import { checkStore } from "./core/check.js";
import { openDataDevice } from "./core/data-device.js";
import { recoverInMemory } from "./core/offline-check.js";
import { getPoolRecord } from "./store/catalogue.js";
import { openEnvironment } from "./store/lmdb-environment.js";
import { LmdbReader } from "./store/lmdb-store.js";
import type { Space, StoreReader } from "./store/store.js";
import { unflushedMemory } from "./unflushed-memory.js";

/** Reads between two signs of life. */
const READS_PER_SIGN = 1000;

async function main([meta, data]: string[]): Promise<void> {
  if (meta === undefined) throw new PandoError("EINVAL", "the folder of a store is missing");
  const environment = openEnvironment(meta, "read");
  try {
    const reader = new LmdbReader(environment);
    const told = telling(reader);
    if (data !== undefined) {
      const store = await recovered(told, { meta, data });
      say({ report: checkStore(store) });
      return;
    }
    say({ ready: true });
    readSync(0, Buffer.alloc(1));
    // From here to the report nothing is awaited: all reads are of one state.
    reader.refresh();
    getPoolRecord(reader);
    say({ begun: true });
    say({ report: checkStore(told) });
  } finally {
    await environment.root.close();
  }
}

/** The store as recovery would leave it. */
async function recovered(
  store: StoreReader,
  { meta, data }: { meta: string; data: string },
): Promise<StoreReader> {
  const memory = unflushedMemory(getPoolRecord(store).uuid, meta);
  const device = openDataDevice(data, "r");
  try {
    const told = {
      sizeBytes: device.sizeBytes,
      read: (offsetBytes: number, lengthBytes: number) => {
        say({ at: "the device" });
        return device.read(offsetBytes, lengthBytes);
      },
    };
    const unflushed = { memory: memory.read(), bootId: memory.bootId };
    return await recoverInMemory(store, told, { unflushed });
  } finally {
    device.close();
  }
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

/** At once and whole: the next read may end this process. */
function say(message: CheckMessage): void {
  const line = Buffer.from(`${JSON.stringify(message)}\n`);
  for (let done = 0; done < line.length; ) done += writeSync(1, line, done);
}

function toError(error: unknown): PandoError {
  if (isPandoError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof AssertionError) {
    return new PandoError("ECORRUPT", `the store contradicts itself: ${message}`);
  }
  return new PandoError("EIO", message);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  const { code, message, context } = toError(error);
  say({ error: { code, message, context } });
}

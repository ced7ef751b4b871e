// What is done with a pool's store in a process of its own (store-child.ts): checks and what one
// looks at when a check has found something.
import type { CheckReport } from "./core/api.js";
import type { BackupStore } from "./core/backup-marks.js";
import type { CheckStore } from "./core/check.js";
import type { InspectItem, InspectRequest } from "./core/inspect.js";
import type { RepairReport } from "./core/repair.js";
import { STORE_PROGRAM, StoreChild, StoreDeath } from "./store-child.js";

/** The parts of a pool that nobody serves; the caller holds its lock. */
export interface ClosedPool {
  meta: string;
  data: string;
}

/** Nothing is written. */
export async function checkPoolInChild({ meta, data }: ClosedPool): Promise<CheckReport> {
  const child = new StoreChild(meta, ["check", meta, data]);
  try {
    return await child.report;
  } finally {
    await child.end();
  }
}

/** For a pool in service: the store alone, as `fixed` lets it be. */
export function storeCheckInChild(meta: string, forgetDeadReaders: () => void): CheckStore {
  return async (_store, fixed) => {
    const child = new StoreChild(meta, ["check", meta]);
    try {
      await child.ready;
      await fixed(() => child.begin());
      return await child.report;
    } finally {
      await child.end();
      forgetDeadReaders();
    }
  };
}

/** What is derived is made anew; all of it, or nothing is written. */
export async function repairPoolInChild({ meta, data }: ClosedPool): Promise<RepairReport> {
  const child = new StoreChild(meta, ["repair", meta, data]);
  try {
    return await child.repaired;
  } finally {
    await child.end();
  }
}

/** A copy of the store of a pool that nobody serves. */
export async function* backUpInChild({ meta, data }: ClosedPool): AsyncGenerator<Uint8Array> {
  const child = new StoreChild(meta, ["backup", meta, data]);
  try {
    yield* child.bytes();
  } finally {
    await child.end();
  }
}

/** For a pool in service. */
export function storeBackupInChild(meta: string, forgetDeadReaders: () => void): BackupStore {
  return async function* (fixed) {
    const child = new StoreChild(meta, ["backup", meta]);
    try {
      await child.ready;
      await fixed((reclaims) => child.begin(String(reclaims)));
      yield* child.bytes();
    } finally {
      await child.end();
      forgetDeadReaders();
    }
  };
}

/**
 * What lies in the pool, in batches. Nothing is written. A store that ends its process as it is
 * opened is damaged, and an item like any other: the rest is read without it. `program`: what runs
 * in that process.
 */
export async function* inspectPoolInChild(
  place: ClosedPool,
  request: InspectRequest,
  program = STORE_PROGRAM,
): AsyncGenerator<InspectItem[]> {
  let told = false;
  try {
    for await (const items of inspectBeside(place, request, program, [])) {
      told = true;
      yield items;
    }
  } catch (error) {
    if (told || !(error instanceof StoreDeath)) throw error;
    yield* inspectBeside(place, request, program, [error.message]);
  }
}

/** `dead`: why the store is not to be opened, if it is not. */
async function* inspectBeside(
  { meta, data }: ClosedPool,
  request: InspectRequest,
  program: string,
  dead: string[],
): AsyncGenerator<InspectItem[]> {
  const args = ["inspect", meta, data, JSON.stringify(request), ...dead];
  const child = new StoreChild(meta, args, program);
  try {
    yield* child.items();
  } finally {
    await child.end();
  }
}

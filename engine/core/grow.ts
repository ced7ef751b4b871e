// A pool grows: the data device has become larger, and the superblocks and the store say so. Only
// while no daemon serves the pool.
//
//   1. the store says what it is about to become (an intent), durable
//   2. superblock B of the next generation, durable; then A
//   3. the store's own record, and the intent goes: one transaction
//
// The intent tells a grow that was cut from a device and a store that do not belong together: both
// have different generations on the two sides. Recovery ends what was cut, one way or the other,
// before it compares them: with a superblock of the new generation it goes forward, else back. Only
// a copy that is not the current superblock is ever rewritten after a cut, so one is whole at any
// moment.
import { MAX_BLOCKS, SUPERBLOCK_A_OFFSET, SUPERBLOCK_B_OFFSET } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import { findGrowRecord, getPoolRecord, putGrowRecord, putPoolRecord } from "../store/catalogue.js";
import type { Store } from "../store/store.js";
import { encodeSuperblock, type Superblock } from "../store/superblock.js";

export interface GrowingDevice {
  read(offsetBytes: number, lengthBytes: number): Uint8Array;
  write(offsetBytes: number, bytes: Uint8Array): void;
  flush(): Promise<void>;
}

/** The superblock of a larger pool. EINVAL if it would not be larger. */
export function planGrow(superblock: Superblock, sizeBytes: number): Superblock {
  const { blockSizeBytes, deviceSizeBytes, dataOffsetBytes, generation } = superblock;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes % blockSizeBytes !== 0) {
    refuse(`${sizeBytes} bytes are not a multiple of the block size, ${blockSizeBytes}`);
  }
  const dataBlocks = Math.floor((sizeBytes - dataOffsetBytes) / blockSizeBytes);
  if (sizeBytes < deviceSizeBytes) {
    refuse(`a pool does not shrink: it has ${deviceSizeBytes} bytes`);
  }
  if (dataBlocks <= superblock.dataBlocks) {
    refuse(`the pool has ${deviceSizeBytes} bytes already`);
  }
  if (dataBlocks > MAX_BLOCKS) refuse(`a pool has at most ${MAX_BLOCKS} blocks`);
  return { ...superblock, generation: generation + 1, deviceSizeBytes: sizeBytes, dataBlocks };
}

/** The device has the room already, durably. */
export async function grow(store: Store, device: GrowingDevice, larger: Superblock): Promise<void> {
  const { generation, dataBlocks } = larger;
  await store.transact((txn) => putGrowRecord(txn, { generation, dataBlocks }));
  for (const offset of [SUPERBLOCK_B_OFFSET, SUPERBLOCK_A_OFFSET]) {
    device.write(offset, encodeSuperblock(larger));
    await device.flush();
  }
  await settleGrow(store, larger);
}

/**
 * Ends a grow that was cut, as far as the store goes; true if there was one. `superblock` is what
 * the device says, durably.
 */
export async function settleGrow(store: Store, superblock: Superblock): Promise<boolean> {
  const intent = findGrowRecord(store);
  if (intent === undefined) return false;
  const record = getPoolRecord(store);
  const forward = superblock.generation === intent.generation;
  const known = forward || superblock.generation === record.generation;
  // Anything else is no cut: whoever compares them refuses, and finds everything as it was.
  if (!known || superblock.uuid !== record.uuid) return false;
  await store.transact((txn) => {
    if (forward) putPoolRecord(txn, { ...record, ...intent });
    putGrowRecord(txn, null);
  });
  return true;
}

function refuse(message: string): never {
  throw new PandoError("EINVAL", message, { field: "sizeBytes" });
}

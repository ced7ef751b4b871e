// Rewriting the superblocks of a pool that has something in it: a power cut may take the copy that
// is being written, so it is never the only good one.
import { SUPERBLOCK_A_OFFSET, SUPERBLOCK_B_OFFSET, SUPERBLOCK_BYTES } from "../base/constants.js";
import {
  decodeSuperblock,
  encodeSuperblock,
  isLater,
  type Superblock,
} from "../store/superblock.js";
import type { GrowingDevice } from "./grow.js";

/** Both copies become `superblock`, durably; one that has been left behind goes first. */
export async function replaceSuperblocks(
  device: GrowingDevice,
  superblock: Superblock,
): Promise<void> {
  const read = (offset: number) => decodeSuperblock(device.read(offset, SUPERBLOCK_BYTES));
  const a = read(SUPERBLOCK_A_OFFSET);
  const b = read(SUPERBLOCK_B_OFFSET);
  const aFirst = a === null || (b !== null && isLater(b, a));
  const order = aFirst
    ? [SUPERBLOCK_A_OFFSET, SUPERBLOCK_B_OFFSET]
    : [SUPERBLOCK_B_OFFSET, SUPERBLOCK_A_OFFSET];
  for (const offset of order) {
    device.write(offset, encodeSuperblock(superblock));
    await device.flush();
  }
}

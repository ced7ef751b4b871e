// What the disk itself takes to make something durable, which whoever returns only when it is
// durable waits for at least once.
import { open, rm } from "node:fs/promises";
import { join } from "node:path";

const BLOCK_BYTES = 4096;
const BLOCKS = 256;

/**
 * Milliseconds of each of `count` times: 4 KiB written over, in a file that is there, and synced.
 */
export async function syncTimes(folder: string, count: number): Promise<number[]> {
  const path = join(folder, "synced");
  const file = await open(path, "w");
  try {
    await file.write(Buffer.alloc(BLOCKS * BLOCK_BYTES, 1));
    await file.datasync();
    const block = Buffer.alloc(BLOCK_BYTES, 2);
    const times: number[] = [];
    for (let i = 0; i < count; i++) {
      const started = performance.now();
      await file.write(block, 0, BLOCK_BYTES, (i % BLOCKS) * BLOCK_BYTES);
      await file.datasync();
      times.push(performance.now() - started);
    }
    return times;
  } finally {
    await file.close();
    await rm(path);
  }
}

// What the disk itself takes to make something durable, which whoever returns only when it is
// durable waits for at least once.
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

const BLOCK_BYTES = 4096;
const BLOCKS = 256;

/**
 * Milliseconds of each of `count` times: 4 KiB written over, in a file that is there, and synced.
 */
export function syncTimes(folder: string, count: number): number[] {
  const path = join(folder, "synced");
  const file = openSync(path, "w");
  try {
    writeSync(file, Buffer.alloc(BLOCKS * BLOCK_BYTES, 1));
    fdatasyncSync(file);
    const block = Buffer.alloc(BLOCK_BYTES, 2);
    return Array.from({ length: count }, (_, i) => {
      const started = performance.now();
      writeSync(file, block, 0, BLOCK_BYTES, (i % BLOCKS) * BLOCK_BYTES);
      fdatasyncSync(file);
      return performance.now() - started;
    });
  } finally {
    closeSync(file);
    rmSync(path);
  }
}

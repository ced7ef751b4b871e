// A file with every block written. In one that is only allocated the file system changes its own
// index at the first write to a place, which a device does not: figures would be the file system's.
import { open } from "node:fs/promises";

const CHUNK_BYTES = 4 * 1024 * 1024;

/** Writes each byte of the file onto itself, in place. Nobody else may write meanwhile. */
export async function writeInFull(path: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const { size } = await file.stat();
    for (let at = 0; at < size; at += CHUNK_BYTES) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, at);
      await file.write(chunk, 0, bytesRead, at);
    }
    await file.datasync();
  } finally {
    await file.close();
  }
}

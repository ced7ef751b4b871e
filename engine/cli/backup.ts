// Writes what it is given into a file that is there only when it is whole: under another name
// first, synced, then under its own. Only its owner may read it.
import { existsSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { PandoError } from "../base/errors.js";

/** How many bytes there were. EEXIST if the file is there. */
export async function writeWhole(path: string, chunks: AsyncIterable<Uint8Array>): Promise<number> {
  const unfinished = `${path}.unfinished`;
  if (existsSync(path)) {
    throw new PandoError("EEXIST", `${path} is there already`, {
      path,
      hint: "choose another name",
    });
  }
  const file = await opened(unfinished);
  let bytes = 0;
  try {
    try {
      for await (const chunk of chunks) {
        await file.writeFile(chunk);
        bytes += chunk.length;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(unfinished, path);
  } catch (error) {
    await rm(unfinished, { force: true });
    throw error;
  }
  const folder = await open(dirname(path), "r");
  await folder.sync().finally(() => folder.close());
  return bytes;
}

async function opened(path: string): Promise<FileHandle> {
  try {
    return await open(path, "wx", 0o600);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PandoError("EINVAL", `${path} cannot be made: ${why}`, { path }, { cause });
  }
}

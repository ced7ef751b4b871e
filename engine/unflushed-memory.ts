// Where a pool's memory is that outlives the daemon: a file on tmpfs, which a killed process leaves
// behind and a power cut takes away. Without tmpfs it is a file beside the store; the boot id tells
// then that the machine was started anew.
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { PandoError } from "./base/errors.js";

const TMPFS = "/dev/shm";
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

export interface UnflushedMemory {
  /** For the data path, which makes it anew. */
  sharedPath: string;
  bootId: string;
  /** What the last daemon left; empty if there is nothing. */
  read(): Uint8Array;
  /** After a clean stop there is nothing to keep. */
  remove(): void;
}

export function unflushedMemory(uuid: string, metaPath: string): UnflushedMemory {
  const folder = existsSync(TMPFS) ? TMPFS : metaPath;
  const sharedPath = join(folder, `pando-${uuid}.unflushed`);
  return {
    sharedPath,
    bootId: readFileSync(BOOT_ID, "latin1").trim(),
    read: () => readOwn(sharedPath),
    remove: () => rmSync(sharedPath, { force: true }),
  };
}

/** Only what this user wrote: the folder is everybody's. */
function readOwn(path: string): Uint8Array {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") {
      return new Uint8Array(0);
    }
    throw foreign(path, cause);
  }
  try {
    const { uid, mode } = fstatSync(file);
    if (uid !== process.geteuid?.() || (mode & 0o077) !== 0) throw foreign(path);
    return readFileSync(file);
  } finally {
    closeSync(file);
  }
}

function foreign(path: string, cause?: unknown): PandoError {
  return new PandoError(
    "EPERM",
    `${path} is not this user's own file: it would hold what the last daemon had acknowledged`,
    { path, hint: "run the daemon as the user that it ran as before, or remove the file" },
    { cause },
  );
}

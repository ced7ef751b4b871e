// The data device as a file of the operating system, for what TypeScript does with it: format it,
// and read it in recovery. The data path opens it by itself, afterwards.
import {
  closeSync,
  fdatasync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";
import { PandoError } from "../base/errors.js";
import type { DeviceReader } from "./recovery.js";

const SECTOR = 512;
const datasync = promisify(fdatasync);

/** Opens a file or a block device; ENOTFOUND if there is none, EINVAL if it is something else. */
export function openDataDevice(path: string, mode: "r" | "r+"): DataDevice {
  let file: number;
  try {
    file = openSync(path, mode);
  } catch (cause) {
    throw ioError(path, cause);
  }
  try {
    return new DataDevice(path, file, sizeOf(path, file));
  } catch (error) {
    closeSync(file);
    throw error;
  }
}

export class DataDevice implements DeviceReader {
  readonly path: string;
  readonly sizeBytes: number;
  readonly #file: number;

  constructor(path: string, file: number, sizeBytes: number) {
    this.path = path;
    this.#file = file;
    this.sizeBytes = sizeBytes;
  }

  read(offsetBytes: number, lengthBytes: number): Uint8Array {
    const bytes = Buffer.alloc(lengthBytes);
    let done = 0;
    try {
      while (done < lengthBytes) {
        const read = readSync(this.#file, bytes, done, lengthBytes - done, offsetBytes + done);
        if (read === 0) throw new Error(`the device ends before ${offsetBytes + lengthBytes}`);
        done += read;
      }
    } catch (cause) {
      throw ioError(this.path, cause);
    }
    return bytes;
  }

  write(offsetBytes: number, bytes: Uint8Array): void {
    let done = 0;
    try {
      while (done < bytes.length) {
        done += writeSync(this.#file, bytes, done, bytes.length - done, offsetBytes + done);
      }
    } catch (cause) {
      throw ioError(this.path, cause);
    }
  }

  async flush(): Promise<void> {
    await datasync(this.#file).catch((cause: unknown) => {
      throw ioError(this.path, cause);
    });
  }

  close(): void {
    closeSync(this.#file);
  }
}

function sizeOf(path: string, file: number): number {
  const stat = fstatSync(file);
  if (stat.isFile()) return stat.size;
  if (stat.isBlockDevice()) {
    // Linux: 12 bits of major from bit 8, 8 bits of minor from bit 0 and the rest from bit 20.
    const major = (stat.rdev >>> 8) & 0xfff;
    const minor = (stat.rdev & 0xff) | ((stat.rdev >>> 12) & 0xfff00);
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, "utf8")) * SECTOR;
  }
  throw new PandoError("EINVAL", `${path} is neither a file nor a block device`, { path });
}

const CODES: Record<string, "ENOTFOUND" | "EPERM" | "ENOSPC" | "EINVAL"> = {
  ENOENT: "ENOTFOUND",
  ENOTDIR: "ENOTFOUND",
  EACCES: "EPERM",
  EPERM: "EPERM",
  ENOSPC: "ENOSPC",
  EISDIR: "EINVAL",
};

function ioError(path: string, cause: unknown): PandoError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const message = cause instanceof Error ? cause.message : String(cause);
  return new PandoError(CODES[code] ?? "EIO", `${path}: ${message}`, { path }, { cause });
}

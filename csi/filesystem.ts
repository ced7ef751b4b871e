// File systems on a volume: found, made, checked, grown.
//
// Only a blank device is formatted: one on which nothing is recognised, and which reads as zeros
// where every file system has something. A raw device that somebody wrote to is neither, and is
// left alone.

import { open } from "node:fs/promises";
import { status } from "@grpc/grpc-js";
import { type FileSystem, isFileSystem } from "./capability.js";
import type { RunCommand } from "./command.js";
import { CsiError } from "./errors.js";

const PROBED_BYTES = 2 * 1024 * 1024;
const READ_BYTES = 256 * 1024;
/** A large journal, or a large device to be made. */
const LONG_MS = 110_000;

/** blkid(8): nothing was found. */
const BLKID_NOTHING = 2;
/** fsck(8): errors were corrected. */
const FSCK_CORRECTED = 1;

/** Nothing is discarded: a blank volume is holes. */
const MAKE: Record<FileSystem, string[]> = {
  ext4: ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"],
  xfs: ["mkfs.xfs", "-q", "-f", "-K"],
  btrfs: ["mkfs.btrfs", "-q", "-f", "-K"],
};

/**
 * XFS refuses to mount two file systems with one UUID, which a clone and its origin have on one
 * node. Giving the clone another one needs a clean log, which a snapshot of a mounted file system
 * never has.
 */
export function mountFlags(fileSystem: FileSystem, asked: string[]): string[] {
  return fileSystem === "xfs" && !asked.includes("nouuid") ? [...asked, "nouuid"] : asked;
}

export class FileSystems {
  readonly #run: RunCommand;

  constructor(run: RunCommand) {
    this.#run = run;
  }

  /** What is on the device; null if it is blank. Refuses what it does not know. */
  async probe(device: string): Promise<FileSystem | null> {
    const args = ["-p", "-o", "export", "-s", "TYPE", "-s", "PTTYPE", "--", device];
    const { code, stdout } = await this.#run("blkid", args, { accept: [0, BLKID_NOTHING] });
    const type = /^TYPE=(.*)$/m.exec(stdout)?.[1];
    if (type !== undefined && isFileSystem(type)) return type;
    const other = type ?? /^PTTYPE=(.*)$/m.exec(stdout)?.[1];
    if (other !== undefined) throw unusable(device, `holds ${other}`);
    if (code === BLKID_NOTHING && (await isZero(device))) return null;
    throw unusable(device, "holds data in which no file system is recognised");
  }

  async make(device: string, fileSystem: FileSystem): Promise<void> {
    const [program = "", ...args] = MAKE[fileSystem];
    try {
      await this.#run(program, [...args, device], { timeoutMs: LONG_MS });
    } catch (error) {
      // Blank again, so that the next try is not refused for what this one left.
      await this.#run("blkdiscard", ["--zeroout", device], { timeoutMs: LONG_MS });
      throw error;
    }
  }

  /**
   * Before it is mounted: after a power cut ext4's journal is replayed and what can be repaired
   * without a question is. XFS and btrfs do that when they are mounted.
   */
  async check(device: string, fileSystem: FileSystem): Promise<void> {
    if (fileSystem !== "ext4") return;
    const accept = [0, FSCK_CORRECTED];
    await this.#run("e2fsck", ["-p", device], { accept, timeoutMs: LONG_MS });
  }

  /** To the size of its device; nothing to do if it has that. Mounted at `path`, read-write. */
  async grow(mounted: { device: string; path: string; fileSystem: FileSystem }): Promise<void> {
    const { device, path, fileSystem } = mounted;
    const options = { timeoutMs: LONG_MS };
    if (fileSystem === "ext4") await this.#run("resize2fs", [device], options);
    else if (fileSystem === "xfs") await this.#run("xfs_growfs", ["-d", path], options);
    else await this.#run("btrfs", ["filesystem", "resize", "max", path], options);
  }
}

async function isZero(path: string): Promise<boolean> {
  const device = await open(path, "r");
  try {
    const buffer = Buffer.alloc(READ_BYTES);
    for (let offsetBytes = 0; offsetBytes < PROBED_BYTES; offsetBytes += READ_BYTES) {
      const { bytesRead } = await device.read(buffer, 0, READ_BYTES, offsetBytes);
      if (buffer.subarray(0, bytesRead).some((byte) => byte !== 0)) return false;
      if (bytesRead < READ_BYTES) return true;
    }
    return true;
  } finally {
    await device.close();
  }
}

function unusable(device: string, why: string): CsiError {
  return new CsiError(
    status.FAILED_PRECONDITION,
    `the volume ${why}, and is not formatted over; if that is worth nothing: wipefs -a ${device}; blkdiscard -z ${device}`,
  );
}

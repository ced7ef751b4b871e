// Raw files that share their blocks (FICLONE) as something that branches, on a file system of their
// own: in a file, on a loop device that goes around the page cache. Served by qemu-storage-daemon.
// Needs root.
import { execFileSync } from "node:child_process";
import { constants, existsSync, mkdirSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { copyFile, open } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Branches } from "./branches.js";
import { makeRaw, QemuServer } from "./qemu.js";

export type ReflinkFileSystem = "xfs" | "btrfs";

const MKFS: Record<ReflinkFileSystem, string[]> = {
  xfs: ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
  btrfs: ["mkfs.btrfs", "-q", "-f"],
};

/** Mounted now: mount points and their loop devices. */
const mounted = new Map<string, string>();

/** For a run that is cut short: its servers are still ending, so it lets go when they have. */
export function unmountAll(): void {
  for (const place of mounted.keys()) unmount(place, ["--lazy"]);
}

/** Null if it can be measured here, else why not. */
export function reflinkAbsence(kind: ReflinkFileSystem): string | null {
  if (process.getuid?.() !== 0) return "mounting needs root";
  if (!existsSync("/dev/loop-control")) return "there are no loop devices";
  if (!new RegExp(`\\b${kind}$`, "m").test(readFileSync("/proc/filesystems", "utf8"))) {
    return `this kernel has no ${kind}`;
  }
  return null;
}

export async function reflinkBranches(
  kind: ReflinkFileSystem,
  folder: string,
  fileSystemBytes: number,
): Promise<Branches> {
  const { place, device } = mount(kind, folder, fileSystemBytes);
  const server = await QemuServer.start();
  const pathOf = (name: string) => join(place, `${name}.raw`);
  return {
    name: `${kind} reflink`,
    uri: (volume) => server.uri(volume),
    async create(volume, sizeBytes) {
      makeRaw(pathOf(volume), sizeBytes);
      await server.serve(volume, "raw", pathOf(volume));
    },
    snapshot: (volume, snapshot) => share(pathOf(volume), pathOf(`${volume}@${snapshot}`)),
    async clone(volume, snapshot, clone) {
      await share(pathOf(`${volume}@${snapshot}`), pathOf(clone));
      await server.serve(clone, "raw", pathOf(clone));
    },
    async deleteClone(clone) {
      await server.withdraw(clone);
      rmSync(pathOf(clone));
    },
    async allocatedBytes() {
      const { blocks, bfree, bsize } = statfsSync(place);
      return (blocks - bfree) * bsize;
    },
    writtenBytes: () => deviceWrittenBytes(device),
    async stop() {
      await server.stop();
      unmount(place);
    },
  };
}

/** Durable when it returns, as Pando's calls are. */
async function share(from: string, to: string): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
  const file = await open(to, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function mount(
  kind: ReflinkFileSystem,
  folder: string,
  bytes: number,
): { place: string; device: string } {
  const image = join(folder, "file-system");
  const place = join(folder, "mounted");
  // As a pool: allocated, not yet written.
  execFileSync("fallocate", ["--length", `${bytes}`, image]);
  mkdirSync(place);
  const losetup = ["--find", "--show", "--direct-io=on", image];
  const device = execFileSync("losetup", losetup, { encoding: "utf8" }).trim();
  try {
    const [command = "", ...args] = MKFS[kind];
    execFileSync(command, [...args, device], { stdio: ["ignore", "ignore", "pipe"] });
    execFileSync("mount", [device, place]);
  } catch (error) {
    execFileSync("losetup", ["--detach", device]);
    throw error;
  }
  mounted.set(place, device);
  return { place, device };
}

function unmount(place: string, how: string[] = []): void {
  const device = mounted.get(place);
  if (device === undefined) return;
  execFileSync("umount", [...how, place]);
  mounted.delete(place);
  execFileSync("losetup", ["--detach", device]);
}

/** Linux, Documentation/block/stat.rst: the seventh field, in sectors of 512 bytes. */
function deviceWrittenBytes(device: string): number {
  const fields = readFileSync(`/sys/block/${basename(device)}/stat`, "utf8")
    .trim()
    .split(/\s+/);
  return Number(fields[6]) * 512;
}

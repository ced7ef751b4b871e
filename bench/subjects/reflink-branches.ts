// Raw files that share their blocks (FICLONE) as something that branches, on a file system of their
// own: in a file, on a loop device that goes around the page cache. Served by qemu-storage-daemon.
// Needs root.
import { execFileSync } from "node:child_process";
import { constants, existsSync, mkdirSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { copyFile, open } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Branches } from "./branches.js";
import { attachLoop, mount } from "./mounts.js";
import { makeRaw, QemuServer } from "./qemu.js";
import { writeInFull } from "./written-file.js";

export type ReflinkFileSystem = "xfs" | "btrfs";

const MKFS: Record<ReflinkFileSystem, string[]> = {
  xfs: ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"],
  btrfs: ["mkfs.btrfs", "-q", "-f"],
};

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
  const { place, device, unmount } = await makeFileSystem(kind, folder, fileSystemBytes);
  const server = await QemuServer.start();
  const pathOf = (name: string) => join(place, `${name}.raw`);
  return {
    name: `${kind} reflink`,
    uri: (volume) => server.uri(volume),
    async create(volume, sizeBytes) {
      makeRaw(pathOf(volume), sizeBytes);
      await server.serve(volume, "raw", pathOf(volume));
    },
    nothing: null,
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
      unmount();
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

async function makeFileSystem(
  kind: ReflinkFileSystem,
  folder: string,
  bytes: number,
): Promise<{ place: string; device: string; unmount: () => void }> {
  const image = join(folder, "file-system");
  const place = join(folder, "mounted");
  execFileSync("fallocate", ["--length", `${bytes}`, image]);
  await writeInFull(image);
  mkdirSync(place);
  const { device, detach } = attachLoop(image, { direct: true });
  try {
    const [command = "", ...args] = MKFS[kind];
    execFileSync(command, [...args, device], { stdio: ["ignore", "ignore", "pipe"] });
    const unmount = mount(device, place);
    return {
      place,
      device,
      unmount() {
        unmount();
        detach();
      },
    };
  } catch (error) {
    detach();
    throw error;
  }
}

/** Linux, Documentation/block/stat.rst: the seventh field, in sectors of 512 bytes. */
function deviceWrittenBytes(device: string): number {
  const fields = readFileSync(`/sys/block/${basename(device)}/stat`, "utf8")
    .trim()
    .split(/\s+/);
  return Number(fields[6]) * 512;
}

// What the kernel knows of a block device, by sysfs and /proc.
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from "node:fs";
import { basename, join } from "node:path";
import { sleep } from "./base/clock.js";
import { PandoError } from "./base/errors.js";
import type { Disk } from "./gpt.js";
import { runCommand } from "./run-command.js";

/** The kernel counts in these, whatever the device's own are. */
const KERNEL_SECTOR = 512;
const PATIENCE_MS = 10_000;
const LOOK_EVERY_MS = 50;

export function isBlockDevice(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isBlockDevice() === true;
}

/** MAJOR:MINOR */
export function deviceNumber(path: string): string {
  const { rdev } = statSync(path);
  const major = Math.floor(rdev / 256) % 4096;
  const minor = (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;
  return `${major}:${minor}`;
}

function sysfs(path: string): string {
  return realpathSync(`/sys/dev/block/${deviceNumber(path)}`);
}

export function isPartition(path: string): boolean {
  return existsSync(join(sysfs(path), "partition"));
}

export function diskOf(path: string): Disk {
  const folder = sysfs(path);
  const number = (name: string) => Number(readFileSync(join(folder, name), "utf8"));
  const sectorBytes = number("queue/logical_block_size");
  return { sectorBytes, sectors: (number("size") * KERNEL_SECTOR) / sectorBytes };
}

/** Partitions that the kernel has of it: its number and where its node is. */
export function partitionsOf(path: string): Map<number, string> {
  const found = new Map<number, string>();
  const folder = sysfs(path);
  for (const name of readdirSync(folder)) {
    const file = join(folder, name, "partition");
    if (existsSync(file)) found.set(Number(readFileSync(file, "utf8")), `/dev/${basename(name)}`);
  }
  return found;
}

/** EBUSY if a file system, a mapping, an array or a swap has it: the kernel says so itself. */
export function requireUnused(path: string): void {
  try {
    closeSync(openSync(path, constants.O_RDWR | constants.O_EXCL));
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    const why = cause instanceof Error ? cause.message : String(cause);
    if (code !== "EBUSY") {
      throw new PandoError("EPERM", `${path} does not open: ${why}`, { path }, { cause });
    }
    throw new PandoError(
      "EBUSY",
      `${path} is in use: mounted, or a part of something else`,
      { path, hint: `lsblk ${path}` },
      { cause },
    );
  }
}

/** Tells the kernel of these partitions, also one that does not read such tables by itself. */
export async function readPartitions(path: string, numbers: readonly number[]): Promise<void> {
  await runCommand("partx", ["--update", path]);
  const there = (): boolean => {
    const found = partitionsOf(path);
    return numbers.every((number) => existsSync(found.get(number) ?? ""));
  };
  for (let waited = 0; !there(); waited += LOOK_EVERY_MS) {
    if (waited > PATIENCE_MS) {
      throw new PandoError("EIO", `${path}: its partitions do not appear`, {
        path,
        hint: "a loop device needs losetup --partscan",
      });
    }
    await sleep(LOOK_EVERY_MS);
  }
}

export interface Mount {
  folder: string;
}

/** Where it is mounted, in this process's view. */
export function mountsOf(path: string): Mount[] {
  const wanted = deviceNumber(path);
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , number]) => number === wanted)
    .map(([, , , , folder = ""]) => ({ folder: unescapeMount(folder) }));
}

function unescapeMount(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

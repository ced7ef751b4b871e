// What the figures were made on, as far as it explains them, and how noisy it was.
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";

export interface Machine {
  cpu: string;
  cores: number;
  memoryBytes: number;
  kernel: string;
  virtual: boolean;
  /** Of the folder that was measured in. */
  fileSystem: string;
  device: string;
  /** First lines of what the programs say of themselves; "" if one is not there. */
  versions: Record<string, string>;
  commit: string;
  /** Of the last minute, before the first measurement and after the last. */
  loadBefore: number;
  loadAfter: number;
}

const PROGRAMS: Record<string, string[]> = {
  fio: ["fio", "--version"],
  "qemu-storage-daemon": ["qemu-storage-daemon", "--version"],
  pgbench: ["pgbench", "--version"],
};

export function describeMachine(folder: string): Machine {
  const [source = "unknown", type = "unknown"] = output("findmnt", [
    ...["--noheadings", "--raw", "--output", "SOURCE,FSTYPE", "--target", folder],
  ]).split(" ");
  const programs = Object.entries(PROGRAMS).map(([name, [command = "", ...args]]) => {
    return [name, output(command, args).split("\n")[0] ?? ""];
  });
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    memoryBytes: totalmem(),
    // The release alone: what follows it names somebody's build.
    kernel: /^[\d.]*\d/.exec(output("uname", ["-r"]))?.[0] ?? "unknown",
    virtual: /^flags\s*:.*\bhypervisor\b/m.test(contents("/proc/cpuinfo")),
    fileSystem: type,
    device: `${source}, ${deviceModel(folder)}`,
    versions: { ...Object.fromEntries(programs), node: process.version },
    commit: output("git", ["describe", "--always", "--dirty", "--abbrev=10"]),
    loadBefore: loadNow(),
    loadAfter: loadNow(),
  };
}

export function loadNow(): number {
  return Math.round((loadavg()[0] ?? 0) * 100) / 100;
}

/** Bytes that the device below the folder has read and written; null where Linux does not say. */
export function deviceTraffic(folder: string): { readBytes: number; writtenBytes: number } | null {
  // Linux, Documentation/block/stat.rst: sectors of 512 bytes.
  const fields = contents(`${deviceFolder(folder)}/stat`)
    .trim()
    .split(/\s+/)
    .map(Number);
  const [, , read = Number.NaN, , , , written = Number.NaN] = fields;
  if (Number.isNaN(read) || Number.isNaN(written)) return null;
  return { readBytes: read * 512, writtenBytes: written * 512 };
}

function deviceModel(folder: string): string {
  const place = deviceFolder(folder);
  for (const file of [`${place}/device/model`, `${place}/../device/model`]) {
    const model = contents(file).trim();
    if (model !== "") return model;
  }
  const rotational = contents(`${place}/queue/rotational`).trim();
  return rotational === "1" ? "rotational" : "not rotational";
}

function deviceFolder(folder: string): string {
  const { dev } = statSync(folder);
  // glibc's encoding of a device number.
  const major = Math.floor(dev / 256) % 4096;
  const minor = (dev % 256) + Math.floor(dev / 2 ** 20) * 256;
  return `/sys/dev/block/${major}:${minor}`;
}

function contents(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // not a block device, or not this kernel
  }
}

function output(command: string, args: string[]): string {
  try {
    const stdio = ["ignore", "pipe", "ignore"] as const;
    return execFileSync(command, args, { encoding: "utf8", stdio: [...stdio] }).trim();
  } catch {
    return ""; // it is not installed, or has nothing to say here
  }
}

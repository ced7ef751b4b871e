// What this machine can serve and use, what is missing for it, and the command that mends it. Looks
// only: nothing is loaded, mounted or changed. The root of the file system is passed in, so that a
// test has a machine of its own.
import { access, readdir, readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";

export interface Finding {
  /** What it is needed for. */
  what: string;
  ok: boolean;
  /** What was found. */
  found: string;
  /** The command that mends it; null if there is nothing to mend, or no command. */
  remedy: string | null;
}

export interface Machine {
  root: string;
  /** As `uname -r` prints it. */
  kernel: string;
  /** Of this process. */
  userId: number;
  /** Flags of ublk's features that the kernel lacks; rejects without ublk. */
  ublkMissing(): Promise<number>;
  /** Whether the kernel's NBD driver is loaded. */
  nbdIsLoaded(): Promise<boolean>;
}

const MIN_KERNEL = [6, 1] as const;

export async function examine(machine: Machine): Promise<Finding[]> {
  return Promise.all([
    examineKernel(machine),
    examineIoUring(machine),
    examineTarget(),
    examineRoot(machine),
    examineConfigfs(machine),
    examineNvmet(machine),
    examineBlockDevices(machine),
    examineMounts(machine),
    examineInitiator(machine),
    examineTls(machine),
    examineTlshd(machine),
  ]);
}

async function examineKernel({ kernel }: Machine): Promise<Finding> {
  const [major = 0, minor = 0] = kernel.split(".").map((part) => Number.parseInt(part, 10));
  const ok = major > MIN_KERNEL[0] || (major === MIN_KERNEL[0] && minor >= MIN_KERNEL[1]);
  const found = ok ? `Linux ${kernel}` : `Linux ${kernel}, older than ${MIN_KERNEL.join(".")}`;
  return { what: "kernel", ok, found, remedy: null };
}

async function examineIoUring({ root }: Machine): Promise<Finding> {
  const path = "/proc/sys/kernel/io_uring_disabled";
  // Kernels before 6.6 have no such switch.
  const value = (await text(root, path)) ?? "0";
  const ok = value === "0";
  return {
    what: "io_uring",
    ok,
    found: ok ? "on" : `${path} is ${value}`,
    remedy: ok ? null : "sysctl -w kernel.io_uring_disabled=0",
  };
}

/** It needs nothing of the kernel. */
async function examineTarget(): Promise<Finding> {
  return { what: "embedded NVMe/TCP target", ok: true, found: "built in", remedy: null };
}

async function examineRoot({ userId }: Machine): Promise<Finding> {
  const ok = userId === 0;
  return {
    what: "share --via nvmet: rights",
    ok,
    found: ok ? "root" : `user ${userId}; the daemon has to run as root for it`,
    remedy: null,
  };
}

async function examineConfigfs({ root }: Machine): Promise<Finding> {
  const mounts = (await text(root, "/proc/mounts")) ?? "";
  const ok = mounts.split("\n").some((line) => / \/sys\/kernel\/config configfs /.test(line));
  return {
    what: "share --via nvmet: configfs",
    ok,
    found: ok ? "mounted" : "not mounted on /sys/kernel/config",
    remedy: ok ? null : "mount -t configfs configfs /sys/kernel/config",
  };
}

async function examineNvmet({ root }: Machine): Promise<Finding> {
  const folder = "/sys/kernel/config/nvmet";
  const [loaded, tcp] = [await exists(root, folder), await exists(root, "/sys/module/nvmet_tcp")];
  const found = !loaded ? `no ${folder}` : tcp ? "loaded" : "nvmet without its TCP transport";
  const ok = loaded && tcp;
  return {
    what: "share --via nvmet: nvmet",
    ok,
    found,
    remedy: ok ? null : "modprobe nvmet-tcp",
  };
}

/** ublk's, or the kernel's NBD devices in their place. */
async function examineBlockDevices(machine: Machine): Promise<Finding> {
  const what = "share --via nvmet: ublk or nbd";
  const { found, remedy } = await examineUblk(machine);
  if (remedy === null && found === COMPLETE) return { what, ok: true, found: "ublk", remedy };
  if (await machine.nbdIsLoaded().catch(() => false)) {
    return { what, ok: true, found: `nbd; ublk: ${found}`, remedy: null };
  }
  return { what, ok: false, found: `no nbd; ublk: ${found}`, remedy: remedy ?? "modprobe nbd" };
}

const COMPLETE = "complete";

async function examineUblk({ root, ublkMissing }: Machine): Promise<Omit<Finding, "what" | "ok">> {
  const path = "/dev/ublk-control";
  if (!(await exists(root, path))) {
    return { found: `no ${path}`, remedy: "modprobe ublk_drv || modprobe nbd" };
  }
  try {
    const missing = await ublkMissing();
    if (missing === 0) return { found: COMPLETE, remedy: null };
    const lacks = `lacks features 0x${missing.toString(16)}; Linux 6.5 or newer has them`;
    return { found: lacks, remedy: null };
  } catch (error) {
    return { found: `${path} does not answer: ${(error as Error).message}`, remedy: null };
  }
}

/**
 * A daemon with mounts of its own, in which somebody has mounted what it serves, cannot end: its
 * last act would be to unmount that, which needs itself.
 */
async function examineMounts({ root }: Machine): Promise<Finding> {
  const what = "share --via nvmet: mounts";
  const namespace = (of: string) => readlink(join(root, `/proc/${of}/ns/mnt`)).catch(() => null);
  const [own, first] = [await namespace("self"), await namespace("1")];
  const mounts = (await text(root, "/proc/self/mounts")) ?? "";
  let ours: string | undefined;
  for (const line of mounts.split("\n")) {
    if (await isOurs(root, line.split(" ")[0] ?? "")) ours ??= line;
  }
  const shared = own !== null && own === first;
  if (ours === undefined || shared) {
    return {
      what,
      ok: true,
      found: "no device of a daemon is mounted where it could do harm",
      remedy: null,
    };
  }
  const [device = "", place = ""] = ours.split(" ");
  return {
    what,
    ok: false,
    found: `${device} is mounted on ${place}, among mounts that end with this container or service`,
    remedy: `umount ${place}`,
  };
}

async function isOurs(root: string, device: string): Promise<boolean> {
  const [, name, number] = /^\/dev\/(ublkb|nbd)([0-9]+)$/.exec(device) ?? [];
  if (name !== "nbd") return name === "ublkb";
  return (await text(root, `/sys/block/nbd${number}/backend`))?.startsWith("pando ") === true;
}

async function examineInitiator({ root }: Machine): Promise<Finding> {
  const path = "/dev/nvme-fabrics";
  const device = await exists(root, path);
  const tcp = await exists(root, "/sys/module/nvme_tcp");
  const ok = device && tcp;
  const found = !device ? `no ${path}` : tcp ? "loaded" : "nvme-fabrics without its TCP transport";
  return {
    what: "connecting from this machine",
    ok,
    found,
    remedy: ok ? null : "modprobe nvme-tcp",
  };
}

/** Of both ends; a module that is not loaded shows nothing. */
async function examineTls({ root }: Machine): Promise<Finding> {
  const symbols = (await text(root, "/proc/kallsyms")) ?? "";
  const target = symbols.includes("nvmet_tcp_tls_handshake");
  const host = symbols.includes("nvme_tcp_tls_done");
  const found = [
    target ? "shared volumes can have it" : "nvmet has none",
    host ? "connections from this machine too" : "nvme-tcp has none",
  ].join(", ");
  const loaded =
    (await exists(root, "/sys/module/nvmet_tcp")) && (await exists(root, "/sys/module/nvme_tcp"));
  const ok = target && host;
  return {
    what: "TLS of Linux's target and hosts",
    ok,
    found: ok || !loaded ? found : `${found}: it takes Linux 6.7 or newer`,
    remedy: ok || loaded ? null : "modprobe -a nvmet-tcp nvme-tcp",
  };
}

/** It makes the handshakes of both ends. */
async function examineTlshd({ root }: Machine): Promise<Finding> {
  const processes = await readdir(join(root, "/proc")).catch(() => []);
  const names = await Promise.all(
    processes
      .filter((name) => /^[0-9]+$/.test(name))
      .map((process) => text(root, `/proc/${process}/comm`)),
  );
  const ok = names.includes("tlshd");
  return {
    what: "TLS of Linux's target and hosts: tlshd",
    ok,
    found: ok ? "running" : "not running, or not to be seen from this container",
    remedy: ok ? null : "apt install ktls-utils && systemctl enable --now tlshd",
  };
}

async function exists(root: string, path: string): Promise<boolean> {
  return access(join(root, path)).then(
    () => true,
    () => false,
  );
}

async function text(root: string, path: string): Promise<string | null> {
  const at = join(root, path);
  const info = await stat(at).catch(() => null);
  if (info === null) return null;
  return (await readFile(at, "utf8").catch(() => "")).trim();
}

// What the kernel's NVMe initiator has, as sysfs shows it: controllers, and the block devices of
// their namespaces.
//
// A device is found by its namespace's UUID and its subsystem's NQN, never by its name: the kernel
// gives /dev/nvme1n1 to another volume after a reconnect.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** Passed in, so that tests have a kernel of their own. */
export interface KernelRoots {
  /** /sys */
  readonly sysfs: string;
  /** /dev */
  readonly dev: string;
}

export const kernelRoots: KernelRoots = { sysfs: "/sys", dev: "/dev" };

export interface Controller {
  /** nvme3 */
  name: string;
  nqn: string;
  /** Null where the kernel does not say. */
  hostNqn: string | null;
  /** new, live, resetting, connecting, deleting, dead … */
  state: string;
  /** traddr=…,trsvcid=… */
  address: string;
  /** Of one that is not live, whether it may be. */
  tls: boolean;
}

export interface BlockDevice {
  /** /dev/nvme3n1 */
  path: string;
  /** nvme3n1 */
  name: string;
  /** MAJOR:MINOR, as /proc/self/mountinfo names it. */
  number: string;
  sizeBytes: number;
  nqn: string;
}

/** The block layer counts in these, whatever the device's own unit is. */
const SYSFS_SECTOR_BYTES = 512;

/** Of one subsystem: of the others, which may be many, nothing but their names is read. */
export async function listControllers(roots: KernelRoots, nqn: string): Promise<Controller[]> {
  const folder = join(roots.sysfs, "class/nvme");
  const found: Controller[] = [];
  for (const name of await list(folder)) {
    const attribute = (attributeName: string) => read(join(folder, name, attributeName));
    if ((await attribute("subsysnqn")) !== nqn) continue;
    const state = await attribute("state");
    // It went while it was looked at.
    if (state === null) continue;
    const address = (await attribute("address")) ?? "";
    // Without TLS it is not there, and in the first kernels that know TLS there and empty, which it
    // is with TLS too, until the handshake.
    const key = await attribute("tls_key");
    const tls = key !== null && (key !== "" || state !== "live");
    found.push({ name, nqn, state, address, tls, hostNqn: await attribute("hostnqn") });
  }
  return found;
}

/** The device of the namespace with this UUID, once it has a size; else null. */
export async function findDevice(
  roots: KernelRoots,
  namespace: { nqn: string; uuid: string },
): Promise<BlockDevice | null> {
  const folder = join(roots.sysfs, "block");
  for (const name of await list(folder)) {
    // nvme0c1n1 is one path to nvme0n1, and hidden.
    if (!/^nvme\d+n\d+$/.test(name)) continue;
    const attribute = (attributeName: string) => read(join(folder, name, attributeName));
    if ((await attribute("uuid"))?.toLowerCase() !== namespace.uuid) continue;
    if ((await attribute("device/subsysnqn")) !== namespace.nqn) continue;
    const sectors = Number(await attribute("size"));
    const number = await attribute("dev");
    if (!(sectors > 0) || number === null) return null;
    const sizeBytes = sectors * SYSFS_SECTOR_BYTES;
    return { path: join(roots.dev, name), name, number, sizeBytes, nqn: namespace.nqn };
  }
  return null;
}

async function list(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

async function read(path: string): Promise<string | null> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch {
    // Attributes come and go with their device; one that cannot be read says nothing.
    return null;
  }
}

function isGone(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

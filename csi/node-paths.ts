// The places that Kubernetes gives to the node plugin: made and removed without ever touching what
// is in them.
import { chmod, chown, lstat, mkdir, open, rmdir, stat, unlink } from "node:fs/promises";
import { invalid } from "./errors.js";

export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { mode: 0o750 }).catch(unlessExists);
}

/** A block device is bound onto a file. */
export async function makeFile(path: string): Promise<void> {
  const file = await open(path, "wx", 0o660).catch(unlessExists);
  await file?.close();
}

/** An empty folder or file; what is absent is removed. A folder that is not empty stays. */
export async function removePlace(path: string): Promise<void> {
  try {
    const stats = await lstat(path);
    await (stats.isDirectory() ? rmdir(path) : unlink(path));
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
  }
}

/** MAJOR:MINOR of the block device at this path, or null. */
export async function blockDeviceAt(path: string): Promise<string | null> {
  try {
    const stats = await stat(path);
    if (!stats.isBlockDevice()) return null;
    // As glibc's gnu_dev_major() and gnu_dev_minor() take it apart.
    const device = BigInt(stats.rdev);
    const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
    const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn & 0xffffffffn);
    return `${major}:${minor}`;
  } catch {
    return null;
  }
}

/**
 * The group may use the file system: its root belongs to the group, and what is made in it will.
 * What is in it already stays as it is: a walk over a whole database would copy, on a clone, every
 * inode that it touches.
 */
export async function giveToGroup(path: string, group: string): Promise<void> {
  const groupId = Number(group);
  if (!/^[0-9]{1,10}$/.test(group)) {
    throw invalid("volume_capability.mount.volume_mount_group", `is ${group}, not a number`);
  }
  const { gid, uid, mode } = await stat(path);
  const wanted = mode | 0o2770;
  if (gid !== groupId) await chown(path, uid, groupId);
  if (mode !== wanted) await chmod(path, wanted & 0o7777);
}

function unlessExists(error: unknown): undefined {
  if (!hasCode(error, "EEXIST")) throw error;
  return undefined;
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

// Mounts of its own for a daemon that serves block devices.
//
// The last process of a mount namespace unmounts all of it when it ends. If that was a file system
// on one of the daemon's devices, the end would wait for the writing back that only the daemon can
// do: it never ends, and whoever waits for its end never starts the next one. So the daemon takes a
// copy of the mounts for itself, into which nothing comes that others mount later, and throws out
// of it what is on a volume already.
//
// A thread's mounts are its own, and the runtime has many threads by now: the program is executed
// again, which leaves one. A variable of the environment tells that it was.
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { parseVolumeNqn } from "../engine/base/nqn.js";
import type { Addon } from "../native/native.js";

export interface OwnMountsParts {
  calls: Pick<Addon, "mountsSeparate" | "mountDetach" | "executeAgain">;
  /** Of the file system, as far as proc and sysfs are concerned. */
  root: string;
  processId: number;
  /** The variable's value, as it is now. */
  marker: string | undefined;
  /** With the program's name. */
  arguments: readonly string[];
}

export const MARKER = "PANDO_OWN_MOUNTS";

/** Does not return in the process that began; returns at once in the one that it becomes. */
export async function takeOwnMounts(parts: OwnMountsParts): Promise<void> {
  const { calls, root, processId, marker } = parts;
  // A child of such a daemon has the variable too, but is another process.
  if (marker === String(processId)) return;
  calls.mountsSeparate();
  const table = await readFile(join(root, "/proc/self/mountinfo"), "utf8");
  // Those that lie over others come later in the table.
  for (const { device, place } of parseMounts(table).reverse()) {
    if (await isServed(root, basename(device))) calls.mountDetach(place);
  }
  calls.executeAgain([...parts.arguments], MARKER, String(processId));
}

export interface Mount {
  device: string;
  place: string;
}

/** Mounts of block devices in a table as /proc/self/mountinfo has it (proc(5)). */
export function parseMounts(table: string): Mount[] {
  return table.split("\n").flatMap((line) => {
    const [left = "", right = ""] = line.split(" - ");
    const place = left.split(" ")[4];
    const device = right.split(" ")[1];
    if (place === undefined || device?.startsWith("/dev/") !== true) return [];
    return [{ device: readable(device), place: readable(place) }];
  });
}

/** Whether its data goes through a daemon of ours: by itself, or by what it lies on. */
async function isServed(root: string, name: string): Promise<boolean> {
  if (/^(ublkb|nbd)\d/.test(name)) return true;
  const device = name.replace(/(\d)p\d+$/, "$1");
  const folder = join(root, "/sys/class/block", device);
  const nqn = await readFile(join(folder, "device/subsysnqn"), "utf8").catch(() => "");
  if (parseVolumeNqn(nqn.trim()) !== null) return true;
  for (const lower of await readdir(join(folder, "slaves")).catch(() => [])) {
    if (await isServed(root, lower)) return true;
  }
  return false;
}

/** Blanks and the like are there as three octal digits. */
function readable(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

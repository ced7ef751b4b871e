// A volume that is served over NBD, as a file system on this machine without a kernel that knows
// NBD: nbdfuse makes a file of it, a loop device a block device of the file, and ext4 is on that.
// Every layer passes a flush on. All subjects go this way, so that only the storage differs.
import { execFileSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { missingPrograms } from "../suite.js";
import { adoptMount, attachLoop, makePlaces, mount } from "./mounts.js";
import { pause, ServerProcess } from "./server-process.js";

const APPEAR_TIMEOUT_MS = 10_000;
const POLL_MS = 10;

let mounts = 0;

/** Null if it can be done here, else why not. */
export function nbdMountAbsence(): string | null {
  if (process.getuid?.() !== 0) return "mounting needs root";
  if (!existsSync("/dev/loop-control")) return "there are no loop devices";
  if (!existsSync("/dev/fuse")) return "there is no FUSE";
  const missing = missingPrograms(["nbdfuse", "nbdcopy", "mkfs.ext4", "losetup", "mount"]);
  return missing.length === 0 ? null : `these programs are missing: ${missing.join(", ")}`;
}

export interface NbdMount {
  place: string;
  /** Everything that was written is durable then. */
  unmount(): Promise<void>;
}

/** `make`: with a new file system. */
export async function mountNbd(
  uri: string,
  { make = false }: { make?: boolean } = {},
): Promise<NbdMount> {
  // Below the folder for temporary files, which every user may pass through, unlike the suite's.
  mounts += 1;
  const folder = join(tmpdir(), `pando-bench-mount-${process.pid}-${mounts}`);
  const [disks, place] = [join(folder, "disks"), join(folder, "files")];
  const undo = [makePlaces([folder, disks, place])];
  const undoAll = (): void => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) step();
  };
  const disk = join(disks, "disk");
  const fuse = await ServerProcess.start({
    name: "nbdfuse",
    command: "nbdfuse",
    args: [disk, uri],
    sockets: [],
  });
  try {
    await appears(disk);
    undo.push(adoptMount(disks));
    const { device, detach } = attachLoop(disk, { direct: false });
    undo.push(detach);
    if (make) execFileSync("mkfs.ext4", ["-q", "-E", "nodiscard", device]);
    undo.push(mount(device, place));
  } catch (error) {
    undoAll();
    await fuse.stop();
    throw error;
  }
  return {
    place,
    async unmount() {
      undoAll();
      await fuse.stop();
    },
  };
}

async function appears(path: string): Promise<void> {
  const deadline = Date.now() + APPEAR_TIMEOUT_MS;
  while (!existsSync(path) || statSync(path).size === 0) {
    if (Date.now() > deadline) throw new Error(`nbdfuse does not give ${path}`);
    await pause(POLL_MS);
  }
}

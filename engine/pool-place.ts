// Where the parts of a pool are, and what has to be done before they can be used.
//
//   a folder                          data, and meta/ beside it
//   a block device, `meta` is named   the device, and that folder
//   a block device by itself          its partitions: data, and a file system with meta/ in it,
//   which
//                                     is mounted for as long as the pool is used
//
// The pool's lock comes first (on the data), so whoever mounts is alone. A daemon that was killed
// leaves its mount behind: it is taken over.
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { PandoError } from "./base/errors.js";
import {
  deviceNumber,
  diskOf,
  isBlockDevice,
  mountsOf,
  partitionsOf,
  readPartitions,
} from "./block-device.js";
import { openDataDevice } from "./core/data-device.js";
import { type PoolPaths, poolPaths } from "./core/format.js";
import { DATA_TYPE, decodeGpt, META_TYPE } from "./gpt.js";
import { runCommand } from "./run-command.js";

/**
 * How the metadata's file system is mounted. "untouched": nothing of the device is written, not
 * even what the file system itself has to make good after a power cut; it is refused if there is
 * such.
 */
export type PlaceMode = "write" | "read" | "untouched";

export interface PoolPlace {
  data: string;
  /** With the pool's lock held. */
  open(mode: PlaceMode): Promise<OpenPlace>;
}

export interface OpenPlace {
  paths: PoolPaths;
  close(): Promise<void>;
}

const MOUNTS = "/run/pando/devices";
const OPTIONS = "nodev,nosuid,noexec";
/**
 * The superblock of ext4: at 1,024, its incompatible features at 0x60; 4: its journal has
 * something.
 */
const EXT4_FEATURES_AT = 1024 + 0x60;
const EXT4_NEEDS_RECOVERY = 4;

export async function poolPlace(path: string, metaPath: string | null): Promise<PoolPlace> {
  if (!isBlockDevice(path) || metaPath !== null) {
    const paths = poolPaths(path, metaPath ?? undefined);
    return {
      data: paths.data,
      open: async () => ({ paths, close: async () => undefined }),
    };
  }
  const { meta, data, uuid } = await findPartitions(path);
  return {
    data,
    open: async (mode) => {
      const { folder, unmount } = await mount(meta, join(MOUNTS, uuid), mode);
      return { paths: { data, meta: join(folder, "meta") }, close: unmount };
    },
  };
}

export interface PoolPartitions {
  meta: string;
  data: string;
  /** Of the metadata's partition. */
  uuid: string;
}

/** Of which the kernel knows then. ENOTFOUND if the device is not a pool by itself. */
export async function findPartitions(path: string): Promise<PoolPartitions> {
  const disk = diskOf(path);
  const device = openDataDevice(path, "r");
  let table: ReturnType<typeof decodeGpt>;
  try {
    table = decodeGpt(disk, (offset, length) => device.read(offset, length));
  } finally {
    device.close();
  }
  const meta = table?.find(({ type }) => type === META_TYPE);
  const data = table?.find(({ type }) => type === DATA_TYPE);
  if (meta === undefined || data === undefined) {
    throw new PandoError("ENOTFOUND", `${path} is not a pool: it has no partitions of Pando's`, {
      path,
      field: "meta",
      hint: `is its store elsewhere? --meta FOLDER; pando pool create ${path} makes a pool of it`,
    });
  }
  const numbers = [meta.number, data.number];
  if (!numbers.every((number) => partitionsOf(path).has(number))) {
    await readPartitions(path, numbers);
  }
  const known = partitionsOf(path);
  const node = (number: number): string => known.get(number) ?? `${path} ${number}`;
  return { meta: node(meta.number), data: node(data.number), uuid: meta.uuid };
}

async function mount(
  partition: string,
  folder: string,
  mode: PlaceMode,
): Promise<{ folder: string; unmount(): Promise<void> }> {
  const mounts = mountsOf(partition);
  const other = mounts.find((found) => found.folder !== folder);
  if (other !== undefined) {
    throw new PandoError("EBUSY", `${partition} is mounted on ${other.folder}`, {
      path: partition,
      hint: `umount ${other.folder}`,
    });
  }
  const isLeft = mounts.length > 0;
  if (!isLeft) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    await runCommand("mount", ["-t", "ext4", "-o", optionsOf(partition, mode), partition, folder]);
  }
  return {
    folder,
    async unmount() {
      // Who only reads leaves a daemon's mount as it was left.
      if (isLeft && mode !== "write") return;
      await runCommand("umount", [folder]);
      rmdirSync(folder);
    },
  };
}

function optionsOf(partition: string, mode: PlaceMode): string {
  if (mode === "write") return OPTIONS;
  if (mode === "read") return `${OPTIONS},ro`;
  const device = openDataDevice(partition, "r");
  try {
    const features = Buffer.from(device.read(EXT4_FEATURES_AT, 4)).readUInt32LE(0);
    if ((features & EXT4_NEEDS_RECOVERY) === 0) return `${OPTIONS},ro,noload`;
  } finally {
    device.close();
  }
  throw new PandoError("EBUSY", `${partition} (${deviceNumber(partition)}) was not unmounted`, {
    path: partition,
    hint: `its own journal has to be replayed first, which writes to it: e2fsck -p ${partition}`,
  });
}

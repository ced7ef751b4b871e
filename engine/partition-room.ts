// What a pool that is a block device by itself may still have there: its data partition takes what
// is free behind it, after the device has become larger.
//
// The kernel is told only when the table is durable. A process that ends in between leaves a kernel
// that knows less than the table: it is told whenever the two differ.
import { sleep } from "./base/clock.js";
import { PandoError } from "./base/errors.js";
import { diskOf, isBlockDevice, readPartitions } from "./block-device.js";
import { openDataDevice } from "./core/data-device.js";
import { DATA_TYPE, type ReadDisk } from "./gpt.js";
import { type Enlarged, enlargePartition } from "./gpt-enlarge.js";

const PATIENCE_MS = 10_000;
const LOOK_EVERY_MS = 50;

/** Bytes that the data's partition has, or may have; null: the pool has no partition table. */
export function partitionRoom(path: string, data: string): number | null {
  if (path === data || !isBlockDevice(path)) return null;
  const device = openDataDevice(path, "r");
  try {
    return found(path, device.read.bind(device)).sectors * diskOf(path).sectorBytes;
  } finally {
    device.close();
  }
}

/** The partition is as large as partitionRoom() says, durably, and the kernel knows it. */
export async function takePartitionRoom(path: string, data: string): Promise<void> {
  const device = openDataDevice(path, "r+");
  let bytes: number;
  try {
    const { sectors, steps } = found(path, device.read.bind(device));
    bytes = sectors * diskOf(path).sectorBytes;
    for (const pieces of steps) {
      for (const piece of pieces) device.write(piece.offsetBytes, piece.bytes);
      await device.flush();
    }
  } finally {
    device.close();
  }
  if (sizeOf(data) === bytes) return;
  await readPartitions(path, []);
  for (let waited = 0; sizeOf(data) !== bytes; waited += LOOK_EVERY_MS) {
    if (waited > PATIENCE_MS) {
      throw new PandoError("EIO", `${data} does not become larger`, {
        path: data,
        hint: `its table says so and the kernel does not: partx --update ${path}`,
      });
    }
    await sleep(LOOK_EVERY_MS);
  }
}

function found(path: string, read: ReadDisk): Enlarged {
  const enlarged = enlargePartition(diskOf(path), read, DATA_TYPE);
  if (enlarged !== null) return enlarged;
  throw new PandoError("ENOTFOUND", `${path} has no partition of Pando's any more`, { path });
}

/** Bytes that a file or a block device has now. */
export function sizeOf(path: string): number {
  const device = openDataDevice(path, "r");
  device.close();
  return device.sizeBytes;
}

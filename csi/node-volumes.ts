// What the node knows of a volume that it has: how full it is, how it is, and its growth.
import { statfs } from "node:fs/promises";
import { status } from "@grpc/grpc-js";
import { Deadline } from "../nvmf/bounded.js";
import type { BlockDevice } from "../nvmf/initiator.js";
import { isFileSystem } from "./capability.js";
import { readRange } from "./capacity.js";
import { CsiError, invalid, notFound } from "./errors.js";
import type { NodeExpandRequest, StatsRequest, VolumeCondition } from "./messages.js";
import { isOn, mountsOf, type NodeParts, nqnOf } from "./node-parts.js";
import { blockDeviceAt } from "./node-paths.js";

/** The kernel hears of a new size from the target, in its own time. */
const GROWTH_TIMEOUT_MS = 20_000;
const RESCAN_AFTER_MS = 1000;

export async function stats(parts: NodeParts, request: StatsRequest): Promise<object> {
  const { volumeId, volumePath } = request;
  const place = await needPlace(parts, { volumeId, path: volumePath });
  const volumeCondition = await condition(parts, volumeId);
  if (place.isBlock) {
    return { usage: [{ unit: "BYTES", total: place.device.sizeBytes }], volumeCondition };
  }
  const { bsize, blocks, bfree, bavail, files, ffree } = await statfs(volumePath);
  const bytes = {
    unit: "BYTES",
    total: blocks * bsize,
    available: bavail * bsize,
    used: (blocks - bfree) * bsize,
  };
  const inodes = { unit: "INODES", total: files, available: ffree, used: files - ffree };
  return { usage: [bytes, inodes], volumeCondition };
}

export async function expand(parts: NodeParts, request: NodeExpandRequest): Promise<object> {
  const { volumeId, volumePath } = request;
  const range = readRange(request.capacityRange);
  const place = await needPlace(parts, { volumeId, path: volumePath });
  const device = await waitForSize(parts, { volumeId, leastBytes: range.requiredBytes });
  if (place.isBlock) return { capacityBytes: device.sizeBytes };
  const mount = (await mountsOf(parts, device)).find(({ readonly }) => !readonly);
  if (mount === undefined || !isFileSystem(mount.fileSystem)) {
    const message = `volume ${volumeId} is mounted read-only, and cannot grow there`;
    throw new CsiError(status.FAILED_PRECONDITION, message);
  }
  const { path, fileSystem } = mount;
  await parts.fileSystems.grow({ device: device.path, path, fileSystem });
  return { capacityBytes: device.sizeBytes };
}

interface Place {
  device: BlockDevice;
  isBlock: boolean;
}

/** NOT_FOUND unless it is this volume that is at the path. */
async function needPlace(
  parts: NodeParts,
  { volumeId, path }: { volumeId: string; path: string },
): Promise<Place> {
  if (volumeId === "") throw invalid("volume_id", "is missing");
  if (path === "") throw invalid("volume_path", "is missing");
  const gone = () => notFound(`volume_path: volume ${volumeId} is not at ${path}`);
  const device = await parts.initiator.find(nqnOf(volumeId));
  if (device === null) throw gone();
  if ((await blockDeviceAt(path)) === device.number) return { device, isBlock: true };
  const mount = await parts.mounts.at(path);
  if (mount !== null && isOn(mount, device)) return { device, isBlock: false };
  throw gone();
}

async function waitForSize(
  parts: NodeParts,
  { volumeId, leastBytes }: { volumeId: string; leastBytes: number },
): Promise<BlockDevice> {
  const nqn = nqnOf(volumeId);
  const enough = async () => {
    const device = await parts.initiator.find(nqn);
    return device !== null && device.sizeBytes >= leastBytes ? device : null;
  };
  const soon = await new Deadline(RESCAN_AFTER_MS).poll(enough);
  if (soon !== null) return soon;
  await parts.initiator.rescan(nqn);
  const later = await new Deadline(GROWTH_TIMEOUT_MS).poll(enough);
  if (later !== null) return later;
  const message = `the device of volume ${volumeId} does not have ${leastBytes} bytes yet`;
  throw new CsiError(status.UNAVAILABLE, message);
}

async function condition(parts: NodeParts, volumeId: string): Promise<VolumeCondition> {
  if (await parts.initiator.isLive(nqnOf(volumeId))) {
    return { abnormal: false, message: "connected to its storage node" };
  }
  return { abnormal: true, message: "not connected to its storage node: the kernel is trying" };
}

// What the methods of the node service share: the initiator, the mount table, and how a request's
// volume becomes a device.
import { status } from "@grpc/grpc-js";
import { volumeNqn } from "../engine/base/nqn.js";
import type { BlockDevice, Initiator } from "../nvmf/initiator.js";
import { CsiError, invalid, notFound } from "./errors.js";
import type { FileSystems } from "./filesystem.js";
import { parseVolumeId } from "./ids.js";
import type { Mount, MountTable } from "./mount-table.js";
import type { NodeTls } from "./node-tls.js";

export type NodeInitiator = Pick<
  Initiator,
  "connect" | "disconnect" | "find" | "isLive" | "rescan"
>;

export interface NodeParts {
  initiator: NodeInitiator;
  /** Null: volumes are connected in the open. */
  tls: NodeTls | null;
  mounts: MountTable;
  fileSystems: FileSystems;
}

/** The NQN of the volume of an id: the UUID in it is all that is needed. */
export function nqnOf(volumeId: string): string {
  if (volumeId === "") throw invalid("volume_id", "is missing");
  const id = parseVolumeId(volumeId);
  if (id === null) throw notFound(`volume_id: there is no volume ${volumeId}`);
  return volumeNqn(id.uuid);
}

export function requirePath(field: string, path: string): void {
  if (path === "") throw invalid(field, "is missing");
  if (!path.startsWith("/")) throw invalid(field, `is ${path}, not an absolute path`);
}

export async function needDevice(parts: NodeParts, volumeId: string): Promise<BlockDevice> {
  const device = await parts.initiator.find(nqnOf(volumeId));
  if (device !== null) return device;
  throw new CsiError(status.FAILED_PRECONDITION, `volume ${volumeId} is not staged on this node`);
}

/** btrfs has a number of its own for each file system, but names the device. */
export function isOn(mount: Mount, device: BlockDevice): boolean {
  return mount.number === device.number || mount.source === device.path;
}

/** All mounts of a device's file system. */
export async function mountsOf(parts: NodeParts, device: BlockDevice): Promise<Mount[]> {
  return (await parts.mounts.list()).filter((mount) => isOn(mount, device));
}

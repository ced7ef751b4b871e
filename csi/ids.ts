// Names that Kubernetes has, and what they are on a storage node. The controller keeps no state:
// all that it must know of a volume or snapshot later is in its id.
//
//     volume    NODE/VOLUME/UUID       snapshot    NODE/VOLUME@SNAPSHOT
//
// NODE is the storage node's name in the driver's configuration. The UUID makes the id that of one
// volume for ever, whoever takes the name later, and gives the node plugin the volume's NQN.
//
// CSI allows 128 bytes for an id, and any characters in a name; so names of the engine are short.
import { createHash } from "node:crypto";

export interface VolumeId {
  node: string;
  volume: string;
  uuid: string;
}

export interface SnapshotId {
  node: string;
  volume: string;
  snapshot: string;
}

/** The longest that leaves room for two of them, and for a node's name, in one id. */
const MAX_NAME_LENGTH = 46;
const MAX_NODE_LENGTH = 32;
export const MAX_ID_LENGTH = 128;

const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const MADE_NAME = /^(csi|group)-[0-9a-f]{40}$/;
const GROUP_NAME = /^group-[0-9a-f]{40}$/;
const NODE_NAME = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;
const VOLUME_ID =
  /^([a-z0-9.-]+)\/([A-Za-z0-9._-]+)\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/;
const SNAPSHOT_ID = /^([a-z0-9.-]+)\/([A-Za-z0-9._-]+)@([A-Za-z0-9._-]+)$/;

export function isNodeName(name: string): boolean {
  return name.length <= MAX_NODE_LENGTH && NODE_NAME.test(name);
}

/**
 * The engine's name for a name of CSI's: the same if it can be, else a digest of it. A name that
 * looks like such a digest gets a digest too, so that no two names meet.
 */
export function engineName(name: string): string {
  const plain = name.length <= MAX_NAME_LENGTH && PLAIN_NAME.test(name) && !MADE_NAME.test(name);
  if (plain) return name;
  return `csi-${digest(name)}`;
}

/** The name that each member of a group snapshot has: it tells, for ever, that it is one. */
export function groupMemberName(name: string): string {
  return `group-${digest(name)}`;
}

export function isGroupMemberName(name: string): boolean {
  return GROUP_NAME.test(name);
}

/** A group snapshot's id is NODE/NAME, NAME being that of its members. */
export interface GroupId {
  node: string;
  name: string;
}

export function formatGroupId({ node, name }: GroupId): string {
  return `${node}/${name}`;
}

export function parseGroupId(text: string): GroupId | null {
  const [node = "", name = "", ...more] = text.split("/");
  return isNodeName(node) && isGroupMemberName(name) && more.length === 0 ? { node, name } : null;
}

export function formatVolumeId({ node, volume, uuid }: VolumeId): string {
  return `${node}/${volume}/${uuid}`;
}

/** Null: no volume of this driver was ever called that. */
export function parseVolumeId(text: string): VolumeId | null {
  const [, node, volume, uuid] = VOLUME_ID.exec(text) ?? [];
  if (node === undefined || volume === undefined || uuid === undefined) return null;
  return { node, volume, uuid };
}

export function formatSnapshotId({ node, volume, snapshot }: SnapshotId): string {
  return `${node}/${volume}@${snapshot}`;
}

export function parseSnapshotId(text: string): SnapshotId | null {
  const [, node, volume, snapshot] = SNAPSHOT_ID.exec(text) ?? [];
  if (node === undefined || volume === undefined || snapshot === undefined) return null;
  return { node, volume, snapshot };
}

function digest(name: string): string {
  return createHash("sha256").update(name).digest("hex").slice(0, 40);
}

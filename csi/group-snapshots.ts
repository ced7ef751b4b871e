// Group snapshots: several volumes at one instant, all or none. They have to be on one storage
// node, since nothing stops two at once.
//
// The members have one name, made of the group's; so a member is known as one, and the group is
// found again, without anything being kept.
import { status } from "@grpc/grpc-js";
import { isPandoError } from "../engine/base/errors.js";
import type { SnapshotInfo } from "../engine/serve/client.js";
import { CsiError, invalid, notFound } from "./errors.js";
import {
  formatGroupId,
  formatSnapshotId,
  type GroupId,
  groupMemberName,
  parseGroupId,
} from "./ids.js";
import type { CreateGroupRequest, GroupRequest } from "./messages.js";
import { refuseParameters } from "./parameters.js";
import type { Service } from "./server.js";
import { type SnapshotParts, snapshotMessage } from "./snapshots.js";
import type { Found, StorageNode, StorageNodes } from "./storage-nodes.js";
import { needVolume, requireName } from "./volumes.js";

export function groupMethods(parts: SnapshotParts): Service {
  const subject = ({ groupSnapshotId }: GroupRequest) => groupSnapshotId;
  return {
    CreateVolumeGroupSnapshot: {
      subject: ({ name }: CreateGroupRequest) => `group snapshot ${name}`,
      run: (request: CreateGroupRequest) => createGroup(parts, request),
    },
    DeleteVolumeGroupSnapshot: {
      subject,
      run: (request: GroupRequest) => deleteGroup(parts, request),
    },
    GetVolumeGroupSnapshot: { run: (request: GroupRequest) => getGroup(parts.nodes, request) },
  };
}

async function createGroup(parts: SnapshotParts, request: CreateGroupRequest): Promise<object> {
  const { nodes, names } = parts;
  const { sourceVolumeIds } = request;
  requireName(request.name);
  if (sourceVolumeIds.length === 0) throw invalid("source_volume_ids", "is missing");
  refuseParameters(request.parameters);
  const sources = [];
  for (const id of new Set(sourceVolumeIds)) sources.push(await needVolume(nodes, id));
  const [first, ...more] = sources;
  if (first === undefined) throw invalid("source_volume_ids", "is missing");
  const { node } = first;
  const elsewhere = more.find((source) => source.node !== node);
  if (elsewhere !== undefined) {
    const where = `${node.name} and ${elsewhere.node.name}`;
    const message = `source_volume_ids are on two storage nodes, ${where}: no instant is common`;
    throw new CsiError(status.FAILED_PRECONDITION, message);
  }
  const name = groupMemberName(request.name);
  const taken = await names.takenBy(name, null);
  if (taken !== null && taken.node !== node.name) throw ofOthers(request.name);
  if (taken === null) {
    const wanted = sources.map(({ item }) => ({ volume: item.name, snapshot: name }));
    try {
      await node.daemon.createSnapshots(wanted);
    } catch (error) {
      // Of a call before this controller's time: it is looked at like any other.
      if (!isPandoError(error, "EEXIST")) throw error;
    }
    for (const { volume } of wanted) names.made({ node: node.name, volume, snapshot: name });
  }
  const members = await membersOf(node, name);
  const have = members.map(({ item }) => item.volumeUuid).sort();
  const want = sources.map(({ item }) => item.uuid).sort();
  if (have.length === 0) throw new CsiError(status.ABORTED, "it was deleted meanwhile: try again");
  if (have.join() !== want.join()) throw ofOthers(request.name);
  return groupMessage({ node: node.name, name }, members);
}

function ofOthers(name: string): CsiError {
  const message = `group snapshot ${name} exists already, of other volumes`;
  return new CsiError(status.ALREADY_EXISTS, message);
}

async function deleteGroup(parts: SnapshotParts, request: GroupRequest): Promise<object> {
  const { nodes, names } = parts;
  if (request.groupSnapshotId === "") throw invalid("group_snapshot_id", "is missing");
  const id = parseGroupId(request.groupSnapshotId);
  if (id === null) return {};
  const node = nodes.get(id.node);
  const members = await membersOf(node, id.name);
  // Members that an earlier call has deleted are asked for again, and are no mistake.
  requireMembers(id, request.snapshotIds);
  for (const { item } of members) {
    try {
      await node.daemon.deleteSnapshot(item.volume, item.name);
    } catch (error) {
      if (!isPandoError(error, "ENOTFOUND")) throw error;
    }
    names.deleted({ node: node.name, volume: item.volume, snapshot: item.name });
  }
  return {};
}

async function getGroup(nodes: StorageNodes, request: GroupRequest): Promise<object> {
  if (request.groupSnapshotId === "") throw invalid("group_snapshot_id", "is missing");
  const id = parseGroupId(request.groupSnapshotId);
  const members = id === null ? [] : await membersOf(nodes.get(id.node), id.name);
  if (id === null || members.length === 0) {
    throw notFound(`group_snapshot_id: there is no group snapshot ${request.groupSnapshotId}`);
  }
  requireMembers(id, request.snapshotIds);
  const have = new Set(members.map(snapshotIdOf));
  const odd = request.snapshotIds.find((snapshotId) => !have.has(snapshotId));
  if (odd !== undefined) throw invalid("snapshot_ids", `has ${odd}, which is not of the group`);
  return groupMessage(id, members);
}

/** They look like members of this group. */
function requireMembers(id: GroupId, snapshotIds: string[]): void {
  const odd = snapshotIds.find(
    (one) => !one.startsWith(`${id.node}/`) || !one.endsWith(`@${id.name}`),
  );
  if (odd !== undefined) throw invalid("snapshot_ids", `has ${odd}, which is not of the group`);
}

async function membersOf(node: StorageNode, name: string): Promise<Found<SnapshotInfo>[]> {
  const all = await node.daemon.listSnapshots();
  return all.filter((item) => item.name === name).map((item) => ({ node, item }));
}

function snapshotIdOf({ node, item }: Found<SnapshotInfo>): string {
  return formatSnapshotId({ node: node.name, volume: item.volume, snapshot: item.name });
}

function groupMessage(id: GroupId, members: Found<SnapshotInfo>[]): object {
  const snapshots = members.map(snapshotMessage);
  return {
    groupSnapshot: {
      groupSnapshotId: formatGroupId(id),
      snapshots,
      creationTime: snapshots[0]?.creationTime,
      readyToUse: true,
    },
  };
}

// Snapshots: made at once and ready at once, whatever the volume's size, attached or not. They and
// their volumes are deleted in any order.
import { status } from "@grpc/grpc-js";
import { isPandoError } from "../engine/base/errors.js";
import type { SnapshotInfo } from "../engine/serve/client.js";
import { CsiError, invalid, notFound } from "./errors.js";
import {
  engineName,
  formatGroupId,
  formatSnapshotId,
  formatVolumeId,
  isGroupMemberName,
  MAX_ID_LENGTH,
  parseSnapshotId,
  parseVolumeId,
  type SnapshotId,
} from "./ids.js";
import type { CreateSnapshotRequest, ListSnapshotsRequest, SnapshotMessage } from "./messages.js";
import { paginate } from "./paging.js";
import { refuseParameters } from "./parameters.js";
import type { Service } from "./server.js";
import type { SnapshotNames } from "./snapshot-names.js";
import type { Found, StorageNodes } from "./storage-nodes.js";
import { needVolume, requireName } from "./volumes.js";

export interface SnapshotParts {
  nodes: StorageNodes;
  names: SnapshotNames;
}

export function snapshotMethods(parts: SnapshotParts): Service {
  return {
    CreateSnapshot: {
      subject: ({ name }: CreateSnapshotRequest) => `snapshot ${name}`,
      run: (request: CreateSnapshotRequest) => createSnapshot(parts, request),
    },
    DeleteSnapshot: {
      subject: ({ snapshotId }: { snapshotId: string }) => snapshotId,
      run: (request: { snapshotId: string }) => deleteSnapshot(parts, request),
    },
    GetSnapshot: {
      run: (request: { snapshotId: string }) => getSnapshot(parts.nodes, request),
    },
    ListSnapshots: {
      run: (request: ListSnapshotsRequest) => listSnapshots(parts.nodes, request),
    },
  };
}

async function createSnapshot(
  { nodes, names }: SnapshotParts,
  request: CreateSnapshotRequest,
): Promise<{ snapshot: SnapshotMessage }> {
  requireName(request.name);
  if (request.sourceVolumeId === "") throw invalid("source_volume_id", "is missing");
  refuseParameters(request.parameters);
  const { node, item } = await needVolume(nodes, request.sourceVolumeId);
  const snapshot = engineName(request.name);
  const id = { node: node.name, volume: item.name, snapshot };
  const other = await names.takenBy(snapshot, id);
  if (other !== null) {
    const message = `snapshot ${request.name} exists already, of volume ${other.volume}`;
    throw new CsiError(status.ALREADY_EXISTS, message);
  }
  const info = await makeOrFind({
    nodes,
    id,
    make: () => node.daemon.createSnapshot(item.name, snapshot),
  });
  if (info.volumeUuid !== item.uuid) {
    const message = `snapshot ${request.name} exists already, of an older volume ${item.name}`;
    throw new CsiError(status.ALREADY_EXISTS, message);
  }
  names.made(id);
  return { snapshot: snapshotMessage({ node, item: info }) };
}

async function makeOrFind(parts: {
  nodes: StorageNodes;
  id: SnapshotId;
  make: () => Promise<SnapshotInfo>;
}): Promise<SnapshotInfo> {
  try {
    return await parts.make();
  } catch (error) {
    if (!isPandoError(error, "EEXIST")) throw error;
    const found = await parts.nodes.findSnapshot(parts.id);
    if (found !== null) return found.item;
    throw new CsiError(status.ABORTED, "the snapshot was deleted meanwhile: try again");
  }
}

async function deleteSnapshot(
  { nodes, names }: SnapshotParts,
  { snapshotId }: { snapshotId: string },
): Promise<object> {
  if (snapshotId === "") throw invalid("snapshot_id", "is missing");
  const id = parseSnapshotId(snapshotId);
  if (id === null) return {};
  if (isGroupMemberName(id.snapshot)) {
    const groupId = formatGroupId({ node: id.node, name: id.snapshot });
    throw invalid("snapshot_id", `is a member of ${groupId}, and is deleted with it`);
  }
  try {
    await nodes.get(id.node).daemon.deleteSnapshot(id.volume, id.snapshot);
  } catch (error) {
    if (!isPandoError(error, "ENOTFOUND")) throw error;
  }
  names.deleted(id);
  return {};
}

async function getSnapshot(
  nodes: StorageNodes,
  { snapshotId }: { snapshotId: string },
): Promise<{ snapshot: SnapshotMessage }> {
  if (snapshotId === "") throw invalid("snapshot_id", "is missing");
  const id = parseSnapshotId(snapshotId);
  const found = id === null ? null : await nodes.findSnapshot(id);
  if (found === null) throw notFound(`snapshot_id: there is no snapshot ${snapshotId}`);
  return { snapshot: snapshotMessage(found) };
}

/** What is not there is an empty list, not an error. */
async function listSnapshots(nodes: StorageNodes, request: ListSnapshotsRequest): Promise<object> {
  const found = await select(nodes, request);
  const messages = found
    .map(snapshotMessage)
    .filter(({ snapshotId }) => snapshotId.length <= MAX_ID_LENGTH);
  const { entries, nextToken } = paginate(messages, request, {
    of: ({ snapshotId }) => snapshotId,
    parse: parseSnapshotId,
  });
  return { entries: entries.map((snapshot) => ({ snapshot })), nextToken };
}

async function select(
  nodes: StorageNodes,
  { snapshotId, sourceVolumeId }: ListSnapshotsRequest,
): Promise<Found<SnapshotInfo>[]> {
  const isOfSource = (found: Found<SnapshotInfo>) =>
    sourceVolumeId === "" || sourceIdOf(found) === sourceVolumeId;
  if (snapshotId !== "") {
    const id = parseSnapshotId(snapshotId);
    const found = id === null ? null : await nodes.findSnapshot(id);
    return found === null || !isOfSource(found) ? [] : [found];
  }
  if (sourceVolumeId !== "") {
    const id = parseVolumeId(sourceVolumeId);
    if (id === null) return [];
    const node = nodes.get(id.node);
    const snapshots = await node.daemon.listSnapshots(id.volume);
    return snapshots.map((item) => ({ node, item })).filter(isOfSource);
  }
  const lists = await Promise.all(
    nodes.all.map(async (node) =>
      (await node.daemon.listSnapshots()).map((item) => ({ node, item })),
    ),
  );
  return lists.flat();
}

export function snapshotMessage(found: Found<SnapshotInfo>): SnapshotMessage {
  const { node, item } = found;
  const createdMs = Date.parse(item.createdAt);
  const seconds = Math.floor(createdMs / 1000);
  return {
    sizeBytes: item.sizeBytes,
    snapshotId: formatSnapshotId({ node: node.name, volume: item.volume, snapshot: item.name }),
    sourceVolumeId: sourceIdOf(found),
    creationTime: { seconds, nanos: (createdMs - seconds * 1000) * 1_000_000 },
    readyToUse: true,
    groupSnapshotId: isGroupMemberName(item.name)
      ? formatGroupId({ node: node.name, name: item.name })
      : "",
  };
}

function sourceIdOf({ node, item }: Found<SnapshotInfo>): string {
  return formatVolumeId({ node: node.name, volume: item.volume, uuid: item.volumeUuid });
}

// What there is: volumes with the nodes that have them and their health, and the room for more.
//
// A list that lacks a storage node's volumes would say that they are gone, so it is refused while
// one is down. Room is counted where it is.
import type { PoolInfo, VolumeView } from "../engine/serve/client.js";
import { readCapability } from "./capability.js";
import { formatSnapshotId, MAX_ID_LENGTH, parseVolumeId } from "./ids.js";
import type {
  ById,
  CapacityRequest,
  ContentSource,
  ListRequest,
  VolumeCondition,
  VolumeEntry,
} from "./messages.js";
import { paginate } from "./paging.js";
import { readVolumeParameters } from "./parameters.js";
import type { Service } from "./server.js";
import type { Found, StorageNodes } from "./storage-nodes.js";
import { needVolume, volumeIdOf } from "./volumes.js";

export function inventoryMethods(nodes: StorageNodes): Service {
  return {
    ListVolumes: { run: (request: ListRequest) => listVolumes(nodes, request) },
    ControllerGetVolume: { run: (request: ById) => getVolume(nodes, request) },
    GetCapacity: { run: (request: CapacityRequest) => getCapacity(nodes, request) },
  };
}

interface Listed {
  found: Found<VolumeView>;
  pool: PoolInfo;
}

async function listVolumes(nodes: StorageNodes, request: ListRequest): Promise<object> {
  const lists = await Promise.all(
    nodes.all.map(async (node): Promise<Listed[]> => {
      const [pool, volumes] = await Promise.all([node.daemon.info(), node.daemon.listVolumes()]);
      return volumes.map((item) => ({ found: { node, item }, pool }));
    }),
  );
  // A volume that was made otherwise, with a name too long for an id, is not Kubernetes' business.
  const listed = lists.flat().filter(({ found }) => volumeIdOf(found).length <= MAX_ID_LENGTH);
  const { entries, nextToken } = paginate(listed, request, {
    of: ({ found }) => volumeIdOf(found),
    isOne: (text) => parseVolumeId(text) !== null,
  });
  return { entries: entries.map(volumeEntry), nextToken };
}

async function getVolume(nodes: StorageNodes, { volumeId }: ById): Promise<VolumeEntry> {
  const found = await needVolume(nodes, volumeId);
  return volumeEntry({ found, pool: await found.node.daemon.info() });
}

function volumeEntry({ found, pool }: Listed): VolumeEntry {
  const { item } = found;
  return {
    volume: {
      capacityBytes: item.sizeBytes,
      volumeId: volumeIdOf(found),
      volumeContext: {},
      contentSource: contentSource(found),
    },
    status: { publishedNodeIds: item.allowedHosts, volumeCondition: condition(pool) },
  };
}

/** A snapshot's id is its names; of a volume that was cloned only the name is known. */
function contentSource({ node, item }: Found<VolumeView>): ContentSource | null {
  const { origin } = item;
  if (origin === null || origin.snapshot === null) return null;
  const { volume, snapshot } = origin;
  const snapshotId = formatSnapshotId({ node: node.name, volume, snapshot });
  return { snapshot: { snapshotId } };
}

function condition({ failure }: PoolInfo): VolumeCondition {
  if (failure === null) return { abnormal: false, message: "its pool takes writes" };
  return { abnormal: true, message: failure };
}

async function getCapacity(nodes: StorageNodes, request: CapacityRequest): Promise<object> {
  for (const capability of request.volumeCapabilities) {
    readCapability("volume_capabilities", capability);
  }
  const { storageNode } = readVolumeParameters(request.parameters);
  const pools = (await nodes.byRoom()).filter(
    ({ node }) => storageNode === null || node.name === storageNode,
  );
  const availableCapacity = pools.reduce((sum, { item }) => sum + item.freeBytes, 0);
  const largest = pools.reduce((most, { item }) => Math.max(most, item.sizeBytes), 0);
  return { availableCapacity, maximumVolumeSize: { value: largest } };
}

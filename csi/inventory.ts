// What there is: volumes with the nodes that have them and their health, and the room for more.
//
// A list that lacks a storage node's volumes would say that they are gone, so it is refused while
// one is down. It is in the order of the nodes and of names, so that a page costs what is in it,
// whatever else there is. Room is counted where it is.
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
import { readPage } from "./paging.js";
import { readVolumeParameters } from "./parameters.js";
import type { Service } from "./server.js";
import type { Found, StorageNode, StorageNodes } from "./storage-nodes.js";
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
  const { most, after } = readPage(request, parseVolumeId);
  // Of all nodes: if one is down, none of the pages is told.
  const pools = new Map<StorageNode, PoolInfo>();
  const ask = async (node: StorageNode) => void pools.set(node, await node.daemon.info());
  await Promise.all(nodes.all.map(ask));
  const rest = [...pools]
    .filter(([{ name }]) => after === null || name >= after.node)
    .sort(([a], [b]) => (a.name < b.name ? -1 : 1));
  const page: Listed[] = [];
  for (const [node, pool] of rest) {
    let last = node.name === after?.node ? after.volume : "";
    // One more than is told says that there are more.
    for (let missing = most + 1 - page.length; missing > 0; ) {
      const volumes = await node.daemon.listVolumes({ after: last, most: missing });
      for (const item of volumes) {
        const found = { node, item };
        // One that was made otherwise, with a name too long for an id, is not Kubernetes' business.
        if (volumeIdOf(found).length <= MAX_ID_LENGTH) page.push({ found, pool });
      }
      if (volumes.length < missing) break;
      last = volumes.at(-1)?.name ?? last;
      missing = most + 1 - page.length;
    }
  }
  const told = page.slice(0, most);
  const lastTold = told.at(-1);
  const isEnd = page.length <= most || lastTold === undefined;
  return {
    entries: told.map(volumeEntry),
    nextToken: isEnd ? "" : volumeIdOf(lastTold.found),
  };
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

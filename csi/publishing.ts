// ControllerPublishVolume: lets a compute node connect, and, when it is unpublished, fences it. The
// daemon's list of hosts is the record of who has a volume; a node's id is its host NQN.
import { status } from "@grpc/grpc-js";
import { isPandoError } from "../engine/base/errors.js";
import { checkHostNqn } from "../engine/base/nqn.js";
import type { VolumeView } from "../engine/serve/client.js";
import { readCapability } from "./capability.js";
import { CsiError, invalid } from "./errors.js";
import { parseVolumeId } from "./ids.js";
import type { PublishRequest, Strings } from "./messages.js";
import { TLS_REQUIRED } from "./node-tls.js";
import type { Service } from "./server.js";
import type { Daemon, StorageNodes } from "./storage-nodes.js";
import { needVolume } from "./volumes.js";

export interface PublishOptions {
  nodes: StorageNodes;
  /** How many volumes a compute node may have; null: as many as it likes. */
  maxVolumesPerNode: number | null;
}

export function publishMethods(options: PublishOptions): Service {
  return {
    ControllerPublishVolume: {
      subject: ({ volumeId }: PublishRequest) => volumeId,
      run: (request: PublishRequest) => publish(options, request),
    },
    ControllerUnpublishVolume: {
      subject: ({ volumeId }: PublishRequest) => volumeId,
      run: (request: PublishRequest) => unpublish(options.nodes, request),
    },
  };
}

async function publish(options: PublishOptions, request: PublishRequest): Promise<object> {
  const { volumeId, nodeId, readonly } = request;
  if (volumeId === "") throw invalid("volume_id", "is missing");
  if (nodeId === "") throw invalid("node_id", "is missing");
  readCapability("volume_capability", request.volumeCapability);
  if (readonly) throw invalid("readonly", "cannot be set: PUBLISH_READONLY is not a capability");
  const { node, item } = await needVolume(options.nodes, volumeId);
  requireNodeId(nodeId);
  const holder = item.allowedHosts.find((host) => host !== nodeId);
  if (holder !== undefined) {
    throw new CsiError(status.FAILED_PRECONDITION, `volume ${volumeId} is published to ${holder}`);
  }
  const context = { ...publishContext(item), ...(await demandsTls(node.daemon, nodeId)) };
  if (item.allowedHosts.includes(nodeId)) return { publishContext: context };
  await requireRoom(options, nodeId);
  await node.daemon.allowHost(item.name, nodeId);
  return { publishContext: context };
}

function requireNodeId(nodeId: string): void {
  if (isHostNqn(nodeId)) return;
  const message = `node_id: ${nodeId} is no node of this driver, whose nodes are host NQNs`;
  throw new CsiError(status.NOT_FOUND, message);
}

function isHostNqn(text: string): boolean {
  try {
    checkHostNqn(text);
    return true;
  } catch {
    return false;
  }
}

function publishContext({ name, nqn, addresses }: VolumeView): Strings {
  const [address] = addresses;
  if (address !== undefined) return { nqn, ...address };
  const why = `volume ${name} is not served: its storage node has no NVMe/TCP target`;
  throw new CsiError(status.FAILED_PRECONDITION, why);
}

/** From a host with a TLS key; for its node plugin, which has to have the same. */
async function demandsTls(daemon: Daemon, nodeId: string): Promise<Strings> {
  const keys = await daemon.listHostKeys();
  return keys.some(({ hostNqn, tls }) => hostNqn === nodeId && tls) ? TLS_REQUIRED : {};
}

/** Counts on every storage node, so it is asked for only where there is a limit. */
async function requireRoom(options: PublishOptions, nodeId: string): Promise<void> {
  const { nodes, maxVolumesPerNode } = options;
  if (maxVolumesPerNode === null) return;
  const lists = await Promise.all(nodes.all.map(({ daemon }) => daemon.listVolumes()));
  const count = lists.flat().filter(({ allowedHosts }) => allowedHosts.includes(nodeId)).length;
  if (count < maxVolumesPerNode) return;
  const message = `node_id: ${nodeId} has ${count} volumes, and may have ${maxVolumesPerNode}`;
  throw new CsiError(status.RESOURCE_EXHAUSTED, message);
}

/** Without a node: from all of them. What is gone is unpublished. */
async function unpublish(nodes: StorageNodes, request: PublishRequest): Promise<object> {
  const { volumeId, nodeId } = request;
  if (volumeId === "") throw invalid("volume_id", "is missing");
  const id = parseVolumeId(volumeId);
  const found = id === null ? null : await nodes.findVolume(id);
  if (found === null) return {};
  const { node, item } = found;
  const connected = item.sessions.map(({ hostNqn }) => hostNqn).filter((host) => host !== "");
  const hosts = nodeId === "" ? new Set([...item.allowedHosts, ...connected]) : [nodeId];
  for (const host of hosts) {
    // One that was never let in has no NQN, perhaps.
    if (!isHostNqn(host)) continue;
    try {
      // Off the list already or not: when this returns, nothing of the host runs in the volume.
      await node.daemon.denyHost(item.name, host);
    } catch (error) {
      if (!isPandoError(error, "ENOTFOUND")) throw error;
    }
  }
  return {};
}

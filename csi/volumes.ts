// CreateVolume and what else makes, changes or ends a volume.
//
// Every call may be repeated, by a controller that knows nothing of the first: each looks at what
// is there before it does the next of its steps. A volume is found again by its name.
import { status } from "@grpc/grpc-js";
import { isPandoError } from "../engine/base/errors.js";
import type { Origin, VolumeView } from "../engine/serve/client.js";
import { readCapability, unsupported } from "./capability.js";
import { chooseSize, fits, type Range, readRange } from "./capacity.js";
import { CsiError, invalid, notFound } from "./errors.js";
import {
  engineName,
  formatVolumeId,
  MAX_ID_LENGTH,
  parseSnapshotId,
  parseVolumeId,
} from "./ids.js";
import { applyLimits, readMutableParameters } from "./limits.js";
import type {
  ById,
  ContentSource,
  CreateVolumeRequest,
  ExpandRequest,
  ModifyRequest,
  ValidateRequest,
  VolumeMessage,
} from "./messages.js";
import { readVolumeParameters } from "./parameters.js";
import type { Service } from "./server.js";
import type { Found, StorageNode, StorageNodes } from "./storage-nodes.js";
import { nearestFirst, readZones } from "./topology.js";

export function volumeMethods(nodes: StorageNodes): Service {
  return {
    CreateVolume: {
      subject: ({ name }: CreateVolumeRequest) => `volume ${name}`,
      run: (request: CreateVolumeRequest) => createVolume(nodes, request),
    },
    DeleteVolume: {
      subject: ({ volumeId }: ById) => volumeId,
      run: (request: ById) => deleteVolume(nodes, request),
    },
    ControllerExpandVolume: {
      subject: ({ volumeId }: ExpandRequest) => volumeId,
      run: (request: ExpandRequest) => expandVolume(nodes, request),
    },
    ControllerModifyVolume: {
      subject: ({ volumeId }: ModifyRequest) => volumeId,
      run: (request: ModifyRequest) => modifyVolume(nodes, request),
    },
    ValidateVolumeCapabilities: {
      run: (request: ValidateRequest) => validateCapabilities(nodes, request),
    },
  };
}

/** The volume of an id in a request; NOT_FOUND if there is none. */
export async function needVolume(
  nodes: StorageNodes,
  volumeId: string,
): Promise<Found<VolumeView>> {
  if (volumeId === "") throw invalid("volume_id", "is missing");
  const id = parseVolumeId(volumeId);
  const found = id === null ? null : await nodes.findVolume(id);
  if (found !== null) return found;
  throw notFound(`volume_id: there is no volume ${volumeId}`);
}

export function volumeIdOf({ node, item }: Found<VolumeView>): string {
  return formatVolumeId({ node: node.name, volume: item.name, uuid: item.uuid });
}

export function requireName(name: string): void {
  if (name === "") throw invalid("name", "is missing");
  if (Buffer.byteLength(name) > MAX_ID_LENGTH) {
    throw invalid("name", `is longer than ${MAX_ID_LENGTH} bytes`);
  }
}

/** Where a volume's contents come from. */
interface Source {
  node: StorageNode;
  origin: Origin;
  sizeBytes: number;
}

async function createVolume(
  nodes: StorageNodes,
  request: CreateVolumeRequest,
): Promise<{ volume: VolumeMessage }> {
  requireName(request.name);
  if (request.volumeCapabilities.length === 0) throw invalid("volume_capabilities", "is missing");
  for (const capability of request.volumeCapabilities) {
    readCapability("volume_capabilities", capability);
  }
  const { storageNode, context } = readVolumeParameters(request.parameters);
  const limits = readMutableParameters(request.mutableParameters);
  const range = readRange(request.capacityRange);
  const zones = readZones(request.accessibilityRequirements);
  const name = engineName(request.name);
  const contentSource = readContentSource(request.volumeContentSource);
  const source = await findSource(nodes, contentSource);
  const before = source === null ? await nodes.findByName(name) : await findOn(source.node, name);
  if (before !== null && storageNode !== null && before.node.name !== storageNode) {
    throw incompatible(request.name, `on storage node ${before.node.name}`);
  }
  const cloneBytes = source === null ? 0 : await cloneSize(source, range);
  const found =
    source === null
      ? (before ?? (await makeBlank(nodes, { name, range, storageNode, zones })))
      : (before ?? (await makeClone(source, name)));
  checkSource(request.name, found.item, source);
  const whole = source === null ? found : await growClone(found, source, cloneBytes);
  if (!fits(whole.item.sizeBytes, range)) {
    throw incompatible(request.name, `with ${whole.item.sizeBytes} bytes`);
  }
  await applyLimits(whole, limits);
  return {
    volume: {
      capacityBytes: whole.item.sizeBytes,
      volumeId: volumeIdOf(whole),
      volumeContext: context,
      contentSource,
    },
  };
}

function readContentSource(source: ContentSource | null): ContentSource | null {
  if (source === null) return null;
  const { snapshot = null, volume = null } = source;
  if (snapshot !== null && snapshot.snapshotId === "") {
    throw invalid("volume_content_source.snapshot.snapshot_id", "is missing");
  }
  if (volume !== null && volume.volumeId === "") {
    throw invalid("volume_content_source.volume.volume_id", "is missing");
  }
  if (snapshot !== null || volume !== null) return source;
  throw invalid("volume_content_source", "is neither a snapshot nor a volume");
}

async function findSource(
  nodes: StorageNodes,
  contentSource: ContentSource | null,
): Promise<Source | null> {
  if (contentSource === null) return null;
  const { snapshot = null } = contentSource;
  if (snapshot !== null) {
    const id = parseSnapshotId(snapshot.snapshotId);
    const found = id === null ? null : await nodes.findSnapshot(id);
    if (found === null) {
      throw notFound(`volume_content_source: there is no snapshot ${snapshot.snapshotId}`);
    }
    const { node, item } = found;
    const origin = { volume: item.volume, snapshot: item.name };
    return { node, origin, sizeBytes: item.sizeBytes };
  }
  const { node, item } = await needVolume(nodes, contentSource.volume?.volumeId ?? "");
  const origin = { volume: item.name, snapshot: null };
  return { node, origin, sizeBytes: item.sizeBytes };
}

async function findOn(node: StorageNode, name: string): Promise<Found<VolumeView> | null> {
  try {
    return { node, item: await node.daemon.getVolume(name) };
  } catch (error) {
    if (isPandoError(error, "ENOTFOUND")) return null;
    throw error;
  }
}

async function makeBlank(
  nodes: StorageNodes,
  wanted: { name: string; range: Range; storageNode: string | null; zones: string[] },
): Promise<Found<VolumeView>> {
  const { name, range, storageNode, zones } = wanted;
  if (storageNode !== null && !nodes.all.some((node) => node.name === storageNode)) {
    throw invalid("parameters[storageNode]", `is ${storageNode}, which is not configured`);
  }
  const candidates = (await nodes.byRoom()).filter(
    ({ node }) => storageNode === null || node.name === storageNode,
  );
  if (candidates.length === 0) {
    const which = storageNode === null ? "no storage node" : `storage node ${storageNode} does not`;
    throw new CsiError(status.UNAVAILABLE, `${which} take writes now`);
  }
  let most = 0;
  for (const { node, item } of nearestFirst(candidates, zones)) {
    const { blockSizeBytes } = item;
    const sizeBytes = chooseSize(range, { leastBytes: 0, blockSizeBytes });
    most = Math.max(most, item.sizeBytes);
    // A volume is thin: it takes what is written to it, and can never hold more than its pool.
    if (sizeBytes > item.sizeBytes || item.freeBytes === 0) continue;
    return { node, item: await node.daemon.createVolume(name, sizeBytes) };
  }
  throw new CsiError(
    status.RESOURCE_EXHAUSTED,
    `no storage node has room for ${range.requiredBytes} bytes; the largest pool has ${most}`,
  );
}

async function makeClone(source: Source, name: string): Promise<Found<VolumeView>> {
  const { node, origin } = source;
  return { node, item: await node.daemon.cloneVolume(origin, name) };
}

/** Refuses a size that cannot be before anything is made: nobody would delete that. */
async function cloneSize({ node, sizeBytes }: Source, range: Range): Promise<number> {
  if (fits(sizeBytes, range)) return sizeBytes;
  const { blockSizeBytes } = await node.daemon.info();
  return chooseSize(range, { leastBytes: sizeBytes, blockSizeBytes });
}

/** A clone is as large as its origin at first. One that still is may be only half made. */
async function growClone(
  { node, item }: Found<VolumeView>,
  source: Source,
  sizeBytes: number,
): Promise<Found<VolumeView>> {
  const found = { node, item };
  if (item.sizeBytes >= sizeBytes || item.sizeBytes !== source.sizeBytes) return found;
  return { node, item: await node.daemon.resizeVolume(item.name, sizeBytes) };
}

function checkSource(name: string, volume: VolumeView, source: Source | null): void {
  const { origin } = volume;
  const same =
    origin?.volume === source?.origin.volume && origin?.snapshot === source?.origin.snapshot;
  if (same) return;
  const was = origin === null ? "empty" : `a clone of ${origin.volume}${at(origin.snapshot)}`;
  throw incompatible(name, `and was made ${was}`);
}

function at(snapshot: string | null): string {
  return snapshot === null ? "" : `@${snapshot}`;
}

function incompatible(name: string, how: string): CsiError {
  return new CsiError(status.ALREADY_EXISTS, `volume ${name} exists already, ${how}`);
}

async function deleteVolume(nodes: StorageNodes, { volumeId }: ById): Promise<object> {
  if (volumeId === "") throw invalid("volume_id", "is missing");
  const id = parseVolumeId(volumeId);
  const found = id === null ? null : await nodes.findVolume(id);
  if (found === null) return {};
  try {
    await found.node.daemon.deleteVolume(found.item.name);
  } catch (error) {
    if (!isPandoError(error, "ENOTFOUND")) throw error;
  }
  return {};
}

async function expandVolume(nodes: StorageNodes, request: ExpandRequest): Promise<object> {
  if (request.volumeId === "") throw invalid("volume_id", "is missing");
  if (request.capacityRange === null) throw invalid("capacity_range", "is missing");
  const range = readRange(request.capacityRange);
  if (request.volumeCapability !== null) {
    readCapability("volume_capability", request.volumeCapability);
  }
  const { node, item } = await needVolume(nodes, request.volumeId);
  const { blockSizeBytes } = await node.daemon.info();
  const sizeBytes = chooseSize(range, { leastBytes: item.sizeBytes, blockSizeBytes });
  if (sizeBytes > item.sizeBytes) await node.daemon.resizeVolume(item.name, sizeBytes);
  // A raw device grows by itself.
  const nodeExpansionRequired = (request.volumeCapability?.block ?? null) === null;
  return { capacityBytes: sizeBytes, nodeExpansionRequired };
}

async function modifyVolume(nodes: StorageNodes, request: ModifyRequest): Promise<object> {
  const found = await needVolume(nodes, request.volumeId);
  await applyLimits(found, readMutableParameters(request.mutableParameters));
  return {};
}

async function validateCapabilities(
  nodes: StorageNodes,
  request: ValidateRequest,
): Promise<object> {
  const { volumeCapabilities, volumeContext, parameters } = request;
  if (request.volumeId === "") throw invalid("volume_id", "is missing");
  if (volumeCapabilities.length === 0) throw invalid("volume_capabilities", "is missing");
  await needVolume(nodes, request.volumeId);
  for (const capability of volumeCapabilities) {
    const why = unsupported(capability);
    if (why !== null) return { confirmed: null, message: `volume_capabilities ${why}` };
  }
  return { confirmed: { volumeContext, volumeCapabilities, parameters }, message: "" };
}

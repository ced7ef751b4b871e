// SnapshotMetadata: what a snapshot has, and what changed from one to the next, as ranges in order.
// A backup reads these and nothing else.
//
// Ranges of zeroes are ranges too: what was deleted has changed. A stream may begin at any offset,
// which is how a reader goes on after a cut, and how this goes on when the daemon's answer is cut:
// a reader may take longer than any call of ours does.
import { status } from "@grpc/grpc-js";
import { isPandoError } from "../engine/base/errors.js";
import type { ChangedRange, DiffRequest, SnapshotInfo } from "../engine/serve/client.js";
import { CsiError, invalid, notFound } from "./errors.js";
import { parseSnapshotId } from "./ids.js";
import type { AllocatedRequest, DeltaRequest, MetadataMessage } from "./messages.js";
import type { Service } from "./server.js";
import type { Daemon, Found, StorageNodes } from "./storage-nodes.js";

export function metadataMethods(nodes: StorageNodes): Service {
  return {
    GetMetadataAllocated: {
      stream: (request: AllocatedRequest) => allocated(nodes, request),
    },
    GetMetadataDelta: {
      stream: (request: DeltaRequest) => delta(nodes, request),
    },
  };
}

/** In one message, unless fewer are asked for: some 100 KiB of it. */
const MAX_RESULTS = 4096;

async function* allocated(
  nodes: StorageNodes,
  request: AllocatedRequest,
): AsyncGenerator<MetadataMessage> {
  const target = await needSnapshot(nodes, "snapshot_id", request.snapshotId);
  yield* messages({ request, target, base: null });
}

async function* delta(nodes: StorageNodes, request: DeltaRequest): AsyncGenerator<MetadataMessage> {
  const base = await needSnapshot(nodes, "base_snapshot_id", request.baseSnapshotId);
  const target = await needSnapshot(nodes, "target_snapshot_id", request.targetSnapshotId);
  if (base.node !== target.node) {
    const where = `on ${base.node.name}, and the target on ${target.node.name}`;
    throw invalid("base_snapshot_id", `is of another volume: it is ${where}`);
  }
  try {
    yield* messages({ request, target, base });
  } catch (error) {
    throw isPandoError(error, "EINVAL") ? unrelated(base.item, target.item, error) : error;
  }
}

/** An older one of the same volume is all right to ask for: a full backup is what is left then. */
function unrelated(base: SnapshotInfo, target: SnapshotInfo, cause: Error): CsiError {
  const isOlder = Date.parse(base.createdAt) < Date.parse(target.createdAt);
  if (base.volumeUuid !== target.volumeUuid || !isOlder) {
    return invalid("base_snapshot_id and target_snapshot_id:", cause.message);
  }
  const message = `base_snapshot_id: the volume was rolled back since: ${cause.message}`;
  return new CsiError(status.FAILED_PRECONDITION, message, { cause });
}

async function needSnapshot(
  nodes: StorageNodes,
  field: string,
  snapshotId: string,
): Promise<Found<SnapshotInfo>> {
  if (snapshotId === "") throw invalid(field, "is missing");
  const id = parseSnapshotId(snapshotId);
  const found = id === null ? null : await nodes.findSnapshot(id);
  if (found === null) throw notFound(`${field}: there is no snapshot ${snapshotId}`);
  return found;
}

async function* messages(asked: {
  request: { startingOffset: number; maxResults: number };
  target: Found<SnapshotInfo>;
  base: Found<SnapshotInfo> | null;
}): AsyncGenerator<MetadataMessage> {
  const { target, base, request } = asked;
  const { startingOffset, maxResults } = request;
  const { sizeBytes } = target.item;
  if (maxResults < 0) throw invalid("max_results", "is negative");
  if (startingOffset < 0 || startingOffset > sizeBytes) {
    const message = `starting_offset is ${startingOffset}, not from 0 to ${sizeBytes}`;
    throw new CsiError(status.OUT_OF_RANGE, message);
  }
  const message = (ranges: ChangedRange[]): MetadataMessage => ({
    blockMetadataType: "VARIABLE_LENGTH",
    volumeCapacityBytes: sizeBytes,
    blockMetadata: ranges.map(({ offsetBytes, lengthBytes }) => ({
      byteOffset: offsetBytes,
      sizeBytes: lengthBytes,
    })),
  });
  const most = maxResults === 0 ? MAX_RESULTS : Math.min(maxResults, MAX_RESULTS);
  const diff = {
    target: refOf(target.item),
    base: base === null ? null : refOf(base.item),
    startBytes: startingOffset,
  };
  let empty = true;
  for await (const ranges of throughCuts(target.node.daemon, diff)) {
    for (let at = 0; at < ranges.length; at += most) {
      empty = false;
      yield message(ranges.slice(at, at + most));
    }
  }
  // The capacity is told even so.
  if (empty) yield message([]);
}

/** Goes on where it was cut, as long as it gets on. */
async function* throughCuts(daemon: Daemon, request: DiffRequest): AsyncGenerator<ChangedRange[]> {
  let { startBytes } = request;
  while (true) {
    const begunAt = startBytes;
    try {
      for await (const ranges of daemon.diff({ ...request, startBytes })) {
        const last = ranges.at(-1);
        if (last !== undefined) startBytes = last.offsetBytes + last.lengthBytes;
        yield ranges;
      }
      return;
    } catch (error) {
      if (!isPandoError(error, "ECLOSED") || startBytes === begunAt) throw error;
    }
  }
}

function refOf({ volume, name }: SnapshotInfo): { volume: string; snapshot: string } {
  return { volume, snapshot: name };
}

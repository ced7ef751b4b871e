// The control interface as TypeScript sees it: the methods of pando.proto with their messages, and
// the service definition that both ends load from the file itself. What is typed here by hand is
// compared with the file in test/unit/protocol.test.ts.
import {
  logVerbosity,
  type MethodDefinition,
  type ServiceDefinition,
  setLogVerbosity,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { assert } from "../base/assert.js";
import { packagePath } from "../base/package-path.js";
import type { ReclaimInfo } from "../core/api.js";

export interface PoolMessage {
  uuid: string;
  path: string;
  blockSizeBytes: number;
  sizeBytes: number;
  usedBytes: number;
  freeBytes: number;
  reservedBytes: number;
  pendingBytes: number;
  spaceLevel: number;
  volumes: number;
  snapshots: number;
  layers: number;
  reclaiming: number;
  failure: string;
  journal: { sizeBytes: number; usedBytes: number } | null;
  counters: Record<string, number>;
  reclaim: ReclaimInfo | null;
  discard: { state: string; punchedBytes: number; skippedBytes: number } | null;
}

export interface CheckReportMessage {
  clean: boolean;
  problems: string[];
  layers: number;
  indexBlocks: number;
  ownedBlocks: number;
}

export interface OriginMessage {
  volume: string;
  snapshot: string;
}

export interface VolumeMessage {
  name: string;
  uuid: string;
  sizeBytes: number;
  ownBytes: number;
  sharedBytes: number;
  logicalBytes: number;
  freedByDeleteBytes: number;
  freedByDeleteAtMost: boolean;
  origin: OriginMessage | null;
  createdAt: string;
  allowedHosts: string[];
  sessions: { frontEnd: string; hostNqn: string; count: number }[];
  nqn: string;
  addresses: { traddr: string; trsvcid: string }[];
  nbdUri: string;
  sharedVia: string;
  limits: { iops: number; bytesPerSecond: number } | null;
}

/** Null where it stands in a request: stays as it is. */
export interface LimitChangeMessage {
  none: boolean;
  value: number;
}

export interface ConnectionMessage {
  volume: string;
  hostNqn: string;
  peer: string;
  controllerId: number;
  ioQueues: number;
  authenticated: boolean;
  tls: boolean;
  connectedSeconds: number;
}

export interface HostKeysMessage {
  hostNqn: string;
  bidirectional: boolean;
  proves: boolean;
  tls: boolean;
}

export interface SnapshotMessage {
  volume: string;
  volumeUuid: string;
  name: string;
  uuid: string;
  sizeBytes: number;
  createdAt: string;
  ownBytes: number;
  sharedBytes: number;
  logicalBytes: number;
  freedByDeleteBytes: number;
  freedByDeleteAtMost: boolean;
}

export interface ServedSnapshotMessage {
  snapshot: SnapshotMessage | null;
  allowedHosts: string[];
  sessions: VolumeMessage["sessions"];
  nqn: string;
  addresses: VolumeMessage["addresses"];
  nbdUri: string;
  contents: string;
}

export interface ReceiveMessage {
  name: string;
  snapshot: string;
  contents: string;
  base: string;
  sizeBytes: number;
  offsetBytes: number;
  nbdUri: string;
}

export interface PoolEntryMessage {
  name: string;
  path: string;
  uuid: string;
  sizeBytes: number;
  usedBytes: number;
  failure: string;
}

type Empty = Record<string, never>;
type ByName = { name: string };
type BySnapshot = { volume: string; snapshot: string };
type ByHost = { volume: string; hostNqn: string };

/** Answered with one message. */
export interface UnaryMethods {
  ListPools: { request: Empty; response: { pools: PoolEntryMessage[] } };
  GetPool: { request: Empty; response: PoolMessage };
  GrowPool: { request: { sizeBytes: number; sparse: boolean }; response: PoolMessage };
  CheckPool: { request: Empty; response: CheckReportMessage };
  CreateVolume: { request: { name: string; sizeBytes: number }; response: VolumeMessage };
  GetVolume: { request: ByName & { countFreed: boolean }; response: VolumeMessage };
  DeleteVolume: { request: ByName; response: Empty };
  ResizeVolume: { request: { name: string; sizeBytes: number }; response: VolumeMessage };
  CloneVolume: { request: { source: OriginMessage | null; name: string }; response: VolumeMessage };
  SetVolumeLimits: {
    request: {
      name: string;
      iops: LimitChangeMessage | null;
      bytesPerSecond: LimitChangeMessage | null;
    };
    response: VolumeMessage;
  };
  RollbackVolume: { request: BySnapshot; response: VolumeMessage };
  CreateSnapshot: { request: BySnapshot; response: SnapshotMessage };
  GetSnapshot: {
    request: BySnapshot & { countFreed: boolean };
    response: ServedSnapshotMessage;
  };
  CreateSnapshots: {
    request: { snapshots: BySnapshot[] };
    response: { snapshots: SnapshotMessage[] };
  };
  DeleteSnapshot: { request: BySnapshot; response: Empty };
  BeginReceive: {
    request: Omit<ReceiveMessage, "offsetBytes" | "nbdUri"> & { resume: boolean };
    response: ReceiveMessage;
  };
  AdvanceReceive: { request: { name: string; offsetBytes: number }; response: Empty };
  FinishReceive: { request: ByName; response: VolumeMessage };
  AbortReceive: { request: ByName; response: Empty };
  AllowHost: { request: ByHost; response: VolumeMessage };
  DenyHost: { request: ByHost; response: VolumeMessage };
  ShareVolume: { request: { name: string; via: string }; response: VolumeMessage };
  UnshareVolume: { request: { name: string; force: boolean }; response: VolumeMessage };
  SetHostKeys: {
    request: { hostNqn: string; hostKey: string; controllerKey: string };
    response: Empty;
  };
  RemoveHostKeys: { request: { hostNqn: string }; response: Empty };
  SetHostTlsKey: { request: { hostNqn: string; key: string }; response: Empty };
  RemoveHostTlsKey: { request: { hostNqn: string }; response: Empty };
  DisconnectHost: { request: ByHost; response: { controllers: number } };
}

/** Answered with a stream: a pool can have a million volumes. */
export interface StreamMethods {
  ListVolumes: { request: { after: string }; response: { volumes: VolumeMessage[] } };
  ListReceives: { request: Empty; response: ReceiveMessage };
  TrimPool: {
    request: { startBytes: number };
    response: { doneBytes: number; sizeBytes: number; trimmedBytes: number };
  };
  BackUpMetadata: { request: Empty; response: { data: Uint8Array } };
  DiffSnapshots: {
    request: { base: BySnapshot | null; target: BySnapshot | null; startBytes: number };
    response: { ranges: { offsetBytes: number; lengthBytes: number; zero: boolean }[] };
  };
  ListSnapshots: { request: { volume: string }; response: { snapshots: SnapshotMessage[] } };
  ListHostKeys: { request: Empty; response: HostKeysMessage };
  ListConnections: { request: { volume: string }; response: ConnectionMessage };
}

export type UnaryName = keyof UnaryMethods;
export type StreamName = keyof StreamMethods;

const SERVICE = "pando.v1.Pando";

function load(): ServiceDefinition {
  // What it would print is in the errors that it gives.
  setLogVerbosity(logVerbosity.NONE);
  // Numbers: no size here comes near 2^53. `defaults`: an absent field is there with its default, a
  // message as null.
  const loaded = loadSync(packagePath("engine/serve/proto/pando/v1/pando.proto"), {
    longs: Number,
    defaults: true,
  });
  const service = loaded[SERVICE];
  assert(service !== undefined && !("format" in service), `${SERVICE} is not in pando.proto`);
  return service as ServiceDefinition;
}

export const service: ServiceDefinition = load();

export function method<Request, Response>(
  name: UnaryName | StreamName,
): MethodDefinition<Request, Response> {
  const definition = service[name];
  assert(definition !== undefined, `${name} is not in pando.proto`);
  return definition as MethodDefinition<Request, Response>;
}

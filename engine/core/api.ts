// What the engine offers to those who serve it (control server, exports, metrics). Implemented by
// core/pool.ts; everything here is plain data, sizes in bytes, times in ISO 8601 UTC.

import type { SnapshotRef } from "../base/name.js";
import type { Page } from "../store/catalogue.js";
import type { GrowRequest } from "./growth.js";

export interface Origin {
  volume: string;
  /** Null for a clone of a live volume. */
  snapshot: string | null;
}

/** What a volume or a snapshot takes of the pool. */
export interface SpaceInfo {
  /** In blocks that its layer owns. */
  ownBytes: number;
  /** Mapped, but owned by another layer. */
  sharedBytes: number;
  /** All that reads as data: own and shared. */
  logicalBytes: number;
  /** What comes back if it is deleted. */
  freedByDeleteBytes: number;
  /** That is an upper bound: what others still map of it stays. */
  freedByDeleteAtMost: boolean;
}

export interface VolumeInfo extends SpaceInfo {
  name: string;
  uuid: string;
  sizeBytes: number;
  origin: Origin | null;
  createdAt: string;
  /** NQNs that may connect; nobody else may. */
  allowedHosts: string[];
  /** Who has it open now. */
  sessions: SessionInfo[];
  /** What serves it in place of Pando's own front ends. */
  sharedVia: "nvmet" | null;
  limits: Limits;
}

/** Null: no limit. */
export interface Limits {
  iops: number | null;
  bytesPerSecond: number | null;
}

export interface SessionInfo {
  frontEnd: "nbd" | "nvme-tcp" | "ublk" | "nbd-device";
  /** NVMe only; empty for NBD. */
  hostNqn: string;
  /** How many front-end openings this stands for. */
  count: number;
}

/** A host's NVMe controller: its admin queue and the I/O queues that belong to it. */
export interface ConnectionInfo {
  volume: string;
  hostNqn: string;
  /** ADDRESS:PORT of the admin queue's other end. */
  peer: string;
  controllerId: number;
  ioQueues: number;
  /** It has proved who it is. */
  authenticated: boolean;
  /** Over TLS, with its key. */
  tls: boolean;
  connectedSeconds: number;
}

/** A host with keys, which nobody is shown. */
export interface HostKeysInfo {
  hostNqn: string;
  /** It has to prove who it is (DH-HMAC-CHAP). */
  proves: boolean;
  /** It can ask the same of us. */
  bidirectional: boolean;
  /** It has to use TLS. */
  tls: boolean;
}

export interface SnapshotInfo extends SpaceInfo {
  volume: string;
  /** Of the volume that it was taken of, which may be gone, and its name another's. */
  volumeUuid: string;
  name: string;
  uuid: string;
  sizeBytes: number;
  createdAt: string;
}

/** With what it takes to read it: a snapshot is served read-only, under a name of its own. */
export interface ServedSnapshotInfo extends SnapshotInfo {
  /** Identity of what is in it, the same in every pool that it was sent to. */
  contents: string;
  /** Its volume's, as long as that is there. */
  allowedHosts: string[];
  sessions: SessionInfo[];
}

/** Free blocks that are given back to the device. */
export interface TrimProgress {
  /** Everything before this place was looked at: to go on from, after a cut. */
  doneBytes: number;
  sizeBytes: number;
  /** Given back since it began. */
  trimmedBytes: number;
}

export interface ReceiveRequest {
  /** The volume that is made; with a base, the one that goes on. */
  name: string;
  /** What is received becomes this snapshot of it; null for an import, which makes none. */
  snapshot: string | null;
  /** Identity of what is received: a UUID. */
  contents: string;
  /** Identity of the contents that the stream begins at; null: nothing. */
  base: string | null;
  sizeBytes: number;
  /** Go on with what is there. */
  resume: boolean;
}

/** What has come so far. */
export interface ReceiveInfo extends Omit<ReceiveRequest, "resume"> {
  /** Everything before is durable. */
  offsetBytes: number;
}

export interface DiffRequest {
  /** Null: against nothing, which gives what the snapshot has at all. */
  base: SnapshotRef | null;
  target: SnapshotRef;
  /** What is before the block of this offset is left out. */
  startBytes: number;
}

export interface ChangedRange {
  offsetBytes: number;
  lengthBytes: number;
  /** It reads as zero now, and did not before. */
  zero: boolean;
}

export interface PoolInfo {
  uuid: string;
  path: string;
  blockSizeBytes: number;
  sizeBytes: number;
  /** Allocated, as of now: what is lent to the data path but not written does not count. */
  usedBytes: number;
  freeBytes: number;
  /**
   * Of the device, and not in sizeBytes: superblocks, journal, and what is less than a block at the
   * end. Of the data blocks nothing is kept back: metadata takes none.
   */
  reservedBytes: number;
  /** Of what is used: given up already, and free soon: after the next checkpoint, or a punch. */
  pendingBytes: number;
  /** 0, or how many of the configured thresholds usedBytes has reached: 3 is critical. */
  spaceLevel: number;
  volumes: number;
  snapshots: number;
  layers: number;
  /** Deleted layers whose space is not back yet. */
  reclaiming: number;
  /** How far their space has come back. */
  reclaim: ReclaimInfo;
  /** Null, or the sentence that says why the pool takes no more writes. */
  failure: string | null;
  journal: { sizeBytes: number; usedBytes: number };
  discard: DiscardInfo;
  counters: Record<string, number>;
}

/** Free blocks given back to the device. */
export interface DiscardInfo {
  /** Unsupported: it was tried, and the device or its file system cannot. */
  state: "on" | "off" | "unsupported";
  // Since the pool was opened.
  punchedBytes: number;
  /** Free, and not given back: a write wanted them, too many waited, or the device failed. */
  skippedBytes: number;
}

export interface ReclaimInfo {
  /** Those that can go: the others are parents of several children. */
  layersWaiting: number;
  /** Index blocks of those. */
  spansWaiting: number;
  // Since the pool was opened.
  layersReclaimed: number;
  layersFolded: number;
  spansReclaimed: number;
  spansFolded: number;
  /** Of layers that several others share. */
  spansSwept: number;
  freedBytes: number;
}

export interface CheckReport {
  clean: boolean;
  /** One sentence each; empty if clean. */
  problems: string[];
  layers: number;
  indexBlocks: number;
  ownedBlocks: number;
}

/**
 * Every method rejects with a PandoError. Creates are idempotent in nothing but name: an existing
 * name is EEXIST.
 */
export interface PoolService {
  info(): Promise<PoolInfo>;
  check(): Promise<CheckReport>;
  /** Larger, while it is served. EINVAL, ENOSPC: it is as it was. */
  grow(request: GrowRequest): Promise<PoolInfo>;
  /** The bytes of a copy of the store, as of a moment after the call. */
  backUpMetadata(): AsyncIterable<Uint8Array>;

  createVolume(name: string, sizeBytes: number): Promise<VolumeInfo>;
  getVolume(name: string): Promise<VolumeInfo>;
  /** All of them, or a page: in the order of their names. */
  listVolumes(page?: Page<string>): Promise<VolumeInfo[]>;
  /** Those that a front end has open: few, however many there are. */
  listOpenVolumes(): Promise<VolumeInfo[]>;
  /** EBUSY while a front end has it open. */
  deleteVolume(name: string): Promise<void>;
  /** Grow only. */
  resizeVolume(name: string, sizeBytes: number): Promise<VolumeInfo>;
  /** A field that is not there stays as it is. In force at once, and after a restart. */
  setLimits(name: string, change: Partial<Limits>): Promise<VolumeInfo>;
  /** From a snapshot, or, with `snapshot` null, from the volume as it is now. */
  cloneVolume(source: Origin, name: string): Promise<VolumeInfo>;
  /** What was written since is deleted. EBUSY while somebody has the volume open. */
  rollbackVolume(volume: string, snapshot: string): Promise<VolumeInfo>;

  createSnapshot(volume: string, snapshot: string): Promise<SnapshotInfo>;
  /** Of several volumes at one instant, all or none; in the order in which they are named. */
  createSnapshots(snapshots: readonly SnapshotRef[]): Promise<SnapshotInfo[]>;
  getSnapshot(volume: string, snapshot: string): Promise<ServedSnapshotInfo>;
  /** All snapshots, or one volume's; or a page of them, in the order of their names. */
  listSnapshots(volume?: string, page?: Page<SnapshotRef>): Promise<SnapshotInfo[]>;
  /** EBUSY while somebody reads it. */
  deleteSnapshot(volume: string, snapshot: string): Promise<void>;

  /**
   * What changed from one snapshot to a later one on the same line: batches of ranges, in order.
   */
  diff(request: DiffRequest): AsyncIterable<ChangedRange[]>;
  /**
   * How many bytes deleting it would free, to the block; yields while it counts. Null: it cannot be
   * said now, as what was deleted before is still on its way.
   */
  countFreed(volume: string, snapshot: string | null): AsyncGenerator<undefined, number | null>;
  /** All that is free goes back to the device, from this place on; progress as it comes. */
  trim(startBytes: number): AsyncIterable<TrimProgress>;

  /**
   * Begins, or goes on with, receiving. It is written over NBD, and is no volume before
   * finishReceive().
   */
  beginReceive(request: ReceiveRequest): Promise<ReceiveInfo>;
  /** What was written before the offset is durable when it resolves. */
  advanceReceive(name: string, offsetBytes: number): Promise<void>;
  /** EBUSY while an NBD client has it open. */
  finishReceive(name: string): Promise<VolumeInfo>;
  abortReceive(name: string): Promise<void>;
  listReceives(): Promise<ReceiveInfo[]>;

  allowHost(volume: string, hostNqn: string): Promise<VolumeInfo>;
  /**
   * Also ends the host's connections to the volume; when it resolves, no request of the host runs
   * any more. EBUSY: it is off the list and disconnected, but something of it still runs.
   */
  denyHost(volume: string, hostNqn: string): Promise<VolumeInfo>;
  /**
   * Ends the host's connections as denyHost() does, and gives how many controllers it had. A host
   * that is on the list may come back.
   */
  disconnectHost(volume: string, hostNqn: string): Promise<number>;
  /**
   * DH-HMAC-CHAP keys in nvme-cli's form; with `controller` we can prove who we are, too. A host
   * that is connected unproven is put out.
   */
  setHostKeys(hostNqn: string, keys: { host: string; controller: string | null }): Promise<void>;
  removeHostKeys(hostNqn: string): Promise<void>;
  /** A pre-shared key in nvme-cli's form. A host that is connected without TLS is put out. */
  setHostTlsKey(hostNqn: string, key: string): Promise<void>;
  removeHostTlsKey(hostNqn: string): Promise<void>;
  listHostKeys(): Promise<HostKeysInfo[]>;
  /** Who is connected over NVMe/TCP: to one volume, or at all. */
  listConnections(volume?: string): Promise<ConnectionInfo[]>;

  /**
   * Has the kernel's NVMe target serve the volume, from now on and after every restart. EBUSY while
   * a front end has it open. Harmless if it is shared already.
   */
  shareVolume(name: string): Promise<VolumeInfo>;
  /** EBUSY while hosts may be connected, unless it is forced. Harmless if it is not shared. */
  unshareVolume(name: string, options: { force: boolean }): Promise<VolumeInfo>;

  /** A checkpoint now; resolves when it is durable and what it freed is allocatable. */
  checkpoint(): Promise<void>;
  close(): Promise<void>;
}

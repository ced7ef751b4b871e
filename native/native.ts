// The only file that knows the addon. Types its surface, loads it, and refuses one that was built
// for other constants. Which message means what, who owns what before and after it, and in which
// order: the table in ARCHITECTURE.md.
import { createRequire } from "node:module";
import { assert } from "../engine/base/assert.js";
import { INDEX_BLOCK_BYTES, SECTOR_BYTES, SLOTS_PER_SPAN } from "../engine/base/constants.js";
import { PandoError } from "../engine/base/errors.js";

/** Bumped whenever a function of the surface changes. */
const ABI_VERSION = 14;

export interface Abi {
  version: number;
  sectorBytes: number;
  slotsPerSpan: number;
  indexBlockBytes: number;
}

/**
 * A question from the data path: the nearest index block of `span`, from `layer` towards the root.
 */
export interface IndexRequest {
  token: number;
  layer: number;
  span: number;
}

export interface DeviceInfo {
  sizeBytes: number;
  blockDevice: boolean;
  /** Bytes that survive a power cut whole or not at all: 512 or 4096. */
  atomicUnit: number;
  volatileCache: boolean;
}

export interface PendingDiskOp {
  kind: "read" | "write" | "write-durable" | "flush" | "discard";
  offset: number;
  length: number;
}

/**
 * Which unflushed atomic units a simulated power cut keeps; "chosen": the set of this number.
 */
export const SURVIVORS = { none: 0, all: 1, completed: 2, random: 3, chosen: 4 } as const;

export interface PoolOpenOptions {
  blockSizeBytes: number;
  dataOffsetBytes: number;
  indexCacheBytes: number;
  /** Dirty index blocks that call for a checkpoint. */
  dirtyLimit: number;
  /** Fewer lent blocks than this call for more. */
  extentsLowBlocks: number;
  journalOffsetBytes: number;
  journalBlocks: number;
  nextSequence: number;
  epoch: number;
  uuid: Uint8Array;
  /** Changes whenever the machine starts anew. */
  bootId: string;
  /** A file, made anew, whose memory outlives the process; unused in a simulation. */
  sharedPath: string;
}

export type FrontEnd = "nbd" | "nvme-tcp" | "ublk" | "nbd-device";

/** What the data path says of its own accord, in the order in which it happened. */
export type PoolEvent =
  | { type: "extents"; waiting: boolean }
  | { type: "checkpoint"; reason: string }
  /** Pairs of first block and count: they may be written again. */
  | { type: "freed"; runs: Uint32Array }
  | { type: "failed"; code: string; what: string }
  /** Simulation only; otherwise the index service's thread is asked. */
  | { type: "index"; token: number; layer: number; span: number }
  | {
      type: "open";
      token: number;
      frontEnd: FrontEnd;
      name: string;
      hostNqn: string;
      peer: string;
      /** Over TLS, with a key of this host's. */
      tls: boolean;
    }
  | { type: "close"; frontEnd: FrontEnd; volume: number; hostNqn: string }
  | { type: "list"; token: number; frontEnd: FrontEnd; hostNqn: string }
  /** A step of a queue's authentication: the host's message, or, with null, its wish for ours. */
  | {
      type: "auth";
      token: number;
      /** A number of the target's, never used again. */
      connection: number;
      subsystemNqn: string;
      hostNqn: string;
      peer: string;
      message: Uint8Array | null;
    }
  /** A connection that had begun to authenticate has gone. */
  | { type: "authEnd"; connection: number }
  /** A connection begins with TLS: its ClientHello, from the handshake header on. */
  | { type: "tlsKey"; token: number; peer: string; hello: Uint8Array }
  /** For logs: a connection is ended. */
  | { type: "refused"; peer: string; reason: string };

export interface VolumeOpenOptions {
  id: number;
  name: string;
  uuid: Uint8Array;
  sizeBytes: number;
  readOnly: boolean;
  /** Layer ids from the live layer to the root. */
  lineage: number[];
  /**
   * The live layer was made in this process and has not been opened before: the store has nothing
   * of it.
   */
  bornHere: boolean;
  /** 0: no limit. */
  requestsPerSecond: number;
  /** 0: no limit. */
  bytesPerSecond: number;
}

export interface LayerDelta {
  layer: number;
  owned: number;
  mapped: number;
}

export interface CheckpointStart {
  /** What the new tail will be. */
  tail: number;
  dirty: number;
  /** Triples of first block, count, 1 (allocated) or 0 (freed), since the old tail, in order. */
  changes: Uint32Array;
}

export interface CheckpointBatch {
  layers: number[];
  spans: number[];
  /** INDEX_BLOCK_BYTES each. */
  blocks: Uint8Array;
}

/** What a fold finds in memory. */
export interface HeldBlocks {
  spans: number[];
  /** INDEX_BLOCK_BYTES each. */
  blocks: Uint8Array;
}

export const IO_OP = { read: 0, write: 1, flush: 2, discard: 3, writeZeroes: 4, map: 5 } as const;

export type IoStatus =
  | "ok"
  | "io-error"
  | "no-space"
  | "out-of-range"
  | "invalid"
  | "read-only"
  | "closed";

export interface IoResult {
  status: IoStatus;
  /** Reads: what was read. */
  data: Uint8Array;
  /** Maps: the range, in order. */
  extents: { lengthBytes: number; data: boolean }[];
}

export const LOAD_PATTERN = {
  read: 0,
  write: 1,
  randread: 2,
  randwrite: 3,
  randrw: 4,
} as const;

export interface LoadOptions {
  /** One of LOAD_PATTERN. */
  pattern: number;
  /** randrw only. */
  readPercent: number;
  blockBytes: number;
  depth: number;
  /** From the volume's start; 0: all of it. */
  regionBytes: number;
  /** Whichever of the two is reached first; 0: no limit. */
  durationMs: number;
  opCount: number;
  /** Writes between flushes; 0: never. */
  flushEvery: number;
  seed: number;
  verify: boolean;
}

export interface LoadLane {
  ops: number;
  bytes: number;
  latency: { p50Us: number; p90Us: number; p99Us: number; p999Us: number; maxUs: number };
}

export interface LoadResult {
  seconds: number;
  iops: number;
  reads: LoadLane;
  writes: LoadLane;
  flushes: LoadLane;
  errors: number;
  verifyErrors: number;
  verifiedBlocks: number;
}

export interface NvmeLoadOptions {
  /** Numeric, IPv4 or IPv6. */
  address: string;
  port: number;
  subsystemNqn: string;
  hostNqn: string;
  /** One of LOAD_PATTERN. */
  pattern: number;
  /** randrw only. */
  readPercent: number;
  blockBytes: number;
  /** Each of them a connection. */
  queues: number;
  /** Of each queue. */
  depth: number;
  /** From the volume's start; 0: all of it. */
  regionBytes: number;
  /** Whichever of the two is reached first; 0: no limit. */
  durationMs: number;
  opCount: number;
  seed: number;
}

export interface NvmeLoadResult {
  seconds: number;
  iops: number;
  reads: LoadLane;
  writes: LoadLane;
  errors: number;
  /** Of the first of them: its NVMe status, and what it means where we know. */
  firstError: string;
  volumeBytes: number;
}

export interface TargetPlace {
  /** Numeric, IPv4 or IPv6. */
  address: string;
  port: number;
}

export interface TargetListenOptions {
  listen: TargetPlace[];
  /** What discovery tells hosts; empty: what the host came to. */
  advertised: TargetPlace[];
  tls: TargetTls;
  /** How many there may be in all, and of one host. */
  connections: number;
  hostConnections: number;
}

/** TLS at the target; see the `targetTls` setting. */
export type TargetTls = "off" | "allowed" | "required";

/** A key, or a ring of keys, of the kernel's. */
export interface KernelKey {
  serial: number;
  type: string;
  /** Whose it is. */
  userId: number;
  description: string;
}

/** The key of one handshake. */
export interface TlsKeyAnswer {
  /** As the ClientHello has it. */
  identity: string;
  /** Else SHA-256: the hash of its cipher suite. */
  sha384: boolean;
  secret: Uint8Array;
  /** Whose it is, and for what: Connect has to name the same. */
  hostNqn: string;
  subsystemNqn: string;
}

/** A host's controller at the target. */
export interface TargetSession {
  subsystemNqn: string;
  hostNqn: string;
  peer: string;
  controllerId: number;
  ioQueues: number;
  /** It has proved who it is. */
  authenticated: boolean;
  tls: boolean;
  connectedMs: number;
}

export interface UblkAddOptions {
  /** Sixteen hexadecimal digits that the kernel keeps for us. */
  owner: string;
  sizeBytes: number;
  blockBytes: number;
  atomicBytes: number;
  readOnly: boolean;
}

export interface UblkInfo {
  owner: string;
  /** Quiesced: its server is gone, and its requests wait for another one. */
  state: "dead" | "live" | "quiesced" | "unknown";
  serverPid: number;
  sizeBytes: number;
}

/** One end of a pair, past the handshake; whoever it is given to closes it. */
export interface NbdSocket {
  socket: number;
  /** The NBD protocol's transmission flags. */
  flags: number;
}

export interface NbdConnectOptions extends NbdSocket {
  /** A text that the kernel keeps for us, and wants to hear again. */
  owner: string;
  sizeBytes: number;
  blockBytes: number;
}

export type NbdReconnectOptions = Pick<NbdConnectOptions, "socket" | "owner" | "sizeBytes">;

/** What a step of an authentication comes to. */
export const AUTH_VERDICT = { pending: 0, authenticated: 1, failed: 2 } as const;

/** How an open request of a front end is answered. */
export const OPEN_STATUS = { ok: 0, notFound: 1, denied: 2, busy: 3, error: 4 } as const;

export interface Addon {
  abi(): Abi;
  /** CRC32C of `data`, continuing from `seed` (0 to start). */
  crc32c(data: Uint8Array, seed?: number): number;

  // Data devices, by handle. Synchronous; errors carry the errno's name as `code`.
  /** Opens and locks it; EAGAIN if another process has the lock. */
  deviceOpen(path: string): number;
  deviceInfo(device: number): DeviceInfo;
  deviceRead(device: number, offsetBytes: number, lengthBytes: number): Uint8Array;
  deviceFlush(device: number): void;
  deviceClose(device: number): void;
  /**
   * Makes a file of `bytes` bytes with every block allocated, reading as zeroes; it may exist,
   * empty.
   */
  preallocate(path: string, bytes: number): void;
  /** Gives a part of the file its blocks, and touches nothing before it. */
  allocate(path: string, offsetBytes: number, bytes: number): Promise<void>;

  // The simulated device; see native/src/sim_disk.h.
  simDiskCreate(sizeBytes: number, atomicUnit: 512 | 4096): number;
  /** What is pending in it can only be lost, by a power cut or a kill, before anything else. */
  simDiskFork(device: number): number;
  simDiskWrite(device: number, offsetBytes: number, data: Uint8Array): void;
  simDiskPending(device: number): PendingDiskOp[];
  simDiskPendingCount(device: number): number;
  simDiskComplete(device: number, index: number, errno: number, seed: number): void;
  /** A short transfer: so much of a pending operation; the rest of it stays pending. */
  simDiskTransfer(device: number, index: number, lengthBytes: number): void;
  /** Everything that was done to it so far, in its order, as one number. */
  simDiskDigest(device: number): number;
  simDiskCutPower(device: number, survivors: number, seed: number): void;
  /** How many different contents a power cut could leave now; `limit` if there are more. */
  simDiskSurvivorSets(device: number, limit: number): number;
  simDiskKill(device: number, seed: number): void;
  /** The memory that outlives the process; empty after a power cut. */
  simSharedRead(device: number): Uint8Array;

  // The pool.
  poolOpen(device: number, options: PoolOpenOptions, onEvent: (event: PoolEvent) => void): number;
  /** Its volumes are closed already; a simulated pool may be dropped in the middle of anything. */
  poolClose(pool: number): void;
  /**
   * Simulation: runs what was deferred and delivers what waits for JavaScript; how many things that
   * were.
   */
  poolDrain(pool: number): number;
  /** Takes no more writes, as after a failed flush. */
  poolPoison(pool: number, what: string): void;
  poolStats(pool: number): Promise<Record<string, number>>;

  volumeOpen(pool: number, options: VolumeOpenOptions): Promise<void>;
  /** Settles when the volume's last request has ended. */
  volumeClose(pool: number, volume: number): Promise<void>;
  volumeFlush(pool: number, volume: number): Promise<void>;
  /**
   * Holds new writes and drains: no change of the live layers is under way, though not all of them
   * may be durable. However it ends, every volume is to be thawed.
   */
  volumeFreeze(pool: number, volumes: number[]): Promise<void>;
  /** A `newLayer` other than 0 becomes the live layer, a child of the one before. */
  volumeThaw(pool: number, volume: number, newLayer: number): Promise<void>;
  volumeResize(pool: number, volume: number, sizeBytes: number): Promise<void>;
  /** 0: no limit. From now on, for what waits too. */
  volumeLimit(
    pool: number,
    volume: number,
    requestsPerSecond: number,
    bytesPerSecond: number,
  ): Promise<void>;
  /** For tests and tools; front ends never come this way. */
  volumeIo(
    pool: number,
    volume: number,
    op: number,
    offsetBytes: number,
    lengthBytes: number,
    data: Uint8Array | null,
    fua: boolean,
  ): Promise<IoResult>;
  /**
   * Of each layer of which more, or less, is owned or mapped than the store counts: how much, in
   * blocks.
   */
  layerDeltas(pool: number): Promise<LayerDelta[]>;

  /**
   * Answers an "open" event: one of OPEN_STATUS, and the open volume's number if it is ok.
   * `authenticate`: the host gets nothing before it has proved who it is.
   */
  exportsAnswerOpen(
    pool: number,
    token: number,
    status: number,
    volume: number,
    authenticate: boolean,
  ): void;
  /**
   * Answers an "auth" event: one of AUTH_VERDICT, and our message if the host wants one. After a
   * failure the queue ends.
   */
  exportsAnswerAuth(pool: number, token: number, verdict: number, message: Uint8Array | null): void;
  /**
   * Answers a "list" event: NQNs for nvme-tcp, volume names for nbd; `tls`: the host is told that
   * it has to use it.
   */
  exportsAnswerList(pool: number, token: number, names: string[], tls: boolean): void;
  /** Answers a "tlsKey" event; null: there is no key for it. */
  exportsAnswerTlsKey(pool: number, token: number, key: TlsKeyAnswer | null): void;

  /** Drives an open volume from inside the process; see native/src/load_generator.h. */
  loadRun(pool: number, volume: number, options: LoadOptions): Promise<LoadResult>;
  /**
   * Drives a volume over NVMe/TCP, as its host; of nobody's pool. Rejects with an Error that says
   * in a sentence what the target did; see native/src/nvme_load.h.
   */
  nvmeLoadRun(options: NvmeLoadOptions): Promise<NvmeLoadResult>;

  // Front ends.
  /** Serves every volume by its name over NBD on a Unix socket. */
  nbdListen(pool: number, path: string): Promise<void>;
  /** The NVMe/TCP target; settles when it listens in every place. */
  targetListen(pool: number, options: TargetListenOptions): Promise<void>;
  /**
   * Answers what has been taken, for a bounded time; settles when the last connection has gone and
   * the last volume is let go.
   */
  frontEndsStop(pool: number): Promise<void>;
  /**
   * Ends what the host has on the subsystem, at once; an empty host: what anybody has. Settles when
   * the last request of it has ended, or, with `ended` false, after half a minute.
   */
  targetDisconnect(
    pool: number,
    subsystemNqn: string,
    hostNqn: string,
  ): Promise<{ controllers: number; ended: boolean }>;
  /** Of one host; with an empty one, of all. */
  targetSessions(pool: number, hostNqn: string): Promise<TargetSession[]>;
  /** The volume's size has changed: hosts are told to look again. */
  targetVolumeChanged(pool: number, volume: number): void;
  /** Discovery lists something else to these hosts now. */
  targetExportsChanged(pool: number, hostNqns: string[]): void;

  // Block devices through ublk, by the kernel's number. Those without a pool are for the control
  // device: they block on a thread of their own, for half a minute at most.
  /** Flags of the features that the kernel lacks; see native/src/ublk_spec.h. */
  ublkMissing(): Promise<number>;
  ublkAdd(options: UblkAddOptions): Promise<number>;
  ublkInfo(device: number): Promise<UblkInfo>;
  /** After ublkServe(): the block device appears. */
  ublkStart(device: number): Promise<void>;
  /** EBUSY: the kernel has not noticed yet that the server before is gone. */
  ublkStartRecovery(device: number): Promise<void>;
  /** After ublkServe(): what was under way comes again. */
  ublkEndRecovery(device: number): Promise<void>;
  /** The block device is gone when it settles. */
  ublkStop(device: number): Promise<void>;
  ublkDelete(device: number): Promise<void>;
  /** Opens the volume and fetches the device's requests; frontEndsStop() leaves them to others. */
  ublkServe(pool: number, device: number, volume: string): Promise<void>;
  /** Settles when a device that is stopped has given everything back; the volume is let go. */
  ublkRelease(pool: number, device: number): Promise<void>;

  // Block devices of the kernel's NBD driver, by the kernel's number. Those without a pool are for
  // the driver: they block on a thread of their own, for half a minute at most.
  nbdIsLoaded(): Promise<boolean>;
  /** Makes a block device of what nbdServe() gave. */
  nbdConnect(options: NbdConnectOptions): Promise<number>;
  /** Another socket for a device whose connection has ended; what waits there is sent again. */
  nbdReconnect(device: number, options: NbdReconnectOptions): Promise<void>;
  /** Whoever has it open sees the new size. */
  nbdResize(device: number, options: Omit<NbdReconnectOptions, "socket">): Promise<void>;
  /** What waits there fails; gone when the last who has it open has closed it. */
  nbdDisconnect(device: number): Promise<void>;
  /** Opens the volume; its requests come by the other end. frontEndsStop() ends that. */
  nbdServe(pool: number, volume: string): Promise<NbdSocket>;
  /** When the volume is let go; true if nobody here has ended it. At once if it is not served. */
  nbdEnded(pool: number, volume: string): Promise<boolean>;
  nbdRelease(pool: number, volume: string): Promise<void>;

  // Of the process; see native/binding/process_calls.cc. On the main thread only.
  /** From here on this thread has a copy of all mounts, and gets no new ones. */
  mountsSeparate(): void;
  /** Gone from the thread's mounts, whoever uses it. */
  mountDetach(path: string): void;
  /** This program from its beginning, as the same process. Returns only by an error. */
  executeAgain(words: string[], name: string, value: string): void;

  // Keys and rings of keys of the kernel's, by their serial numbers; see
  // native/binding/key_calls.cc. On the main thread only.
  /** From here on what is in it can be read and changed. */
  keyringReach(keyring: number): void;
  /** Null if there is none, or none that may be looked at. */
  keyDescribe(key: number): KernelKey | null;
  keyringList(keyring: number): KernelKey[];
  keyRead(key: number): Uint8Array;
  /**
   * Gives its serial number; it takes the place of one that is called the same there. Null makes a
   * ring, which has no secret.
   */
  keyAdd(keyring: number, type: string, description: string, secret: Uint8Array | null): number;
  /** True if it was there. */
  keyUnlink(keyring: number, key: number): boolean;

  checkpointBegin(pool: number): Promise<CheckpointStart>;
  /** Up to `limit` more index blocks; none: that was all. */
  checkpointTake(pool: number, limit: number): Promise<CheckpointBatch>;
  checkpointStored(pool: number): Promise<void>;
  checkpointEnd(pool: number, success: boolean): Promise<void>;

  /**
   * Holds writes and discards of these spans of the layer until foldLetGo, whatever comes between;
   * gives the index blocks among them that are dirty, their records durable.
   */
  foldHold(pool: number, layer: number, spans: number[]): Promise<HeldBlocks>;
  /** The parent's index blocks of these held spans are the child's in the store, durably. */
  foldApply(
    pool: number,
    parent: number,
    child: number,
    spans: number[],
    /** Own bits that the child has got, SLOTS_PER_SPAN / 8 bytes for each span. */
    adopted: Uint8Array,
  ): Promise<void>;
  foldLetGo(pool: number, layer: number, spans: number[]): Promise<void>;
  /**
   * As foldHold, of all spans of the layer, until foldLetGoAll; null if more than `limit` of its
   * index blocks are dirty: then nothing is held.
   */
  foldHoldAll(pool: number, layer: number, limit: number): Promise<HeldBlocks | null>;
  /**
   * In the store, durably, the parent is no more and its index blocks are the child's, which is
   * held; those of these spans were put together with what the child had, as foldApply has it.
   */
  foldAbsorb(
    pool: number,
    parent: number,
    child: number,
    spans: number[],
    adopted: Uint8Array,
  ): Promise<void>;
  foldLetGoAll(pool: number, layer: number): Promise<void>;
  /** The parent has no index block any more: memory forgets it. */
  foldUnlink(pool: number, parent: number, child: number): Promise<void>;
  /**
   * Pairs of first block and count whose release is durable without a record: a "freed" event tells
   * when no device I/O knows them any more.
   */
  blocksRelease(pool: number, runs: Uint32Array): void;
  /**
   * Pairs of first block and count that are free and lent to nobody until it settles: the device
   * gets them back. It ends at the first error, with the system call's name of it.
   */
  blocksPunch(pool: number, runs: Uint32Array): Promise<void>;

  /**
   * Pairs of first block and count. `exhausted`, with none: there are no more; writes that need one
   * fail.
   */
  extentsLend(pool: number, runs: Uint32Array, exhausted: boolean): void;

  /**
   * The calling thread answers the data path's index misses from now on; they arrive in batches.
   * Each is answered once, in any order.
   */
  indexServe(pool: number, onRequests: (requests: IndexRequest[]) => void): void;
  /**
   * `owner` is the layer that has `block` (INDEX_BLOCK_BYTES bytes, copied before the call
   * returns), or 0 with null if no layer up to the root has an index block for the span. `failed`:
   * it could not be read; the I/O fails.
   */
  indexAnswer(
    pool: number,
    token: number,
    owner: number,
    block: Uint8Array | null,
    failed?: boolean,
  ): void;
}

const require = createRequire(import.meta.url);

function load(): Addon {
  // dist/native/native.js -> build/RelWithDebInfo/pando.node
  let addon: Addon;
  const path = new URL("../../build/RelWithDebInfo/pando.node", import.meta.url).pathname;
  try {
    addon = require(path) as Addon;
  } catch (cause) {
    throw new PandoError(
      "EVERSION",
      `the native addon does not load: ${path}`,
      {
        path,
        hint: "npm run build",
      },
      { cause },
    );
  }
  const abi = addon.abi();
  assert(
    abi.version === ABI_VERSION,
    `the native addon has ABI ${abi.version}, not ${ABI_VERSION}`,
  );
  assert(abi.sectorBytes === SECTOR_BYTES, "native sector size");
  assert(abi.slotsPerSpan === SLOTS_PER_SPAN, "native slots per span");
  assert(abi.indexBlockBytes === INDEX_BLOCK_BYTES, "native index block size");
  return addon;
}

export const native: Addon = load();

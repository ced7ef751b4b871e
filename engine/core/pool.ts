// A pool in service: puts the parts together and is what the control plane talks to.
//
// The catalogue's lock serialises everything that changes names, layers or who has what open.
// Checkpoints and reclaims run beside it: a write that waits for one of them may be what a snapshot
// waits for.

import type { Addon, IoResult, PoolEvent } from "../../native/native.js";
import { assert } from "../base/assert.js";
import type { Clock } from "../base/clock.js";
import { MAX_VOLUME_BYTES } from "../base/constants.js";
import { isPandoError, PandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { requireName, type SnapshotRef } from "../base/name.js";
import {
  createVolume,
  deleteSnapshot,
  deleteVolume,
  getSpaceRecord,
  getVolume,
  type Page,
  updateVolume,
} from "../store/catalogue.js";
import { FreeMap } from "../store/free-map.js";
import { abandonLayer, createLayer } from "../store/layers.js";
import type { Store } from "../store/store.js";
import type { Superblock } from "../store/superblock.js";
import { uuidToBytes } from "../store/uuid.js";
import type { AbsorbLimits } from "./absorb.js";
import type {
  ChangedRange,
  CheckReport,
  ConnectionInfo,
  DiffRequest,
  HostKeysInfo,
  Origin,
  PoolInfo,
  PoolService,
  ReceiveInfo,
  ReceiveRequest,
  ServedSnapshotInfo,
  SnapshotInfo,
  TrimProgress,
  VolumeInfo,
} from "./api.js";
import { Authentication, type AuthenticationOptions } from "./auth/authentication.js";
import { TlsKeys } from "./auth/tls-keys.js";
import { Background } from "./background.js";
import { BackupMarks, type BackupStore } from "./backup-marks.js";
import {
  type BranchingParts,
  cloneLiveVolume,
  cloneSnapshot,
  snapshotVolumes,
} from "./branching.js";
import { Care } from "./care.js";
import type { CheckStore } from "./check.js";
import { Checkpointer } from "./checkpointer.js";
import { DataPath } from "./data-path.js";
import { DeviceErrors } from "./device-errors.js";
import { diffSnapshots } from "./diff.js";
import { VolumeExports } from "./exports.js";
import { Figures } from "./figures.js";
import { type GrowingPlace, type GrowRequest, Growth } from "./growth.js";
import { HostVolumes } from "./host-volumes.js";
import { type HostNews, Hosts } from "./hosts.js";
import { answerHere } from "./index-questions.js";
import { type LimitsChange, limitsOf, nativeLimits, requireLimits, withLimits } from "./limits.js";
import { Listing } from "./listing.js";
import { Mutex } from "./mutex.js";
import { OpenVolumes } from "./open-volumes.js";
import { Pace } from "./pace.js";
import { Punches } from "./punches.js";
import { Receives } from "./receives.js";
import type { BatchLimits } from "./reclaim-batch.js";
import { Reclaimer } from "./reclaimer.js";
import type { Recovered } from "./recovery.js";
import { rollBack } from "./rollback.js";
import { Shares } from "./shares.js";
import { Space } from "./space.js";
import { SpaceLevels } from "./space-levels.js";

export interface PoolParts {
  addon: Addon;
  /** The open device's handle; the pool closes it. */
  device: number;
  store: Store;
  recovered: Recovered;
  clock: Clock;
  log: Log;
  newUuid: () => string;
  news: HostNews;
  authentication: AuthenticationOptions;
  /**
   * Memory that outlives the process, and the machine's boot id; see native/src/unflushed_log.h.
   */
  memory: { sharedPath: string; bootId: string };
  path: string;
  indexCacheBytes: number;
  /** Dirty index blocks that call for a checkpoint. */
  dirtyLimit: number;
  /** Hosts' writes to the index blocks that a transaction of a fold changes wait for it. */
  fold: BatchLimits;
  absorb: AbsorbLimits;
  reclaim: BatchLimits;
  /** Free blocks are given back to the device. */
  discard: boolean;
  /** What the device has given for the free blocks is kept: it could not promise it again. */
  keepsRoom: boolean;
  /** Percent of the pool used at which each level above 0 begins. */
  spaceLevels: readonly number[];
  /** In this process if it is not given. */
  checkStore?: CheckStore;
  /** Where there is none, there are no backups. */
  backups?: { store: BackupStore };
  /** Both of them, durably. */
  writeSuperblocks: (superblock: Superblock) => Promise<void>;
  /** Where there is none, the pool does not grow while it is served. */
  growing?: GrowingPlace;
}

export class Pool implements PoolService {
  readonly #parts: PoolParts;
  readonly #growth: Growth;
  readonly #store: Store;
  readonly #path: DataPath;
  readonly #map: FreeMap;
  readonly #space: Space;
  readonly #punches: Punches;
  readonly #care: Care;
  readonly #figures: Figures;
  readonly #checkpointer: Checkpointer;
  readonly #reclaimer: Reclaimer;
  readonly #volumes: OpenVolumes;
  readonly #branching: BranchingParts;
  readonly #listing: Listing;
  readonly #receives: Receives;
  readonly #hostVolumes: HostVolumes;
  readonly #exports: VolumeExports;
  readonly #hosts: Hosts;
  /** Volumes that the kernel's target serves; for those who attach one. */
  readonly shares: Shares;
  readonly #authentication: Authentication;
  readonly #tlsKeys: TlsKeys;
  readonly #catalogue = new Mutex();
  readonly #background: Background;
  readonly #backups: BackupMarks;
  #failure: string | null = null;
  #closed = false;
  #checkpointed = false;

  constructor(parts: PoolParts) {
    this.#parts = parts;
    const { superblock, epoch, nextSequence } = parts.recovered;
    this.#store = parts.store;
    this.#path = new DataPath(
      parts.addon,
      parts.device,
      {
        blockSizeBytes: superblock.blockSizeBytes,
        dataOffsetBytes: superblock.dataOffsetBytes,
        indexCacheBytes: parts.indexCacheBytes,
        dirtyLimit: parts.dirtyLimit,
        extentsLowBlocks: Math.min(4096, Math.floor(superblock.dataBlocks / 64)),
        journalOffsetBytes: superblock.journalOffsetBytes,
        journalBlocks: superblock.journalBlocks,
        nextSequence,
        epoch,
        uuid: uuidToBytes(superblock.uuid),
        ...parts.memory,
      },
      (event) => this.#handle(event),
    );
    const { allocatedBlocks } = getSpaceRecord(this.#store);
    const { dataBlocks } = superblock;
    this.#map = new FreeMap(this.#store, { dataBlocks, allocatedBlocks });
    const indexWrites = new Mutex();
    this.#checkpointer = new Checkpointer(this.#store, this.#path, this.#map, indexWrites);
    this.#punches = new Punches({
      path: this.#path,
      pace: new Pace(parts.clock, this.#path),
      log: parts.log,
      blockSizeBytes: superblock.blockSizeBytes,
      enabled: parts.discard,
      free: (runs) => this.#space.free(runs),
    });
    this.#space = new Space(this.#path, this.#map, {
      dataBlocks,
      makeFree: () => this.#background.makeFree(),
      punches: this.#punches,
      trimmed: () => this.#care.trimming.answered(),
      log: parts.log,
    });
    this.#growth = new Growth({
      store: this.#store,
      superblock,
      place: parts.growing,
      write: parts.writeSuperblocks,
      inDoubt: () => this.#path.poison("a grow"),
    });
    this.#backups = new BackupMarks(superblock.reclaims, (reclaims) =>
      this.#growth.raise(reclaims),
    );
    const volumes = new OpenVolumes(this.#store, this.#path);
    this.#volumes = volumes;
    const unanswered = new Set<string>();
    this.#listing = new Listing({
      store: this.#store,
      path: this.#path,
      volumes,
      blockSizeBytes: superblock.blockSizeBytes,
      indexWrites,
      unanswered,
    });
    this.#reclaimer = new Reclaimer({
      store: this.#backups.guard(this.#store),
      path: this.#path,
      map: this.#map,
      indexWrites,
      checkpointer: this.#checkpointer,
      pace: new Pace(parts.clock, this.#path),
      fold: parts.fold,
      absorb: parts.absorb,
      reclaim: parts.reclaim,
      log: parts.log,
      spaceWanted: () => this.#space.exhausted,
      inUse: (layer) => volumes.isLive(layer),
      gotIndexBlocks: (layer) => volumes.gotIndexBlocks(layer),
    });
    this.#branching = {
      store: this.#store,
      path: this.#path,
      volumes: this.#volumes,
      now: () => parts.clock.now(),
      newUuid: parts.newUuid,
      unanswered,
    };
    this.#authentication = new Authentication({
      addon: parts.addon,
      pool: () => this.#path.handle,
      store: this.#store,
      log: parts.log,
      ...parts.authentication,
    });
    this.#tlsKeys = new TlsKeys({
      addon: parts.addon,
      pool: () => this.#path.handle,
      store: this.#store,
      log: parts.log,
    });
    this.#receives = new Receives(this.#branching);
    this.#hostVolumes = new HostVolumes(this.#store, () => this.#closed);
    this.#exports = new VolumeExports({
      authenticates: (hostNqn) => this.#authentication.required(hostNqn),
      needsTls: (hostNqn) => this.#tlsKeys.required(hostNqn),
      addon: parts.addon,
      pool: () => this.#path.handle,
      store: this.#store,
      volumes: this.#volumes,
      hostVolumes: this.#hostVolumes,
      shared: () => this.shares.uuids(),
      catalogue: this.#catalogue,
      closed: () => this.#closed,
      log: parts.log,
    });
    this.#hosts = new Hosts({
      store: this.#store,
      news: parts.news,
      volumes: this.#hostVolumes,
      change: (work) => this.#change(work),
      settled: () => this.#catalogue.run(async () => undefined),
      closed: () => this.#closed,
    });
    this.shares = new Shares({
      store: this.#store,
      volumes: this.#volumes,
      change: (work) => this.#change(work),
    });
    this.#care = new Care({
      store: this.#store,
      path: this.#path,
      map: this.#map,
      pace: new Pace(parts.clock, this.#path),
      blockSizeBytes: superblock.blockSizeBytes,
      dataBlocks: () => this.#superblock.dataBlocks,
      checkpointer: this.#checkpointer,
      catalogue: this.#catalogue,
      marks: this.#backups,
      backups: parts.backups,
      checkStore: parts.checkStore,
      keepsRoom: parts.keepsRoom,
      freed: () => this.#space.freeAgain(),
    });
    this.#figures = new Figures({
      path: parts.path,
      store: this.#store,
      dataPath: this.#path,
      map: this.#map,
      punches: this.#punches,
      trim: this.#care.trimming,
      reclaimer: this.#reclaimer,
      checkpointer: this.#checkpointer,
      levels: new SpaceLevels(parts.spaceLevels, parts.log),
      deviceErrors: new DeviceErrors(parts.log),
      superblock: () => this.#superblock,
    });
    this.#space.lend();
    this.#background = new Background({
      clock: parts.clock,
      path: this.#path,
      checkpointer: this.#checkpointer,
      reclaimer: this.#reclaimer,
      log: parts.log,
      broken: () => this.#failure !== null,
      onInterval: () => this.#figures.watch(),
    });
  }

  /** The addon's handle, for those who attach front ends and the index service. */
  get handle(): number {
    return this.#path.handle;
  }

  async info(): Promise<PoolInfo> {
    this.#assertOpen();
    return this.#figures.info(this.#failure);
  }

  async check(): Promise<CheckReport> {
    this.#assertOpen();
    return this.#care.check();
  }

  backUpMetadata(): AsyncIterable<Uint8Array> {
    this.#assertOpen();
    return this.#care.backUpMetadata();
  }

  /** What the superblocks say now. */
  get #superblock(): Superblock {
    return this.#growth.superblock;
  }

  async grow(request: GrowRequest): Promise<PoolInfo> {
    this.#assertOpen();
    await this.#growth.run(
      request,
      (work) => this.#change(work),
      (dataBlocks) => this.#space.grow(dataBlocks),
    );
    return this.info();
  }

  async createVolume(name: string, sizeBytes: number): Promise<VolumeInfo> {
    requireName(name, "volume");
    this.#requireSize(sizeBytes, name);
    await this.#change(async () => {
      const layer = await this.#store.transact((txn) => {
        const live = createLayer(txn, null);
        createVolume(txn, name, {
          uuid: this.#parts.newUuid(),
          layer: live.id,
          sizeBytes,
          createdAt: this.#parts.clock.now(),
          allowedHosts: [],
          origin: null,
        });
        return live.id;
      });
      this.#volumes.born(layer);
    });
    return this.getVolume(name);
  }

  async getVolume(name: string): Promise<VolumeInfo> {
    this.#assertOpen();
    return this.#listing.volume(name);
  }

  async listVolumes(page?: Page<string>): Promise<VolumeInfo[]> {
    this.#assertOpen();
    return this.#listing.volumes(page);
  }

  async listOpenVolumes(): Promise<VolumeInfo[]> {
    this.#assertOpen();
    return this.#listing.openVolumes();
  }

  async deleteVolume(name: string): Promise<void> {
    const { uuid, allowedHosts } = await this.#change(async () => {
      this.shares.requireNotShared(name);
      this.#volumes.requireClosed(name);
      const record = await this.#store.transact((txn) => {
        const deleted = deleteVolume(txn, name);
        abandonLayer(txn, deleted.layer, this.#parts.clock.now());
        return deleted;
      });
      this.#deleted(record.layer);
      return record;
    });
    for (const host of allowedHosts) this.#hostVolumes.denied(host, uuid);
    this.#parts.news.exportsChanged(allowedHosts);
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<VolumeInfo> {
    this.#requireSize(sizeBytes, name);
    await this.#change(async () => {
      this.shares.requireCanGrow(name);
      const before = getVolume(this.#store, name).sizeBytes;
      if (sizeBytes < before) {
        throw new PandoError("EINVAL", `volume ${name} does not shrink: it has ${before} bytes`, {
          volume: name,
          field: "sizeBytes",
        });
      }
      await this.#store.transact((txn) => {
        updateVolume(txn, name, { ...getVolume(txn, name), sizeBytes });
      });
      const open = this.#volumes.find(name);
      if (open === undefined) return;
      open.sizeBytes = sizeBytes;
      await this.#path.resizeVolume(open.id, sizeBytes);
      this.#parts.news.resized(open.id);
    });
    await this.shares.volumeChanged(name);
    return this.getVolume(name);
  }

  async setLimits(name: string, change: LimitsChange): Promise<VolumeInfo> {
    requireLimits(change, name);
    await this.#change(async () => {
      const limits = await this.#store.transact((txn) => {
        const record = getVolume(txn, name);
        const changed = { ...limitsOf(record), ...change };
        updateVolume(txn, name, withLimits(record, changed));
        return changed;
      });
      const open = this.#volumes.find(name);
      if (open !== undefined) await this.#path.limitVolume(open.id, nativeLimits(limits));
    });
    return this.getVolume(name);
  }

  async cloneVolume(source: Origin, name: string): Promise<VolumeInfo> {
    requireName(name, "volume");
    await this.#change(async () => {
      const { volume, snapshot } = source;
      if (snapshot === null) {
        this.#reclaimer.deleted(await cloneLiveVolume(this.#branching, volume, name));
      } else {
        await cloneSnapshot(this.#branching, { volume, snapshot }, name);
      }
    });
    return this.getVolume(name);
  }

  async createSnapshot(volume: string, snapshot: string): Promise<SnapshotInfo> {
    const [info] = await this.createSnapshots([{ volume, snapshot }]);
    return info as SnapshotInfo;
  }

  async createSnapshots(snapshots: readonly SnapshotRef[]): Promise<SnapshotInfo[]> {
    for (const { snapshot } of snapshots) requireName(snapshot, "snapshot");
    await this.#change(() => snapshotVolumes(this.#branching, snapshots));
    return this.#listing.snapshotsNamed(snapshots);
  }

  async rollbackVolume(volume: string, snapshot: string): Promise<VolumeInfo> {
    await this.#change(async () => {
      this.#deleted(await rollBack(this.#branching, { volume, snapshot }));
    });
    return this.getVolume(volume);
  }

  async getSnapshot(volume: string, snapshot: string): Promise<ServedSnapshotInfo> {
    this.#assertOpen();
    return this.#listing.servedSnapshot(volume, snapshot);
  }

  async listSnapshots(volume?: string, page?: Page<SnapshotRef>): Promise<SnapshotInfo[]> {
    this.#assertOpen();
    return this.#listing.snapshots(volume, page);
  }

  async deleteSnapshot(volume: string, snapshot: string): Promise<void> {
    await this.#change(async () => {
      this.#volumes.requireClosed(`${volume}@${snapshot}`);
      const record = await this.#store.transact((txn) => {
        const deleted = deleteSnapshot(txn, volume, snapshot);
        abandonLayer(txn, deleted.layer, this.#parts.clock.now());
        return deleted;
      });
      this.#deleted(record.layer);
    });
  }

  diff(request: DiffRequest): AsyncIterable<ChangedRange[]> {
    this.#assertOpen();
    const { blockSizeBytes } = this.#superblock;
    const checkpoint = () => this.#checkpointer.run();
    return diffSnapshots({ store: this.#store, blockSizeBytes, checkpoint }, request);
  }

  countFreed(volume: string, snapshot: string | null): AsyncGenerator<undefined, number | null> {
    this.#assertOpen();
    return this.#care.countFreed(volume, snapshot);
  }

  trim(startBytes: number): AsyncIterable<TrimProgress> {
    this.#assertOpen();
    return this.#care.trim(startBytes);
  }

  async beginReceive(request: ReceiveRequest): Promise<ReceiveInfo> {
    this.#requireSize(request.sizeBytes, request.name);
    return this.#change(() => this.#receives.begin(request));
  }

  advanceReceive(name: string, offsetBytes: number): Promise<void> {
    return this.#change(() => this.#receives.advance(name, offsetBytes));
  }

  async finishReceive(name: string): Promise<VolumeInfo> {
    await this.#change(async () => {
      const deleted = await this.#receives.finish(name);
      if (deleted !== null) this.#deleted(deleted);
    });
    return this.getVolume(name);
  }

  async abortReceive(name: string): Promise<void> {
    await this.#change(async () => {
      this.#deleted(await this.#receives.abort(name));
    });
  }

  async listReceives(): Promise<ReceiveInfo[]> {
    this.#assertOpen();
    return this.#receives.list();
  }

  async allowHost(volume: string, hostNqn: string): Promise<VolumeInfo> {
    await this.#hosts.allow(volume, hostNqn);
    await this.shares.volumeChanged(volume);
    return this.getVolume(volume);
  }

  async denyHost(volume: string, hostNqn: string): Promise<VolumeInfo> {
    await this.#hosts.deny(volume, hostNqn);
    return this.getVolume(volume);
  }

  async disconnectHost(volume: string, hostNqn: string): Promise<number> {
    this.#assertOpen();
    return this.#hosts.disconnect(volume, hostNqn);
  }

  async setHostKeys(
    hostNqn: string,
    keys: { host: string; controller: string | null },
  ): Promise<void> {
    await this.#hosts.setKeys(hostNqn, keys);
    await this.shares.keysChanged();
  }

  async removeHostKeys(hostNqn: string): Promise<void> {
    this.#assertOpen();
    await this.#hosts.removeKeys(hostNqn);
    await this.shares.keysChanged();
  }

  async setHostTlsKey(hostNqn: string, key: string): Promise<void> {
    this.#assertOpen();
    const isNew = await this.#hosts.setTlsKey(hostNqn, key);
    await this.shares.keysChanged();
    if (isNew) await this.shares.putOut(hostNqn);
  }

  async removeHostTlsKey(hostNqn: string): Promise<void> {
    this.#assertOpen();
    await this.#hosts.removeTlsKey(hostNqn);
    await this.shares.keysChanged();
    await this.shares.putOut(hostNqn);
  }

  async listHostKeys(): Promise<HostKeysInfo[]> {
    this.#assertOpen();
    return this.#hosts.keys();
  }

  async listConnections(volume?: string): Promise<ConnectionInfo[]> {
    this.#assertOpen();
    return this.#hosts.connections(volume);
  }

  async shareVolume(name: string): Promise<VolumeInfo> {
    await this.shares.share(name);
    return this.getVolume(name);
  }

  async unshareVolume(name: string, options: { force: boolean }): Promise<VolumeInfo> {
    await this.shares.unshare(name, options);
    return this.getVolume(name);
  }

  async checkpoint(): Promise<void> {
    this.#assertOpen();
    await this.#checkpointer.run();
    await this.#punches.idle();
  }

  /** Checkpoints and reclaims until nothing that was deleted waits any more. */
  async settle(): Promise<void> {
    this.#assertOpen();
    while (await this.#background.makeFree()) {
      // Each round may let a hidden parent go.
    }
    await this.#punches.idle();
  }

  /** Block I/O from here, for tests and tools. */
  async io(
    name: string,
    op: number,
    offsetBytes: number,
    lengthBytes: number,
    data: Uint8Array | null = null,
    fua = false,
  ): Promise<IoResult> {
    const open = this.#volumes.find(name);
    if (open === undefined) throw new PandoError("ENOTFOUND", `volume ${name} is not open`);
    return this.#path.io(open.id, op, offsetBytes, lengthBytes, data, fua);
  }

  /** Keeps the volume open in the data path until release(); gives the data path's number of it. */
  async hold(name: string): Promise<number> {
    const open = await this.#catalogue.run(() => this.#volumes.acquire(name, "engine"));
    return open.id;
  }

  async release(name: string): Promise<void> {
    const open = this.#volumes.find(name);
    assert(open !== undefined, `volume ${name} is held`);
    await this.#catalogue.run(() => this.#volumes.release(open, "engine"));
  }

  /** It was closed, and nothing is left to be replayed. */
  get checkpointed(): boolean {
    return this.#checkpointed;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const background = this.#background.stop();
    await this.#catalogue.run(async () => undefined);
    await this.#volumes.closeAll();
    if (this.#failure === null) {
      try {
        await this.#checkpointer.run();
        this.#checkpointed = true;
      } catch (error) {
        this.#parts.log.warn({ err: error }, "the last checkpoint failed; the next start replays");
      }
    }
    await background.ended;
    await this.#punches.stop();
    await this.#care.trimming.stop();
    this.#path.close();
    await this.#store.close();
    this.#parts.addon.deviceClose(this.#parts.device);
  }

  // What the data path says.

  #handle(event: PoolEvent): void {
    switch (event.type) {
      case "extents":
        void this.#space.wanted();
        break;
      case "checkpoint":
        this.#background.checkpoint();
        break;
      case "freed":
        this.#space.freed(event.runs);
        break;
      case "failed":
        this.#failure ??= `${event.what} failed with ${event.code}; open the pool again to recover`;
        this.#parts.log.error({ code: event.code }, `the pool takes no more writes: ${event.what}`);
        break;
      case "index":
        // Where there is an index service, it has the questions.
        answerHere({ store: this.#store, path: this.#path, log: this.#parts.log }, event);
        break;
      case "open":
        void this.#exports.open(event);
        break;
      case "close":
        void this.#exports.close(event);
        break;
      case "list":
        void this.#exports.list(event);
        break;
      case "auth":
        this.#authentication.handle(event);
        break;
      case "authEnd":
        this.#authentication.forget(event.connection);
        break;
      case "tlsKey":
        this.#tlsKeys.handle(event);
        break;
      case "refused":
        this.#parts.log.warn({ peer: event.peer, reason: event.reason }, "connection refused");
        break;
    }
  }

  /** The layer's deletion is durable. Writes that find the pool full wait for its space. */
  #deleted(layer: number): void {
    this.#reclaimer.deleted(layer);
    const waits = this.#reclaimer.progress().layersWaiting + this.#reclaimer.shared().total;
    if (waits > 0) this.#space.expect();
    this.#background.reclaim();
  }

  /** One change of the catalogue, alone. */
  #change<T>(work: () => Promise<T>): Promise<T> {
    return this.#catalogue.run(async () => {
      this.#assertOpen();
      if (this.#failure !== null) {
        throw new PandoError("EIO", `the pool takes no more changes: ${this.#failure}`);
      }
      try {
        return await work();
      } catch (error) {
        if (isPandoError(error, "EIO")) this.#path.poison("a change of the catalogue");
        throw error;
      }
    });
  }

  #requireSize(sizeBytes: number, volume: string): void {
    const block = this.#superblock.blockSizeBytes;
    const whole = Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % block === 0;
    if (whole && sizeBytes <= MAX_VOLUME_BYTES) return;
    throw new PandoError(
      "EINVAL",
      `a volume's size is 1 to ${MAX_VOLUME_BYTES / block} blocks of ${block} bytes, not ${sizeBytes} bytes`,
      { volume, field: "sizeBytes" },
    );
  }

  #assertOpen(): void {
    if (this.#closed) throw new PandoError("ECLOSED", "the pool is closed");
  }
}

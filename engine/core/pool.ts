// A pool in service: puts the parts together and is what the control plane talks to.
//
// The catalogue's lock serialises everything that changes names, layers or who has what open.
// Checkpoints and reclaims run beside it: a write that waits for one of them may be what a snapshot
// waits for.

import type { Addon, IoResult, PoolEvent } from "../../native/native.js";
import { assert } from "../base/assert.js";
import type { Clock } from "../base/clock.js";
import { MAX_VOLUME_BYTES, SECTOR_BYTES } from "../base/constants.js";
import { isPandoError, PandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import { isPartialName, requireName, type SnapshotRef } from "../base/name.js";
import {
  contentsOf,
  createVolume,
  deleteSnapshot,
  deleteVolume,
  getSnapshot,
  getSpaceRecord,
  getVolume,
  listSnapshots,
  listVolumes,
  type SnapshotEntry,
  updateVolume,
} from "../store/catalogue.js";
import type { VolumeRecord } from "../store/codec-records.js";
import { FreeMap } from "../store/free-map.js";
import { abandonLayer, createLayer, getLayer, listReclaim, mappedBlocks } from "../store/layers.js";
import { Lineage, lookupNearest } from "../store/lineage.js";
import type { Store } from "../store/store.js";
import type { Superblock } from "../store/superblock.js";
import { uuidToBytes } from "../store/uuid.js";
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
  VolumeInfo,
} from "./api.js";
import { Authentication, type AuthenticationOptions } from "./auth/authentication.js";
import {
  type BranchingParts,
  cloneLiveVolume,
  cloneSnapshot,
  snapshotVolumes,
} from "./branching.js";
import { type CheckStore, checkHere } from "./check.js";
import { Checkpointer } from "./checkpointer.js";
import { DataPath } from "./data-path.js";
import { diffSnapshots } from "./diff.js";
import { hostsOf, VolumeExports } from "./exports.js";
import { type HostNews, Hosts } from "./hosts.js";
import { type LimitsChange, limitsOf, nativeLimits, requireLimits, withLimits } from "./limits.js";
import { Mutex } from "./mutex.js";
import { OpenVolumes } from "./open-volumes.js";
import { Receives } from "./receives.js";
import { Reclaimer } from "./reclaimer.js";
import type { Recovered } from "./recovery.js";
import { rollBack } from "./rollback.js";
import { Space } from "./space.js";

/** How long changes may stay in the journal only. */
const CHECKPOINT_INTERVAL_MS = 5_000;

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
  /** In this process if it is not given. */
  checkStore?: CheckStore;
}

export class Pool implements PoolService {
  readonly #parts: PoolParts;
  readonly #superblock: Superblock;
  readonly #store: Store;
  readonly #path: DataPath;
  readonly #map: FreeMap;
  readonly #space: Space;
  readonly #checkpointer: Checkpointer;
  readonly #reclaimer: Reclaimer;
  readonly #volumes: OpenVolumes;
  readonly #branching: BranchingParts;
  readonly #receives: Receives;
  readonly #exports: VolumeExports;
  readonly #hosts: Hosts;
  readonly #authentication: Authentication;
  readonly #catalogue = new Mutex();
  readonly #stopTimer: () => void;
  #failure: string | null = null;
  #closed = false;
  #checkpointed = false;
  #tidying: Promise<void> | null = null;

  constructor(parts: PoolParts) {
    this.#parts = parts;
    const { superblock, epoch, nextSequence } = parts.recovered;
    this.#superblock = superblock;
    this.#store = parts.store;
    this.#path = new DataPath(
      parts.addon,
      parts.device,
      {
        blockSizeBytes: superblock.blockSizeBytes,
        dataOffsetBytes: superblock.dataOffsetBytes,
        dataBlocks: superblock.dataBlocks,
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
    this.#checkpointer = new Checkpointer(this.#store, this.#path, this.#map);
    this.#space = new Space(this.#path, this.#map, {
      dataBlocks,
      makeFree: () => this.#makeFree(),
      log: parts.log,
    });
    this.#reclaimer = new Reclaimer(
      this.#store,
      this.#checkpointer,
      this.#map,
      this.#space,
      parts.log,
    );
    this.#volumes = new OpenVolumes(this.#store, this.#path);
    this.#branching = {
      store: this.#store,
      path: this.#path,
      volumes: this.#volumes,
      now: () => parts.clock.now(),
      newUuid: parts.newUuid,
    };
    this.#authentication = new Authentication({
      addon: parts.addon,
      pool: () => this.#path.handle,
      store: this.#store,
      log: parts.log,
      ...parts.authentication,
    });
    this.#receives = new Receives(this.#branching);
    this.#exports = new VolumeExports({
      authenticates: (hostNqn) => this.#authentication.required(hostNqn),
      addon: parts.addon,
      pool: () => this.#path.handle,
      store: this.#store,
      volumes: this.#volumes,
      catalogue: this.#catalogue,
      closed: () => this.#closed,
      log: parts.log,
    });
    this.#hosts = new Hosts({
      store: this.#store,
      news: parts.news,
      change: (work) => this.#change(work),
      settled: () => this.#catalogue.run(async () => undefined),
    });
    this.#space.lend();
    this.#stopTimer = parts.clock.every(CHECKPOINT_INTERVAL_MS, () => this.#tidy());
    this.#tidy();
  }

  /** The addon's handle, for those who attach front ends and the index service. */
  get handle(): number {
    return this.#path.handle;
  }

  async info(): Promise<PoolInfo> {
    this.#assertOpen();
    const stats = await this.#path.stats();
    const block = this.#superblock.blockSizeBytes;
    const { used, lent, released } = this.#map.counts();
    const written = lent - (stats.lentBlocks ?? 0);
    const usedBlocks = used + released + written;
    const reclaiming = listReclaim(this.#store);
    return {
      uuid: this.#superblock.uuid,
      path: this.#parts.path,
      blockSizeBytes: block,
      sizeBytes: this.#superblock.dataBlocks * block,
      usedBytes: usedBlocks * block,
      freeBytes: (this.#superblock.dataBlocks - usedBlocks) * block,
      volumes: this.#store.count("volumes"),
      snapshots: this.#store.count("snapshots"),
      layers: this.#store.count("layers"),
      reclaiming: reclaiming.length,
      failure: this.#failure,
      journal: {
        sizeBytes: this.#superblock.journalBlocks * SECTOR_BYTES,
        usedBytes: (stats.journalUsedBlocks ?? 0) * SECTOR_BYTES,
      },
      counters: { ...stats, checkpoints: this.#checkpointer.completed },
    };
  }

  async check(): Promise<CheckReport> {
    this.#assertOpen();
    const check = this.#parts.checkStore ?? checkHere;
    return check(this.#store, (work) =>
      this.#catalogue.run(() => this.#checkpointer.runAndHold(work)),
    );
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
    const record = getVolume(this.#store, name);
    const [info] = await this.#describe([{ name, record }]);
    return info as VolumeInfo;
  }

  async listVolumes(): Promise<VolumeInfo[]> {
    this.#assertOpen();
    const whole = listVolumes(this.#store).filter(({ record }) => record.receiving === undefined);
    return this.#describe(whole);
  }

  async listOpenVolumes(): Promise<VolumeInfo[]> {
    this.#assertOpen();
    const served = this.#volumes.all().filter(({ name, sessions, readOnly }) => {
      return sessions.length > 0 && !readOnly && !isPartialName(name);
    });
    const entries = served.map(({ name }) => ({ name, record: getVolume(this.#store, name) }));
    return this.#describe(entries);
  }

  async deleteVolume(name: string): Promise<void> {
    const { allowedHosts } = await this.#change(async () => {
      this.#volumes.requireClosed(name);
      const record = await this.#store.transact((txn) => {
        const deleted = deleteVolume(txn, name);
        abandonLayer(txn, deleted.layer, this.#parts.clock.now());
        return deleted;
      });
      this.#reclaimer.deleted(record.layer);
      return record;
    });
    this.#parts.news.exportsChanged(allowedHosts);
    this.#tidy();
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<VolumeInfo> {
    this.#requireSize(sizeBytes, name);
    await this.#change(async () => {
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
      if (snapshot === null) await cloneLiveVolume(this.#branching, volume, name);
      else await cloneSnapshot(this.#branching, { volume, snapshot }, name);
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
    return snapshots.map(({ volume, snapshot }) =>
      describeSnapshot({
        volume,
        name: snapshot,
        record: getSnapshot(this.#store, volume, snapshot),
      }),
    );
  }

  async rollbackVolume(volume: string, snapshot: string): Promise<VolumeInfo> {
    await this.#change(async () => {
      this.#reclaimer.deleted(await rollBack(this.#branching, { volume, snapshot }));
    });
    this.#tidy();
    return this.getVolume(volume);
  }

  async getSnapshot(volume: string, snapshot: string): Promise<ServedSnapshotInfo> {
    this.#assertOpen();
    const record = getSnapshot(this.#store, volume, snapshot);
    const name = `${volume}@${snapshot}`;
    return {
      ...describeSnapshot({ volume, name: snapshot, record }),
      contents: contentsOf(record),
      allowedHosts: hostsOf(this.#store, name),
      sessions: this.#volumes.sessions(name),
    };
  }

  async listSnapshots(volume?: string): Promise<SnapshotInfo[]> {
    this.#assertOpen();
    return listSnapshots(this.#store, volume).map(describeSnapshot);
  }

  async deleteSnapshot(volume: string, snapshot: string): Promise<void> {
    await this.#change(async () => {
      this.#volumes.requireClosed(`${volume}@${snapshot}`);
      const record = await this.#store.transact((txn) => {
        const deleted = deleteSnapshot(txn, volume, snapshot);
        abandonLayer(txn, deleted.layer, this.#parts.clock.now());
        return deleted;
      });
      this.#reclaimer.deleted(record.layer);
    });
    this.#tidy();
  }

  diff(request: DiffRequest): AsyncIterable<ChangedRange[]> {
    this.#assertOpen();
    const { blockSizeBytes } = this.#superblock;
    const checkpoint = () => this.#checkpointer.run();
    return diffSnapshots({ store: this.#store, blockSizeBytes, checkpoint }, request);
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
      if (deleted !== null) this.#reclaimer.deleted(deleted);
    });
    this.#tidy();
    return this.getVolume(name);
  }

  async abortReceive(name: string): Promise<void> {
    await this.#change(async () => {
      this.#reclaimer.deleted(await this.#receives.abort(name));
    });
    this.#tidy();
  }

  async listReceives(): Promise<ReceiveInfo[]> {
    this.#assertOpen();
    return this.#receives.list();
  }

  async allowHost(volume: string, hostNqn: string): Promise<VolumeInfo> {
    await this.#hosts.allow(volume, hostNqn);
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
  }

  async removeHostKeys(hostNqn: string): Promise<void> {
    this.#assertOpen();
    await this.#hosts.removeKeys(hostNqn);
  }

  async listHostKeys(): Promise<HostKeysInfo[]> {
    this.#assertOpen();
    return this.#hosts.keys();
  }

  async listConnections(volume?: string): Promise<ConnectionInfo[]> {
    this.#assertOpen();
    return this.#hosts.connections(volume);
  }

  checkpoint(): Promise<void> {
    this.#assertOpen();
    return this.#checkpointer.run();
  }

  /** Checkpoints and reclaims until nothing that was deleted waits any more. */
  async settle(): Promise<void> {
    this.#assertOpen();
    while (await this.#makeFree()) {
      // Each round may let a hidden parent go.
    }
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
    this.#stopTimer();
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
    await this.#tidying;
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
        this.#checkpointer.run().catch((error: unknown) => this.#backgroundFailed(error));
        break;
      case "freed":
        this.#space.freed(event.runs);
        break;
      case "failed":
        this.#failure ??= `${event.what} failed with ${event.code}; open the pool again to recover`;
        this.#parts.log.error({ code: event.code }, `the pool takes no more writes: ${event.what}`);
        break;
      case "index":
        this.#answerIndex(event.token, event.layer, event.span);
        break;
      case "open":
        void this.#exports.open(event);
        break;
      case "close":
        void this.#exports.close(event);
        break;
      case "list":
        this.#exports.list(event);
        break;
      case "auth":
        this.#authentication.handle(event);
        break;
      case "authEnd":
        this.#authentication.forget(event.connection);
        break;
    }
  }

  /** Where there is no index service: a simulation, in one thread. */
  #answerIndex(token: number, layer: number, span: number): void {
    try {
      const found = lookupNearest(this.#store, new Lineage(), layer, span);
      this.#path.answerIndex(token, found?.owner ?? 0, found?.block.raw ?? null, false);
    } catch (error) {
      if (!isPandoError(error, "ECORRUPT")) throw error;
      this.#parts.log.error({ err: error }, "an index look-up failed");
      this.#path.answerIndex(token, 0, null, true);
    }
  }

  // Background work.

  /** A checkpoint and a reclaim, if there is anything for them; never two at a time. */
  #tidy(): void {
    if (this.#closed || this.#failure !== null) return;
    this.#tidying ??= this.#tidyOnce()
      .catch((error: unknown) => this.#backgroundFailed(error))
      .finally(() => {
        this.#tidying = null;
      });
  }

  async #tidyOnce(): Promise<void> {
    const stats = await this.#path.stats();
    const journaled = stats.journalSequence !== stats.journalTail;
    if ((stats.indexDirty ?? 0) > 0 || journaled || (stats.pendingFreeBlocks ?? 0) > 0) {
      await this.#checkpointer.run();
    }
    while (this.#reclaimer.waiting().total > 0 && !this.#closed) {
      if (this.#reclaimer.waiting().ready === 0) await this.#checkpointer.run();
      await this.#reclaimer.run();
    }
  }

  /** Makes what waits for a checkpoint or a reclaim free. False: nothing waited. */
  async #makeFree(): Promise<boolean> {
    const stats = await this.#path.stats();
    const waiting = this.#reclaimer.waiting().total > 0;
    if ((stats.pendingFreeBlocks ?? 0) === 0 && !waiting) return false;
    await this.#checkpointer.run();
    if (waiting) await this.#reclaimer.run();
    return true;
  }

  #backgroundFailed(error: unknown): void {
    if (this.#closed) return;
    this.#parts.log.error({ err: error }, "checkpoint or reclaim failed");
    // A full store can be tried again; anything else has to be recovered from.
    if (!isPandoError(error, "ENOSPC")) this.#path.poison("the store's transaction");
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

  async #describe(entries: { name: string; record: VolumeRecord }[]): Promise<VolumeInfo[]> {
    const block = this.#superblock.blockSizeBytes;
    const memo = new Map<number, number>();
    const pending = new Map((await this.#path.layerDeltas()).map((delta) => [delta.layer, delta]));
    const pendingMapped = new Map([...pending].map(([layer, delta]) => [layer, delta.mapped]));
    return entries.map(({ name, record }) => {
      const { ownedBlocks } = getLayer(this.#store, record.layer);
      const owned = ownedBlocks + (pending.get(record.layer)?.owned ?? 0);
      const mapped = mappedBlocks(this.#store, record.layer, memo, pendingMapped);
      return {
        name,
        uuid: record.uuid,
        sizeBytes: record.sizeBytes,
        ownBytes: owned * block,
        sharedBytes: (mapped - owned) * block,
        origin: record.origin,
        createdAt: record.createdAt,
        allowedHosts: record.allowedHosts,
        sessions: this.#volumes.sessions(name),
        limits: limitsOf(record),
      };
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

function describeSnapshot({ volume, name, record }: SnapshotEntry): SnapshotInfo {
  const { uuid, sizeBytes, createdAt, volumeUuid } = record;
  return { volume, volumeUuid, name, uuid, sizeBytes, createdAt };
}

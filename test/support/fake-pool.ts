// A PoolService without a pool: names and numbers in memory, with the errors of the real one. For
// tests of the control plane.
import { randomUUID } from "node:crypto";
import { PandoError } from "../../engine/base/errors.js";
import type { SnapshotRef } from "../../engine/base/name.js";
import type {
  ChangedRange,
  CheckReport,
  ConnectionInfo,
  DiffRequest,
  HostKeysInfo,
  Limits,
  Origin,
  PoolInfo,
  PoolService,
  ReceiveInfo,
  ReceiveRequest,
  ServedSnapshotInfo,
  SessionInfo,
  SnapshotInfo,
  TrimProgress,
  VolumeInfo,
} from "../../engine/core/api.js";
import type { Page } from "../../engine/store/catalogue.js";

export class FakePool implements PoolService {
  readonly volumes = new Map<string, VolumeInfo>();
  readonly snapshots = new Map<string, SnapshotInfo>();
  readonly receives = new Map<string, ReceiveInfo>();
  failure: string | null = null;
  report: CheckReport = { clean: true, problems: [], layers: 1, indexBlocks: 2, ownedBlocks: 3 };
  closed = false;
  connections: ConnectionInfo[] = [];
  readonly keys = new Map<string, HostKeysInfo>();
  #clock = Date.parse("2026-01-01T00:00:00Z");

  constructor(readonly path: string) {}

  async info(): Promise<PoolInfo> {
    return {
      uuid: "00000000-0000-4000-8000-000000000000",
      path: this.path,
      blockSizeBytes: 4096,
      sizeBytes: 2 ** 40,
      usedBytes: 4096,
      freeBytes: 2 ** 40 - 4096,
      reservedBytes: 2 ** 26 + 2 ** 20,
      pendingBytes: 0,
      spaceLevel: 0,
      volumes: this.volumes.size,
      snapshots: this.snapshots.size,
      layers: this.volumes.size + this.snapshots.size,
      reclaiming: 0,
      reclaim: {
        layersWaiting: 0,
        spansWaiting: 0,
        layersReclaimed: 2,
        layersFolded: 1,
        spansReclaimed: 3,
        spansFolded: 4,
        spansSwept: 5,
        freedBytes: 8192,
      },
      failure: this.failure,
      journal: { sizeBytes: 2 ** 26, usedBytes: 8192 },
      discard: { state: "on", punchedBytes: 4096, skippedBytes: 0 },
      counters: { journalCommits: 7, "reads-inherited": 3 },
    };
  }

  async grow({ sizeBytes }: { sizeBytes: number | null }): Promise<PoolInfo> {
    return { ...(await this.info()), sizeBytes: sizeBytes ?? 2 ** 41 };
  }

  async check(): Promise<CheckReport> {
    return this.report;
  }

  async *countFreed(
    _volume: string,
    snapshot: string | null,
  ): AsyncGenerator<undefined, number | null> {
    yield;
    return snapshot === null ? 0 : 12_288;
  }

  async *trim(startBytes: number): AsyncGenerator<TrimProgress> {
    for (let doneBytes = startBytes; doneBytes < 4 * 2 ** 30; ) {
      doneBytes += 2 ** 30;
      yield { doneBytes, sizeBytes: 4 * 2 ** 30, trimmedBytes: doneBytes - startBytes };
      if (startBytes === 2 ** 20) throw new PandoError("EIO", "cut off");
    }
  }

  async *backUpMetadata(): AsyncGenerator<Uint8Array> {
    yield Buffer.from("metadata of ");
    yield Buffer.from(this.path);
  }

  async createVolume(name: string, sizeBytes: number): Promise<VolumeInfo> {
    return this.#add(name, sizeBytes, null);
  }

  async getVolume(name: string): Promise<VolumeInfo> {
    return this.#volume(name);
  }

  async listVolumes(page?: Page<string>): Promise<VolumeInfo[]> {
    return part([...this.volumes.values()], page, ({ name }, after) => name === after);
  }

  async listOpenVolumes(): Promise<VolumeInfo[]> {
    return [...this.volumes.values()].filter(({ sessions }) => sessions.length > 0);
  }

  async deleteVolume(name: string): Promise<void> {
    const volume = this.#volume(name);
    if (volume.sessions.length > 0) {
      throw new PandoError("EBUSY", `volume ${name} is in use: ${volume.sessions[0]?.hostNqn}`, {
        volume: name,
        hint: `disconnect it first: nvme disconnect -n …:${volume.uuid}`,
      });
    }
    this.volumes.delete(name);
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<VolumeInfo> {
    const volume = this.#volume(name);
    if (sizeBytes < volume.sizeBytes) {
      throw new PandoError("EINVAL", `volume ${name} cannot shrink`, { volume: name });
    }
    volume.sizeBytes = sizeBytes;
    return volume;
  }

  async setLimits(name: string, change: Partial<Limits>): Promise<VolumeInfo> {
    const volume = this.#volume(name);
    volume.limits = { ...volume.limits, ...change };
    return volume;
  }

  async cloneVolume(source: Origin, name: string): Promise<VolumeInfo> {
    const { volume, snapshot } = source;
    const from = snapshot === null ? this.#volume(volume) : this.#snapshot(volume, snapshot);
    return this.#add(name, from.sizeBytes, source);
  }

  async createSnapshot(volume: string, name: string): Promise<SnapshotInfo> {
    const { sizeBytes, uuid: volumeUuid } = this.#volume(volume);
    const key = `${volume}@${name}`;
    if (this.snapshots.has(key)) {
      throw new PandoError("EEXIST", `there is a snapshot ${key} already`, { volume });
    }
    const made = {
      volume,
      volumeUuid,
      name,
      uuid: randomUUID(),
      sizeBytes,
      createdAt: this.#now(),
      ownBytes: 4096,
      sharedBytes: 8192,
      logicalBytes: 12288,
      freedByDeleteBytes: 4096,
      freedByDeleteAtMost: true,
    };
    this.snapshots.set(key, made);
    return made;
  }

  async createSnapshots(snapshots: readonly SnapshotRef[]): Promise<SnapshotInfo[]> {
    for (const { volume } of snapshots) this.#volume(volume);
    return Promise.all(snapshots.map((one) => this.createSnapshot(one.volume, one.snapshot)));
  }

  async rollbackVolume(volume: string, snapshot: string): Promise<VolumeInfo> {
    this.#snapshot(volume, snapshot);
    return { ...this.#volume(volume), ownBytes: 0 };
  }

  async shareVolume(name: string): Promise<VolumeInfo> {
    return Object.assign(this.#volume(name), { sharedVia: "nvmet" });
  }

  async unshareVolume(name: string): Promise<VolumeInfo> {
    return Object.assign(this.#volume(name), { sharedVia: null });
  }

  async getSnapshot(volume: string, name: string): Promise<ServedSnapshotInfo> {
    const snapshot = this.#snapshot(volume, name);
    const of = this.volumes.get(volume);
    const allowedHosts = of?.uuid === snapshot.volumeUuid ? of.allowedHosts : [];
    return { ...snapshot, allowedHosts, sessions: [], contents: snapshot.uuid };
  }

  async *diff({ base, target }: DiffRequest): AsyncGenerator<ChangedRange[]> {
    this.#snapshot(target.volume, target.snapshot);
    if (base !== null) this.#snapshot(base.volume, base.snapshot);
    yield [{ offsetBytes: 0, lengthBytes: 8192, zero: false }];
    if (base !== null) yield [{ offsetBytes: 12288, lengthBytes: 4096, zero: true }];
  }

  async listSnapshots(volume?: string, page?: Page<SnapshotRef>): Promise<SnapshotInfo[]> {
    const found = [...this.snapshots.values()].filter(
      (snapshot) => volume === undefined || snapshot.volume === volume,
    );
    return part(
      found,
      page,
      (one, after) => one.volume === after.volume && one.name === after.snapshot,
    );
  }

  async deleteSnapshot(volume: string, name: string): Promise<void> {
    this.#snapshot(volume, name);
    this.snapshots.delete(`${volume}@${name}`);
  }

  async beginReceive({ resume: _resume, ...request }: ReceiveRequest): Promise<ReceiveInfo> {
    const info = { ...request, offsetBytes: 0 };
    this.receives.set(request.name, info);
    return info;
  }

  async advanceReceive(name: string, offsetBytes: number): Promise<void> {
    this.#receive(name).offsetBytes = offsetBytes;
  }

  async finishReceive(name: string): Promise<VolumeInfo> {
    const { sizeBytes } = this.#receive(name);
    this.receives.delete(name);
    return this.#add(name, sizeBytes, null);
  }

  async abortReceive(name: string): Promise<void> {
    this.#receive(name);
    this.receives.delete(name);
  }

  async listReceives(): Promise<ReceiveInfo[]> {
    return [...this.receives.values()];
  }

  async allowHost(name: string, hostNqn: string): Promise<VolumeInfo> {
    const volume = this.#volume(name);
    volume.allowedHosts = [...new Set([...volume.allowedHosts, hostNqn])];
    return volume;
  }

  async denyHost(name: string, hostNqn: string): Promise<VolumeInfo> {
    const volume = this.#volume(name);
    volume.allowedHosts = volume.allowedHosts.filter((host) => host !== hostNqn);
    return volume;
  }

  async disconnectHost(name: string, hostNqn: string): Promise<number> {
    this.#volume(name);
    const stays = (one: ConnectionInfo) => one.volume !== name || one.hostNqn !== hostNqn;
    const before = this.connections.length;
    this.connections = this.connections.filter(stays);
    return before - this.connections.length;
  }

  async setHostKeys(
    hostNqn: string,
    keys: { host: string; controller: string | null },
  ): Promise<void> {
    const bidirectional = keys.controller !== null;
    this.keys.set(hostNqn, { hostNqn, proves: true, bidirectional, tls: false });
  }

  async removeHostKeys(hostNqn: string): Promise<void> {
    if (!this.keys.delete(hostNqn)) {
      throw new PandoError("ENOTFOUND", `host ${hostNqn} has no keys`);
    }
  }

  async setHostTlsKey(hostNqn: string): Promise<void> {
    this.keys.set(hostNqn, { hostNqn, proves: false, bidirectional: false, tls: true });
  }

  async removeHostTlsKey(hostNqn: string): Promise<void> {
    if (!this.keys.delete(hostNqn)) {
      throw new PandoError("ENOTFOUND", `host ${hostNqn} has no TLS key`);
    }
  }

  async listHostKeys(): Promise<HostKeysInfo[]> {
    return [...this.keys.values()];
  }

  async listConnections(volume?: string): Promise<ConnectionInfo[]> {
    if (volume !== undefined) this.#volume(volume);
    return this.connections.filter((one) => volume === undefined || one.volume === volume);
  }

  async checkpoint(): Promise<void> {}

  async close(): Promise<void> {
    this.closed = true;
  }

  /** As if somebody had it open. */
  open(name: string, session: SessionInfo): void {
    this.#volume(name).sessions.push(session);
  }

  #add(name: string, sizeBytes: number, origin: Origin | null): VolumeInfo {
    if (this.volumes.has(name)) {
      throw new PandoError("EEXIST", `there is a volume ${name} already`, {
        volume: name,
        hint: "pando volume list",
      });
    }
    const volume: VolumeInfo = {
      name,
      uuid: randomUUID(),
      sizeBytes,
      ownBytes: 0,
      sharedBytes: origin === null ? 0 : 8192,
      logicalBytes: origin === null ? 0 : 8192,
      freedByDeleteBytes: 0,
      freedByDeleteAtMost: false,
      origin,
      createdAt: this.#now(),
      allowedHosts: [],
      sessions: [],
      sharedVia: null,
      limits: { iops: null, bytesPerSecond: null },
    };
    this.volumes.set(name, volume);
    return volume;
  }

  #volume(name: string): VolumeInfo {
    const volume = this.volumes.get(name);
    if (volume !== undefined) return volume;
    throw new PandoError("ENOTFOUND", `there is no volume ${name}`, {
      volume: name,
      hint: "pando volume list",
    });
  }

  #receive(name: string): ReceiveInfo {
    const receive = this.receives.get(name);
    if (receive !== undefined) return receive;
    throw new PandoError("ENOTFOUND", `nothing is being received into ${name}`, { volume: name });
  }

  #snapshot(volume: string, name: string): SnapshotInfo {
    const snapshot = this.snapshots.get(`${volume}@${name}`);
    if (snapshot !== undefined) return snapshot;
    throw new PandoError("ENOTFOUND", `there is no snapshot ${volume}@${name}`, { volume });
  }

  #now(): string {
    this.#clock += 1000;
    return new Date(this.#clock).toISOString();
  }
}

/** As a store would give it: what comes after one of the items. */
function part<Item, Place>(
  items: Item[],
  page: Page<Place> | undefined,
  is: (item: Item, place: Place) => boolean,
): Item[] {
  if (page === undefined) return items;
  const { after, limit } = page;
  const begin = after === null ? 0 : items.findIndex((item) => is(item, after)) + 1;
  return items.slice(begin, begin + limit);
}

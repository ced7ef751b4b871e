// Volumes and snapshots as they are shown: what the catalogue says of them, what they take, and who
// has them open. A list is read in one step; it never waits for the changes of others.
import { isPartialName, type SnapshotRef } from "../base/name.js";
import {
  contentsOf,
  getShares,
  getSnapshot,
  getVolume,
  listSnapshots,
  listVolumes,
  noSnapshot,
  noVolume,
  type Page,
  type SnapshotEntry,
  type VolumeEntry,
} from "../store/catalogue.js";
import type { Store } from "../store/store.js";
import type { ServedSnapshotInfo, SnapshotInfo, SpaceInfo, VolumeInfo } from "./api.js";
import type { DataPath } from "./data-path.js";
import { hostsOf } from "./exports.js";
import { FrozenTotals, LayerSpaces } from "./layer-space.js";
import { limitsOf } from "./limits.js";
import type { Mutex } from "./mutex.js";
import type { OpenVolumes } from "./open-volumes.js";

export interface ListingParts {
  store: Store;
  path: DataPath;
  volumes: OpenVolumes;
  blockSizeBytes: number;
  /** Held while counts move from memory to the store. */
  indexWrites: Mutex;
  /** What may not be durable with all that it has, and is not shown; see branching.ts. */
  unanswered: ReadonlySet<string>;
}

export class Listing {
  readonly #parts: ListingParts;
  /** See FrozenTotals. */
  readonly #frozen = new Map<number, number>();

  constructor(parts: ListingParts) {
    this.#parts = parts;
  }

  async volume(name: string): Promise<VolumeInfo> {
    const record = getVolume(this.#parts.store, name);
    if (!this.#isShown(name)) throw noVolume(name);
    const [info] = await this.#describe([{ name, record }]);
    return info as VolumeInfo;
  }

  async volumes(page?: Page<string>): Promise<VolumeInfo[]> {
    const { store } = this.#parts;
    const isWhole = ({ name, record }: VolumeEntry): boolean =>
      record.receiving === undefined && this.#isShown(name);
    if (page === undefined) return this.#describe(listVolumes(store).filter(isWhole));
    // What is not shown does not count: a page is empty only behind the last volume.
    for (let { after } = page; ; ) {
      const found = listVolumes(store, { after, limit: page.limit });
      const whole = found.filter(isWhole);
      if (whole.length > 0 || found.length === 0) return this.#describe(whole);
      after = found.at(-1)?.name ?? null;
    }
  }

  async openVolumes(): Promise<VolumeInfo[]> {
    const { store, volumes } = this.#parts;
    const served = volumes.all().filter(({ name, sessions, readOnly }) => {
      return sessions.length > 0 && !readOnly && !isPartialName(name);
    });
    return this.#describe(served.map(({ name }) => ({ name, record: getVolume(store, name) })));
  }

  async servedSnapshot(volume: string, snapshot: string): Promise<ServedSnapshotInfo> {
    const { store, volumes } = this.#parts;
    const record = getSnapshot(store, volume, snapshot);
    const name = `${volume}@${snapshot}`;
    if (!this.#isShown(name)) throw noSnapshot(volume, snapshot);
    return {
      ...this.#snapshotInfo(await this.#layerSpaces(), { volume, name: snapshot, record }),
      contents: contentsOf(record),
      allowedHosts: hostsOf(store, name),
      sessions: volumes.sessions(name),
    };
  }

  /** In this order. */
  async snapshotsNamed(names: readonly SnapshotRef[]): Promise<SnapshotInfo[]> {
    const spaces = await this.#layerSpaces();
    return names.map(({ volume, snapshot }) =>
      this.#snapshotInfo(spaces, {
        volume,
        name: snapshot,
        record: getSnapshot(this.#parts.store, volume, snapshot),
      }),
    );
  }

  async snapshots(volume?: string, page?: Page<SnapshotRef>): Promise<SnapshotInfo[]> {
    const spaces = await this.#layerSpaces();
    const { store } = this.#parts;
    const isShown = ({ volume: of, name }: SnapshotEntry) => this.#isShown(`${of}@${name}`);
    for (let after = page?.after ?? null; ; ) {
      const found = listSnapshots(
        store,
        volume,
        page === undefined ? undefined : { ...page, after },
      );
      const shown = found.filter(isShown);
      const last = found.at(-1);
      if (page === undefined || shown.length > 0 || last === undefined) {
        return shown.map((entry) => this.#snapshotInfo(spaces, entry));
      }
      after = { volume: last.volume, snapshot: last.name };
    }
  }

  #isShown(name: string): boolean {
    return !this.#parts.unanswered.has(name);
  }

  async #describe(entries: VolumeEntry[]): Promise<VolumeInfo[]> {
    const shared = new Set(getShares(this.#parts.store));
    const spaces = await this.#layerSpaces();
    return entries.map(({ name, record }) => {
      return {
        name,
        uuid: record.uuid,
        sizeBytes: record.sizeBytes,
        ...this.#spaceOf(spaces, record.layer),
        origin: record.origin,
        createdAt: record.createdAt,
        allowedHosts: record.allowedHosts,
        sessions: this.#parts.volumes.sessions(name),
        sharedVia: shared.has(record.uuid) ? "nvmet" : null,
        limits: limitsOf(record),
      };
    });
  }

  #snapshotInfo(spaces: LayerSpaces, { volume, name, record }: SnapshotEntry): SnapshotInfo {
    const { uuid, sizeBytes, createdAt, volumeUuid, layer } = record;
    const space = this.#spaceOf(spaces, layer);
    return { volume, volumeUuid, name, uuid, sizeBytes, createdAt, ...space };
  }

  async #layerSpaces(): Promise<LayerSpaces> {
    const { store, path, indexWrites } = this.#parts;
    const before = indexWrites.quiet;
    const pending = await path.layerDeltas();
    const exact = before !== null && indexWrites.quiet === before;
    return new LayerSpaces(store, pending, new FrozenTotals(this.#frozen, exact));
  }

  #spaceOf(spaces: LayerSpaces, layer: number): SpaceInfo {
    const { blockSizeBytes: block } = this.#parts;
    const { ownBlocks, sharedBlocks, freedBlocks, freedAtMost } = spaces.of(layer);
    return {
      ownBytes: ownBlocks * block,
      sharedBytes: sharedBlocks * block,
      logicalBytes: (ownBlocks + sharedBlocks) * block,
      freedByDeleteBytes: freedBlocks * block,
      freedByDeleteAtMost: freedAtMost,
    };
  }
}

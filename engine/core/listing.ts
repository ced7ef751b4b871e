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
    const [info] = await this.#describe([{ name, record }]);
    return info as VolumeInfo;
  }

  async volumes(page?: Page<string>): Promise<VolumeInfo[]> {
    const { store } = this.#parts;
    if (page === undefined) return this.#describe(listVolumes(store).filter(isWhole));
    // What is being received does not count: a page is empty only behind the last volume.
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
    const found = listSnapshots(this.#parts.store, volume, page);
    return found.map((entry) => this.#snapshotInfo(spaces, entry));
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

function isWhole({ record }: VolumeEntry): boolean {
  return record.receiving === undefined;
}

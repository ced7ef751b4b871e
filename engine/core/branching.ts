// Snapshots and clones of live volumes: the moment at which a layer freezes.
//
//   1. freeze: new writes wait, those under way end. The live layer has its last record
//   2. side by side
//        a flush of what was written
//        one transaction in the store: the live layer is frozen, a new one on top of it is live
//   3. thaw, when the transaction is durable: the waiting writes go to the new layer
//   4. answered, when the flush has ended, too
//
// The gate opens at *durable*: a record of the new layer must never be in the journal while the
// layer is not in the store. The flush need not have ended for that: the journal is in order, so
// whatever is durable of the new layer, all of the frozen one is.
//
// Power that is lost between the two may leave a layer that is frozen and has not all that was
// written: a snapshot that nobody was told of, as the volume itself is after that cut. Nobody has
// looked at it meanwhile; whoever could waits for the catalogue's lock, or for a checkpoint, and
// until the flush has ended what was made is not shown (`unanswered`): a caller who finds it takes
// it for made. If the flush fails it is not shown before the pool is opened again.
// Callers hold that lock, so two of these never reopen each other's gate.
import { MAX_GROUP_SNAPSHOTS } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import type { SnapshotRef } from "../base/name.js";
import {
  createSnapshot,
  createVolume,
  findSnapshot,
  findVolume,
  getSnapshot,
  getVolume,
  updateVolume,
} from "../store/catalogue.js";
import { abandonLayer, createLayer, freezeLayer } from "../store/layers.js";
import type { Store, StoreTransaction } from "../store/store.js";
import type { DataPath } from "./data-path.js";
import type { OpenVolume, OpenVolumes } from "./open-volumes.js";

export interface BranchingParts {
  store: Store;
  path: DataPath;
  volumes: OpenVolumes;
  now: () => string;
  newUuid: () => string;
  /** In the store, and not shown: names of volumes, and VOLUME@SNAPSHOT. */
  unanswered: Set<string>;
}

/** All of them at one instant: either each has its snapshot, or nothing is changed. */
export async function snapshotVolumes(
  parts: BranchingParts,
  snapshots: readonly SnapshotRef[],
): Promise<void> {
  refuseGroup(parts.store, snapshots);
  const volumes = snapshots.map(({ volume }) => volume);
  const made = snapshots.map(({ volume, snapshot }) => `${volume}@${snapshot}`);
  await withFrozen(parts, { volumes, made }, (txn) =>
    snapshots.map(({ volume, snapshot }) => {
      const record = getVolume(txn, volume);
      freezeLayer(txn, record.layer);
      createSnapshot(txn, volume, snapshot, {
        uuid: parts.newUuid(),
        layer: record.layer,
        sizeBytes: record.sizeBytes,
        createdAt: parts.now(),
        volumeUuid: record.uuid,
      });
      const live = createLayer(txn, record.layer);
      updateVolume(txn, volume, { ...record, layer: live.id });
      return live.id;
    }),
  );
}

/**
 * The origin goes on above its frozen layer, which nobody names and which is hidden therefore; it
 * is given back.
 */
export async function cloneLiveVolume(
  parts: BranchingParts,
  source: string,
  name: string,
): Promise<number> {
  getVolume(parts.store, source);
  refuseVolume(parts.store, name);
  let layer = 0;
  let hidden = 0;
  await withFrozen(parts, { volumes: [source], made: [name] }, (txn) => {
    const record = getVolume(txn, source);
    freezeLayer(txn, record.layer);
    const live = createLayer(txn, record.layer);
    const branch = createLayer(txn, record.layer);
    abandonLayer(txn, record.layer, parts.now());
    updateVolume(txn, source, { ...record, layer: live.id });
    createVolume(txn, name, {
      uuid: parts.newUuid(),
      layer: branch.id,
      sizeBytes: record.sizeBytes,
      createdAt: parts.now(),
      allowedHosts: [],
      origin: { volume: source, snapshot: null },
    });
    layer = branch.id;
    hidden = record.layer;
    return [live.id];
  });
  parts.volumes.born(layer);
  return hidden;
}

/** One transaction, and nothing of the data path: a frozen layer does not change. */
export async function cloneSnapshot(
  parts: BranchingParts,
  source: { volume: string; snapshot: string },
  name: string,
): Promise<void> {
  getSnapshot(parts.store, source.volume, source.snapshot);
  refuseVolume(parts.store, name);
  const layer = await parts.store.transact((txn) => {
    const record = getSnapshot(txn, source.volume, source.snapshot);
    const branch = createLayer(txn, record.layer);
    createVolume(txn, name, {
      uuid: parts.newUuid(),
      layer: branch.id,
      sizeBytes: record.sizeBytes,
      createdAt: parts.now(),
      allowedHosts: [],
      origin: source,
    });
    return branch.id;
  });
  parts.volumes.born(layer);
}

/**
 * `change` gives the new live layer of each volume, in their order. It may be durable before what
 * was written is; what it has `made` is shown when both are.
 */
export async function withFrozen(
  parts: Pick<BranchingParts, "store" | "path" | "volumes" | "unanswered">,
  names: { volumes: readonly string[]; made: readonly string[] },
  change: (txn: StoreTransaction) => number[],
): Promise<void> {
  const { store, path, volumes, unanswered } = parts;
  const show = (): void => {
    for (const name of names.made) unanswered.delete(name);
  };
  const held: OpenVolume[] = [];
  try {
    for (const name of names.volumes) held.push(await volumes.acquire(name, "engine"));
    let written: Promise<PromiseSettledResult<void>[]> = Promise.resolve([]);
    let layers: number[] = [];
    try {
      await path.freezeVolumes(held.map(({ id }) => id));
      written = Promise.allSettled(held.map(({ id }) => path.flushVolume(id)));
      for (const name of names.made) unanswered.add(name);
      layers = await store.transact(change).catch((error: unknown) => {
        show();
        throw error;
      });
      held.forEach((volume, at) => {
        volume.layer = layers[at] as number;
      });
    } finally {
      const thawed = held.map(({ id }, at) => path.thawVolume(id, layers[at] ?? 0));
      refuseFailed([...(await Promise.allSettled(thawed)), ...(await written)]);
    }
    show();
  } finally {
    for (const volume of held) await volumes.release(volume, "engine");
  }
}

function refuseFailed(results: readonly PromiseSettledResult<void>[]): void {
  for (const ended of results) if (ended.status === "rejected") throw ended.reason;
}

function refuseGroup(store: Store, snapshots: readonly SnapshotRef[]): void {
  if (snapshots.length === 0 || snapshots.length > MAX_GROUP_SNAPSHOTS) {
    throw new PandoError(
      "EINVAL",
      `a group has 1 to ${MAX_GROUP_SNAPSHOTS} snapshots, not ${snapshots.length}`,
      { field: "snapshots" },
    );
  }
  const seen = new Set<string>();
  for (const { volume, snapshot } of snapshots) {
    if (seen.has(volume)) {
      throw new PandoError("EINVAL", `volume ${volume} is in the group twice`, {
        volume,
        field: "snapshots",
      });
    }
    seen.add(volume);
    getVolume(store, volume);
    if (findSnapshot(store, volume, snapshot) === undefined) continue;
    const context = { volume, snapshot };
    throw new PandoError("EEXIST", `snapshot ${volume}@${snapshot} exists already`, context);
  }
}

function refuseVolume(store: Store, name: string): void {
  if (findVolume(store, name) === undefined) return;
  throw new PandoError("EEXIST", `volume ${name} exists already`, { volume: name });
}

// Snapshots and clones of live volumes: the moment at which a layer freezes.
//
//   1. flush once while writes go on, so that little is left to make durable
//   2. freeze: new writes wait, those under way end, everything is durable
//   3. one transaction in the store: the live layer is frozen, a new one on top of it is live;
//      durable
//   4. thaw: the waiting writes go to the new layer
//
// The gate opens at *durable*: a record of the new layer must never be in the journal while the
// layer is not in the store.
// Callers hold the catalogue's lock, so two of these never reopen each other's gate.
import { PandoError } from "../base/errors.js";
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
import type { OpenVolumes } from "./open-volumes.js";

export interface BranchingParts {
  store: Store;
  path: DataPath;
  volumes: OpenVolumes;
  now: () => string;
  newUuid: () => string;
}

export async function snapshotVolume(
  parts: BranchingParts,
  volume: string,
  snapshot: string,
): Promise<void> {
  refuseSnapshot(parts.store, volume, snapshot);
  await withFrozen(parts, volume, (txn) => {
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
  });
}

/** The origin goes on above its frozen layer, which nobody names and which is hidden therefore. */
export async function cloneLiveVolume(
  parts: BranchingParts,
  source: string,
  name: string,
): Promise<void> {
  getVolume(parts.store, source);
  refuseVolume(parts.store, name);
  let layer = 0;
  await withFrozen(parts, source, (txn) => {
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
    return live.id;
  });
  parts.volumes.born(layer);
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

async function withFrozen(
  parts: BranchingParts,
  name: string,
  change: (txn: StoreTransaction) => number,
): Promise<void> {
  const { store, path, volumes } = parts;
  const open = await volumes.acquire(name, "engine");
  try {
    await path.flushVolume(open.id);
    let newLayer = 0;
    try {
      await path.freezeVolumes([open.id]);
      newLayer = await store.transact(change);
      open.layer = newLayer;
    } finally {
      await path.thawVolume(open.id, newLayer);
    }
  } finally {
    await volumes.release(open, "engine");
  }
}

function refuseSnapshot(store: Store, volume: string, snapshot: string): void {
  getVolume(store, volume);
  if (findSnapshot(store, volume, snapshot) === undefined) return;
  const context = { volume, snapshot };
  throw new PandoError("EEXIST", `snapshot ${volume}@${snapshot} exists already`, context);
}

function refuseVolume(store: Store, name: string): void {
  if (findVolume(store, name) === undefined) return;
  throw new PandoError("EEXIST", `volume ${name} exists already`, { volume: name });
}

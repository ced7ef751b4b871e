// A pool with as many volumes and snapshots as are wanted, made in the store itself, in large
// transactions: what costs a daemon that serves it is measured, and not what it took to get there.
// What is in the store is what the same number of creates, snapshots and clones leave.
import { rmSync } from "node:fs";
import { newUuid } from "../../engine/base/random.js";
import { createPool, poolPaths } from "../../engine/core/format.js";
import { createSnapshot, createVolume } from "../../engine/store/catalogue.js";
import { createLayer, freezeLayer } from "../../engine/store/layers.js";
import { openLmdbStore } from "../../engine/store/lmdb-store.js";
import type { StoreTransaction } from "../../engine/store/store.js";

const PER_TRANSACTION = 5000;
const CREATED_AT = "2026-01-01T00:00:00.000Z";
/** So that most volumes share a parent, as branches do. */
const CLONES_PER_SNAPSHOT = 9;

export interface Crowd {
  volumes: number;
  snapshots: number;
}

/** Families of a volume, a snapshot of it, and nine clones of the snapshot. */
export async function makeCrowdedPool(
  path: string,
  options: { poolBytes: number; things: number; volumeBytes: number },
  progress: (made: number) => void,
): Promise<Crowd> {
  const { poolBytes, things, volumeBytes } = options;
  rmSync(path, { recursive: true, force: true });
  await createPool(path, { sizeBytes: poolBytes, sparse: true });
  const store = openLmdbStore(poolPaths(path).meta);
  const crowd: Crowd = { volumes: 0, snapshots: 0 };
  const made = () => crowd.volumes + crowd.snapshots;
  try {
    for (let family = 0; made() < things; ) {
      await store.transact((txn) => {
        const until = Math.min(things, made() + PER_TRANSACTION);
        for (; made() < until; family++) addFamily(txn, family, volumeBytes, crowd);
      });
      progress(made());
    }
  } finally {
    await store.close();
  }
  return crowd;
}

/** A volume, a snapshot of it, and clones of the snapshot. */
function addFamily(txn: StoreTransaction, family: number, sizeBytes: number, crowd: Crowd): void {
  const name = `volume-${String(family).padStart(7, "0")}`;
  const uuid = newUuid();
  const common = { sizeBytes, createdAt: CREATED_AT };
  const base = createLayer(txn, null);
  freezeLayer(txn, base.id);
  const live = createLayer(txn, base.id);
  createVolume(txn, name, { ...common, uuid, layer: live.id, allowedHosts: [], origin: null });
  createSnapshot(txn, name, "base", {
    ...common,
    uuid: newUuid(),
    layer: base.id,
    volumeUuid: uuid,
  });
  crowd.volumes += 1;
  crowd.snapshots += 1;
  for (let clone = 0; clone < CLONES_PER_SNAPSHOT; clone++) {
    createVolume(txn, `${name}-clone-${clone}`, {
      ...common,
      uuid: newUuid(),
      layer: createLayer(txn, base.id).id,
      allowedHosts: [],
      origin: { volume: name, snapshot: "base" },
    });
    crowd.volumes += 1;
  }
}

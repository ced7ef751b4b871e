// Rolling a volume back: it goes on from one of its snapshots, and what was written since is
// deleted.
//
// One transaction: a new live layer on the snapshot's layer, the old live layer dead. The volume
// keeps its UUID (so its NQN and NGUID), its hosts and its size: hosts never see a volume shrink,
// and what lies beyond the snapshot's size reads as zero. Snapshots that were made since stay:
// they are frozen layers of their own.
//
// Nobody may have the volume open: a host's cache would be of contents that are gone.
// Callers hold the catalogue's lock.
import { PandoError } from "../base/errors.js";
import type { SnapshotRef } from "../base/name.js";
import { getSnapshot, getVolume, updateVolume } from "../store/catalogue.js";
import { abandonLayer, createLayer } from "../store/layers.js";
import type { BranchingParts } from "./branching.js";

/** Gives the layer that was deleted. */
export async function rollBack(parts: BranchingParts, target: SnapshotRef): Promise<number> {
  const { store, volumes } = parts;
  const { volume, snapshot } = target;
  refuseForeign(getVolume(store, volume).uuid, getSnapshot(store, volume, snapshot), target);
  volumes.requireClosed(volume);
  const { made, deleted } = await store.transact((txn) => {
    const record = getVolume(txn, volume);
    const live = createLayer(txn, getSnapshot(txn, volume, snapshot).layer);
    updateVolume(txn, volume, { ...record, layer: live.id });
    abandonLayer(txn, record.layer, parts.now());
    return { made: live.id, deleted: record.layer };
  });
  volumes.born(made);
  return deleted;
}

/** A snapshot outlives its volume; another volume may have the name since. */
function refuseForeign(uuid: string, snapshot: { volumeUuid: string }, target: SnapshotRef): void {
  if (snapshot.volumeUuid === uuid) return;
  const name = `${target.volume}@${target.snapshot}`;
  throw new PandoError("EINVAL", `${name} is of a volume of that name that was deleted`, {
    ...target,
    field: "snapshot",
    hint: `pando volume clone ${name} NAME makes a volume of it`,
  });
}

// What a pool says that volumes and snapshots take, against a count of the index itself. Only while
// memory has nothing that the store has not: after an opening, before anything is written.
import { assert } from "../../engine/base/assert.js";
import type { SpaceInfo } from "../../engine/core/api.js";
import { getSnapshot, getVolume } from "../../engine/store/catalogue.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import type { StoreReader } from "../../engine/store/store.js";
import type { World } from "./world.js";

/** More than any simulated volume has. */
const SPANS = 8;

export async function compareSpace(world: World): Promise<void> {
  const { pool, store } = world;
  const block = world.superblock.blockSizeBytes;
  const volumes = (await world.run(pool.listVolumes()))?.value ?? [];
  const snapshots = (await world.run(pool.listSnapshots()))?.value ?? [];
  const compare = (layer: number, info: SpaceInfo): void => {
    const { owned, mapped } = countLayer(store, layer);
    assert(info.ownBytes === owned * block, `layer ${layer} owns ${owned} blocks`);
    assert(info.logicalBytes === mapped * block, `layer ${layer} maps ${mapped} blocks`);
    assert(info.sharedBytes === info.logicalBytes - info.ownBytes, `layer ${layer}: the rest`);
  };
  for (const info of volumes) compare(getVolume(store, info.name).layer, info);
  for (const info of snapshots) compare(getSnapshot(store, info.volume, info.name).layer, info);
}

/** By the look-up of every span that there can be. */
function countLayer(store: StoreReader, layer: number): { owned: number; mapped: number } {
  const count = { owned: 0, mapped: 0 };
  for (let span = 0; span < SPANS; span++) {
    const nearest = lookupNearest(store, new Lineage(), layer, span);
    if (nearest === null) continue;
    count.mapped += nearest.block.mapped;
    if (nearest.owner === layer) count.owned += nearest.block.owned;
  }
  return count;
}

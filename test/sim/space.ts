// What a pool says that volumes and snapshots take, against a count of the index itself. Only while
// memory has nothing that the store has not: after an opening, before anything is written, and
// after a checkpoint at rest.
import { assert } from "../../engine/base/assert.js";
import { SLOTS_PER_SPAN } from "../../engine/base/constants.js";
import type { SpaceInfo } from "../../engine/core/api.js";
import { checkStore } from "../../engine/core/check.js";
import { getSnapshot, getVolume } from "../../engine/store/catalogue.js";
import { getBlock } from "../../engine/store/codec-index-block.js";
import { listLayers } from "../../engine/store/layers.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import type { StoreReader } from "../../engine/store/store.js";
import type { Found } from "./audit.js";
import type { World } from "./world.js";

/** More than any simulated volume has. */
const SPANS = 8;

export function compareSpace(world: World, { volumes, snapshots }: Found["listed"]): void {
  const { store } = world;
  const block = world.superblock.blockSizeBytes;
  const lineage = new Lineage();
  const compare = (layer: number, info: SpaceInfo): void => {
    const { owned, mapped } = countLayer(store, lineage, layer);
    assert(info.ownBytes === owned * block, `layer ${layer} owns ${owned} blocks`);
    assert(info.logicalBytes === mapped * block, `layer ${layer} maps ${mapped} blocks`);
    assert(info.sharedBytes === info.logicalBytes - info.ownBytes, `layer ${layer}: the rest`);
  };
  for (const info of volumes) compare(getVolume(store, info.name).layer, info);
  for (const info of snapshots) compare(getSnapshot(store, info.volume, info.name).layer, info);
}

/**
 * After Pool.settle(): every block is mapped by somebody's layer. What only deleted ones map has
 * come back.
 */
export async function requireAllSeen({ store }: World): Promise<void> {
  const seen = new Set<number>();
  const lineage = new Lineage();
  for (const { id, record } of listLayers(store)) {
    if (record.state === "hidden" || record.state === "dead") continue;
    for (let span = 0; span < SPANS; span++) {
      const raw = lookupNearest(store, lineage, id, span)?.block.raw;
      for (let slot = 0; raw !== undefined && slot < SLOTS_PER_SPAN; slot++) {
        const block = getBlock(raw, slot);
        if (block !== 0) seen.add(block);
      }
    }
  }
  const { ownedBlocks, problems } = checkStore(store);
  assert(problems.length === 0, `the store is not clean: ${problems.join("; ")}`);
  assert(ownedBlocks === seen.size, `${ownedBlocks} blocks are owned, and ${seen.size} seen`);
}

/** By the look-up of every span that there can be. */
function countLayer(
  store: StoreReader,
  lineage: Lineage,
  layer: number,
): { owned: number; mapped: number } {
  const count = { owned: 0, mapped: 0 };
  for (let span = 0; span < SPANS; span++) {
    const nearest = lookupNearest(store, lineage, layer, span);
    if (nearest === null) continue;
    count.mapped += nearest.block.mapped;
    if (nearest.owner === layer) count.owned += nearest.block.owned;
  }
  return count;
}

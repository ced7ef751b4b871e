// Folding the other way round: a hidden layer with many index blocks is not moved into a child that
// has few. One durable transaction removes the layer and gives the child its storage key, its index
// blocks and all that it owns; what the child has of its own stays under its old key, as its
// *overlay*, which look-ups come to first. Afterwards the overlay is merged into the rest span by
// span, as a fold merges (fold.ts).
//
// The transaction puts every index block of the child that is dirty, for what a record of it says
// must be found in the overlay when it is replayed, and not in what was the parent's: there the slot
// may have been the parent's own, and its block would be lost. So all changes of the child wait from
// the moment at which these are copied until memory knows that it owns what the parent owned.
//
// One overlay at a time in a pool, and its layer is named in the pool's record: a version that does
// not know overlays refuses the pool meanwhile, and an opening goes on with the merge.
import { assert } from "../base/assert.js";
import { INDEX_BLOCK_BYTES } from "../base/constants.js";
import { isPandoError } from "../base/errors.js";
import { getPoolRecord, putPoolRecord } from "../store/catalogue.js";
import { decodeSpanKey, rangeOf } from "../store/codec-keys.js";
import { changeIndex } from "../store/index-changes.js";
import { absorbParent, getLayer, removeOverlay } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import type { StoreReader } from "../store/store.js";
import { type FoldedBatch, type FoldParts, mergeHeld } from "./fold.js";

/** The child's index blocks that the transaction puts at most; hosts' writes to it wait for it. */
const MAX_DIRTY = 1024;
/** So many times more index blocks than the child has. */
const MANY_TIMES = 4;

/** It is the cheaper direction: of `least` index blocks at least. */
export function isCheaperAbsorbed(
  reader: StoreReader,
  parent: number,
  child: number,
  least: number,
): boolean {
  const above = getLayer(reader, parent).indexBlocks;
  return above >= least && above > MANY_TIMES * getLayer(reader, child).indexBlocks;
}

/** The layer whose overlay is to be merged. */
export function mergingLayer(reader: StoreReader): number | null {
  return getPoolRecord(reader).merging ?? null;
}

/** False: too much of the child is dirty. Only while foldableInto() says so. */
export async function absorb(parts: FoldParts, parent: number, child: number): Promise<boolean> {
  const { store, path } = parts;
  return parts.indexWrites.run(async () => {
    const held = await path.foldHoldAll(child, MAX_DIRTY);
    if (held === null) return false;
    try {
      await store.transact((txn) => {
        changeIndex(txn, new Lineage(), (index) => {
          held.spans.forEach((span, at) => {
            const begin = at * INDEX_BLOCK_BYTES;
            index.put(child, span, held.blocks.subarray(begin, begin + INDEX_BLOCK_BYTES));
          });
        });
        if (absorbParent(txn, parent, child)) {
          putPoolRecord(txn, { ...getPoolRecord(txn), merging: child });
        }
      });
      await path.foldAbsorb(parent, child);
      return true;
    } catch (error) {
      if (!isPandoError(error, "ENOSPC")) path.poison("a fold's transaction");
      throw error;
    } finally {
      await path.foldLetGoAll(child);
    }
  });
}

/** Up to `limit` spans of the overlay; null: none was left, and the layer has one key again. */
export async function mergeBatch(
  parts: FoldParts,
  layer: number,
  limit: number,
): Promise<FoldedBatch | null> {
  const { overlay } = getLayer(parts.store, layer);
  assert(overlay !== undefined, `layer ${layer} has an overlay`);
  const entries = parts.store.range("index", { ...rangeOf(overlay), limit });
  if (entries.length > 0) {
    return mergeHeld(parts, layer, entries.map((entry) => decodeSpanKey(entry.key).span));
  }
  await parts.store.transact((txn) => {
    removeOverlay(txn, layer);
    const { merging, ...record } = getPoolRecord(txn);
    assert(merging === layer, `layer ${layer} is the one that is merged`);
    putPoolRecord(txn, record);
  });
  return null;
}

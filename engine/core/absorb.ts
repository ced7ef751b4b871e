// Folding the other way round: a hidden layer with many index blocks is not moved into a child that
// has few. The child's few are put together with the parent's under the parent's storage key, and
// that key becomes the child's, with all that is under it: its index blocks, the blocks that they
// own, its span set. One transaction, whose size is the child's; what only the parent has is never
// read.
//
//   1. hold      every change of the child waits; what is dirty of it in memory is copied, its
//                records durable
//   2. merge     each span that the child has, in memory or else in the store, with the parent's
//   3. one transaction: those index blocks, the exchange of keys, the parent's record, free bits
//   4. apply     durable: memory forgets what it has of the two but the child's dirty index blocks,
//                which take own bits over; then what waited goes on
//
// All that is dirty goes with it, for a record of it is replayed onto what is stored: in a span
// that was left out the slot may be the parent's own, and its block would be lost. For the same
// reason spans that the child does not have are held too: a write would copy the parent's index
// block, and with it nothing of what the child owns from here on.
//
// Hosts' writes to the child wait for the whole transaction. So it is bounded. A child that has
// more hands its index blocks up first (hand-up.ts) if it is frozen; into a live one the parent is
// folded (fold.ts). Both go batch by batch.
import { assert } from "../base/assert.js";
import { decodeSpanKey, rangeOf } from "../store/codec-keys.js";
import { changeIndex } from "../store/index-changes.js";
import { getLayer, onlyChild, removeFoldedLayer } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import type { StoreReader } from "../store/store.js";
import {
  dirtyBlocks,
  type FoldedBatch,
  type FoldParts,
  mergeSpan,
  poisonUnlessFull,
  putMerged,
  storedBlock,
} from "./fold.js";

export interface AbsorbLimits {
  /** Index blocks of the parent, at least. */
  from: number;
  /** It has more than so many times the child's. */
  times: number;
  /** Index blocks of the child, stored ones and dirty ones each. */
  most: number;
  /** So many are handed up in one transaction, to come to that. */
  batch: number;
}

/** It is the cheaper direction, as far as the store knows. */
export function isAbsorbCheaper(
  reader: StoreReader,
  parent: number,
  child: number,
  { from, times }: AbsorbLimits,
): boolean {
  const above = getLayer(reader, parent).indexBlocks;
  return above >= from && above > times * getLayer(reader, child).indexBlocks;
}

/** It can be done in one transaction. */
export function isAbsorbable(
  reader: StoreReader,
  parent: number,
  child: number,
  limits: AbsorbLimits,
): boolean {
  const few = getLayer(reader, child).indexBlocks <= limits.most;
  return few && isAbsorbCheaper(reader, parent, child, limits);
}

/**
 * All of it; null: too much of the child is dirty, and nothing has changed. Only while
 * foldableInto() says so.
 */
export async function absorb(
  parts: FoldParts,
  parent: number,
  child: number,
  most: number,
): Promise<FoldedBatch | null> {
  return parts.indexWrites.run(async () => {
    let held = true;
    try {
      const dirty = await parts.path.foldHoldAll(child, most);
      held = dirty !== null;
      return dirty === null ? null : await absorbHeld(parts, parent, child, dirtyBlocks(dirty));
    } catch (error) {
      poisonUnlessFull(parts, error);
      throw error;
    } finally {
      if (held) await parts.path.foldLetGoAll(child);
    }
  });
}

async function absorbHeld(
  parts: FoldParts,
  parent: number,
  child: number,
  dirty: ReadonlyMap<number, Uint8Array>,
): Promise<FoldedBatch> {
  const { store, path } = parts;
  const stored = store.range("index", rangeOf(getLayer(store, child).key));
  const spans = new Set(dirty.keys());
  for (const { key } of stored) spans.add(decodeSpanKey(key).span);
  const merged = [...spans].map((span) => {
    const own = dirty.get(span) ?? storedBlock(store, child, span);
    assert(own !== null, `layer ${child} has an index block for span ${span}`);
    return mergeSpan(span, storedBlock(store, parent, span), own);
  });
  return putMerged(parts, merged, {
    put: (txn) => {
      assert(onlyChild(txn, parent) === child, `layer ${child} is the only child of ${parent}`);
      changeIndex(txn, new Lineage(), (index) => {
        for (const { span, raw } of merged) index.absorb(parent, child, span, raw);
        index.exchangeKeys(parent, child);
      });
      removeFoldedLayer(txn, parent, child);
    },
    apply: (adopted) => path.foldAbsorb(parent, child, [...spans], adopted),
  });
}

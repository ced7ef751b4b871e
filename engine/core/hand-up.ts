// Absorbing (absorb.ts) for a child that has more index blocks than one transaction may put. It
// *hands them up* first, batch by batch: each is put together with the parent's under the parent's
// storage key, and is the parent's from then on. When few are left, the keys are exchanged.
//
// Nobody but those below the child sees what the parent has, and what they see is the same before
// and after: a look-up may find either of the two. So nothing is held. What no look-up may find
// is the parent's index block as it was: memory forgets it before the transaction, when every
// look-up of the span is bound to ask for the child's first, so that nothing can bring it back.
//
// The child takes no changes any more, and no record of it is left in the journal: replayed onto
// the parent's index block, one would make the child the owner of a block that is the parent's. It
// is so after a checkpoint that began when the child was frozen already. A live child is not for
// this: it would own nothing of what it has handed up, and take new blocks for what it overwrites.
//
// Each batch is a transaction by itself. A kill between two of them leaves a parent that has more
// and a child that has less; whoever opens the pool next goes on.
import { assert } from "../base/assert.js";
import { decodeSpanKey, rangeOf } from "../store/codec-keys.js";
import { changeIndex } from "../store/index-changes.js";
import { getLayer, onlyChild } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import type { StoreReader } from "../store/store.js";
import { type AbsorbLimits, isAbsorbCheaper } from "./absorb.js";
import {
  type FoldedBatch,
  type FoldParts,
  fitting,
  mergeSpan,
  poisonUnlessFull,
  putMerged,
  storedBlock,
} from "./fold.js";
import type { BatchLimits } from "./reclaim-batch.js";

/** The child is to be absorbed into, has too much for that, and may hand it up. */
export function mustHandUp(
  reader: StoreReader,
  parent: number,
  child: number,
  limits: AbsorbLimits,
): boolean {
  const { state, indexBlocks } = getLayer(reader, child);
  if (state === "live" || indexBlocks <= limits.most) return false;
  return isAbsorbCheaper(reader, parent, child, limits);
}

/**
 * Up to so many of the child's index blocks. Only while mustHandUp() says so, after a checkpoint
 * that began when it said so already.
 */
export async function handUpBatch(
  parts: FoldParts,
  parent: number,
  child: number,
  limits: BatchLimits,
): Promise<FoldedBatch> {
  return parts.indexWrites.run(async () => {
    try {
      return await handUp(parts, parent, child, limits);
    } catch (error) {
      poisonUnlessFull(parts, error);
      throw error;
    }
  });
}

async function handUp(
  parts: FoldParts,
  parent: number,
  child: number,
  limits: BatchLimits,
): Promise<FoldedBatch> {
  const { store, path } = parts;
  const range = { ...rangeOf(getLayer(store, child).key), limit: limits.spans };
  const stored = store.range("index", range);
  const spans = stored.map(({ key }) => decodeSpanKey(key).span);
  await path.forgetIndexBlocks(child, spans);
  await path.forgetIndexBlocks(parent, spans);
  // Nothing of this changes by itself: neither layer takes writes.
  const all = spans.map((span) =>
    mergeSpan(span, storedBlock(store, parent, span), storedBlock(store, child, span)),
  );
  const merged = all.slice(0, fitting(all, limits.chunks));
  return putMerged(parts, merged, {
    put: (txn) => {
      assert(onlyChild(txn, parent) === child, `layer ${child} is the only child of ${parent}`);
      assert(getLayer(txn, child).state !== "live", `layer ${child} takes no writes`);
      changeIndex(txn, new Lineage(), (index) => {
        for (const { span, raw } of merged) index.absorb(parent, child, span, raw);
      });
    },
    // A fold into the child would take what memory has of it for what the store has.
    apply: () => path.forgetIndexBlocks(child, spans),
  });
}

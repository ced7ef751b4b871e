// Folding a hidden layer into its only child, a batch of spans at a time: slots of the parent that
// the child still maps become the child's own, the parent's other blocks come free, and where the
// child has no index block it takes the parent's over.
//
//   1. hold      changes of the child's spans wait; what is dirty of them in memory is copied, its
//                records durable
//   2. merge     the child as it is now (memory before store) with the parent
//   3. one transaction: index blocks, span sets, counts, free bits
//   4. apply     durable: memory takes the own bits over; then what waited goes on
//
// The child may be live or frozen, open or not. What waits at a hold decides by the folded index
// block, so no record and no in-place write relies on a fold that is not durable. A checkpoint's
// batch and a fold's exclude each other, or the one would put what the other has outdated.
//
// When no index block is left under the parent's key it leaves memory's line first and the store
// after that: an index question is never about a layer that the store has no record of.
import { assert } from "../base/assert.js";
import { INDEX_BLOCK_BYTES, SLOTS_PER_SPAN } from "../base/constants.js";
import { isPandoError } from "../base/errors.js";
import { appendRun, type BlockRun } from "../store/block-run.js";
import { setBit } from "../store/codec-bitmaps.js";
import { decodeIndexBlock, getBlock, isOwned, setSlot } from "../store/codec-index-block.js";
import { decodeSpanKey, rangeOf, spanKey } from "../store/codec-keys.js";
import type { FreeMap } from "../store/free-map.js";
import { applyToFreeMap } from "../store/free-map-patch.js";
import { changeIndex } from "../store/index-changes.js";
import { getLayer, keysOf, onlyChild, removeFoldedLayer } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import type { Store, StoreReader } from "../store/store.js";
import type { DataPath } from "./data-path.js";
import type { Mutex } from "./mutex.js";

export interface FoldParts {
  store: Store;
  path: DataPath;
  map: FreeMap;
  /** Held while index blocks are on their way from memory to the store. */
  indexWrites: Mutex;
}

/** A parent's index block and a child's of one span, put together. */
export interface MergedSpan {
  span: number;
  raw: Uint8Array;
  /** A bit for each slot that has become the child's own. */
  adopted: Uint8Array;
  freed: BlockRun[];
}

export interface FoldedBatch {
  spans: number;
  freedBlocks: number;
}

const MASK_BYTES = SLOTS_PER_SPAN / 8;

/** The child into which the layer can be folded now; a dead one is reclaimed instead. */
export function foldableInto(reader: StoreReader, layer: number): number | null {
  const child = onlyChild(reader, layer);
  return child === null || getLayer(reader, child).state === "dead" ? null : child;
}

/** Up to `limit` spans; null: none is left. Only while foldableInto() says so. */
export async function foldBatch(
  parts: FoldParts,
  parent: number,
  child: number,
  limit: number,
): Promise<FoldedBatch | null> {
  const { key } = getLayer(parts.store, parent);
  const entries = parts.store.range("index", { ...rangeOf(key), limit });
  if (entries.length === 0) return null;
  const spans = entries.map((entry) => decodeSpanKey(entry.key).span);
  return parts.indexWrites.run(async () => {
    try {
      return await foldHeld(parts, parent, child, spans);
    } catch (error) {
      // Whether the transaction is in the store is not known then: what waits must not go on by
      // what memory has.
      if (!isPandoError(error, "ENOSPC")) parts.path.poison("a fold's transaction");
      throw error;
    } finally {
      await parts.path.foldLetGo(child, spans);
    }
  });
}

/** No index block is left under the parent's key: its record goes. */
export async function finishFold(parts: FoldParts, parent: number, child: number): Promise<void> {
  await parts.path.foldUnlink(parent, child);
  await parts.store.transact((txn) => removeFoldedLayer(txn, parent, child));
  // A volume that was opened since may have brought it back.
  await parts.path.foldUnlink(parent, child);
}

/** `child` null: it has no index block of its own for the span. */
export function mergeSpan(span: number, parent: Uint8Array, child: Uint8Array | null): MergedSpan {
  const raw = new Uint8Array(child ?? parent);
  const adopted = new Uint8Array(MASK_BYTES);
  const freed: BlockRun[] = [];
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    if (!isOwned(parent, slot)) continue;
    const block = getBlock(parent, slot);
    if (getBlock(raw, slot) === block) {
      setSlot(raw, slot, block, true);
      setBit(adopted, slot);
    } else {
      appendRun(freed, block, 1);
    }
  }
  return { span, raw, adopted, freed };
}

/** These spans of the layer's overlay go into the rest of it, as a parent's into a child. */
export function mergeHeld(
  parts: FoldParts,
  layer: number,
  spans: number[],
): Promise<FoldedBatch> {
  return parts.indexWrites.run(async () => {
    try {
      return await foldHeld(parts, null, layer, spans);
    } catch (error) {
      if (!isPandoError(error, "ENOSPC")) parts.path.poison("a fold's transaction");
      throw error;
    } finally {
      await parts.path.foldLetGo(layer, spans);
    }
  });
}

/** `parent` null: what the child's overlay hides, in place of a parent's. */
async function foldHeld(
  parts: FoldParts,
  parent: number | null,
  child: number,
  spans: number[],
): Promise<FoldedBatch> {
  const { store, path, map } = parts;
  const held = await path.foldHold(child, spans);
  const dirty = new Map<number, Uint8Array>();
  held.spans.forEach((span, at) => {
    const begin = at * INDEX_BLOCK_BYTES;
    dirty.set(span, held.blocks.subarray(begin, begin + INDEX_BLOCK_BYTES));
  });
  // Nothing of this can change until it is let go: the parent is nobody's, the child is held.
  const merged = spans.map((span) => {
    const own = dirty.get(span) ?? nearestOf(store, child, span);
    const { key } = getLayer(store, parent ?? child);
    const above = storedBlock(store, key, span);
    if (parent === null && above === null) {
      assert(own !== null, `layer ${child} has an index block for span ${span}`);
      return { span, raw: own, adopted: new Uint8Array(MASK_BYTES), freed: [] };
    }
    assert(above !== null, `layer ${parent} has an index block for span ${span}`);
    return mergeSpan(span, above, own);
  });
  const freed = merged.flatMap((each) => each.freed);
  map.load(freed);
  await store.transact((txn) => {
    const only = parent === null || onlyChild(txn, parent) === child;
    assert(only, `layer ${child} is the only child of ${parent}`);
    changeIndex(txn, new Lineage(), (index) => {
      for (const { span, raw } of merged) {
        if (parent === null) index.merge(child, span, raw);
        else index.fold(parent, child, span, raw);
      }
    });
    applyToFreeMap(
      txn,
      freed.map((run) => ({ ...run, op: "free" as const })),
    );
  });
  const adopted = new Uint8Array(merged.length * MASK_BYTES);
  merged.forEach((each, at) => {
    adopted.set(each.adopted, at * MASK_BYTES);
  });
  map.retire(freed);
  await path.foldApply(parent ?? 0, child, spans, adopted);
  // A read of the child may have looked a block up before the child wrote over it.
  path.releaseBlocks(freed);
  return { spans: spans.length, freedBlocks: freed.reduce((sum, { count }) => sum + count, 0) };
}

function nearestOf(reader: StoreReader, layer: number, span: number): Uint8Array | null {
  for (const key of keysOf(getLayer(reader, layer))) {
    const raw = storedBlock(reader, key, span);
    if (raw !== null) return raw;
  }
  return null;
}

function storedBlock(reader: StoreReader, storageKey: number, span: number): Uint8Array | null {
  const key = spanKey(storageKey, span);
  const value = reader.get("index", key);
  return value === undefined ? null : decodeIndexBlock(key, value).raw;
}

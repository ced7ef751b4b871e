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
// A child that has few index blocks, on a parent that has many, gets them the other way: absorb.ts.
//
// When no index block is left under the parent's key it leaves memory's line first and the store
// after that: an index question is never about a layer that the store has no record of.
import type { HeldBlocks } from "../../native/native.js";
import { assert } from "../base/assert.js";
import { BLOCKS_PER_CHUNK, INDEX_BLOCK_BYTES, SLOTS_PER_SPAN } from "../base/constants.js";
import { isPandoError } from "../base/errors.js";
import { appendRun, type BlockRun, countBlocks } from "../store/block-run.js";
import { setBit } from "../store/codec-bitmaps.js";
import { decodeIndexBlock, getBlock, isOwned, setSlot } from "../store/codec-index-block.js";
import { decodeSpanKey, rangeOf, spanKey } from "../store/codec-keys.js";
import type { FreeMap } from "../store/free-map.js";
import { applyToFreeMap } from "../store/free-map-patch.js";
import { changeIndex } from "../store/index-changes.js";
import { getLayer, onlyChild, removeFoldedLayer } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import type { Store, StoreReader, StoreTransaction } from "../store/store.js";
import type { DataPath } from "./data-path.js";
import type { Mutex } from "./mutex.js";
import type { BatchLimits } from "./reclaim-batch.js";

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

/** Own bits that the child has got, MASK_BYTES for each of the spans. */
type Apply = (adopted: Uint8Array) => Promise<void>;

const MASK_BYTES = SLOTS_PER_SPAN / 8;

/** The child into which the layer can be folded now; a dead one is reclaimed instead. */
export function foldableInto(reader: StoreReader, layer: number): number | null {
  const child = onlyChild(reader, layer);
  return child === null || getLayer(reader, child).state === "dead" ? null : child;
}

/** Up to so many spans; null: none is left. Only while foldableInto() says so. */
export async function foldBatch(
  parts: FoldParts,
  parent: number,
  child: number,
  limits: BatchLimits,
): Promise<FoldedBatch | null> {
  const { key } = getLayer(parts.store, parent);
  const entries = parts.store.range("index", { ...rangeOf(key), limit: limits.spans });
  if (entries.length === 0) return null;
  const spans = entries.map((entry) => decodeSpanKey(entry.key).span);
  return parts.indexWrites.run(async () => {
    try {
      return await foldHeld(parts, { parent, child, spans }, limits.chunks);
    } catch (error) {
      poisonUnlessFull(parts, error);
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

/**
 * Whether the transaction is in the store is not known after any other error: what waits must not
 * go on by what memory has.
 */
export function poisonUnlessFull({ path }: FoldParts, error: unknown): void {
  if (!isPandoError(error, "ENOSPC")) path.poison("a fold's transaction");
}

/** Null: that layer has no index block of its own for the span. One of the two has. */
export function mergeSpan(
  span: number,
  parent: Uint8Array | null,
  child: Uint8Array | null,
): MergedSpan {
  const either = child ?? parent;
  assert(either !== null, `somebody has an index block for span ${span}`);
  const raw = new Uint8Array(either);
  const adopted = new Uint8Array(MASK_BYTES);
  const freed: BlockRun[] = [];
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    if (parent === null || !isOwned(parent, slot)) continue;
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

/** The dirty index blocks of what is held, by span. */
export function dirtyBlocks({ spans, blocks }: HeldBlocks): Map<number, Uint8Array> {
  const dirty = new Map<number, Uint8Array>();
  spans.forEach((span, at) => {
    const begin = at * INDEX_BLOCK_BYTES;
    dirty.set(span, blocks.subarray(begin, begin + INDEX_BLOCK_BYTES));
  });
  return dirty;
}

export function storedBlock(reader: StoreReader, layer: number, span: number): Uint8Array | null {
  const key = spanKey(getLayer(reader, layer).key, span);
  const value = reader.get("index", key);
  return value === undefined ? null : decodeIndexBlock(key, value).raw;
}

/** Both of a fold's ends: `put` in the store what was merged, durably, and then `apply` it. */
export async function putMerged(
  { store, path, map }: FoldParts,
  merged: readonly MergedSpan[],
  { put, apply }: { put: (txn: StoreTransaction) => void; apply: Apply },
): Promise<FoldedBatch> {
  const freed = merged.flatMap((each) => each.freed);
  map.load(freed);
  await store.transact((txn) => {
    put(txn);
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
  await apply(adopted);
  // A read of the child may have looked a block up before the child wrote over it.
  path.releaseBlocks(freed);
  return { spans: merged.length, freedBlocks: countBlocks(freed) };
}

/** What does not fit into the transaction is left as it is. */
async function foldHeld(
  parts: FoldParts,
  { parent, child, spans }: { parent: number; child: number; spans: number[] },
  maxChunks: number,
): Promise<FoldedBatch> {
  const { store, path } = parts;
  const dirty = dirtyBlocks(await path.foldHold(child, spans));
  // Nothing of this can change until it is let go: the parent is nobody's, the child is held.
  const all = spans.map((span) => {
    const own = dirty.get(span) ?? storedBlock(store, child, span);
    const above = storedBlock(store, parent, span);
    assert(above !== null, `layer ${parent} has an index block for span ${span}`);
    return mergeSpan(span, above, own);
  });
  const merged = all.slice(0, fitting(all, maxChunks));
  return putMerged(parts, merged, {
    put: (txn) => {
      assert(onlyChild(txn, parent) === child, `layer ${child} is the only child of ${parent}`);
      changeIndex(txn, new Lineage(), (index) => {
        for (const { span, raw } of merged) index.fold(parent, child, span, raw);
      });
    },
    apply: (adopted) => {
      const folded = merged.map(({ span }) => span);
      return path.foldApply(parent, child, folded, adopted);
    },
  });
}

/** How many of them free blocks in no more chunks of the free map than these; one at least. */
export function fitting(merged: readonly MergedSpan[], maxChunks: number): number {
  const chunks = new Set<number>();
  for (const [at, { freed }] of merged.entries()) {
    for (const { first, count } of freed) {
      const last = Math.floor((first + count - 1) / BLOCKS_PER_CHUNK);
      for (let chunk = Math.floor(first / BLOCKS_PER_CHUNK); chunk <= last; chunk++) {
        chunks.add(chunk);
      }
    }
    if (at > 0 && chunks.size > maxChunks) return at;
  }
  return merged.length;
}

// Sweeping a hidden layer that several children share: blocks that nobody below maps any more come
// free, before all but one of the children are gone.
//
// Who looks at the layer's index block of a span? Of each child: the child's own index block, if it
// has one, says what the child maps of it, and nobody further down sees more. A child without one
// sees all of it; if that child is hidden in its turn, only its children do. So a span counts if
// every way down from the layer leads to an index block; what none of these maps is seen by nobody.
// And that stays so: a layer never comes to map again what it has let go. Hence nothing is held
// while a span is swept. Those below are taken as the store has them, which at most maps more than
// memory does. What memory has of the layer's index block nobody reads for such a span; but it is
// forgotten, or a later fold into the layer would take it for what the store has.
//
// One transaction: the layer's index block (or none, if it owns nothing of the span any more), what
// the index blocks below it say that they inherit, counts, free bits.
import { SLOTS_PER_SPAN } from "../base/constants.js";
import { appendRun, type BlockRun, countBlocks } from "../store/block-run.js";
import { decodeIndexBlock, getBlock, isOwned, setSlot } from "../store/codec-index-block.js";
import { decodeSpanKey, rangeOf, spanKey } from "../store/codec-keys.js";
import type { FreeMap } from "../store/free-map.js";
import { applyToFreeMap } from "../store/free-map-patch.js";
import { changeIndex } from "../store/index-changes.js";
import { getLayer, listChildren } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import type { Store, StoreReader } from "../store/store.js";
import type { DataPath } from "./data-path.js";

export interface SweepParts {
  store: Store;
  path: DataPath;
  map: FreeMap;
}

/**
 * A layer with more below it waits: that all of them have changed a span gets less and less likely.
 */
const MAX_FAMILY = 64;

/** A layer, and those below it as far as hidden ones lead. */
export interface Family {
  id: number;
  /** Its storage key. */
  key: number;
  hidden: boolean;
  indexBlocks: number;
  children: Family[];
}

/** What those below a layer have written and let go so far: it changes with every such change. */
export interface FamilyState {
  members: number;
  indexBlocks: number;
  ownedBlocks: number;
  mappedDelta: number;
}

export interface SweptBatch {
  spans: number;
  freedBlocks: number;
  /** The `mappedDelta` of those below is so much more, for the same contents. */
  mappedMore: number;
  /** Where the next batch begins; null: that was all. */
  next: number | null;
}

/** Null: the layer is not one to be swept. */
export function familyOf(
  reader: StoreReader,
  layer: number,
): { family: Family; state: FamilyState } | null {
  const state = { members: -1, indexBlocks: 0, ownedBlocks: 0, mappedDelta: 0 };
  const collect = (id: number): Family | null => {
    const record = getLayer(reader, id);
    const { key, indexBlocks } = record;
    const hidden = record.state === "hidden";
    const member: Family = { id, key, hidden, indexBlocks, children: [] };
    // What is in an overlay is merged before.
    if (++state.members > MAX_FAMILY || record.overlay !== undefined) return null;
    if (id !== layer) {
      state.indexBlocks += indexBlocks;
      state.ownedBlocks += record.ownedBlocks;
      state.mappedDelta += record.mappedDelta;
    }
    if (!hidden) return member;
    for (const child of listChildren(reader, id, MAX_FAMILY + 1)) {
      const below = collect(child);
      if (below === null) return null;
      member.children.push(below);
    }
    return member;
  };
  const family = collect(layer);
  if (family === null || !family.hidden || family.children.length < 2) return null;
  return { family, state };
}

/** Looks at some of the spans from this one on: up to `limit` of whoever has the fewest. */
export async function sweepBatch(
  { store, path, map }: SweepParts,
  family: Family,
  from: number,
  limit: number,
): Promise<SweptBatch> {
  const { key } = fewestSpans(family);
  const entries = store.range("index", { ...rangeOf(key), start: spanKey(key, from), limit });
  const spans = entries.map((entry) => decodeSpanKey(entry.key).span);
  const swept = spans.flatMap((span) => sweepSpan(store, family, span) ?? []);
  const freed = swept.flatMap((span) => span.freed);
  let mappedMore = 0;
  if (swept.length > 0) {
    map.load(freed);
    mappedMore = await store.transact((txn) => {
      const more = changeIndex(txn, new Lineage(), (index) =>
        swept.reduce((sum, { span, raw, below }) => {
          return sum + index.sweep(family.id, below, span, raw);
        }, 0),
      );
      applyToFreeMap(
        txn,
        freed.map((run) => ({ ...run, op: "free" as const })),
      );
      return more;
    });
    map.retire(freed);
    await forget(path, swept);
    // A read of somebody below may have looked a block up before that was written over.
    path.releaseBlocks(freed);
  }
  const last = spans.at(-1);
  const next = last === undefined || spans.length < limit ? null : last + 1;
  return { spans: swept.length, freedBlocks: countBlocks(freed), mappedMore, next };
}

/** Only spans that each of its children has count, unless the child is hidden. */
function fewestSpans(family: Family): Family {
  return family.children
    .filter(({ hidden }) => !hidden)
    .reduce((least, child) => (child.indexBlocks < least.indexBlocks ? child : least), family);
}

interface SweptSpan {
  span: number;
  /** What is left of the layer's index block; null if it owns nothing. */
  raw: Uint8Array | null;
  freed: BlockRun[];
  /** Whose index blocks inherit from it. */
  below: number[];
  /** The layer, and hidden ones below it that have no index block of the span. */
  through: number[];
}

/** Null: there is nothing to be had. */
function sweepSpan(reader: StoreReader, family: Family, span: number): SweptSpan | null {
  const raw = indexBlockOf(reader, family, span);
  const below = new Map<number, Uint8Array>();
  const through: number[] = [];
  if (raw === null || !findBelow(reader, family, span, below, through)) return null;
  const seen = [...below.values()];
  const left = new Uint8Array(raw);
  const freed: BlockRun[] = [];
  let owned = 0;
  let changed = false;
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    const block = getBlock(raw, slot);
    if (block === 0) continue;
    if (seen.some((other) => getBlock(other, slot) === block)) {
      if (isOwned(raw, slot)) owned++;
      continue;
    }
    // An ancestor's is let go too: then it may be that nobody has it.
    setSlot(left, slot, 0, false);
    changed = true;
    if (isOwned(raw, slot)) appendRun(freed, block, 1);
  }
  if (!changed && owned > 0) return null;
  return { span, raw: owned === 0 ? null : left, freed, below: [...below.keys()], through };
}

/** False: somebody sees all of the layer's index block. */
function findBelow(
  reader: StoreReader,
  family: Family,
  span: number,
  below: Map<number, Uint8Array>,
  through: number[],
): boolean {
  through.push(family.id);
  return family.children.every((child) => {
    const raw = indexBlockOf(reader, child, span);
    if (raw === null) return child.hidden && findBelow(reader, child, span, below, through);
    below.set(child.id, raw);
    return true;
  });
}

async function forget(path: DataPath, swept: readonly SweptSpan[]): Promise<void> {
  const spans = new Map<number, number[]>();
  for (const { span, through } of swept) {
    for (const layer of through) spans.set(layer, [...(spans.get(layer) ?? []), span]);
  }
  for (const [layer, forgotten] of spans) await path.forgetIndexBlocks(layer, forgotten);
}

function indexBlockOf(reader: StoreReader, { key }: Family, span: number): Uint8Array | null {
  const at = spanKey(key, span);
  const value = reader.get("index", at);
  return value === undefined ? null : decodeIndexBlock(at, value).raw;
}

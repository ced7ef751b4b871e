// What one transaction of a reclaim takes: index blocks of a dead layer, and the blocks that they
// own. What was written at random lies everywhere, and each chunk of the free map that is touched
// is read and written once: so many index blocks go together, as long as they touch a bounded
// number of chunks, which is what the transaction takes the control plane's thread for.
//
// Nobody changes a dead layer: it is read in bounded steps, and others have their turns between.
import { BLOCKS_PER_CHUNK, SLOTS_PER_SPAN } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import type { BlockRun } from "../store/block-run.js";
import { BlockSet } from "../store/block-set.js";
import { decodeIndexBlock, getBlock, isOwned } from "../store/codec-index-block.js";
import { decodeSpanKey, rangeOf, spanKey } from "../store/codec-keys.js";
import type { FreeMap } from "../store/free-map.js";
import { getLayer } from "../store/layers.js";
import type { Entry, StoreReader } from "../store/store.js";

export interface BatchParts {
  store: StoreReader;
  map: FreeMap;
  /** Resolves when others have had their turn. */
  turn: () => Promise<void>;
  stopped: () => boolean;
}

/** Of one transaction. */
export interface BatchLimits {
  /** Index blocks, at most. */
  spans: number;
  /** Chunks of the free map, at most; but for those of one index block, which may touch 512. */
  chunks: number;
}

export interface ReclaimBatch {
  spans: number[];
  owned: BlockSet;
}

/** Index blocks, or chunks, that are read before others have a turn. */
const TURN = 32;
/** Blocks whose state in memory changes before others have a turn. */
const TURN_BLOCKS = 8192;

/**
 * The next ones of the layer, with what the map has to know of them read; null: none is left, or it
 * is to end here.
 */
export async function nextBatch(
  parts: BatchParts,
  layer: number,
  limits: BatchLimits,
): Promise<ReclaimBatch | null> {
  const { store, map, turn, stopped } = parts;
  const { key: storageKey } = getLayer(store, layer);
  const batch: ReclaimBatch = { spans: [], owned: new BlockSet() };
  let range = rangeOf(storageKey);
  for (let more = true; more && batch.spans.length < limits.spans; ) {
    const limit = Math.min(TURN, limits.spans - batch.spans.length);
    const entries = store.range("index", { ...range, limit });
    more = entries.length === limit;
    for (const entry of entries) {
      const { span } = decodeSpanKey(entry.key);
      const blocks = ownedBlocks(entry);
      if (batch.spans.length > 0 && chunksWith(batch.owned, blocks) > limits.chunks) {
        more = false;
        break;
      }
      for (const block of blocks) if (!batch.owned.add(block)) throw twice(layer, span, block);
      batch.spans.push(span);
      range = { ...range, start: spanKey(storageKey, span + 1) };
    }
    if (more) await turn();
    if (stopped()) return null;
  }
  if (batch.spans.length === 0) return null;
  let loaded = 0;
  for (const chunk of batch.owned.chunks.keys()) {
    map.loadChunk(chunk);
    if (++loaded % TURN !== 0) continue;
    await turn();
    if (stopped()) return null;
  }
  return batch;
}

/** The transaction that freed them is durable: nobody's, piece by piece. */
export async function retireBlocks(
  blocks: BlockSet,
  { turn, retire }: { turn: () => Promise<void>; retire: (runs: BlockRun[]) => void },
): Promise<void> {
  let first = true;
  for (const runs of blocks.runs(TURN_BLOCKS)) {
    if (!first) await turn();
    first = false;
    retire(runs);
  }
}

function ownedBlocks({ key, value }: Entry): number[] {
  const { raw } = decodeIndexBlock(key, value);
  const blocks: number[] = [];
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    if (isOwned(raw, slot)) blocks.push(getBlock(raw, slot));
  }
  return blocks;
}

/** How many the set would touch with these in it. */
function chunksWith(set: BlockSet, blocks: readonly number[]): number {
  const more = new Set<number>();
  for (const block of blocks) {
    const chunk = Math.floor(block / BLOCKS_PER_CHUNK);
    if (!set.chunks.has(chunk)) more.add(chunk);
  }
  return set.chunks.size + more.size;
}

function twice(layer: number, span: number, block: number): PandoError {
  const what = `layer ${layer}, span ${span}: it owns block ${block} twice`;
  return new PandoError("ECORRUPT", `store: ${what}`, { layer, span });
}

// Looking up index blocks: the nearest layer, from a given one towards the root, that has an index
// block for the span.
// Walking up reads memory: Lineage keeps the parents and the span sets it has seen, a piece of
// 4,096 spans at a time. A layer has two storage keys as long as it has an overlay.
//
// Lineage is a cache and is as old as the reads that filled it. Whoever uses it answers for that: a
// transaction that changes the index goes through index-changes.ts, which keeps it in step; a
// reader in another thread clears it whenever lineageChanges() of its own read transaction has
// risen. A stale one would miss a nearer index block and serve an ancestor's data.
import { assert } from "../base/assert.js";
import { SPANS_PER_PIECE } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import { clearBit, decodePiece, getBit, PIECE_BYTES, setBit } from "./codec-bitmaps.js";
import {
  decodeIndexBlock,
  decodeIndexBlockHeader,
  type IndexBlock,
  type IndexBlockHeader,
} from "./codec-index-block.js";
import { spanKey } from "./codec-keys.js";
import { getLayer, keysOf } from "./layers.js";
import type { StoreReader } from "./store.js";

export interface Ancestor {
  parent: number | null;
  /** Storage keys of its index blocks: what is under the first hides what is under the second. */
  keys: number[];
}

export interface Nearest {
  /** The layer that has the index block. */
  owner: number;
  block: IndexBlock;
}

export class Lineage {
  readonly #layers = new Map<number, Ancestor>();
  readonly #pieces = new Map<number, Map<number, Uint8Array>>();

  /** Forgets everything. */
  clear(): void {
    this.#layers.clear();
    this.#pieces.clear();
  }

  ancestor(reader: StoreReader, layer: number): Ancestor {
    const known = this.#layers.get(layer);
    if (known !== undefined) return known;
    const record = getLayer(reader, layer);
    const { parent } = record;
    if (parent !== null && parent >= layer) {
      throw new PandoError("ECORRUPT", `store: layer ${layer} has layer ${parent} as its parent`, {
        layer,
      });
    }
    const ancestor = { parent, keys: keysOf(record) };
    this.#layers.set(layer, ancestor);
    return ancestor;
  }

  hasSpan(reader: StoreReader, key: number, span: number): boolean {
    return getBit(this.piece(reader, key, pieceOf(span)), span % SPANS_PER_PIECE);
  }

  /** The caller's transaction has changed the span set: so does the cache. */
  markSpan(reader: StoreReader, key: number, span: number, present: boolean): void {
    const piece = this.piece(reader, key, pieceOf(span));
    if (present) setBit(piece, span % SPANS_PER_PIECE);
    else clearBit(piece, span % SPANS_PER_PIECE);
  }

  /**
   * Spans piece * SPANS_PER_PIECE and up, all clear if the store has none. Changed by markSpan
   * only.
   */
  piece(reader: StoreReader, key: number, piece: number): Uint8Array {
    let pieces = this.#pieces.get(key);
    if (pieces === undefined) {
      pieces = new Map();
      this.#pieces.set(key, pieces);
    }
    let bits = pieces.get(piece);
    if (bits === undefined) {
      const at = spanKey(key, piece);
      const value = reader.get("spans", at);
      bits = value === undefined ? new Uint8Array(PIECE_BYTES) : decodePiece(at, value);
      pieces.set(piece, bits);
    }
    return bits;
  }
}

export function pieceOf(span: number): number {
  return Math.floor(span / SPANS_PER_PIECE);
}

/** Null: nobody up to the root has one, the whole span is a hole. */
export function lookupNearest(
  reader: StoreReader,
  lineage: Lineage,
  layer: number,
  span: number,
): Nearest | null {
  const found = findNearest(reader, lineage, layer, span);
  if (found === null) return null;
  return { owner: found.owner, block: decodeIndexBlock(found.key, found.value) };
}

/** As lookupNearest, without unpacking the slots. */
export function lookupNearestHeader(
  reader: StoreReader,
  lineage: Lineage,
  layer: number,
  span: number,
): IndexBlockHeader | null {
  const found = findNearest(reader, lineage, layer, span);
  return found === null ? null : decodeIndexBlockHeader(found.key, found.value);
}

function findNearest(
  reader: StoreReader,
  lineage: Lineage,
  layer: number,
  span: number,
): { owner: number; key: Uint8Array; value: Uint8Array } | null {
  assert(Number.isInteger(span) && span >= 0 && span < 2 ** 32, `${span} is not a span`);
  for (let owner: number | null = layer; owner !== null; ) {
    const { keys, parent }: Ancestor = lineage.ancestor(reader, owner);
    const found = keys.find((key) => lineage.hasSpan(reader, key, span));
    if (found !== undefined) {
      const key = spanKey(found, span);
      const value = reader.get("index", key);
      // Never a hole: within one state of the store, the span set and the index agree.
      if (value === undefined) throw missing(owner, span);
      return { owner, key, value };
    }
    owner = parent;
  }
  return null;
}

function missing(layer: number, span: number): PandoError {
  return new PandoError(
    "ECORRUPT",
    `store: layer ${layer} should have an index block for span ${span}, and has none`,
    { layer, span },
  );
}

// Looking up index blocks: the nearest layer, from a given one towards the root, that has an index
// block for the span.
// Walking up reads memory: Lineage keeps the parents and the span sets it has seen, a piece of
// 4,096 spans at a time. A long way up is not walked for every question: what it comes to is kept
// for a whole piece, by the layer where the long way begins, which clones of a snapshot share.
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
import { getLayer } from "./layers.js";
import type { StoreReader } from "./store.js";

export interface Ancestor {
  parent: number | null;
  /** Storage key. */
  key: number;
}

export interface Nearest {
  /** The layer that has the index block. */
  owner: number;
  block: IndexBlock;
}

/** Layers that are walked for each question; clones of a snapshot share what comes behind. */
const NEAR = 2;
/** A way of up to so many more is walked, too. */
const SHORT_WAY = 14;
/** Questions about a piece of a long way before its owners are kept: it takes a millisecond. */
const ASKED_OFTEN = 4;
/** Of 32 KiB each: enough for 4 TiB of blocks of 4 KiB on one line. */
const MAX_KEPT = 512;

/** By span of a piece: the nearest layer that has an index block; 0: nobody. */
type Owners = Float64Array;

export class Lineage {
  readonly #layers = new Map<number, Ancestor>();
  /** By layer and piece, the oldest first; a number: how often they were asked for. */
  readonly #owners = new Map<string, Owners | number>();
  readonly #pieces = new Map<number, Map<number, Uint8Array>>();

  /** Forgets everything. */
  clear(): void {
    this.#layers.clear();
    this.#pieces.clear();
    this.#owners.clear();
  }

  ancestor(reader: StoreReader, layer: number): Ancestor {
    const known = this.#layers.get(layer);
    if (known !== undefined) return known;
    const { parent, key } = getLayer(reader, layer);
    if (parent !== null && parent >= layer) {
      throw new PandoError("ECORRUPT", `store: layer ${layer} has layer ${parent} as its parent`, {
        layer,
      });
    }
    const ancestor = { parent, key };
    this.#layers.set(layer, ancestor);
    return ancestor;
  }

  hasSpan(reader: StoreReader, key: number, span: number): boolean {
    return getBit(this.piece(reader, key, pieceOf(span)), span % SPANS_PER_PIECE);
  }

  /** The caller's transaction has changed the span set: so does the cache. */
  markSpan(reader: StoreReader, key: number, span: number, present: boolean): void {
    const piece = this.piece(reader, key, pieceOf(span));
    this.#owners.clear();
    if (present) setBit(piece, span % SPANS_PER_PIECE);
    else clearBit(piece, span % SPANS_PER_PIECE);
  }

  /** The nearest layer from this one towards the root that has an index block for the span. */
  nearestOwner(reader: StoreReader, layer: number, span: number): number | null {
    let at: number | null = layer;
    let far = layer;
    for (let steps = 0; at !== null; steps++) {
      if (steps === NEAR) far = at;
      const owners =
        steps === NEAR
          ? this.#kept(far, pieceOf(span))
          : steps === NEAR + SHORT_WAY
            ? this.#longWay(reader, far, pieceOf(span))
            : null;
      if (owners !== null) return (owners[span % SPANS_PER_PIECE] as number) || null;
      const ancestor: Ancestor = this.ancestor(reader, at);
      if (this.hasSpan(reader, ancestor.key, span)) return at;
      at = ancestor.parent;
    }
    return null;
  }

  #kept(layer: number, piece: number): Owners | null {
    const known = this.#owners.get(`${layer}/${piece}`);
    return typeof known === "object" ? known : null;
  }

  /** Null: it is not asked for often enough. */
  #longWay(reader: StoreReader, layer: number, piece: number): Owners | null {
    const which = `${layer}/${piece}`;
    const known = this.#owners.get(which) ?? 0;
    if (typeof known !== "number") return known;
    const [oldest] = this.#owners.keys();
    if (known === 0 && this.#owners.size >= MAX_KEPT && oldest !== undefined) {
      this.#owners.delete(oldest);
    }
    const owners = known < ASKED_OFTEN ? null : this.#findOwners(reader, layer, piece);
    this.#owners.set(which, owners ?? known + 1);
    return owners;
  }

  #findOwners(reader: StoreReader, layer: number, piece: number): Owners {
    const owners: Owners = new Float64Array(SPANS_PER_PIECE);
    for (let at: number | null = layer; at !== null; ) {
      const { key, parent }: Ancestor = this.ancestor(reader, at);
      const bits = this.piece(reader, key, piece);
      for (let byte = 0; byte < bits.length; byte++) {
        if (bits[byte] === 0) continue;
        for (let span = byte * 8; span < byte * 8 + 8; span++) {
          if (owners[span] === 0 && getBit(bits, span)) owners[span] = at;
        }
      }
      at = parent;
    }
    return owners;
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
  const owner = lineage.nearestOwner(reader, layer, span);
  if (owner === null) return null;
  const key = spanKey(lineage.ancestor(reader, owner).key, span);
  const value = reader.get("index", key);
  // Never a hole: within one state of the store, the span set and the index agree.
  if (value === undefined) throw missing(owner, span);
  return { owner, key, value };
}

function missing(layer: number, span: number): PandoError {
  return new PandoError(
    "ECORRUPT",
    `store: layer ${layer} should have an index block for span ${span}, and has none`,
    { layer, span },
  );
}

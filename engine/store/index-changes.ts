// Changes of index blocks, as checkpoint, recovery and reclaim make them. An index block, its bit
// in the span set and the counts in its layer's record change in one transaction: here is the only
// place that writes any of the three.
//
//   owned    += owned − old owned
//   mapped Δ += (mapped − inherited) − (old mapped − old inherited)
//
// `inherited` is the count of the ancestor's index block from which a layer's first one of a span
// was made; it is read off the store, so ancestors go first when index blocks of a layer and of its
// ancestors are put in one go. A fold's child inherits what the parent's index block did, and the
// children of a layer that is swept what is left of it: what any line sees mapped stays the same.
import { assert } from "../base/assert.js";
import { SPANS_PER_PIECE } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import { encodeBitmap, isEmpty } from "./codec-bitmaps.js";
import {
  decodeIndexBlock,
  decodeIndexBlockHeader,
  encodeIndexBlock,
  type IndexBlockHeader,
} from "./codec-index-block.js";
import { spanKey } from "./codec-keys.js";
import type { LayerRecord } from "./codec-records.js";
import { countLineageChange, getLayer, putLayer } from "./layers.js";
import { type Lineage, lookupNearestHeader, pieceOf } from "./lineage.js";
import type { StoreTransaction } from "./store.js";

export interface IndexChanges {
  /**
   * The mapping of one span of a layer, INDEX_BLOCK_BYTES bytes; replaces the one that is there.
   */
  put(layer: number, span: number, raw: Uint8Array): void;
  /**
   * The parent's index block of the span and the child's, if it has one, become one: the child's,
   * with this content.
   */
  fold(parent: number, child: number, span: number, raw: Uint8Array): void;
  /**
   * The same the other way round: the child's index block of the span, stored or dirty, becomes one
   * with the parent's, if it has one; with this content, under the parent's key.
   */
  absorb(parent: number, child: number, span: number, raw: Uint8Array): void;
  /**
   * The child, which has no index block left under its storage key, gets its parent's key, with all
   * that is counted under it; the parent gets the child's.
   */
  exchangeKeys(parent: number, child: number): void;
  /**
   * The layer's index block of the span becomes this, or goes: what is not in it any more is mapped
   * by none of the index blocks that were copied from it, those of the layers `below`. Gives how
   * much the `mappedDelta` of these has risen by it.
   */
  sweep(layer: number, below: readonly number[], span: number, raw: Uint8Array | null): number;
  /** The layer has no mapping of its own for the span any more. True if it had. */
  remove(layer: number, span: number): boolean;
}

/**
 * Runs `change` and then writes what it adds up to (span sets, counts). Layer records are not to be
 * written by others meanwhile. If the transaction fails, `lineage` is ahead of the store: the
 * caller clears it.
 */
export function changeIndex<T>(
  txn: StoreTransaction,
  lineage: Lineage,
  change: (index: IndexChanges) => T,
): T {
  const changes = new PendingChanges(txn, lineage);
  const result = change(changes);
  changes.finish();
  return result;
}

class PendingChanges implements IndexChanges {
  readonly #txn: StoreTransaction;
  readonly #lineage: Lineage;
  readonly #records = new Map<number, LayerRecord>();
  /** Pieces of span sets to be written, by storage key. */
  readonly #pieces = new Map<number, Set<number>>();

  constructor(txn: StoreTransaction, lineage: Lineage) {
    this.#txn = txn;
    this.#lineage = lineage;
  }

  put(layer: number, span: number, raw: Uint8Array): void {
    const record = this.#record(layer);
    const key = spanKey(record.key, span);
    const old = this.#header(layer, record, key, span);
    const inherited = old?.inherited ?? this.#inheritedBy(record, span);
    const { value, header } = encodeIndexBlock(key, raw, inherited);
    this.#txn.put("index", key, value);
    count(record, header, 1);
    if (old !== null) count(record, old, -1);
    else this.#mark(record.key, span, true);
  }

  fold(parent: number, child: number, span: number, raw: Uint8Array): void {
    const { parent: above } = this.#record(child);
    assert(above === parent, `layer ${child} is on layer ${above}, not on ${parent}`);
    const from = this.#record(parent);
    const folded = this.#header(parent, from, spanKey(from.key, span), span);
    assert(folded !== null, `layer ${parent} has an index block for span ${span}`);
    const record = this.#record(child);
    const key = spanKey(record.key, span);
    const old = this.#header(child, record, key, span);
    const { value, header } = encodeIndexBlock(key, raw, folded.inherited);
    this.#txn.put("index", key, value);
    count(record, header, 1);
    if (old !== null) count(record, old, -1);
    else this.#mark(record.key, span, true);
    this.#txn.remove("index", spanKey(from.key, span));
    count(from, folded, -1);
    this.#mark(from.key, span, false);
  }

  absorb(parent: number, child: number, span: number, raw: Uint8Array): void {
    const record = this.#record(child);
    assert(record.parent === parent, `layer ${child} is on ${record.parent}, not on ${parent}`);
    const into = this.#record(parent);
    const key = spanKey(into.key, span);
    const above = this.#header(parent, into, key, span);
    const from = spanKey(record.key, span);
    const old = this.#header(child, record, from, span);
    const inherited = above?.inherited ?? old?.inherited ?? this.#inheritedBy(record, span);
    const { value, header } = encodeIndexBlock(key, raw, inherited);
    this.#txn.put("index", key, value);
    count(into, header, 1);
    if (above !== null) count(into, above, -1);
    else this.#mark(into.key, span, true);
    if (old === null) return;
    this.#txn.remove("index", from);
    count(record, old, -1);
    this.#mark(record.key, span, false);
  }

  exchangeKeys(parent: number, child: number): void {
    const from = this.#record(parent);
    const record = this.#record(child);
    assert(record.indexBlocks === 0, `layer ${child} still has index blocks`);
    const { key, indexBlocks, ownedBlocks, mappedDelta } = from;
    const { key: old, indexBlocks: none, ownedBlocks: nothing, mappedDelta: more } = record;
    Object.assign(from, { key: old, indexBlocks: none, ownedBlocks: nothing, mappedDelta: more });
    Object.assign(record, { key, indexBlocks, ownedBlocks, mappedDelta });
  }

  sweep(layer: number, below: readonly number[], span: number, raw: Uint8Array | null): number {
    const record = this.#record(layer);
    const key = spanKey(record.key, span);
    const old = this.#header(layer, record, key, span);
    assert(old !== null, `layer ${layer} has an index block for span ${span}`);
    count(record, old, -1);
    let inherited = old.inherited;
    if (raw === null) {
      this.#txn.remove("index", key);
      this.#mark(record.key, span, false);
    } else {
      const { value, header } = encodeIndexBlock(key, raw, old.inherited);
      this.#txn.put("index", key, value);
      count(record, header, 1);
      inherited = header.mapped;
    }
    for (const each of below) this.#inherit(each, span, { from: old.mapped, to: inherited });
    return below.length * (old.mapped - inherited);
  }

  remove(layer: number, span: number): boolean {
    const record = this.#record(layer);
    const key = spanKey(record.key, span);
    const old = this.#header(layer, record, key, span);
    if (old === null) return false;
    this.#txn.remove("index", key);
    count(record, old, -1);
    this.#mark(record.key, span, false);
    return true;
  }

  finish(): void {
    if (this.#pieces.size > 0) countLineageChange(this.#txn);
    for (const [key, pieces] of this.#pieces) {
      for (const piece of pieces) this.#writePiece(key, piece);
    }
    for (const [layer, record] of this.#records) {
      const { indexBlocks, ownedBlocks } = record;
      assert(indexBlocks >= 0 && ownedBlocks >= 0, `layer ${layer} owns less than nothing`);
      putLayer(this.#txn, layer, record);
    }
  }

  #record(layer: number): LayerRecord {
    let record = this.#records.get(layer);
    if (record === undefined) {
      record = { ...getLayer(this.#txn, layer) };
      this.#records.set(layer, record);
    }
    return record;
  }

  #header(
    layer: number,
    record: LayerRecord,
    key: Uint8Array,
    span: number,
  ): IndexBlockHeader | null {
    const value = this.#txn.get("index", key);
    if (this.#lineage.hasSpan(this.#txn, record.key, span) !== (value !== undefined)) {
      throw new PandoError(
        "ECORRUPT",
        `store: layer ${layer}: the span set and the index disagree about span ${span}`,
        { layer, span },
      );
    }
    return value === undefined ? null : decodeIndexBlockHeader(key, value);
  }

  /** The layer's index block says that so much of it is inherited, and so do the counts. */
  #inherit(layer: number, span: number, inherited: { from: number; to: number }): void {
    const record = this.#record(layer);
    const key = spanKey(record.key, span);
    const stored = this.#txn.get("index", key);
    assert(stored !== undefined, `layer ${layer} has an index block for span ${span}`);
    const { raw, ...old } = decodeIndexBlock(key, stored);
    assert(old.inherited === inherited.from, `layer ${layer}, span ${span}: it inherits more`);
    const { value, header } = encodeIndexBlock(key, raw, inherited.to);
    this.#txn.put("index", key, value);
    count(record, old, -1);
    count(record, header, 1);
  }

  #inheritedBy(record: LayerRecord, span: number): number {
    if (record.parent === null) return 0;
    return lookupNearestHeader(this.#txn, this.#lineage, record.parent, span)?.mapped ?? 0;
  }

  #mark(key: number, span: number, present: boolean): void {
    this.#lineage.markSpan(this.#txn, key, span, present);
    const pieces = this.#pieces.get(key) ?? new Set();
    this.#pieces.set(key, pieces.add(pieceOf(span)));
  }

  #writePiece(key: number, piece: number): void {
    const at = spanKey(key, piece);
    const bits = this.#lineage.piece(this.#txn, key, piece);
    assert(bits.length * 8 === SPANS_PER_PIECE, "a piece has 4,096 spans");
    if (isEmpty(bits)) this.#txn.remove("spans", at);
    else this.#txn.put("spans", at, encodeBitmap(at, bits));
  }
}

function count(record: LayerRecord, header: IndexBlockHeader, sign: 1 | -1): void {
  record.indexBlocks += sign;
  record.ownedBlocks += sign * header.owned;
  record.mappedDelta += sign * (header.mapped - header.inherited);
}

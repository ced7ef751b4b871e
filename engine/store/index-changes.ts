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
   * What the layer's overlay has of the span goes under its other key, put together with what is
   * there, with this content.
   */
  merge(layer: number, span: number, raw: Uint8Array): void;
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
    const { overlay } = record;
    const hides = overlay !== undefined && this.#lineage.hasSpan(this.#txn, overlay, span);
    const at = hides ? overlay : record.key;
    const old = this.#header(layer, at, span);
    const inherited = old?.inherited ?? this.#inheritedBy(record, span);
    this.#replace(record, at, span, { raw, inherited, old });
  }

  fold(parent: number, child: number, span: number, raw: Uint8Array): void {
    const { parent: above } = this.#record(child);
    assert(above === parent, `layer ${child} is on layer ${above}, not on ${parent}`);
    const from = this.#record(parent);
    const record = this.#record(child);
    requireOneKey(from, record);
    const { inherited } = this.#take(parent, from, from.key, span);
    const old = this.#header(child, record.key, span);
    this.#replace(record, record.key, span, { raw, inherited, old });
  }

  merge(layer: number, span: number, raw: Uint8Array): void {
    const record = this.#record(layer);
    assert(record.overlay !== undefined, `layer ${layer} has an overlay`);
    const hiding = this.#take(layer, record, record.overlay, span);
    const old = this.#header(layer, record.key, span);
    const { inherited } = old ?? hiding;
    this.#replace(record, record.key, span, { raw, inherited, old });
  }

  sweep(layer: number, below: readonly number[], span: number, raw: Uint8Array | null): number {
    const record = this.#record(layer);
    requireOneKey(record);
    const old = this.#header(layer, record.key, span);
    assert(old !== null, `layer ${layer} has an index block for span ${span}`);
    let inherited = old.inherited;
    if (raw === null) this.#take(layer, record, record.key, span);
    else inherited = this.#replace(record, record.key, span, { raw, inherited, old }).mapped;
    for (const each of below) this.#inherit(each, span, { from: old.mapped, to: inherited });
    return below.length * (old.mapped - inherited);
  }

  remove(layer: number, span: number): boolean {
    const record = this.#record(layer);
    requireOneKey(record);
    if (this.#header(layer, record.key, span) === null) return false;
    this.#take(layer, record, record.key, span);
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

  /** Puts an index block in the place of the one that is there, if there is one. */
  #replace(
    record: LayerRecord,
    storageKey: number,
    span: number,
    { raw, inherited, old }: { raw: Uint8Array; inherited: number; old: IndexBlockHeader | null },
  ): IndexBlockHeader {
    const key = spanKey(storageKey, span);
    const { value, header } = encodeIndexBlock(key, raw, inherited);
    this.#txn.put("index", key, value);
    count(record, header, 1);
    if (old !== null) count(record, old, -1);
    else this.#mark(storageKey, span, true);
    return header;
  }

  /** Removes the index block, which must be there. */
  #take(layer: number, record: LayerRecord, storageKey: number, span: number): IndexBlockHeader {
    const old = this.#header(layer, storageKey, span);
    assert(old !== null, `layer ${layer} has an index block for span ${span}`);
    this.#txn.remove("index", spanKey(storageKey, span));
    count(record, old, -1);
    this.#mark(storageKey, span, false);
    return old;
  }

  #header(layer: number, storageKey: number, span: number): IndexBlockHeader | null {
    const key = spanKey(storageKey, span);
    const value = this.#txn.get("index", key);
    if (this.#lineage.hasSpan(this.#txn, storageKey, span) !== (value !== undefined)) {
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

/** What is changed otherwise than by put() and merge() has been merged before. */
function requireOneKey(...records: LayerRecord[]): void {
  assert(
    records.every(({ overlay }) => overlay === undefined),
    "no layer is folded, swept or reclaimed as long as it has an overlay",
  );
}

function count(record: LayerRecord, header: IndexBlockHeader, sign: 1 | -1): void {
  record.indexBlocks += sign;
  record.ownedBlocks += sign * header.owned;
  record.mappedDelta += sign * (header.mapped - header.inherited);
}

// What changed between two snapshots of one line, and what a snapshot has at all (its difference
// from nothing): ranges of data and of zeroes, in order, by blocks.
//
// A slot has changed if the two snapshots map it to different blocks. That needs no history: a
// block that the older one sees is neither written to nor freed while the older one is there, so
// the same number is the same contents, and whatever was written since is in another block. Folding
// a layer between the two changes who owns a block and never which one is mapped.
//
// Only spans in which a layer between the two has an index block are looked at; the span sets say
// which. After one checkpoint the store has every index block of a frozen layer, and none of them
// is written to any more. What is held in memory is a batch; between two batches the snapshots may
// be deleted, so each batch looks them up again. It may be begun anywhere: that is how it goes on
// after a cut.
import { SLOTS_PER_SPAN, SPANS_PER_PIECE } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import type { SnapshotRef } from "../base/name.js";
import { getSnapshot } from "../store/catalogue.js";
import { getBit, PIECE_BYTES } from "../store/codec-bitmaps.js";
import { emptyIndexBlock, getBlock } from "../store/codec-index-block.js";
import { decodeSpanKey, rangeOf, spanKey } from "../store/codec-keys.js";
import type { SnapshotRecord } from "../store/codec-records.js";
import { Lineage, lookupNearest, pieceOf } from "../store/lineage.js";
import type { StoreReader } from "../store/store.js";
import type { ChangedRange, DiffRequest } from "./api.js";

export interface DiffParts {
  store: StoreReader;
  blockSizeBytes: number;
  /** Resolves when every index block that is dirty now is in the store. */
  checkpoint(): Promise<void>;
}

/** What is done without letting others have their turn: some milliseconds. */
const SPANS_PER_BATCH = 64;
const RANGES_PER_BATCH = 4096;

const HOLES = emptyIndexBlock();

/** Batches of ranges, never empty ones. */
export async function* diffSnapshots(
  parts: DiffParts,
  request: DiffRequest,
): AsyncGenerator<ChangedRange[]> {
  const { store, blockSizeBytes } = parts;
  const begun = resolve(store, request, null);
  const { startBytes } = request;
  const inside = Number.isSafeInteger(startBytes) && startBytes >= 0;
  if (!inside || startBytes > begun.target.sizeBytes) {
    throw new PandoError("EINVAL", `${startBytes} is not an offset in ${nameOf(request.target)}`, {
      field: "startBytes",
    });
  }
  await parts.checkpoint();
  const slotsDone = Math.floor(startBytes / blockSizeBytes);
  let span: number | null = Math.floor(slotsDone / SLOTS_PER_SPAN);
  const ranges = new Ranges(blockSizeBytes, slotsDone);
  while (span !== null) {
    const walk = new Walk(store, resolve(store, request, begun));
    for (let spans = 0; spans < SPANS_PER_BATCH && ranges.full < RANGES_PER_BATCH; spans++) {
      span = walk.next(span);
      if (span === null) break;
      walk.compare(span, ranges);
      span++;
    }
    const batch = ranges.take(span === null);
    if (batch.length > 0) yield batch;
  }
}

interface Ends {
  target: SnapshotRecord;
  base: SnapshotRecord | null;
}

/** Both ends, as long as they are those that it began with. */
function resolve(store: StoreReader, { target, base }: DiffRequest, begun: Ends | null): Ends {
  const ends = {
    target: getSnapshot(store, target.volume, target.snapshot),
    base: base === null ? null : getSnapshot(store, base.volume, base.snapshot),
  };
  if (begun === null) requireOneLine(store, ends, { target, base });
  else if (ends.target.uuid !== begun.target.uuid || ends.base?.uuid !== begun.base?.uuid) {
    throw new PandoError("ENOTFOUND", "a snapshot was deleted while it was compared", target);
  }
  return ends;
}

function requireOneLine(
  store: StoreReader,
  ends: Ends,
  names: { target: SnapshotRef; base: SnapshotRef | null },
): void {
  if (ends.base === null || names.base === null) return;
  if (isAncestor(store, ends.base.layer, ends.target.layer)) return;
  const [older, newer] = [nameOf(names.base), nameOf(names.target)];
  const turned = isAncestor(store, ends.target.layer, ends.base.layer);
  throw new PandoError(
    "EINVAL",
    turned
      ? `${older} is newer than ${newer}`
      : `${newer} does not descend from ${older}: there is no line between them`,
    {
      ...names.target,
      field: "base",
      hint: turned ? "name the older one first" : "compare snapshots of one volume or its clones",
    },
  );
}

function isAncestor(store: StoreReader, ancestor: number, layer: number): boolean {
  const lineage = new Lineage();
  // A parent's id is below its children's.
  let at: number | null = layer;
  while (at !== null && at > ancestor) at = lineage.ancestor(store, at).parent;
  return at === ancestor;
}

const nameOf = ({ volume, snapshot }: SnapshotRef): string => `${volume}@${snapshot}`;

/** One state of the store: which spans there are to look at, and what is in them. */
class Walk {
  readonly #store: StoreReader;
  readonly #lineage = new Lineage();
  readonly #ends: Ends;
  /** Of the layers from the target's up to the base's, which is not one of them. */
  readonly #keys: number[] = [];
  #merged: { piece: number; bits: Uint8Array } | null = null;

  constructor(store: StoreReader, ends: Ends) {
    this.#store = store;
    this.#ends = ends;
    const base = ends.base?.layer ?? null;
    for (let at: number | null = ends.target.layer; at !== base && at !== null; ) {
      const { keys, parent } = this.#lineage.ancestor(store, at);
      this.#keys.push(...keys);
      at = parent;
    }
  }

  /** The first span from this one on in which something may have changed. */
  next(from: number): number | null {
    for (let at: number | null = from; at !== null; at = this.#nextPiece(pieceOf(at) + 1)) {
      const piece = pieceOf(at);
      const bits = this.#union(piece);
      for (let bit = at % SPANS_PER_PIECE; bit < SPANS_PER_PIECE; bit++) {
        if (getBit(bits, bit)) return piece * SPANS_PER_PIECE + bit;
      }
    }
    return null;
  }

  compare(span: number, ranges: Ranges): void {
    const { target, base } = this.#ends;
    const after = this.#mapping(target.layer, span);
    const before = base === null ? HOLES : this.#mapping(base.layer, span);
    for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
      const block = getBlock(after, slot);
      if (block !== getBlock(before, slot)) {
        ranges.add(span * SLOTS_PER_SPAN + slot, block === 0);
      }
    }
  }

  #mapping(layer: number, span: number): Uint8Array {
    return lookupNearest(this.#store, this.#lineage, layer, span)?.block.raw ?? HOLES;
  }

  /** Spans of the piece that any of the layers has. */
  #union(piece: number): Uint8Array {
    if (this.#merged?.piece === piece) return this.#merged.bits;
    const bits = new Uint8Array(PIECE_BYTES);
    for (const key of this.#keys) {
      this.#lineage.piece(this.#store, key, piece).forEach((byte, at) => {
        bits[at] = (bits[at] as number) | byte;
      });
    }
    this.#merged = { piece, bits };
    return bits;
  }

  /** The first span of the first piece from this one on that any of the layers has. */
  #nextPiece(from: number): number | null {
    const pieces = this.#keys.flatMap((key) => {
      const { end } = rangeOf(key);
      const range = { start: spanKey(key, from), ...(end && { end }), limit: 1 };
      return this.#store.range("spans", range).map((entry) => decodeSpanKey(entry.key).span);
    });
    return pieces.length === 0 ? null : Math.min(...pieces) * SPANS_PER_PIECE;
  }
}

/** Blocks that changed, joined to ranges as they come. */
class Ranges {
  readonly #blockSizeBytes: number;
  readonly #first: number;
  #done: ChangedRange[] = [];
  #last: ChangedRange | null = null;

  /** What is before block `first` was told before. */
  constructor(blockSizeBytes: number, first: number) {
    this.#blockSizeBytes = blockSizeBytes;
    this.#first = first;
  }

  /** Ranges to be taken. */
  get full(): number {
    return this.#done.length;
  }

  add(block: number, zero: boolean): void {
    if (block < this.#first) return;
    const offsetBytes = block * this.#blockSizeBytes;
    const last = this.#last;
    const joins = last?.zero === zero && last.offsetBytes + last.lengthBytes === offsetBytes;
    if (last !== null && joins) {
      last.lengthBytes += this.#blockSizeBytes;
      return;
    }
    if (last !== null) this.#done.push(last);
    this.#last = { offsetBytes, lengthBytes: this.#blockSizeBytes, zero };
  }

  /** The last one may still grow, unless this is the end. */
  take(end: boolean): ChangedRange[] {
    const taken = this.#done;
    this.#done = [];
    if (end && this.#last !== null) taken.push(this.#last);
    return taken;
  }
}

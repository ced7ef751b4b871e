// Repairs of a pool that nobody serves: what is derived from the index blocks is made anew from
// them, and nothing else is touched.
//
//   span sets   of the keys in `index`
//   counts      of a layer's index blocks
//   free map    of the own bits, after the journal's records
//
// Never a guess: an index block that is lost cannot be told from a bit or a count that is wrong but
// by asking a third witness. So a span set is made anew only where the layer's count agrees with
// its index blocks, counts only where span set and free map do, the free map only where all counts
// do; and everything only if the check then finds a pool without a fault. Else it is refused, and
// nothing is changed. All of it is one transaction.
import { AssertionError, assert } from "../base/assert.js";
import { BLOCKS_PER_CHUNK, SLOTS_PER_SPAN, SPANS_PER_PIECE } from "../base/constants.js";
import { isPandoError, PandoError } from "../base/errors.js";
import { getPoolRecord, putSpaceRecord } from "../store/catalogue.js";
import {
  CHUNK_BYTES,
  countBits,
  decodeChunk,
  decodePiece,
  encodeBitmap,
  isEmpty,
  PIECE_BYTES,
  setBit,
} from "../store/codec-bitmaps.js";
import { decodeIndexBlock, getBlock, isOwned } from "../store/codec-index-block.js";
import { chunkKey, decodeChunkKey, decodeSpanKey, rangeOf, spanKey } from "../store/codec-keys.js";
import type { LayerRecord } from "../store/codec-records.js";
import { entriesOf } from "../store/entries.js";
import { listLayers, putLayer } from "../store/layers.js";
import { pieceOf } from "../store/lineage.js";
import { OverlayStore } from "../store/overlay-store.js";
import type { StoreReader, StoreTransaction } from "../store/store.js";
import type { CheckReport } from "./api.js";
import { checkStore } from "./check.js";
import { recoverOverlay } from "./offline-check.js";
import type { DeviceReader, Recovered, RecoveryOptions } from "./recovery.js";

export interface RepairReport extends CheckReport {
  /** A sentence for each thing that was made anew; empty: the store is as it was. */
  repaired: string[];
}

export interface Repair {
  report: RepairReport;
  /** Null: there is nothing to be changed. */
  recovered: Recovered | null;
  /** Brings the store, which must not have changed meanwhile, to what was repaired. */
  write(txn: StoreTransaction): void;
}

type Device = Pick<DeviceReader, "sizeBytes" | "read">;
type Unflushed = Pick<RecoveryOptions, "unflushed">;

/** ECORRUPT if what is wrong is not only what can be made anew. */
export async function planRepair(
  store: StoreReader,
  device: Device,
  options: Unflushed = {},
): Promise<Repair> {
  const tallies = tally(store);
  const wrong = compare(store, tallies);
  const fixed = new OverlayStore(store);
  await fixed.transact((txn) => {
    for (const layer of wrong.spans) writeSpans(txn, layer);
    for (const { id, record, counts } of wrong.counts) putLayer(txn, id, { ...record, ...counts });
  });
  const repaired = [
    ...wrong.spans.map(({ id, counts }) => {
      return `layer ${id}: its span set, from its ${counts.indexBlocks} index blocks`;
    }),
    ...wrong.counts.map(({ id }) => `layer ${id}: its counts, from its index blocks`),
  ];
  const asIs = await tryRecovery(fixed, device, { ...options, freeMap: "replay" });
  if (asIs.report?.clean === true) return planned(fixed, asIs, asIs.report, repaired);
  const anew = await tryRecovery(fixed, device, { ...options, freeMap: "rebuild" });
  if (anew.report?.clean !== true) throw refusal(anew.problem);
  const [first] = wrong.counts;
  if (first !== undefined) {
    throw refusal(`the counts of layer ${first.id} are wrong and the free map is, too`);
  }
  const sentence = `the free map, from the own bits: ${anew.report.ownedBlocks} blocks`;
  return planned(fixed, anew, anew.report, [...repaired, sentence]);
}

const COUNTS = ["indexBlocks", "ownedBlocks", "mappedDelta"] as const;
type Counts = Record<(typeof COUNTS)[number], number>;

interface Tally {
  id: number;
  record: LayerRecord;
  /** As its index blocks add up to. */
  counts: Counts;
  /** As they make it. */
  pieces: Map<number, Uint8Array>;
}

/** By storage key. Every index block must be whole and somebody's. */
function tally(store: StoreReader): Map<number, Tally> {
  const tallies = new Map<number, Tally>();
  for (const { id, record } of listLayers(store)) {
    const counts = { indexBlocks: 0, ownedBlocks: 0, mappedDelta: 0 };
    tallies.set(record.key, { id, record, counts, pieces: new Map() });
  }
  for (const { key, value } of entriesOf(store, "index")) {
    const { storageKey, span } = decodeSpanKey(key);
    const { owned, mapped, inherited } = decodeIndexBlock(key, value);
    const found = tallies.get(storageKey);
    if (found === undefined) {
      throw refusal(`the index block of key ${storageKey}, span ${span}, is nobody's`);
    }
    found.counts.indexBlocks++;
    found.counts.ownedBlocks += owned;
    found.counts.mappedDelta += mapped - inherited;
    const piece = found.pieces.get(pieceOf(span)) ?? new Uint8Array(PIECE_BYTES);
    setBit(piece, span % SPANS_PER_PIECE);
    found.pieces.set(pieceOf(span), piece);
  }
  return tallies;
}

interface Wrong {
  spans: Tally[];
  counts: Tally[];
}

function compare(store: StoreReader, tallies: Map<number, Tally>): Wrong {
  const seen = new Map<number, number>();
  const spans = new Set<Tally>();
  for (const { key, value } of entriesOf(store, "spans")) {
    const { storageKey, span: piece } = decodeSpanKey(key);
    const layer = tallies.get(storageKey);
    if (layer === undefined) throw refusal(`the span set of key ${storageKey} is nobody's`);
    const bits = decodedOrNull(() => decodePiece(key, value));
    const expected = layer.pieces.get(piece);
    if (bits === null || expected === undefined || !Buffer.from(bits).equals(expected)) {
      spans.add(layer);
    }
    seen.set(storageKey, (seen.get(storageKey) ?? 0) + 1);
  }
  for (const [key, layer] of tallies) {
    if ((seen.get(key) ?? 0) !== layer.pieces.size) spans.add(layer);
  }
  const counts = [...tallies.values()].filter(({ record, counts: found }) =>
    COUNTS.some((field) => record[field] !== found[field]),
  );
  const both = counts.find((layer) => spans.has(layer));
  if (both !== undefined) {
    throw refusal(
      `layer ${both.id}: neither its span set nor its counts fit its index blocks: one may be lost`,
    );
  }
  return { spans: [...spans], counts };
}

function writeSpans(txn: StoreTransaction, { record, pieces }: Tally): void {
  for (const { key } of [...entriesOf(txn, "spans", rangeOf(record.key))]) {
    if (!pieces.has(decodeSpanKey(key).span)) txn.remove("spans", key);
  }
  for (const [piece, bits] of pieces) {
    const key = spanKey(record.key, piece);
    txn.put("spans", key, encodeBitmap(key, bits));
  }
}

interface Attempt {
  store: OverlayStore | null;
  recovered: Recovered | null;
  report: CheckReport | null;
  problem: string;
}

/** With the free map as recovery leaves it, or made anew. */
async function tryRecovery(
  fixed: OverlayStore,
  device: Device,
  options: Unflushed & { freeMap: "replay" | "rebuild" },
): Promise<Attempt> {
  try {
    const { store, recovered } = await recoverOverlay(fixed, device, options);
    if (options.freeMap === "rebuild") await store.transact(rebuildFreeMap);
    const report = checkStore(store);
    return { store, recovered, report, problem: report.problems[0] ?? "" };
  } catch (error) {
    if (!isPandoError(error) && !(error instanceof AssertionError)) throw error;
    return { store: null, recovered: null, report: null, problem: error.message };
  }
}

function rebuildFreeMap(txn: StoreTransaction): void {
  const { dataBlocks } = getPoolRecord(txn);
  const bits = new Uint8Array((Math.floor(dataBlocks / BLOCKS_PER_CHUNK) + 1) * CHUNK_BYTES);
  for (const { key, value } of entriesOf(txn, "index")) {
    const { raw } = decodeIndexBlock(key, value);
    for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
      const block = getBlock(raw, slot);
      // The check that follows says so.
      if (isOwned(raw, slot) && block <= dataBlocks) setBit(bits, block);
    }
  }
  const stored = new Map<number, Uint8Array | null>();
  for (const { key, value } of entriesOf(txn, "free")) {
    stored.set(
      decodeChunkKey(key),
      decodedOrNull(() => decodeChunk(key, value)),
    );
  }
  for (const chunk of stored.keys()) {
    if (chunk * CHUNK_BYTES >= bits.length) txn.remove("free", chunkKey(chunk));
  }
  for (let chunk = 0; chunk * CHUNK_BYTES < bits.length; chunk++) {
    const key = chunkKey(chunk);
    const wanted = bits.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
    const found = stored.get(chunk);
    if (isEmpty(wanted)) {
      if (found !== undefined) txn.remove("free", key);
    } else if (found === undefined || found === null || !Buffer.from(found).equals(wanted)) {
      txn.put("free", key, encodeBitmap(key, wanted));
    }
  }
  putSpaceRecord(txn, { allocatedBlocks: countBits(bits) });
}

function planned(
  fixed: OverlayStore,
  { store, recovered }: Attempt,
  report: CheckReport,
  repaired: string[],
): Repair {
  assert(store !== null, "a pool that was checked was recovered");
  const isRepaired = repaired.length > 0;
  return {
    report: { ...report, repaired },
    recovered: isRepaired ? recovered : null,
    write(txn) {
      if (!isRepaired) return;
      for (const layer of [fixed, store]) {
        for (const { space, key, value } of layer.changes()) {
          if (value === undefined) txn.remove(space, key);
          else txn.put(space, key, value);
        }
      }
    },
  };
}

function decodedOrNull(decode: () => Uint8Array): Uint8Array | null {
  try {
    return decode();
  } catch (error) {
    if (!isPandoError(error, "ECORRUPT")) throw error;
    return null;
  }
}

function refusal(problem: string): PandoError {
  return new PandoError("ECORRUPT", `it cannot be repaired, and is as it was: ${problem}`, {
    hint: "free map, counts and span sets are repaired; for the rest: pool restore-metadata",
  });
}

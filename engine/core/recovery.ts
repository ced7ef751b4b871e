// Opening a pool: bringing the store to what the journal says, whatever stopped the last daemon.
// Bounded by the journal, not by the pool.
//
//   1. flush the device and sync the store: after a kill, what is read here may still be volatile,
//      and decisions are made on it
//   2. end a grow that was cut (grow.ts), compare superblock and store (UUID, generation, geometry)
//   3. read the journal from the tail
//   4. layer by layer, parents first, put the index blocks that its records lead to, in bounded
//      transactions
//      after them those that were acknowledged and not yet durable, if the machine has run on since
//   5. one last transaction: free map, tail, epoch + 1
//
// It may be cut anywhere and starts again: a record says the same whatever it meets, the tail moves
// with the last transaction only, and a child's index block is copied from an ancestor's that is
// complete already. The epoch is raised even if there was nothing to replay: blocks of the old one
// that were on their way must never count.
import { assert } from "../base/assert.js";
import { SUPERBLOCK_A_OFFSET, SUPERBLOCK_B_OFFSET, SUPERBLOCK_BYTES } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import {
  getJournalRecord,
  getPoolRecord,
  indexOldSnapshots,
  putJournalRecord,
} from "../store/catalogue.js";
import { emptyIndexBlock, inheritIndexBlock, setSlot } from "../store/codec-index-block.js";
import type { JournalRecord, PoolRecord } from "../store/codec-records.js";
import { FreeMapPatch } from "../store/free-map-patch.js";
import { changeIndex } from "../store/index-changes.js";
import { checkBlocks, type MappingRecord, olderStore, scanJournal } from "../store/journal.js";
import { findLayer } from "../store/layers.js";
import { Lineage, lookupNearest } from "../store/lineage.js";
import type { Store, StoreReader, StoreTransaction } from "../store/store.js";
import { checkSuperblock, chooseSuperblock, type Superblock } from "../store/superblock.js";
import { readUnflushed, type UnflushedRecord } from "../store/unflushed.js";
import { settleGrow } from "./grow.js";

/** The data device as recovery needs it. */
export interface DeviceReader {
  readonly sizeBytes: number;
  read(offsetBytes: number, lengthBytes: number): Uint8Array;
  flush(): Promise<void>;
}

export interface Recovered {
  superblock: Superblock;
  /** A grow was ended that had been cut: a copy of the superblock may have been left behind. */
  grew: boolean;
  /** Of the journal blocks to be written from now on. */
  epoch: number;
  /** Of the first of them; it is the tail too. */
  nextSequence: number;
  replayedRecords: number;
  replayedBlocks: number;
  replayedSpans: number;
  /** Of these, records that were acknowledged and not durable when the daemon was killed. */
  unflushedRecords: number;
  /** Blocks after the journal's end that had not become durable before the cut. */
  lostBlocks: number;
}

export interface RecoveryOptions {
  /** Index blocks in one transaction; bounds its time. */
  spansPerTransaction?: number;
  /** The memory that outlives the daemon, as it is now; and the boot id of the machine. */
  unflushed?: { memory: Uint8Array; bootId: string };
  /** "rebuild": the free map is not looked at, the caller makes it anew (repair.ts). */
  freeMap?: "replay" | "rebuild";
}

const SPANS_PER_TRANSACTION = 2048;

export async function recover(
  store: Store,
  device: DeviceReader,
  options: RecoveryOptions = {},
): Promise<Recovered> {
  await device.flush();
  await store.sync();
  const superblock = readSuperblock(device);
  const grew = await settleGrow(store, superblock);
  comparePool(superblock, getPoolRecord(store));
  const journal = getJournalRecord(store);
  if (superblock.epoch > journal.epoch) {
    throw olderStore(`superblock: epoch: the device is of ${superblock.epoch}`, journal.epoch);
  }

  const replay = new Replay(store, options.freeMap ?? "replay");
  const scan = scanJournal(
    {
      offsetBytes: superblock.journalOffsetBytes,
      blocks: superblock.journalBlocks,
      uuid: superblock.uuid,
      epoch: journal.epoch,
      tail: journal.tail,
      dataBlocks: superblock.dataBlocks,
    },
    (offset, length) => device.read(offset, length),
    (record, sequence) => replay.add(record, sequence),
  );
  const unflushed = options.unflushed === undefined ? [] : unflushedAfter(scan.lastOrdinal);
  for (const { ordinal, record } of unflushed) {
    checkBlocks(record, ordinal, superblock.dataBlocks);
    replay.add(record, scan.endSequence);
  }
  const next: JournalRecord = { epoch: journal.epoch + 1, tail: scan.endSequence };
  const finish = (txn: StoreTransaction): void => {
    replay.freeMap?.write(txn);
    putJournalRecord(txn, next);
    indexOldSnapshots(txn);
  };
  const steps = replay.steps(options.spansPerTransaction ?? SPANS_PER_TRANSACTION);
  if (unflushed.length === 0) {
    for (const step of steps) await store.transact((txn) => replay.put(txn, step));
    await store.transact(finish);
  } else {
    // All or nothing: a power cut would take the memory, and with it the only record of what a part
    // of this had put already.
    await store.transact((txn) => {
      for (const step of steps) replay.put(txn, step);
      finish(txn);
    });
  }
  return {
    superblock,
    grew,
    epoch: next.epoch,
    nextSequence: next.tail,
    replayedRecords: scan.records + unflushed.length,
    unflushedRecords: unflushed.length,
    replayedBlocks: scan.endSequence - journal.tail,
    replayedSpans: replay.spans,
    lostBlocks: scan.blocksAfterEnd,
  };

  /** A journal block may have become durable without the daemon's having known it. */
  function unflushedAfter(lastOrdinal: number): UnflushedRecord[] {
    const { memory, bootId } = options.unflushed ?? { memory: new Uint8Array(0), bootId: "" };
    const place = { uuid: superblock.uuid, epoch: journal.epoch, bootId };
    return readUnflushed(memory, place).filter(({ ordinal }) => ordinal > lastOrdinal);
  }
}

/** The valid copy of the superblock, its geometry checked. */
export function readSuperblock(device: DeviceReader): Superblock {
  if (device.sizeBytes < SUPERBLOCK_B_OFFSET + SUPERBLOCK_BYTES) {
    throw new PandoError("ECORRUPT", `device: ${device.sizeBytes} bytes are too few for a pool`, {
      field: "deviceSize",
    });
  }
  const copy = (offset: number): Uint8Array => device.read(offset, SUPERBLOCK_BYTES);
  const found = chooseSuperblock(copy(SUPERBLOCK_A_OFFSET), copy(SUPERBLOCK_B_OFFSET));
  return checkSuperblock(found, device.sizeBytes);
}

export function comparePool(superblock: Superblock, record: PoolRecord): void {
  const pairs: [keyof PoolRecord, number | string][] = [
    ["uuid", superblock.uuid],
    ["version", superblock.version],
    ["generation", superblock.generation],
    ["blockSize", superblock.blockSizeBytes],
    ["dataBlocks", superblock.dataBlocks],
    ["journalBlocks", superblock.journalBlocks],
  ];
  for (const [field, onDevice] of pairs) {
    if (record[field] === onDevice) continue;
    throw new PandoError(
      "ECORRUPT",
      `pool: ${field} is ${onDevice} on the device and ${record[field]} in the store`,
      { field, hint: "device and store do not belong together" },
    );
  }
}

/**
 * A full journal has millions of records: they are kept as numbers, off the heap, in pieces that
 * never move.
 */
class RecordList {
  readonly layer: number;
  readonly depth: number;
  length = 0;
  readonly #pieces: Uint32Array[] = [];

  constructor(layer: number, depth: number) {
    this.layer = layer;
    this.depth = depth;
  }

  push(record: MappingRecord): void {
    const at = this.length % RECORDS_PER_PIECE;
    if (at === 0) this.#pieces.push(new Uint32Array(RECORDS_PER_PIECE * COLUMNS));
    const { span, firstSlot, slots, firstBlock } = record;
    const piece = this.#pieces.at(-1) as Uint32Array;
    piece[at * COLUMNS] = span;
    piece[at * COLUMNS + 1] = firstSlot;
    piece[at * COLUMNS + 2] = slots;
    piece[at * COLUMNS + 3] = firstBlock;
    this.length++;
  }

  /**
   * Span by span, each one's records in their order: so that a span is put once, however its writes
   * were scattered.
   */
  *bySpan(): Generator<MappedSlots> {
    const order = new BigUint64Array(this.length);
    const halves = new Uint32Array(order.buffer);
    for (let i = 0; i < this.length; i++) {
      halves[2 * i + LOW] = i;
      halves[2 * i + HIGH] = this.#get(i).span;
    }
    order.sort();
    for (let i = 0; i < this.length; i++) yield this.#get(halves[2 * i + LOW] as number);
  }

  #get(index: number): MappedSlots {
    const piece = this.#pieces[Math.floor(index / RECORDS_PER_PIECE)] as Uint32Array;
    const at = (index % RECORDS_PER_PIECE) * COLUMNS;
    return {
      span: piece[at] as number,
      firstSlot: piece[at + 1] as number,
      slots: piece[at + 2] as number,
      firstBlock: piece[at + 3] as number,
    };
  }
}

type MappedSlots = Pick<MappingRecord, "span" | "firstSlot" | "slots" | "firstBlock">;

const COLUMNS = 4;
const RECORDS_PER_PIECE = 1024;
/** Where a 64-bit number has its halves in memory. */
const LOW = new Uint32Array(BigUint64Array.of(1n).buffer)[0] === 1 ? 0 : 1;
const HIGH = 1 - LOW;

/** Records of one layer, span by span. */
interface Step {
  layer: number;
  records: MappedSlots[];
  spans: number;
}

class Replay {
  readonly freeMap: FreeMapPatch | null;
  /** Index blocks put. */
  spans = 0;
  readonly #store: Store;
  readonly #lineage = new Lineage();
  readonly #layers = new Map<number, RecordList>();

  constructor(store: Store, freeMap: "replay" | "rebuild") {
    this.#store = store;
    this.freeMap = freeMap === "replay" ? new FreeMapPatch(store) : null;
  }

  add(record: MappingRecord, sequence: number): void {
    let records = this.#layers.get(record.layer);
    if (records === undefined) {
      records = new RecordList(record.layer, this.#depthOf(record.layer, sequence));
      this.#layers.set(record.layer, records);
    }
    records.push(record);
    const { firstBlock, slots } = record;
    if (firstBlock !== 0) this.freeMap?.apply({ op: "allocate", first: firstBlock, count: slots });
    for (const run of record.frees) this.freeMap?.apply({ op: "free", ...run });
  }

  /**
   * What there is to put, parents first: a layer's new index block is copied from an ancestor's,
   * which must be complete. Each step is of one layer and has up to `spansPerStep` spans.
   */
  *steps(spansPerStep: number): Generator<Step> {
    const byDepth = [...this.#layers.values()].sort((a, b) => a.depth - b.depth);
    for (const records of byDepth) {
      const { layer } = records;
      let step: Step = { layer, records: [], spans: 0 };
      let last = -1;
      for (const record of records.bySpan()) {
        if (record.span !== last && step.spans === spansPerStep) {
          yield step;
          step = { layer, records: [], spans: 0 };
        }
        if (record.span !== last) step.spans++;
        last = record.span;
        step.records.push(record);
      }
      yield step;
    }
  }

  put(txn: StoreTransaction, step: Step): void {
    const blocks = new Map<number, Uint8Array>();
    for (const { span, firstSlot, slots, firstBlock } of step.records) {
      let raw = blocks.get(span);
      if (raw === undefined) {
        raw = this.#indexBlockOf(txn, step.layer, span);
        blocks.set(span, raw);
      }
      for (let i = 0; i < slots; i++) {
        const block = firstBlock === 0 ? 0 : firstBlock + i;
        setSlot(raw, firstSlot + i, block, block !== 0);
      }
    }
    changeIndex(txn, this.#lineage, (index) => {
      for (const [span, raw] of blocks) index.put(step.layer, span, raw);
    });
    this.spans += step.spans;
  }

  #indexBlockOf(reader: StoreReader, layer: number, span: number): Uint8Array {
    const nearest = lookupNearest(reader, this.#lineage, layer, span);
    if (nearest === null) return emptyIndexBlock();
    return nearest.owner === layer ? nearest.block.raw : inheritIndexBlock(nearest.block.raw);
  }

  #depthOf(layer: number, sequence: number): number {
    let depth = 0;
    for (let at: number | null = layer; at !== null; depth++) {
      const record = findLayer(this.#store, at);
      if (record === undefined) {
        throw new PandoError(
          "ECORRUPT",
          `journal: block ${sequence} has a record of layer ${layer}, and the store has no layer ${at}`,
          { layer, field: "journal" },
        );
      }
      assert(record.parent === null || record.parent < at, "a parent's id is below its child's");
      at = record.parent;
    }
    return depth;
  }
}

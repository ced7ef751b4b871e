// The journal as recovery reads it: a ring of 4 KiB blocks, sequence s at place s mod J. The native
// side writes it; both codecs pass test/fixtures/journal-v1.hex.
//
// Where it ends: at the first block from the tail on that is torn, of another epoch, of another
// pool or of another sequence.
// That is a normal power cut, unless a later block of the same epoch says that it had been durable:
// then something that was acknowledged is gone, and the pool is refused instead of served without
// it.
//
//   block   0x00 "PJB1" | crc32c of 0x08… u32 | sequence u64 | epoch u64 | durable up to u64
//           0x20 records u16 | zero u16 | used u32 | pool UUID | first ordinal u64 | 0x40 records
//   record  layer u64 | span u32 | first slot u16 | slots u16 | first block u32
//           free runs u16 | zero u16, then for each free run: first block u32 | blocks u32
import { native } from "../../native/native.js";
import { assert } from "../base/assert.js";
import { JOURNAL_BLOCK_BYTES, SLOTS_PER_SPAN } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import type { BlockRun } from "./block-run.js";
import { uuidFromBytes, uuidToBytes } from "./uuid.js";

/** Slots of one span that changed, with all that replay needs. */
export interface MappingRecord {
  layer: number;
  span: number;
  firstSlot: number;
  slots: number;
  /** Slot firstSlot + i now maps firstBlock + i, and the layer owns it; 0: all become holes. */
  firstBlock: number;
  /** Blocks that the layer owned and gave up with this change. */
  frees: BlockRun[];
}

export interface JournalBlock {
  sequence: number;
  epoch: number;
  /** Every sequence below this one was durable when this block was issued. */
  durableUpTo: number;
  uuid: string;
  /** The first record's number since the pool was opened; records are numbered from 1. */
  firstOrdinal: number;
  records: MappingRecord[];
}

export interface JournalPlace {
  offsetBytes: number;
  blocks: number;
  uuid: string;
  epoch: number;
  /** The first sequence that is not in the store yet. */
  tail: number;
  /** Data blocks of the pool: a record that names another is refused. */
  dataBlocks: number;
}

export interface JournalScan {
  /** One after the last block that is part of the journal. */
  endSequence: number;
  records: number;
  /** Valid blocks of this epoch after the end: issued, but not preceded by what they followed. */
  blocksAfterEnd: number;
  /** The highest "durable up to" seen. */
  durableUpTo: number;
  /** Of the last record; 0 if there is none. */
  lastOrdinal: number;
}

export type ReadBytes = (offsetBytes: number, lengthBytes: number) => Uint8Array;

const MAGIC = 0x31424a50; // "PJB1"
const CRC_START = 0x08;
const RECORDS_START = 0x40;
const RECORD_BYTES = 24;
const FREE_RUN_BYTES = 8;
export const MAX_FREE_RUNS = 64;
/** Bytes of records that a block holds. */
export const JOURNAL_PAYLOAD_BYTES = JOURNAL_BLOCK_BYTES - RECORDS_START;
const BLOCKS_PER_READ = 256;

export function recordBytes(record: MappingRecord): number {
  return RECORD_BYTES + record.frees.length * FREE_RUN_BYTES;
}

/** As the native side writes it; for fixtures and for tests of recovery. */
export function encodeJournalBlock(block: JournalBlock): Uint8Array {
  const bytes = Buffer.alloc(JOURNAL_BLOCK_BYTES);
  let at = RECORDS_START;
  for (const record of block.records) {
    assert(at + recordBytes(record) <= JOURNAL_BLOCK_BYTES, "the records fit one block");
    at = encodeRecord(bytes, at, record);
  }
  bytes.writeUInt32LE(MAGIC, 0x00);
  bytes.writeBigUInt64LE(BigInt(block.sequence), 0x08);
  bytes.writeBigUInt64LE(BigInt(block.epoch), 0x10);
  bytes.writeBigUInt64LE(BigInt(block.durableUpTo), 0x18);
  bytes.writeUInt16LE(block.records.length, 0x20);
  bytes.writeUInt32LE(at - RECORDS_START, 0x24);
  bytes.set(uuidToBytes(block.uuid), 0x28);
  bytes.writeBigUInt64LE(BigInt(block.firstOrdinal), 0x38);
  bytes.writeUInt32LE(native.crc32c(bytes.subarray(CRC_START)), 0x04);
  return bytes;
}

/**
 * Null if it is not a journal block, or a torn one. A block whose checksum fits was written as it
 * is: if its fields make no sense, ECORRUPT.
 */
export function decodeJournalBlock(bytes: Uint8Array): JournalBlock | null {
  assert(bytes.length === JOURNAL_BLOCK_BYTES, "a journal block has 4,096 bytes");
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (buffer.readUInt32LE(0x00) !== MAGIC) return null;
  if (buffer.readUInt32LE(0x04) !== native.crc32c(buffer.subarray(CRC_START))) return null;
  const sequence = readU64(buffer, 0x08, "sequence");
  const epoch = readU64(buffer, 0x10, "epoch");
  const durableUpTo = readU64(buffer, 0x18, "durable up to");
  if (durableUpTo > sequence) throw corrupt(sequence, "durable up to itself");
  const end = RECORDS_START + buffer.readUInt32LE(0x24);
  if (end > JOURNAL_BLOCK_BYTES) throw corrupt(sequence, "used is more than a block");
  const uuid = uuidFromBytes(buffer.subarray(0x28, 0x38));
  const firstOrdinal = readU64(buffer, 0x38, "first ordinal");
  const records: MappingRecord[] = [];
  let at = RECORDS_START;
  for (let left = buffer.readUInt16LE(0x20); left > 0; left--) {
    const record = decodeRecord(buffer, at, end, sequence);
    records.push(record);
    at += recordBytes(record);
  }
  if (at !== end) throw corrupt(sequence, "used is not the length of the records");
  return { sequence, epoch, durableUpTo, uuid, firstOrdinal, records };
}

/**
 * Reads the journal from its tail; `onRecord` sees every record, in order. Reads the whole ring
 * once, whatever is in it: what is after the end may prove that the end is a loss.
 */
export function scanJournal(
  place: JournalPlace,
  read: ReadBytes,
  onRecord: (record: MappingRecord, sequence: number) => void,
): JournalScan {
  const scan: JournalScan = {
    endSequence: place.tail,
    records: 0,
    blocksAfterEnd: 0,
    durableUpTo: 0,
    lastOrdinal: 0,
  };
  let ended = false;
  for (const { sequence, bytes } of ring(place, read)) {
    const block = decodeJournalBlock(bytes);
    if (block !== null && block.uuid === place.uuid && block.epoch > place.epoch) {
      throw olderStore(`journal: block ${block.sequence} is of epoch ${block.epoch}`, place.epoch);
    }
    if (block === null || block.uuid !== place.uuid || block.epoch !== place.epoch) {
      ended = true;
      continue;
    }
    if (block.sequence !== sequence) {
      // Whole blocks of this epoch at their place, but of an earlier round: not after the end.
      ended = true;
      if (block.sequence <= scan.endSequence) continue;
      throw corrupt(block.sequence, `found at the place of sequence ${sequence}`);
    }
    if (block.durableUpTo > scan.durableUpTo) scan.durableUpTo = block.durableUpTo;
    if (ended) {
      refuseProvenLoss(block, scan.endSequence);
      scan.blocksAfterEnd++;
      continue;
    }
    for (const record of block.records) {
      checkBlocks(record, sequence, place.dataBlocks);
      onRecord(record, sequence);
    }
    scan.records += block.records.length;
    scan.lastOrdinal = block.firstOrdinal + block.records.length - 1;
    scan.endSequence = sequence + 1;
  }
  return scan;
}

/**
 * An epoch is raised durably in the store before anything on the device names it: a device that
 * names a later one has been in use with another store since.
 */
export function olderStore(what: string, epoch: number): PandoError {
  return new PandoError("ECORRUPT", `${what}, and the store of ${epoch}: it is older`, {
    field: "epoch",
    hint: "it is an old copy: what it says of the blocks is not true any more",
  });
}

function refuseProvenLoss(block: JournalBlock, missing: number): void {
  if (block.durableUpTo <= missing) return;
  throw new PandoError(
    "ECORRUPT",
    `journal: block ${missing} is lost: block ${block.sequence} says that it had been durable`,
    {
      field: "journal",
      hint: "the device has lost data that it had acknowledged, or it is an old copy of the pool's",
    },
  );
}

/** Every place of the ring once, from the tail's on, with the sequence that belongs there. */
function* ring(
  place: JournalPlace,
  read: ReadBytes,
): Generator<{ sequence: number; bytes: Uint8Array }> {
  let done = 0;
  while (done < place.blocks) {
    const first = (place.tail + done) % place.blocks;
    const count = Math.min(BLOCKS_PER_READ, place.blocks - done, place.blocks - first);
    const offset = place.offsetBytes + first * JOURNAL_BLOCK_BYTES;
    const bytes = read(offset, count * JOURNAL_BLOCK_BYTES);
    assert(bytes.length === count * JOURNAL_BLOCK_BYTES, "the device read what was asked for");
    for (let i = 0; i < count; i++) {
      const at = i * JOURNAL_BLOCK_BYTES;
      const block = bytes.subarray(at, at + JOURNAL_BLOCK_BYTES);
      yield { sequence: place.tail + done + i, bytes: block };
    }
    done += count;
  }
}

function encodeRecord(bytes: Buffer, at: number, record: MappingRecord): number {
  assert(record.frees.length <= MAX_FREE_RUNS, "a record frees at most 64 runs");
  bytes.writeBigUInt64LE(BigInt(record.layer), at);
  bytes.writeUInt32LE(record.span, at + 0x08);
  bytes.writeUInt16LE(record.firstSlot, at + 0x0c);
  bytes.writeUInt16LE(record.slots, at + 0x0e);
  bytes.writeUInt32LE(record.firstBlock, at + 0x10);
  bytes.writeUInt16LE(record.frees.length, at + 0x14);
  let next = at + RECORD_BYTES;
  for (const run of record.frees) {
    bytes.writeUInt32LE(run.first, next);
    bytes.writeUInt32LE(run.count, next + 4);
    next += FREE_RUN_BYTES;
  }
  return next;
}

/** `sequence` is for the error. */
export function decodeRecord(
  buffer: Buffer,
  at: number,
  end: number,
  sequence: number,
): MappingRecord {
  if (at + RECORD_BYTES > end) throw corrupt(sequence, "a record is cut");
  const layer = readU64(buffer, at, "layer");
  const firstSlot = buffer.readUInt16LE(at + 0x0c);
  const slots = buffer.readUInt16LE(at + 0x0e);
  const runs = buffer.readUInt16LE(at + 0x14);
  if (layer === 0) throw corrupt(sequence, "a record of layer 0");
  if (slots === 0 || firstSlot + slots > SLOTS_PER_SPAN) {
    throw corrupt(sequence, "a record outside its span");
  }
  if (runs > MAX_FREE_RUNS || at + RECORD_BYTES + runs * FREE_RUN_BYTES > end) {
    throw corrupt(sequence, "a record's free runs are cut");
  }
  const frees: BlockRun[] = [];
  for (let i = 0; i < runs; i++) {
    const from = at + RECORD_BYTES + i * FREE_RUN_BYTES;
    frees.push({ first: buffer.readUInt32LE(from), count: buffer.readUInt32LE(from + 4) });
  }
  return {
    layer,
    span: buffer.readUInt32LE(at + 0x08),
    firstSlot,
    slots,
    firstBlock: buffer.readUInt32LE(at + 0x10),
    frees,
  };
}

/** ECORRUPT if the record names a block that the pool does not have. */
export function checkBlocks(record: MappingRecord, sequence: number, dataBlocks: number): void {
  if (record.firstBlock !== 0 && record.firstBlock + record.slots - 1 > dataBlocks) {
    throw corrupt(sequence, `maps block ${record.firstBlock}, outside the pool`);
  }
  for (const run of record.frees) {
    if (run.first === 0 || run.count === 0 || run.first + run.count - 1 > dataBlocks) {
      throw corrupt(sequence, `frees block ${run.first}, outside the pool`);
    }
  }
}

export function readU64(buffer: Buffer, at: number, field: string): number {
  const value = buffer.readUInt32LE(at + 4) * 2 ** 32 + buffer.readUInt32LE(at);
  if (Number.isSafeInteger(value)) return value;
  throw new PandoError("ECORRUPT", `journal: ${field} is ${value}, which is impossible`, { field });
}

function corrupt(sequence: number, what: string): PandoError {
  return new PandoError("ECORRUPT", `journal: block ${sequence}: ${what}`, { field: "journal" });
}

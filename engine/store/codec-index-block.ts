// An index block's value: the mapping of one span as one layer sees it. In memory and over the
// native boundary it is raw, 512 u32 blocks and 64 bytes of own bits; in the store it is run-length
// encoded, or plain where that is shorter.
//
//   0 version u8 | 1 encoding u8 | 2 owned u16 | 4 mapped u16 | 6 inherited u16 | 8 runs or raw
//
// Invariants: a slot with the own bit maps a block; the header's counts are those of the slots.
import { assert } from "../base/assert.js";
import { INDEX_BLOCK_BYTES, SLOTS_PER_SPAN } from "../base/constants.js";
import { corrupt, seal, unseal } from "./codec-envelope.js";

export interface IndexBlockHeader {
  /** Slots with the own bit. */
  owned: number;
  /** Slots that are not holes. */
  mapped: number;
  /**
   * Mapped slots of the ancestor's index block from which this one was copied; 0 if there was none.
   */
  inherited: number;
}

export interface IndexBlock extends IndexBlockHeader {
  /** INDEX_BLOCK_BYTES bytes; the caller's own. */
  raw: Uint8Array;
}

const VERSION = 1;
const ENCODING_RUNS = 0;
const ENCODING_PLAIN = 1;
const HEADER_BYTES = 8;
const OWN_BITS_OFFSET = SLOTS_PER_SPAN * 4;

const KIND_HOLE = 0;
const KIND_INHERITED = 1;
const KIND_OWNED = 2;

export function emptyIndexBlock(): Uint8Array {
  return new Uint8Array(INDEX_BLOCK_BYTES);
}

/** The block that `slot` maps, 0 for a hole. */
export function getBlock(raw: Uint8Array, slot: number): number {
  const at = slot * 4;
  return (
    ((raw[at] as number) |
      ((raw[at + 1] as number) << 8) |
      ((raw[at + 2] as number) << 16) |
      ((raw[at + 3] as number) << 24)) >>>
    0
  );
}

export function isOwned(raw: Uint8Array, slot: number): boolean {
  return (((raw[OWN_BITS_OFFSET + (slot >> 3)] as number) >> (slot & 7)) & 1) === 1;
}

export function setSlot(raw: Uint8Array, slot: number, block: number, owned: boolean): void {
  assert(!owned || block !== 0, "a hole is nobody's");
  const at = slot * 4;
  raw[at] = block;
  raw[at + 1] = block >>> 8;
  raw[at + 2] = block >>> 16;
  raw[at + 3] = block >>> 24;
  const byte = OWN_BITS_OFFSET + (slot >> 3);
  const bit = 1 << (slot & 7);
  raw[byte] = owned ? (raw[byte] as number) | bit : (raw[byte] as number) & ~bit;
}

/** A child's copy of an ancestor's index block: the same blocks, none of them its own. */
export function inheritIndexBlock(raw: Uint8Array): Uint8Array {
  const copy = new Uint8Array(raw);
  copy.fill(0, OWN_BITS_OFFSET);
  return copy;
}

export function countSlots(raw: Uint8Array): { owned: number; mapped: number } {
  let owned = 0;
  let mapped = 0;
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    if (getBlock(raw, slot) !== 0) mapped++;
    if (isOwned(raw, slot)) owned++;
  }
  return { owned, mapped };
}

/** The value under `key`, and its header. Asserts that no hole has the own bit. */
export function encodeIndexBlock(
  key: Uint8Array,
  raw: Uint8Array,
  inherited: number,
): { value: Uint8Array; header: IndexBlockHeader } {
  assert(raw.length === INDEX_BLOCK_BYTES, "an index block has 2,112 bytes");
  assert(inherited >= 0 && inherited <= SLOTS_PER_SPAN, "inherited slots fit the span");
  const { owned, mapped } = countSlots(raw);
  const header = { owned, mapped, inherited };
  // A run takes at most 2 + 5 bytes; past the plain form's size the runs are given up.
  const payload = Buffer.alloc(HEADER_BYTES + INDEX_BLOCK_BYTES + 8);
  payload[0] = VERSION;
  payload.writeUInt16LE(owned, 2);
  payload.writeUInt16LE(mapped, 4);
  payload.writeUInt16LE(inherited, 6);
  const end = encodeRuns(raw, payload);
  if (end > 0) {
    payload[1] = ENCODING_RUNS;
    return { value: seal(key, payload.subarray(0, end)), header };
  }
  payload[1] = ENCODING_PLAIN;
  payload.set(raw, HEADER_BYTES);
  return { value: seal(key, payload.subarray(0, HEADER_BYTES + INDEX_BLOCK_BYTES)), header };
}

/** The counts alone, without unpacking the slots. */
export function decodeIndexBlockHeader(key: Uint8Array, value: Uint8Array): IndexBlockHeader {
  return headerOf(key, unseal("index", key, value));
}

export function decodeIndexBlock(key: Uint8Array, value: Uint8Array): IndexBlock {
  const payload = unseal("index", key, value);
  const header = headerOf(key, payload);
  const raw = emptyIndexBlock();
  if (payload[1] === ENCODING_PLAIN) {
    if (payload.length !== HEADER_BYTES + INDEX_BLOCK_BYTES) {
      throw corrupt("index", key, "a plain index block of a wrong length");
    }
    raw.set(payload.subarray(HEADER_BYTES));
  } else {
    const problem = decodeRuns(payload, raw);
    if (problem !== null) throw corrupt("index", key, problem);
  }
  checkSlots(key, raw, header);
  return { ...header, raw };
}

function headerOf(key: Uint8Array, payload: Uint8Array): IndexBlockHeader {
  if (payload.length < HEADER_BYTES) throw corrupt("index", key, "too short for an index block");
  if (payload[0] !== VERSION) throw corrupt("index", key, `index block of version ${payload[0]}`);
  if (payload[1] !== ENCODING_RUNS && payload[1] !== ENCODING_PLAIN) {
    throw corrupt("index", key, `index block in encoding ${payload[1]}`);
  }
  const view = new DataView(payload.buffer, payload.byteOffset, HEADER_BYTES);
  const header = {
    owned: view.getUint16(2, true),
    mapped: view.getUint16(4, true),
    inherited: view.getUint16(6, true),
  };
  const { owned, mapped, inherited } = header;
  if (owned > mapped || mapped > SLOTS_PER_SPAN || inherited > SLOTS_PER_SPAN) {
    throw corrupt("index", key, "the counts of the index block are impossible");
  }
  return header;
}

function checkSlots(key: Uint8Array, raw: Uint8Array, header: IndexBlockHeader): void {
  let owned = 0;
  let mapped = 0;
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    const hole = getBlock(raw, slot) === 0;
    if (!hole) mapped++;
    if (!isOwned(raw, slot)) continue;
    if (hole) throw corrupt("index", key, `slot ${slot} is a hole with an owner`);
    owned++;
  }
  if (owned !== header.owned || mapped !== header.mapped) {
    throw corrupt("index", key, "the counts of the index block are not those of its slots");
  }
}

/** Where the runs end in `payload`, or 0 if plain is not longer. */
function encodeRuns(raw: Uint8Array, payload: Buffer): number {
  let at = HEADER_BYTES;
  let expected = 0;
  let slot = 0;
  while (slot < SLOTS_PER_SPAN) {
    const first = getBlock(raw, slot);
    const kind = kindOf(raw, slot, first);
    let length = 1;
    while (slot + length < SLOTS_PER_SPAN) {
      const next = getBlock(raw, slot + length);
      if (next !== (kind === KIND_HOLE ? 0 : first + length)) break;
      if (kindOf(raw, slot + length, next) !== kind) break;
      length++;
    }
    at = writeVarint(payload, at, length * 4 + kind);
    if (kind !== KIND_HOLE) {
      const difference = first - expected;
      at = writeVarint(payload, at, difference >= 0 ? difference * 2 : -difference * 2 - 1);
      expected = first + length;
    }
    if (at >= HEADER_BYTES + INDEX_BLOCK_BYTES) return 0;
    slot += length;
  }
  return at;
}

function kindOf(raw: Uint8Array, slot: number, block: number): number {
  const owned = isOwned(raw, slot);
  assert(!owned || block !== 0, `slot ${slot} is a hole with an owner`);
  if (block === 0) return KIND_HOLE;
  return owned ? KIND_OWNED : KIND_INHERITED;
}

/** Null, or what is wrong. */
function decodeRuns(payload: Uint8Array, raw: Uint8Array): string | null {
  const cursor = { at: HEADER_BYTES };
  let expected = 0;
  let slot = 0;
  while (slot < SLOTS_PER_SPAN) {
    const head = readVarint(payload, cursor);
    if (head === null) return "a run is cut";
    const kind = head % 4;
    const length = Math.floor(head / 4);
    if (kind > KIND_OWNED) return "a run of an unknown kind";
    if (length === 0 || slot + length > SLOTS_PER_SPAN) return "the runs do not cover 512 slots";
    if (kind !== KIND_HOLE) {
      const zigzag = readVarint(payload, cursor);
      if (zigzag === null) return "a run is cut";
      const first = expected + (zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2);
      if (first < 1 || first + length > 2 ** 32) return "a run outside the pool's blocks";
      for (let i = 0; i < length; i++) setSlot(raw, slot + i, first + i, kind === KIND_OWNED);
      expected = first + length;
    }
    slot += length;
  }
  return cursor.at === payload.length ? null : "bytes after the last run";
}

/** LEB128. Numbers here reach 2^34, past what 32-bit operators take, hence the arithmetic. */
function writeVarint(target: Uint8Array, at: number, value: number): number {
  let rest = value;
  let position = at;
  while (rest >= 128) {
    target[position++] = (rest % 128) + 128;
    rest = Math.floor(rest / 128);
  }
  target[position++] = rest;
  return position;
}

function readVarint(source: Uint8Array, cursor: { at: number }): number | null {
  let value = 0;
  for (let scale = 1; scale <= 128 ** 5; scale *= 128) {
    const byte = source[cursor.at++];
    if (byte === undefined) return null;
    value += (byte % 128) * scale;
    if (byte < 128) return value;
  }
  return null;
}

// What is in a pool that nobody serves, decoded as it lies there: no recovery, no conclusions, and
// nothing is written. What cannot be decoded is an item that says so, and the next one follows:
// this is what one looks at when a pool does not open.
//
// Keys of hosts are secrets: only whose they are is told.
import {
  BLOCKS_PER_CHUNK,
  JOURNAL_BLOCK_BYTES,
  SLOTS_PER_SPAN,
  SUPERBLOCK_A_OFFSET,
  SUPERBLOCK_B_OFFSET,
  SUPERBLOCK_BYTES,
} from "../base/constants.js";
import { isPandoError } from "../base/errors.js";
import { parseTlsPsk } from "../base/tls-psk.js";
import { appendRun, type BlockRun } from "../store/block-run.js";
import { decodeChunk, decodePiece, getBit } from "../store/codec-bitmaps.js";
import { decodeIndexBlock, getBlock, isOwned } from "../store/codec-index-block.js";
import {
  decodeChildKey,
  decodeChunkKey,
  decodeLayerKey,
  decodeSnapshotKey,
  decodeSpanKey,
  decodeTextKey,
  META_HOST_KEYS,
  META_TLS_KEYS,
  rangeOf,
} from "../store/codec-keys.js";
import {
  growRecord,
  type HostKeysRecord,
  hostKeysRecord,
  idsRecord,
  type JournalRecord,
  journalRecord,
  layerRecord,
  lineageRecord,
  poolRecord,
  type RecordCodec,
  reclaimRecord,
  snapshotRecord,
  spaceRecord,
  tlsKeyRecord,
  uuidRecord,
  volumeRecord,
} from "../store/codec-records.js";
import { entriesOf } from "../store/entries.js";
import { decodeJournalBlock, type JournalBlock } from "../store/journal.js";
import { type Entry, SPACES, type Space, type StoreReader } from "../store/store.js";
import { decodeSuperblock, type Superblock } from "../store/superblock.js";
import { type DeviceReader, readSuperblock } from "./recovery.js";

export type InspectPart = "pool" | "journal" | "catalogue" | "layers" | "index" | "free";

export interface InspectRequest {
  part: InspectPart;
  /** Index blocks of this layer only; null: of all. */
  layer: number | null;
  /** Of the journal: blocks that are no part of it any more, too. */
  all: boolean;
}

export type InspectValue =
  | string
  | number
  | boolean
  | null
  | readonly InspectValue[]
  | { readonly [field: string]: InspectValue };

/** One thing, named by `what`, with what it says of itself. */
export interface InspectItem {
  what: string;
  /** It could not be decoded, and why. */
  damaged?: string;
  [field: string]: InspectValue | undefined;
}

type Fields = Record<string, InspectValue>;
type Device = Pick<DeviceReader, "sizeBytes" | "read">;

export interface InspectedPool {
  device: Device;
  /** An error: it does not open. */
  store: StoreReader | Error;
}

export function* inspect(pool: InspectedPool, request: InspectRequest): Generator<InspectItem> {
  const { device, store } = pool;
  if (request.part === "pool") yield* superblocks(device);
  if (store instanceof Error) yield { what: "store", damaged: store.message };
  if (request.part === "journal") return yield* journal(device, store, request.all);
  if (store instanceof Error) return;
  switch (request.part) {
    case "pool":
      yield* metaRecords(store);
      yield* counts(store);
      return;
    case "catalogue":
      return yield* catalogue(store);
    case "layers":
      return yield* layers(store);
    case "index":
      return yield* index(store, request.layer);
    case "free":
      return yield* freeMap(store);
  }
}

// The device.

function* superblocks(device: Device): Generator<InspectItem> {
  const copies = { A: SUPERBLOCK_A_OFFSET, B: SUPERBLOCK_B_OFFSET };
  for (const [copy, offset] of Object.entries(copies)) {
    yield decoded(`superblock ${copy}`, () => {
      const found = decodeSuperblock(device.read(offset, SUPERBLOCK_BYTES));
      if (found === null) return { valid: false };
      const numbers = Object.entries(found).map(([field, value]) => {
        return [field, typeof value === "bigint" ? Number(value) : value];
      });
      return { valid: true, ...Object.fromEntries(numbers) };
    });
  }
  yield decoded("device", () => {
    const { uuid, generation } = readSuperblock(reading(device));
    return { sizeBytes: device.sizeBytes, uuid, generation };
  });
}

function* journal(
  device: Device,
  store: StoreReader | Error,
  all: boolean,
): Generator<InspectItem> {
  let superblock: Superblock;
  try {
    superblock = readSuperblock(reading(device));
  } catch (error) {
    return yield damagedItem("journal", error);
  }
  const record = journalRecordOf(store);
  if (record instanceof Error) yield { what: "journal record", damaged: record.message };
  const known = record instanceof Error ? null : record;
  if (known !== null) yield { what: "journal record", ...known };
  const walk = new JournalWalk(superblock, known);
  const places = { torn: 0, zero: 0, other: 0, older: 0 };
  for (let done = 0; done < superblock.journalBlocks; done++) {
    const place = ((known?.tail ?? 0) + done) % superblock.journalBlocks;
    const bytes = device.read(
      superblock.journalOffsetBytes + place * JOURNAL_BLOCK_BYTES,
      JOURNAL_BLOCK_BYTES,
    );
    const found = blockAt(bytes);
    if (typeof found === "string") {
      places[found]++;
      walk.end();
      continue;
    }
    if ("damaged" in found) {
      walk.end();
      yield { what: `journal block at place ${place}`, ...found };
      continue;
    }
    const state = walk.stateOf(found, place);
    if (state === "older" && !all) places.older++;
    else yield journalItem(found, place, state);
  }
  yield { what: "journal", places: superblock.journalBlocks, notShown: places };
}

type JournalState = "journal" | "after the end" | "older" | "newer than the store" | "foreign";

/**
 * What a block is to recovery, which reads from the tail and ends at the first that does not fit.
 */
class JournalWalk {
  readonly #superblock: Superblock;
  readonly #record: JournalRecord | null;
  #ended = false;
  #next: number;

  constructor(superblock: Superblock, record: JournalRecord | null) {
    this.#superblock = superblock;
    this.#record = record;
    this.#next = record?.tail ?? 0;
    this.#ended = record === null;
  }

  end(): void {
    this.#ended = true;
  }

  stateOf(block: JournalBlock, place: number): JournalState {
    const { uuid, journalBlocks } = this.#superblock;
    const state = (): JournalState => {
      if (block.uuid !== uuid || block.sequence % journalBlocks !== place) return "foreign";
      if (this.#record === null) return "journal";
      const { epoch, tail } = this.#record;
      if (block.epoch > epoch || block.sequence >= tail + journalBlocks) {
        return "newer than the store";
      }
      if (block.epoch < epoch || block.sequence < tail) return "older";
      return this.#ended || block.sequence !== this.#next ? "after the end" : "journal";
    };
    const found = state();
    if (found === "journal") this.#next = block.sequence + 1;
    else this.end();
    return found;
  }
}

function journalItem(block: JournalBlock, place: number, state: JournalState): InspectItem {
  const { sequence, epoch, durableUpTo, uuid, firstOrdinal, records } = block;
  return {
    what: `journal block ${sequence}`,
    place,
    state,
    epoch,
    durableUpTo,
    ...(state === "foreign" ? { uuid } : {}),
    firstOrdinal,
    records: records.map(({ frees, ...record }) => ({ ...record, frees: runsOf(frees) })),
  };
}

type NoBlock = "zero" | "torn" | "other";

function blockAt(bytes: Uint8Array): JournalBlock | NoBlock | { damaged: string } {
  try {
    const block = decodeJournalBlock(bytes);
    if (block !== null) return block;
  } catch (error) {
    if (!isPandoError(error, "ECORRUPT")) throw error;
    return { damaged: error.message };
  }
  if (bytes.every((byte) => byte === 0)) return "zero";
  return Buffer.from(bytes.subarray(0, 4)).toString("latin1") === "PJB1" ? "torn" : "other";
}

function journalRecordOf(store: StoreReader | Error): JournalRecord | Error {
  if (store instanceof Error) return store;
  const key = Buffer.from("journal");
  try {
    const value = store.get("meta", key);
    if (value === undefined) return new Error("the store has no journal record");
    return journalRecord.decode("meta", key, value);
  } catch (error) {
    if (!isPandoError(error)) throw error;
    return error;
  }
}

// The store.

const META_RECORDS: Record<string, RecordCodec<object>> = {
  pool: poolRecord,
  grow: growRecord,
  journal: journalRecord,
  ids: idsRecord,
  space: spaceRecord,
  lineage: lineageRecord,
};

/** Keys of hosts are shown without what they are. */
function isOfHost(name: string): boolean {
  return name.startsWith(META_HOST_KEYS) || name.startsWith(META_TLS_KEYS);
}

function* metaRecords(store: StoreReader): Generator<InspectItem> {
  for (const { key, value } of entriesOf(store, "meta")) {
    const name = decodeTextKey(key);
    const codec = META_RECORDS[name];
    if (codec !== undefined) yield record(`${name} record`, "meta", { key, value }, codec);
    else if (!isOfHost(name)) yield { what: `${name} record`, known: false };
  }
}

function* counts(store: StoreReader): Generator<InspectItem> {
  const entries = Object.fromEntries(SPACES.map((space) => [space, store.count(space)]));
  yield { what: "entries", ...entries };
}

function* catalogue(store: StoreReader): Generator<InspectItem> {
  for (const entry of entriesOf(store, "volumes")) {
    yield record(`volume ${decodeTextKey(entry.key)}`, "volumes", entry, volumeRecord);
  }
  for (const entry of entriesOf(store, "snapshots")) {
    yield named("snapshot", entry, () => {
      const { volume, snapshot } = decodeSnapshotKey(entry.key);
      return record(`snapshot ${volume}@${snapshot}`, "snapshots", entry, snapshotRecord);
    });
  }
  for (const entry of entriesOf(store, "uuids")) {
    yield record(`UUID ${decodeTextKey(entry.key)}`, "uuids", entry, uuidRecord);
  }
  for (const entry of entriesOf(store, "meta")) {
    const name = decodeTextKey(entry.key);
    if (name.startsWith(META_TLS_KEYS)) {
      yield decoded(`TLS key of host ${name.slice(META_TLS_KEYS.length)}`, () => {
        const { key } = tlsKeyRecord.decode("meta", entry.key, entry.value);
        return { transform: parseTlsPsk(key, "TLS key").transform };
      });
    }
    if (!name.startsWith(META_HOST_KEYS)) continue;
    const what = `keys of host ${name.slice(META_HOST_KEYS.length)}`;
    yield decoded(what, () => {
      const keys: HostKeysRecord = hostKeysRecord.decode("meta", entry.key, entry.value);
      return { bidirectional: keys.controllerKey !== null };
    });
  }
}

function* layers(store: StoreReader): Generator<InspectItem> {
  for (const entry of entriesOf(store, "layers")) {
    yield named("layer", entry, () =>
      record(`layer ${decodeLayerKey(entry.key)}`, "layers", entry, layerRecord),
    );
  }
  for (const entry of entriesOf(store, "children")) {
    yield named("child", entry, () => {
      const { parent, child } = decodeChildKey(entry.key);
      return { what: `child ${child}`, parent };
    });
  }
  for (const entry of entriesOf(store, "reclaim")) {
    yield named("deleted layer", entry, () =>
      record(`deleted layer ${decodeLayerKey(entry.key)}`, "reclaim", entry, reclaimRecord),
    );
  }
}

function* index(store: StoreReader, layer: number | null): Generator<InspectItem> {
  const found = layersByKey(store);
  const wanted = layer === null ? undefined : found.find(({ id }) => id === layer);
  if (layer !== null && wanted === undefined) {
    return yield { what: `layer ${layer}`, damaged: "the store has no readable record of it" };
  }
  const range = wanted === undefined ? {} : rangeOf(wanted.key);
  const whose = new Map(found.map(({ id, key }) => [key, id]));
  for (const { key, value } of entriesOf(store, "spans", range)) {
    yield named("span set", { key, value }, () => {
      const { storageKey, span: piece } = decodeSpanKey(key);
      const what = `span set of ${owner(whose, storageKey)}, piece ${piece}`;
      return decoded(what, () => {
        const bits = decodePiece(key, value);
        return { spans: runsOf(runsOfBits(bits, piece * bits.length * 8)) };
      });
    });
  }
  for (const { key, value } of entriesOf(store, "index", range)) {
    yield named("index block", { key, value }, () => {
      const { storageKey, span } = decodeSpanKey(key);
      return decoded(`index block of ${owner(whose, storageKey)}, span ${span}`, () => {
        const { raw, owned, mapped, inherited } = decodeIndexBlock(key, value);
        return { owned, mapped, inherited, slots: slotRuns(raw) };
      });
    });
  }
}

function owner(whose: ReadonlyMap<number, number>, key: number): string {
  const layer = whose.get(key);
  return layer === undefined ? `key ${key}, nobody's` : `layer ${layer}`;
}

function layersByKey(store: StoreReader): { id: number; key: number }[] {
  const found: { id: number; key: number }[] = [];
  for (const { key, value } of entriesOf(store, "layers")) {
    try {
      const decodedRecord = layerRecord.decode("layers", key, value);
      found.push({ id: decodeLayerKey(key), key: decodedRecord.key });
    } catch (error) {
      if (!isPandoError(error)) throw error;
    }
  }
  return found;
}

interface SlotRun extends Fields {
  slot: number;
  count: number;
  block: number;
  owned: boolean;
}

function slotRuns(raw: Uint8Array): SlotRun[] {
  const runs: SlotRun[] = [];
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    const block = getBlock(raw, slot);
    if (block === 0) continue;
    const owned = isOwned(raw, slot);
    const last = runs.at(-1);
    const goesOn =
      last !== undefined &&
      last.slot + last.count === slot &&
      last.block + last.count === block &&
      last.owned === owned;
    if (goesOn) last.count++;
    else runs.push({ slot, count: 1, block, owned });
  }
  return runs;
}

function* freeMap(store: StoreReader): Generator<InspectItem> {
  for (const { key, value } of entriesOf(store, "free")) {
    yield named("chunk", { key, value }, () => {
      const chunk = decodeChunkKey(key);
      return decoded(`chunk ${chunk} of the free map`, () => {
        const runs = runsOfBits(decodeChunk(key, value), chunk * BLOCKS_PER_CHUNK);
        return { allocated: runsOf(runs) };
      });
    });
  }
}

function runsOfBits(bits: Uint8Array, first: number): BlockRun[] {
  const runs: BlockRun[] = [];
  for (let bit = 0; bit < bits.length * 8; bit++) {
    if (getBit(bits, bit)) appendRun(runs, first + bit, 1);
  }
  return runs;
}

/** FIRST, or FIRST…LAST. */
function runsOf(runs: readonly BlockRun[]): string[] {
  return runs.map(({ first, count }) =>
    count === 1 ? `${first}` : `${first}…${first + count - 1}`,
  );
}

function record(
  what: string,
  space: Space,
  { key, value }: Entry,
  codec: RecordCodec<object>,
): InspectItem {
  return decoded(what, () => codec.decode(space, key, value) as Fields);
}

/** For what has its name in a key that may not be one. */
function named(kind: string, { key }: Entry, decode: () => InspectItem): InspectItem {
  try {
    return decode();
  } catch (error) {
    return damagedItem(`${kind} 0x${Buffer.from(key).toString("hex")}`, error);
  }
}

function decoded(what: string, decode: () => Fields): InspectItem {
  try {
    return { what, ...decode() };
  } catch (error) {
    return damagedItem(what, error);
  }
}

function damagedItem(what: string, error: unknown): InspectItem {
  if (!isPandoError(error)) throw error;
  return { what, damaged: error.message };
}

function reading(device: Device): DeviceReader {
  return {
    sizeBytes: device.sizeBytes,
    read: (offsetBytes, lengthBytes) => device.read(offsetBytes, lengthBytes),
    flush: async () => undefined,
  };
}

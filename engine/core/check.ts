// The pool check: reads the whole store and says, in sentences, where it does not hold what
// docs/format.md promises. Knows only the store: what is dirty in memory has to be checkpointed
// before.
//
// That a mapped slot is owned by an ancestor is checked step by step: the nearest ancestor's index
// block must map the same block in the same slot, and it is checked in its turn. So memory is one
// bit for each block, whatever the tree.
import { BLOCKS_PER_CHUNK, SLOTS_PER_SPAN } from "../base/constants.js";
import { isPandoError } from "../base/errors.js";
import {
  findNameByUuid,
  getIdsRecord,
  getJournalRecord,
  getPoolRecord,
  getSpaceRecord,
  listSnapshots,
  listVolumes,
} from "../store/catalogue.js";
import {
  CHUNK_BYTES,
  countBits,
  decodeChunk,
  decodePiece,
  getBit,
  setBit,
} from "../store/codec-bitmaps.js";
import { decodeIndexBlock, getBlock, type IndexBlock, isOwned } from "../store/codec-index-block.js";
import { decodeChildKey, decodeChunkKey, decodeSpanKey, spanKey } from "../store/codec-keys.js";
import type { LayerRecord, LayerState } from "../store/codec-records.js";
import { entriesOf } from "../store/entries.js";
import { keysOf, lineageChanges, listLayers, listReclaim } from "../store/layers.js";
import { Lineage, lookupNearest } from "../store/lineage.js";
import { type Entry, SPACES, type StoreReader } from "../store/store.js";
import type { CheckReport } from "./api.js";

const MAX_PROBLEMS = 100;

/**
 * How a pool in service has its store checked: in this process, or in another. `fixed` runs `work`
 * at a moment at which everything is in the store, and holds that moment until `work` has settled.
 */
export type CheckStore = (
  store: StoreReader,
  fixed: <T>(work: () => Promise<T>) => Promise<T>,
) => Promise<CheckReport>;

export const checkHere: CheckStore = (store, fixed) => fixed(async () => checkStore(store));

export function checkStore(store: StoreReader): CheckReport {
  const problems = new Problems();
  const report = { layers: 0, indexBlocks: 0, ownedBlocks: 0 };
  // A value that cannot be decoded ends the check: what follows would be guesses.
  try {
    getJournalRecord(store);
    lineageChanges(store);
    const layers = new Map(listLayers(store).map(({ id, record }) => [id, record]));
    report.layers = layers.size;
    checkTree(store, layers, problems);
    checkNames(store, layers, problems);
    const index = new IndexCheck(store, layers, problems);
    index.run();
    report.indexBlocks = index.indexBlocks;
    report.ownedBlocks = index.ownedBlocks;
    checkFreeMap(store, index.owned, problems);
    checkCounts(store, problems);
  } catch (error) {
    if (!isPandoError(error, "ECORRUPT")) throw error;
    problems.add(error.message);
  }
  return { clean: problems.total === 0, problems: problems.sentences(), ...report };
}

class Problems {
  total = 0;
  readonly #sentences: string[] = [];

  add(sentence: string): void {
    this.total++;
    if (this.#sentences.length < MAX_PROBLEMS) this.#sentences.push(sentence);
  }

  sentences(): string[] {
    const more = this.total - this.#sentences.length;
    return more === 0 ? this.#sentences : [...this.#sentences, `and ${more} more`];
  }
}

function checkTree(store: StoreReader, layers: Map<number, LayerRecord>, problems: Problems): void {
  const expected = new Set<string>();
  const parents = new Set<number>();
  const { nextLayer } = getIdsRecord(store);
  const keys = new Set<number>();
  const { merging } = getPoolRecord(store);
  for (const [id, record] of layers) {
    const { parent } = record;
    for (const key of keysOf(record)) {
      if (id >= nextLayer || key >= nextLayer) {
        problems.add(`layer ${id} (key ${key}) is not below the next id, ${nextLayer}`);
      }
      if (keys.has(key)) problems.add(`the key ${key} of layer ${id} is another layer's too`);
      keys.add(key);
    }
    if ((record.overlay !== undefined) !== (merging === id)) {
      problems.add(`layer ${id} has ${record.overlay === undefined ? "no" : "an"} overlay`);
    }
    if (parent === null) continue;
    const above = layers.get(parent);
    if (above === undefined) problems.add(`the parent of layer ${id}, layer ${parent}, is missing`);
    else if (above.state !== "frozen" && above.state !== "hidden") {
      problems.add(`the parent of layer ${id}, layer ${parent}, is ${above.state}`);
    }
    expected.add(`${parent}/${id}`);
    parents.add(parent);
  }
  for (const { key } of store.range("children", {})) {
    const { parent, child } = decodeChildKey(key);
    if (expected.delete(`${parent}/${child}`)) continue;
    problems.add(`layer ${child} is listed as a child of layer ${parent}, and is not`);
  }
  for (const pair of expected) {
    const [parent, child] = pair.split("/");
    problems.add(`layer ${child} is not listed as a child of layer ${parent}`);
  }
  checkReclaim(store, layers, parents, problems);
}

function checkReclaim(
  store: StoreReader,
  layers: Map<number, LayerRecord>,
  parents: Set<number>,
  problems: Problems,
): void {
  const listed = new Set(listReclaim(store).map(({ id }) => id));
  for (const [id, { state }] of layers) {
    const deleted = state === "hidden" || state === "dead";
    if (deleted !== listed.delete(id)) {
      problems.add(`layer ${id} is ${state} and ${deleted ? "not " : ""}listed for reclaim`);
    }
    if (state === "hidden" && !parents.has(id))
      problems.add(`layer ${id} is hidden without a child`);
  }
  for (const id of listed) problems.add(`layer ${id} is listed for reclaim and does not exist`);
}

function checkNames(
  store: StoreReader,
  layers: Map<number, LayerRecord>,
  problems: Problems,
): void {
  const users = new Map<number, string>();
  const use = (name: string, layer: number, state: LayerState): void => {
    const found = layers.get(layer)?.state ?? "missing";
    if (found !== state) problems.add(`the layer of ${name}, layer ${layer}, is ${found}`);
    const other = users.get(layer);
    if (other !== undefined) problems.add(`${other} and ${name} have the same layer ${layer}`);
    users.set(layer, name);
  };
  const volumes = listVolumes(store);
  for (const { name, record } of volumes) {
    use(`volume ${name}`, record.layer, "live");
    if (findNameByUuid(store, record.uuid) === name) continue;
    problems.add(`volume ${name} is not found by its UUID ${record.uuid}`);
  }
  const snapshots = listSnapshots(store);
  for (const { volume, name, record } of snapshots) {
    const full = `${volume}@${name}`;
    use(`snapshot ${full}`, record.layer, "frozen");
    if (findNameByUuid(store, record.uuid) === full) continue;
    problems.add(`snapshot ${full} is not found by its UUID ${record.uuid}`);
  }
  const uuids = store.count("uuids");
  const named = volumes.length + snapshots.length;
  if (uuids !== named) problems.add(`${uuids} UUIDs for ${named} volumes and snapshots`);
  for (const [id, { state }] of layers) {
    if ((state === "live" || state === "frozen") && !users.has(id)) {
      problems.add(`layer ${id} is ${state} and nobody's`);
    }
  }
}

/** Counts of one layer, as its index blocks add up to. */
interface Tally {
  id: number;
  record: LayerRecord;
  indexBlocks: number;
  ownedBlocks: number;
  mappedDelta: number;
  spanBits: number;
}

class IndexCheck {
  /** One bit for each block of the pool. */
  readonly owned: Uint8Array;
  indexBlocks = 0;
  ownedBlocks = 0;
  readonly #store: StoreReader;
  readonly #problems: Problems;
  readonly #lineage = new Lineage();
  readonly #dataBlocks: number;
  readonly #tallies = new Map<number, Tally>();

  constructor(store: StoreReader, layers: Map<number, LayerRecord>, problems: Problems) {
    this.#store = store;
    this.#problems = problems;
    this.#dataBlocks = getPoolRecord(store).dataBlocks;
    this.owned = new Uint8Array(Math.floor(this.#dataBlocks / 8) + 1);
    for (const [id, record] of layers) {
      const tally = { id, record, indexBlocks: 0, ownedBlocks: 0, mappedDelta: 0, spanBits: 0 };
      for (const key of keysOf(record)) this.#tallies.set(key, tally);
    }
  }

  run(): void {
    for (const entry of entriesOf(this.#store, "index")) this.#checkIndexBlock(entry);
    for (const entry of entriesOf(this.#store, "spans")) this.#checkPiece(entry);
    for (const tally of new Set(this.#tallies.values())) this.#checkCounts(tally);
  }

  #checkIndexBlock({ key, value }: Entry): void {
    const { storageKey, span } = decodeSpanKey(key);
    const tally = this.#tallies.get(storageKey);
    this.indexBlocks++;
    if (tally === undefined) {
      this.#problems.add(`the index block of key ${storageKey}, span ${span}, is nobody's`);
      return;
    }
    const { raw, ...header } = decodeIndexBlock(key, value);
    const above = this.#above(tally.record, storageKey, span);
    tally.indexBlocks++;
    tally.ownedBlocks += header.owned;
    tally.mappedDelta += header.mapped - header.inherited;
    this.ownedBlocks += header.owned;
    const inherited = above?.mapped ?? 0;
    const where = `layer ${tally.id}, span ${span}`;
    if (!this.#lineage.hasSpan(this.#store, storageKey, span)) {
      this.#problems.add(`${where}: the span set does not have the index block`);
    }
    if (header.inherited !== inherited) {
      this.#problems.add(
        `${where}: ${header.inherited} slots count as inherited, not ${inherited}`,
      );
    }
    for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
      const block = getBlock(raw, slot);
      if (block === 0) continue;
      if (isOwned(raw, slot)) this.#own(block, `${where}, slot ${slot}`);
      else if (above === null || getBlock(above.raw, slot) !== block) {
        this.#problems.add(`${where}, slot ${slot}: maps block ${block}, which no ancestor owns`);
      }
    }
  }

  /** What the index block was copied from: an ancestor's, or what it hides. */
  #above({ parent, key, overlay }: LayerRecord, at: number, span: number): IndexBlock | null {
    if (at === overlay && this.#lineage.hasSpan(this.#store, key, span)) {
      const hidden = spanKey(key, span);
      const value = this.#store.get("index", hidden);
      return value === undefined ? null : decodeIndexBlock(hidden, value);
    }
    if (parent === null) return null;
    return lookupNearest(this.#store, this.#lineage, parent, span)?.block ?? null;
  }

  #own(block: number, where: string): void {
    if (block > this.#dataBlocks) {
      this.#problems.add(`${where}: owns block ${block}, outside the pool`);
    } else if (getBit(this.owned, block)) {
      this.#problems.add(`${where}: owns block ${block}, which is owned already`);
    } else {
      setBit(this.owned, block);
    }
  }

  /** Each index block has its bit; so a bit too many shows in the counts. */
  #checkPiece({ key, value }: Entry): void {
    const { storageKey, span: piece } = decodeSpanKey(key);
    const bits = countBits(decodePiece(key, value));
    const tally = this.#tallies.get(storageKey);
    if (tally === undefined) {
      this.#problems.add(`the span set of key ${storageKey} is nobody's`);
    } else {
      tally.spanBits += bits;
    }
    if (bits > 0) return;
    this.#problems.add(`the span set of key ${storageKey} has an empty piece ${piece}`);
  }

  #checkCounts({ id, record, spanBits, ...counted }: Tally): void {
    for (const field of ["indexBlocks", "ownedBlocks", "mappedDelta"] as const) {
      if (record[field] === counted[field]) continue;
      this.#problems.add(`layer ${id}: ${field} is ${record[field]}, not ${counted[field]}`);
    }
    if (spanBits === counted.indexBlocks) return;
    this.#problems.add(
      `layer ${id}: the span set has ${spanBits} spans for ${counted.indexBlocks} index blocks`,
    );
  }
}

function checkFreeMap(store: StoreReader, owned: Uint8Array, problems: Problems): void {
  let allocated = 0;
  const seen = new Set<number>();
  const empty = new Uint8Array(CHUNK_BYTES);
  const compare = (chunk: number, bits: Uint8Array): void => {
    allocated += countBits(bits);
    for (let byte = 0; byte < CHUNK_BYTES; byte++) {
      const expected = owned[chunk * CHUNK_BYTES + byte] ?? 0;
      const different = (bits[byte] as number) ^ expected;
      for (let bit = 0; different >> bit !== 0; bit++) {
        if (((different >> bit) & 1) === 0) continue;
        const block = chunk * BLOCKS_PER_CHUNK + byte * 8 + bit;
        problems.add(
          ((expected >> bit) & 1) === 1
            ? `block ${block} is owned, and free in the free map`
            : `block ${block} is allocated, and owned by nobody`,
        );
      }
    }
  };
  for (const { key, value } of entriesOf(store, "free")) {
    const chunk = decodeChunkKey(key);
    seen.add(chunk);
    compare(chunk, decodeChunk(key, value));
  }
  for (let chunk = 0; chunk * CHUNK_BYTES < owned.length; chunk++) {
    if (!seen.has(chunk)) compare(chunk, empty);
  }
  const { allocatedBlocks } = getSpaceRecord(store);
  if (allocatedBlocks !== allocated) {
    problems.add(
      `${allocatedBlocks} blocks are counted as allocated, the free map has ${allocated}`,
    );
  }
}

/** The store keeps a count for each space beside its entries: pages that are lost show there. */
function checkCounts(store: StoreReader, problems: Problems): void {
  for (const space of SPACES) {
    let entries = 0;
    for (const _ of entriesOf(store, space)) entries++;
    const counted = store.count(space);
    if (counted !== entries) {
      problems.add(`${space}: ${counted} entries are counted, and ${entries} are there`);
    }
  }
}

// A pool's store and journal as a correct engine would leave them, without the engine: random
// layers, writes and discards, journal blocks, checkpoints that were cut half-way. It knows what
// every layer must read afterwards.

import type { DeviceReader } from "../../engine/core/recovery.js";
import * as catalogue from "../../engine/store/catalogue.js";
import {
  emptyIndexBlock,
  getBlock,
  inheritIndexBlock,
  isOwned,
  setSlot,
} from "../../engine/store/codec-index-block.js";
import { applyToFreeMap, type FreeMapChange } from "../../engine/store/free-map-patch.js";
import { changeIndex } from "../../engine/store/index-changes.js";
import {
  encodeJournalBlock,
  type JournalBlock,
  type MappingRecord,
} from "../../engine/store/journal.js";
import * as layers from "../../engine/store/layers.js";
import { Lineage } from "../../engine/store/lineage.js";
import {
  DATA_ALIGNMENT_BYTES,
  encodeSuperblock,
  type Superblock,
} from "../../engine/store/superblock.js";
import type { Random } from "../prng.js";
import type { ModelStore } from "./model-store.js";

const UUID = "3f8a1c52-9d0e-4b67-8a21-5c6d7e8f9012";
const TIME = "2026-01-02T03:04:05.000Z";
const JOURNAL_BLOCKS = 64;
const DATA_BLOCKS = 20000;
export const SPANS = [0, 1, 5000];
const SLOTS = 40;

export const SUPERBLOCK: Superblock = {
  version: 1,
  blockSizeBytes: 4096,
  uuid: UUID,
  generation: 1,
  deviceSizeBytes: 2 * DATA_ALIGNMENT_BYTES + DATA_BLOCKS * 4096,
  journalOffsetBytes: DATA_ALIGNMENT_BYTES,
  journalBlocks: JOURNAL_BLOCKS,
  dataOffsetBytes: 2 * DATA_ALIGNMENT_BYTES,
  dataBlocks: DATA_BLOCKS,
  epoch: 0,
  reclaims: 0,
};

/** Superblocks and journal; there are no data blocks, nobody reads them here. */
export class ReferenceDevice implements DeviceReader {
  readonly sizeBytes = SUPERBLOCK.deviceSizeBytes;
  readonly bytes = Buffer.alloc(2 * DATA_ALIGNMENT_BYTES);
  flushes = 0;

  constructor() {
    this.bytes.set(encodeSuperblock(SUPERBLOCK), 0);
    this.bytes.set(encodeSuperblock(SUPERBLOCK), 64 * 1024);
  }

  read(offsetBytes: number, lengthBytes: number): Uint8Array {
    return this.bytes.subarray(offsetBytes, offsetBytes + lengthBytes);
  }

  async flush(): Promise<void> {
    this.flushes++;
  }

  writeBlock(block: JournalBlock): void {
    const place = block.sequence % JOURNAL_BLOCKS;
    this.bytes.set(encodeJournalBlock(block), DATA_ALIGNMENT_BYTES + place * 4096);
  }
}

export class ReferencePool {
  readonly store: ModelStore;
  readonly device = new ReferenceDevice();
  readonly parents = new Map<number, number | null>();
  epoch = 1;
  nextSequence = 0;
  #ordinal = 1;
  /** Index blocks as memory has them, by layer and span. */
  readonly #blocks = new Map<string, Uint8Array>();
  readonly #dirty = new Set<string>();
  readonly #random: Random;
  readonly #live = new Set<number>();
  #buffered: MappingRecord[] = [];
  #sinceTail: FreeMapChange[] = [];
  #nextBlock = 1;

  constructor(store: ModelStore, random: Random) {
    this.store = store;
    this.#random = random;
  }

  async create(): Promise<void> {
    await this.store.transact((txn) => {
      catalogue.putPoolRecord(txn, {
        version: 1,
        uuid: UUID,
        generation: 1,
        blockSize: 4096,
        dataBlocks: DATA_BLOCKS,
        journalBlocks: JOURNAL_BLOCKS,
      });
      catalogue.putJournalRecord(txn, { epoch: this.epoch, tail: 0 });
      catalogue.putIdsRecord(txn, { nextLayer: 1 });
      catalogue.putSpaceRecord(txn, { allocatedBlocks: 0 });
    });
    await this.#addVolume(null);
  }

  /** One random thing that an engine does. */
  async step(): Promise<void> {
    const dice = this.#random.below(20);
    if (dice < 12) this.change();
    else if (dice < 14) await this.branch();
    else if (dice < 17) this.commit();
    else if (dice < 19) await this.checkpoint(this.#random.oneIn(2));
    else await this.deleteVolume();
  }

  /** A write or a discard, buffered in the journal. */
  change(layer = this.#random.pick([...this.#live])): void {
    if (!this.#live.has(layer)) return;
    const span = this.#random.pick(SPANS);
    const firstSlot = this.#random.below(SLOTS);
    const slots = 1 + this.#random.below(SLOTS - firstSlot);
    const discard = this.#random.oneIn(4);
    const firstBlock = discard ? 0 : this.#nextBlock;
    if (!discard) this.#nextBlock += slots;
    const raw = this.#own(layer, span);
    const frees: { first: number; count: number }[] = [];
    for (let i = 0; i < slots; i++) {
      const slot = firstSlot + i;
      if (isOwned(raw, slot)) frees.push({ first: getBlock(raw, slot), count: 1 });
      setSlot(raw, slot, discard ? 0 : firstBlock + i, !discard);
    }
    this.#buffered.push({ layer, span, firstSlot, slots, firstBlock, frees });
    if (this.#buffered.length >= 4) this.commit();
  }

  /** Buffered records become durable in a journal block. */
  commit(): void {
    if (this.#buffered.length === 0) return;
    const records = this.#buffered;
    this.#buffered = [];
    for (const { firstBlock, slots, frees } of records) {
      if (firstBlock !== 0) {
        this.#sinceTail.push({ op: "allocate", first: firstBlock, count: slots });
      }
      for (const run of frees) this.#sinceTail.push({ op: "free", ...run });
    }
    const sequence = this.nextSequence++;
    const firstOrdinal = this.#ordinal;
    this.#ordinal += records.length;
    const { epoch } = this;
    const block = { sequence, epoch, durableUpTo: sequence, uuid: UUID, firstOrdinal, records };
    this.device.writeBlock(block);
  }

  /** Snapshot and clone: a live layer is frozen, two live ones are made on it. */
  async branch(): Promise<void> {
    this.commit();
    const layer = this.#random.pick([...this.#live]);
    const name = `v${layer}`;
    await this.store.transact((txn) => {
      const { uuid } = catalogue.deleteVolume(txn, name);
      layers.freezeLayer(txn, layer);
      const record = { uuid: uuidOf(1000 + layer), layer, sizeBytes: 4096, createdAt: TIME };
      catalogue.createSnapshot(txn, name, "s", { ...record, volumeUuid: uuid });
    });
    this.#live.delete(layer);
    await this.#addVolume(layer);
    await this.#addVolume(layer);
  }

  async deleteVolume(): Promise<void> {
    if (this.#live.size < 2) return;
    this.commit();
    const layer = this.#random.pick([...this.#live]);
    await this.store.transact((txn) => {
      catalogue.deleteVolume(txn, `v${layer}`);
      layers.abandonLayer(txn, layer, TIME);
    });
    this.#live.delete(layer);
  }

  /** `cut`: it stops before its last transaction, after some of the index blocks. */
  async checkpoint(cut: boolean): Promise<void> {
    this.commit();
    const byAge = [...this.#dirty].map(fromKey).sort((a, b) => a.layer - b.layer);
    const put = cut ? byAge.slice(0, this.#random.below(byAge.length + 1)) : byAge;
    await this.store.transact((txn) =>
      changeIndex(txn, new Lineage(), (index) => {
        for (const { layer, span } of put) {
          const raw = this.#blocks.get(toKey(layer, span)) as Uint8Array;
          index.put(layer, span, raw);
        }
      }),
    );
    for (const { layer, span } of put) this.#dirty.delete(toKey(layer, span));
    if (cut) return;
    await this.store.transact((txn) => {
      applyToFreeMap(txn, this.#sinceTail);
      catalogue.putJournalRecord(txn, { epoch: this.epoch, tail: this.nextSequence });
    });
    this.#sinceTail = [];
  }

  /** What the layer sees, as memory has it. */
  view(layer: number, span: number): Uint8Array {
    for (let at: number | null = layer; at !== null; at = this.parents.get(at) ?? null) {
      const raw = this.#blocks.get(toKey(at, span));
      if (raw !== undefined) return raw;
    }
    return emptyIndexBlock();
  }

  #own(layer: number, span: number): Uint8Array {
    const key = toKey(layer, span);
    const raw = this.#blocks.get(key) ?? inheritIndexBlock(this.view(layer, span));
    this.#blocks.set(key, raw);
    this.#dirty.add(key);
    return raw;
  }

  async #addVolume(parent: number | null): Promise<void> {
    const id = await this.store.transact((txn) => {
      const layer = layers.createLayer(txn, parent).id;
      const record = { uuid: uuidOf(layer), layer, sizeBytes: 4096, createdAt: TIME };
      catalogue.createVolume(txn, `v${layer}`, { ...record, allowedHosts: [], origin: null });
      return layer;
    });
    this.parents.set(id, parent);
    this.#live.add(id);
  }
}

const toKey = (layer: number, span: number): string => `${layer}/${span}`;
const fromKey = (key: string): { layer: number; span: number } => {
  const [layer, span] = key.split("/").map(Number);
  return { layer: layer as number, span: span as number };
};
const uuidOf = (n: number): string => `3f8a1c52-9d0e-4b67-8a21-${String(n).padStart(12, "0")}`;

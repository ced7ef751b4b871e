// Brings back the space of deleted layers, in the background and in bounded steps; a kill at any
// point loses no step.
//
// A layer is reclaimed only after a checkpoint that began when its deletion was durable: then no
// record of it is left in the journal after the tail, and none of its index blocks is dirty. A
// batch of index blocks goes together with the bits of the blocks that they own, in one
// transaction; the layer's record goes last, when no index block is left under its key.
//
// Hidden layers (deleted, but parents of others) wait until their last child has gone.
import { SLOTS_PER_SPAN } from "../base/constants.js";
import type { Log } from "../base/log.js";
import { appendRun, type BlockRun } from "../store/block-run.js";
import { decodeIndexBlock, getBlock, isOwned } from "../store/codec-index-block.js";
import { decodeSpanKey, rangeOf } from "../store/codec-keys.js";
import type { FreeMap } from "../store/free-map.js";
import { applyToFreeMap } from "../store/free-map-patch.js";
import { changeIndex } from "../store/index-changes.js";
import { getLayer, listReclaim, removeLayer } from "../store/layers.js";
import { Lineage } from "../store/lineage.js";
import type { Store } from "../store/store.js";
import type { Checkpointer } from "./checkpointer.js";
import { Mutex } from "./mutex.js";
import type { Space } from "./space.js";

/** Index blocks in one transaction. */
const BATCH = 128;

interface Batch {
  spans: number[];
  owned: BlockRun[];
}

export class Reclaimer {
  readonly #store: Store;
  readonly #checkpointer: Checkpointer;
  readonly #map: FreeMap;
  readonly #space: Space;
  readonly #log: Log;
  readonly #mutex = new Mutex();
  /**
   * Layers deleted in this process, and the number of checkpoints begun by then. Others were
   * deleted before recovery.
   */
  readonly #deletedAt = new Map<number, number>();

  constructor(store: Store, checkpointer: Checkpointer, map: FreeMap, space: Space, log: Log) {
    this.#store = store;
    this.#checkpointer = checkpointer;
    this.#map = map;
    this.#space = space;
    this.#log = log;
  }

  /** The layer's deletion is durable. */
  deleted(layer: number): void {
    this.#deletedAt.set(layer, this.#checkpointer.started);
  }

  /** Dead layers that still have to go; `ready` ones need no further checkpoint. */
  waiting(): { total: number; ready: number } {
    const dead = this.#dead();
    return { total: dead.length, ready: dead.filter((layer) => this.#ready(layer)).length };
  }

  /** Reclaims every layer that may go now; gives the number of blocks that came free. */
  run(): Promise<number> {
    return this.#mutex.run(async () => {
      let blocks = 0;
      for (;;) {
        const layer = this.#dead().find((id) => this.#ready(id));
        if (layer === undefined) return blocks;
        blocks += await this.#reclaim(layer);
      }
    });
  }

  #dead(): number[] {
    return listReclaim(this.#store)
      .map(({ id }) => id)
      .filter((id) => getLayer(this.#store, id).state === "dead");
  }

  #ready(layer: number): boolean {
    const deletedAt = this.#deletedAt.get(layer);
    return deletedAt === undefined || this.#checkpointer.completed > deletedAt;
  }

  async #reclaim(layer: number): Promise<number> {
    let blocks = 0;
    for (;;) {
      const batch = this.#nextBatch(layer);
      if (batch === null) break;
      this.#map.load(batch.owned);
      const lineage = new Lineage();
      await this.#store.transact((txn) => {
        changeIndex(txn, lineage, (index) => {
          for (const span of batch.spans) index.remove(layer, span);
        });
        applyToFreeMap(
          txn,
          batch.owned.map((run) => ({ ...run, op: "free" as const })),
        );
      });
      this.#map.retire(batch.owned);
      for (const run of batch.owned) blocks += run.count;
      // Nobody reads or writes them: the volume was closed, its requests drained, before the layer
      // died.
      this.#space.release(batch.owned);
    }
    const { parentDied } = await this.#store.transact((txn) => removeLayer(txn, layer));
    this.#deletedAt.delete(layer);
    if (parentDied !== null) this.deleted(parentDied);
    this.#log.debug({ layer, blocks, parentDied }, "layer reclaimed");
    return blocks;
  }

  #nextBatch(layer: number): Batch | null {
    const { key } = getLayer(this.#store, layer);
    const entries = this.#store.range("index", { ...rangeOf(key), limit: BATCH });
    if (entries.length === 0) return null;
    const spans: number[] = [];
    const owned: BlockRun[] = [];
    for (const entry of entries) {
      spans.push(decodeSpanKey(entry.key).span);
      for (const run of ownedRuns(entry.key, entry.value)) appendRun(owned, run.first, run.count);
    }
    return { spans, owned };
  }
}

function ownedRuns(key: Uint8Array, value: Uint8Array): BlockRun[] {
  const { raw } = decodeIndexBlock(key, value);
  const runs: BlockRun[] = [];
  for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
    if (isOwned(raw, slot)) appendRun(runs, getBlock(raw, slot), 1);
  }
  return runs;
}

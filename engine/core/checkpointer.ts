// Checkpoint: moves what the journal holds into the store, and gives the journal's room and freed
// blocks back.
//
//   1. begin    every record so far becomes durable in the journal; they are what this checkpoint
//               covers, up to tail T
//   2. batches  dirty index blocks are copied (their records durable first) and put, each batch in
//               a transaction of its own, so that a snapshot's commit never waits behind a long one
//   3. last     one transaction: the free map as of T, and T
//   4. end      durable: entries that did not change since their copy are clean, journal room and
//               freed blocks are released
//
// A failure at any point leaves a store that recovery brings to the same state: index blocks in the
// store may be newer than the tail, since replaying a record twice is replaying it once. After a
// want of room the next checkpoint begins at the same tail; after any other error nobody knows what
// the store has, and the pool takes no more writes until it is opened again.
import { INDEX_BLOCK_BYTES } from "../base/constants.js";
import { isPandoError } from "../base/errors.js";
import { getJournalRecord, putJournalRecord } from "../store/catalogue.js";
import type { FreeMap } from "../store/free-map.js";
import { applyToFreeMap } from "../store/free-map-patch.js";
import { changeIndex } from "../store/index-changes.js";
import { Lineage } from "../store/lineage.js";
import type { Store } from "../store/store.js";
import type { DataPath } from "./data-path.js";
import { Mutex } from "./mutex.js";
import { decodeChanges } from "./space.js";

/** Index blocks in one transaction: two milliseconds, which a snapshot may have to wait for. */
const BATCH = 64;

export class Checkpointer {
  readonly #store: Store;
  readonly #path: DataPath;
  readonly #map: FreeMap;
  readonly #mutex = new Mutex();
  readonly #indexWrites: Mutex;
  #started = 0;
  #completed = 0;
  #waiting: Promise<void> | null = null;

  /** `indexWrites` is held while index blocks are on their way from memory to the store. */
  constructor(store: Store, path: DataPath, map: FreeMap, indexWrites: Mutex) {
    this.#indexWrites = indexWrites;
    this.#store = store;
    this.#path = path;
    this.#map = map;
  }

  /**
   * Numbers the checkpoints that have begun; one that begins later covers every record that there
   * is now.
   */
  get started(): number {
    return this.#started;
  }

  /** The number of the last one that is durable. */
  get completed(): number {
    return this.#completed;
  }

  /** A checkpoint that begins after this call. Calls that wait for the same one share it. */
  run(): Promise<void> {
    this.#waiting ??= this.#mutex.run(() => {
      this.#waiting = null;
      return this.#checkpoint();
    });
    return this.#waiting;
  }

  /** A checkpoint, and then `work` before another one begins. */
  runAndHold<T>(work: () => Promise<T>): Promise<T> {
    return this.#mutex.run(async () => {
      await this.#checkpoint();
      return work();
    });
  }

  async #checkpoint(): Promise<void> {
    const number = ++this.#started;
    const start = await this.#path.checkpointBegin();
    let success = false;
    try {
      await this.#putIndexBlocks();
      await this.#finish(start.tail, start.changes);
      success = true;
    } catch (error) {
      // Whoever asked for it: whether its transaction is in the store is not known then.
      if (!isPandoError(error, "ENOSPC")) this.#path.poison("a checkpoint's transaction");
      throw error;
    } finally {
      await this.#path.checkpointEnd(success);
      if (success) this.#completed = number;
    }
  }

  async #putIndexBlocks(): Promise<void> {
    while (await this.#indexWrites.run(() => this.#putBatch())) {
      // A fold may come in between two batches, and not in the middle of one.
    }
  }

  /** False: there are no more. */
  async #putBatch(): Promise<boolean> {
    const batch = await this.#path.checkpointTake(BATCH);
    if (batch.layers.length === 0) return false;
    const lineage = new Lineage();
    await this.#store.transact((txn) =>
      changeIndex(txn, lineage, (index) => {
        batch.layers.forEach((layer, at) => {
          const begin = at * INDEX_BLOCK_BYTES;
          const raw = batch.blocks.subarray(begin, begin + INDEX_BLOCK_BYTES);
          index.put(layer, batch.spans[at] as number, raw);
        });
      }),
    );
    await this.#path.checkpointStored();
    return true;
  }

  async #finish(tail: number, flat: Uint32Array): Promise<void> {
    const changes = decodeChanges(flat);
    this.#map.load(changes);
    await this.#store.transact((txn) => {
      applyToFreeMap(txn, changes);
      putJournalRecord(txn, { ...getJournalRecord(txn), tail });
    });
    for (const change of changes) {
      if (change.op === "allocate") this.#map.use([change]);
      else this.#map.retire([change]);
    }
  }
}

// Lends free blocks to the data path, and takes back what it may write again.
//
// A request for blocks is always answered, with some or with "there are no more". Before it says
// that, a checkpoint is run if blocks wait for one; after it, the first blocks that come free are
// lent unasked, so a full pool recovers by itself.
import type { Log } from "../base/log.js";
import type { BlockRun } from "../store/block-run.js";
import type { FreeMap } from "../store/free-map.js";
import type { FreeMapChange } from "../store/free-map-patch.js";
import { type DataPath, unflatten } from "./data-path.js";
import type { Punches } from "./punches.js";

/**
 * At most this much is lent at a time: a crash forgets it, so it costs nothing but a look at the
 * map.
 */
const LEND_BLOCKS = 16_384;
const LEND_RUNS = 256;

export interface SpaceOptions {
  dataBlocks: number;
  /**
   * Makes what waits for a checkpoint or a reclaim free, if there is any; false: there was nothing.
   */
  makeFree: () => Promise<boolean>;
  /** Released blocks go through it before they are free. */
  punches: Pick<Punches, "add" | "skip" | "rush" | "answered">;
  /** A trim has free blocks at the device now and then: resolves when it has none. */
  trimmed: () => Promise<void>;
  log: Log;
}

export class Space {
  readonly #path: DataPath;
  readonly #map: FreeMap;
  readonly #options: SpaceOptions;
  #dataBlocks: number;
  /** The data path was told that there is nothing. */
  #exhausted = false;

  constructor(path: DataPath, map: FreeMap, options: SpaceOptions) {
    this.#path = path;
    this.#map = map;
    this.#options = options;
    this.#dataBlocks = options.dataBlocks;
  }

  get exhausted(): boolean {
    return this.#exhausted;
  }

  /** Space is on its way: writes wait for it again, instead of failing at once. */
  expect(): void {
    if (!this.#exhausted) return;
    this.#exhausted = false;
    this.#path.lend([], false);
  }

  /** The pool has more blocks, durably. */
  grow(dataBlocks: number): void {
    this.#map.grow(dataBlocks);
    this.#dataBlocks = dataBlocks;
    if (this.#exhausted) this.lend();
  }

  /** Answers one request for blocks. */
  async wanted(): Promise<void> {
    if (!this.lend()) await this.#options.punches.rush(() => this.#makeFree());
  }

  async #makeFree(): Promise<void> {
    if (this.lend()) return;
    await this.#options.punches.answered();
    await this.#options.trimmed();
    if (this.lend()) return;
    try {
      if ((await this.#options.makeFree()) && this.lend()) return;
    } catch (error) {
      this.#options.log.error({ err: error }, "making space failed");
    }
    if (!this.#exhausted) this.#options.log.warn("the pool is full");
    this.#exhausted = true;
    this.#path.lend([], true);
  }

  /** False: there are no free blocks. */
  lend(): boolean {
    const wanted = Math.min(LEND_BLOCKS, Math.max(64, Math.floor(this.#dataBlocks / 16)));
    const runs = this.#map.lend(wanted, LEND_RUNS);
    if (runs.length === 0) return false;
    if (this.#exhausted) this.#options.log.info("the pool has free blocks again");
    this.#exhausted = false;
    this.#path.lend(runs, false);
    return true;
  }

  /**
   * The data path has let these go: nobody reads or writes them any more, and their release is
   * durable.
   */
  freed(flat: Uint32Array): void {
    const runs = unflatten(flat);
    this.#map.requireReleased(runs);
    if (this.#exhausted) this.#options.punches.skip(runs);
    else this.#options.punches.add(runs);
  }

  /** Nothing is to be done about them any more. */
  free(runs: readonly BlockRun[]): void {
    this.#map.release(runs);
    this.freeAgain();
  }

  /** There are more free blocks than before. */
  freeAgain(): void {
    if (this.#exhausted) this.lend();
  }
}

/** The changes of a checkpoint, run by run, in order. */
export function decodeChanges(flat: Uint32Array): FreeMapChange[] {
  const changes: FreeMapChange[] = [];
  for (let at = 0; at < flat.length; at += 3) {
    changes.push({
      first: flat[at] as number,
      count: flat[at + 1] as number,
      op: flat[at + 2] === 1 ? "allocate" : "free",
    });
  }
  return changes;
}

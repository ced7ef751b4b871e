// What the device has to know of backups of the store. A reclaim gives blocks up, and a fold gives
// blocks to another layer, without a record in the journal: a backup from before one of them would
// show a deleted snapshot with what has been written over it since. So the superblock has a number
// that is raised, durably, before the first such change after a backup; a backup whose number is
// not the device's is refused.
import type { Store } from "../store/store.js";
import { Mutex } from "./mutex.js";

/**
 * How a pool in service has its store copied, in bytes. `fixed` runs `work` at a moment at which
 * everything is in the store, and holds that moment until `work` has settled.
 */
export type BackupStore = (
  fixed: <T>(work: (reclaims: number) => Promise<T>) => Promise<T>,
) => AsyncIterable<Uint8Array>;

export class BackupMarks {
  readonly #mutex = new Mutex();
  readonly #raise: (reclaims: number) => Promise<void>;
  #reclaims: number;
  /** By a backup that was made since it was raised. */
  #named = false;

  /** `raise`: the superblocks have that number, durably. */
  constructor(reclaims: number, raise: (reclaims: number) => Promise<void>) {
    this.#reclaims = reclaims;
    this.#raise = raise;
  }

  /** A backup: `fix` settles when the state that goes into it is fixed. */
  take<T>(fix: (reclaims: number) => Promise<T>): Promise<T> {
    return this.#mutex.run(() => {
      this.#named = true;
      return fix(this.#reclaims);
    });
  }

  /** The store for those whose every transaction no backup from before it may meet again. */
  guard(store: Store): Store {
    return {
      get: (space, key) => store.get(space, key),
      range: (space, options) => store.range(space, options),
      count: (space) => store.count(space),
      transact: (change) => this.#mutex.run(() => this.#marked(() => store.transact(change))),
      sync: () => store.sync(),
      close: () => store.close(),
    };
  }

  async #marked<T>(work: () => Promise<T>): Promise<T> {
    if (this.#named) {
      await this.#raise(this.#reclaims + 1);
      this.#reclaims++;
      this.#named = false;
    }
    return work();
  }
}

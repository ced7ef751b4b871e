// The store seam: an ordered key-value store with transactions, which tells *committed* (the next
// transaction sees it) from *durable* (it survives power loss). LMDB in production, a model in the
// simulator.

/** The named databases of a pool's store; see docs/format.md. */
export const SPACES = [
  "meta",
  "layers",
  "children",
  "volumes",
  "uuids",
  "snapshots",
  "index",
  "spans",
  "free",
  "reclaim",
] as const;

export type Space = (typeof SPACES)[number];

export interface Entry {
  key: Uint8Array;
  value: Uint8Array;
}

export interface RangeOptions {
  /** First key, inclusive. */
  start?: Uint8Array;
  /** Last key, exclusive. */
  end?: Uint8Array;
  limit?: number;
}

/** What can be read; inside a transaction it sees that transaction's own writes. */
export interface StoreReader {
  /** The raw value (checksum included), or undefined. The caller may keep it. */
  get(space: Space, key: Uint8Array): Uint8Array | undefined;
  /**
   * In the order of the keys' bytes. Collected, not lazy: no read transaction outlives the call.
   */
  range(space: Space, options: RangeOptions): Entry[];
  /** How many keys the space has. */
  count(space: Space): number;
}

export interface StoreTransaction extends StoreReader {
  put(space: Space, key: Uint8Array, value: Uint8Array): void;
  /** True if the key was there. */
  remove(space: Space, key: Uint8Array): boolean;
}

export interface Store extends StoreReader {
  /**
   * Runs `change` in one write transaction and resolves with its result when the transaction is
   * *durable*. Transactions run in the order of the calls, one at a time. If `change` throws,
   * nothing is changed and the promise rejects with that error; if the commit fails, it rejects
   * with a PandoError (EIO or ENOSPC) and nothing is changed. `change` must be synchronous.
   */
  transact<T>(change: (txn: StoreTransaction) => T): Promise<T>;
  /** Makes everything that is visible durable (recovery reads only after this). */
  sync(): Promise<void>;
  close(): Promise<void>;
}

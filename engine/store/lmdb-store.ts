// The store on LMDB. A transaction's function runs on the main thread; its commit, with the syncs,
// runs on LMDB's own thread, so that the main thread never waits for a disk. Visible and durable
// come together here (overlappingSync is off): a promise of transact() settles after the meta page
// is on the disk.
//
// Each change runs as a child transaction: if it throws, it alone is rolled back, though LMDB may
// commit it together with others that were waiting.
//
// When a meta page cannot be written, LMDB puts the old one back as well as it can, and refuses
// everything from then on, reads too (MDB_PANIC): the store has failed, and says so.
import { open as openFile, statfs } from "node:fs/promises";
import { assert } from "../base/assert.js";
import { PandoError } from "../base/errors.js";
import { CommitTurns } from "./commit-turns.js";
import { type BinaryDatabase, type Environment, openEnvironment } from "./lmdb-environment.js";
import { environmentFile, reserveEnvironmentFile } from "./lmdb-file.js";
import type { Entry, RangeOptions, Space, Store, StoreTransaction } from "./store.js";

/**
 * Opens the store in `directory`; refuses a missing or truncated file, or, with `create`, one that
 * is there.
 */
export function openLmdbStore(
  directory: string,
  options: { create: boolean } = { create: false },
): LmdbStore {
  const mode = options.create ? "create" : "write";
  return new LmdbStore(directory, openEnvironment(directory, mode));
}

/**
 * Reads of one environment, shared by the store and the index worker. LMDB has no checksums over
 * its own pages: where damage there shows (an error of LMDB's, keys out of order), it is ECORRUPT.
 */
export class LmdbReader {
  constructor(protected readonly environment: Environment) {}

  get(space: Space, key: Uint8Array): Uint8Array | undefined {
    return reading(space, () => this.find(space)?.getBinary(asBuffer(key)));
  }

  range(space: Space, options: RangeOptions): Entry[] {
    const bounds: { start?: Buffer; end?: Buffer; limit?: number } = {};
    if (options.start !== undefined) bounds.start = asBuffer(options.start);
    if (options.end !== undefined) bounds.end = asBuffer(options.end);
    if (options.limit !== undefined) bounds.limit = options.limit;
    const database = this.find(space);
    if (database === undefined) return [];
    return reading(space, () => {
      const found: Entry[] = [];
      let last: Buffer | undefined;
      for (const { key, value } of database.getRange(bounds)) {
        // Pages that lead back to themselves would never end.
        if (last !== undefined && last.compare(key) >= 0) throw damaged(space, "keys out of order");
        last = key;
        found.push({ key, value });
      }
      return found;
    });
  }

  count(space: Space): number {
    const stats = reading(space, () => this.find(space)?.getStats());
    return stats === undefined ? 0 : (stats as { entryCount: number }).entryCount;
  }

  /** From now on reads see what is visible now. Until then they may see an older state. */
  refresh(): void {
    this.environment.root.resetReadTxn();
  }

  protected find(space: Space): BinaryDatabase | undefined {
    return this.environment.databases[space];
  }

  protected database(space: Space): BinaryDatabase {
    const database = this.find(space);
    assert(database !== undefined, `the store was opened to be written: it has ${space}`);
    return database;
  }
}

class LmdbTransaction extends LmdbReader implements StoreTransaction {
  #active = true;

  end(): void {
    this.#active = false;
  }

  put(space: Space, key: Uint8Array, value: Uint8Array): void {
    this.database(space).putSync(asBuffer(key), asBuffer(value));
  }

  remove(space: Space, key: Uint8Array): boolean {
    return this.database(space).removeSync(asBuffer(key));
  }

  protected override find(space: Space): BinaryDatabase | undefined {
    assert(this.#active, "a transaction is used while it runs only");
    return super.find(space);
  }
}

export class LmdbStore extends LmdbReader implements Store {
  readonly #directory: string;
  readonly #turns = new CommitTurns();
  /** Set, LMDB refuses everything until the store is opened again. */
  #failure: PandoError | null = null;
  #closed = false;
  /** While LMDB has used less than this of its file, the file is long enough; see lmdb-file.ts. */
  #reservedTo = 0;

  constructor(directory: string, environment: Environment) {
    super(environment);
    this.#directory = directory;
    this.#reserve();
  }

  async transact<T>(change: (txn: StoreTransaction) => T): Promise<T> {
    this.#assertOpen();
    return this.#turns.run(() => this.#commit(change));
  }

  async sync(): Promise<void> {
    this.#assertOpen();
    // Not through LMDB: what a killed process left in the page cache is the file's, whoever wrote
    // it.
    const file = await openFile(environmentFile(this.#directory), "r+");
    try {
      await file.datasync();
    } catch (cause) {
      throw await this.#storeError(cause);
    } finally {
      await file.close();
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#turns.run(() => this.environment.root.close());
  }

  /** Another process that read the store may have died: what it read would be kept for ever. */
  forgetDeadReaders(): void {
    if (!this.#closed) this.environment.root.readerCheck();
  }

  protected override find(space: Space): BinaryDatabase | undefined {
    this.#assertOpen();
    return super.find(space);
  }

  async #commit<T>(change: (txn: StoreTransaction) => T): Promise<T> {
    if (this.#failure !== null) throw this.#failure;
    const txn = new LmdbTransaction(this.environment);
    let thrown: { error: unknown } | undefined;
    try {
      const result = await this.environment.root.childTransaction(() => {
        try {
          const value = change(txn);
          assert(!(value instanceof Promise), "a transaction's function is synchronous");
          return value;
        } catch (error) {
          thrown = { error };
          throw error;
        } finally {
          txn.end();
        }
      });
      this.#reserve();
      return result;
    } catch (error) {
      if (thrown !== undefined && !isStoreFailure(thrown.error)) throw thrown.error;
      throw await this.#storeError(error);
    } finally {
      if (!this.#closed) this.refresh();
    }
  }

  #assertOpen(): void {
    if (this.#failure !== null) throw this.#failure;
    if (!this.#closed) return;
    throw new PandoError("ECLOSED", `store: ${this.#directory} is closed`, {
      path: this.#directory,
    });
  }

  #reserve(): void {
    const stats = statsOf(this.environment);
    const used = (stats.lastPageNumber + 1) * stats.pageSize;
    if (used <= this.#reservedTo) return;
    this.#reservedTo = reserveEnvironmentFile(this.#directory, used);
  }

  /** LMDB reports a write that was cut short for want of space as EIO. */
  async #fileSystemIsFull(): Promise<boolean> {
    const { bavail, bsize } = await statfs(this.#directory);
    return bavail * bsize < FULL_BYTES;
  }

  /** LMDB rejects with "Commit failed"; the reason is a promise beside it. */
  async #storeError(error: unknown): Promise<PandoError> {
    let cause = error;
    if (error instanceof Error && "commitError" in error) {
      cause = await Promise.resolve(error.commitError).then(
        () => error,
        (reason: unknown) => reason,
      );
    }
    const message = cause instanceof Error ? cause.message : String(cause);
    const path = environmentFile(this.#directory);
    const full = NO_SPACE.test(message) || (await this.#fileSystemIsFull());
    if (this.#failure !== null) return this.#failure;
    const panics = this.#panics();
    const rest = panics ? "; the store is of no use until the pool is opened again" : "";
    const failure = new PandoError(
      full && !panics ? "ENOSPC" : "EIO",
      `store: a commit to ${path} failed: ${message}${rest}`,
      { path },
      { cause },
    );
    if (panics) this.#failure = failure;
    return failure;
  }

  /** Whether LMDB has given up. */
  #panics(): boolean {
    if (this.#closed) return false;
    try {
      this.refresh();
      super.find("meta")?.getBinary(PROBE);
      return false;
    } catch (error) {
      return isPanic(error);
    }
  }
}

/** Runs a read; an error of LMDB's own becomes ours, and says in which space it was. */
function reading<T>(space: Space, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!isStoreFailure(error)) throw error;
    const message = error instanceof Error ? error.message : String(error);
    if (!isPanic(error)) throw damaged(space, message, error);
    throw new PandoError("EIO", `store: ${space}: ${message}`, { field: space }, { cause: error });
  }
}

function damaged(space: Space, what: string, cause?: unknown): PandoError {
  return new PandoError("ECORRUPT", `store: ${space}: ${what}`, { field: space }, { cause });
}

/** With less than this free, a failed write has failed for want of space. */
const FULL_BYTES = 64 * 1024;
const PROBE = Buffer.from("probe");
const NO_SPACE = /ENOSPC|No space left|MDB_MAP_FULL|EDQUOT|quota/i;

interface EnvironmentStats {
  pageSize: number;
  lastPageNumber: number;
}

function statsOf(environment: Environment): EnvironmentStats {
  return environment.root.getStats() as EnvironmentStats;
}

/** An error of LMDB's own out of a put or get, as against one of the caller's. */
function isStoreFailure(error: unknown): boolean {
  return error instanceof Error && "code" in error && typeof error.code === "number";
}

/** LMDB has given up: see the head of this file. */
function isPanic(error: unknown): boolean {
  return error instanceof Error && error.message.includes("MDB_PANIC");
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

// A store in memory that tells committed from durable. A transaction commits at one step and
// becomes durable at a later one; the scheduler decides when each step comes. A power cut keeps the
// durable transactions and any number of those that were committed after them, in order, never one
// without those before it: that is what LMDB promises, and not more.
//
// A commit may fail in three ways: for want of room (it changed nothing, and can be tried again),
// with an error (likewise), and in doubt: the error came when the commit's last page was on its
// way, so that it may be found afterwards, whole, and the store takes nothing more until then.
import { assert } from "../../engine/base/assert.js";
import { PandoError } from "../../engine/base/errors.js";
import {
  type Entry,
  type RangeOptions,
  SPACES,
  type Space,
  type Store,
  type StoreReader,
  type StoreTransaction,
} from "../../engine/store/store.js";
import { lowerBound, toBytes, toText } from "../../engine/store/text-key.js";
import { native } from "../../native/native.js";

export type StoreStep = "commit" | "durable";

export type CommitFailure = "EIO" | "ENOSPC" | "doubt";

export interface ModelStoreOptions {
  /** Resolves when the store may take the step. By default at once. */
  schedule?: (step: StoreStep) => Promise<void>;
}

export interface Write {
  space: Space;
  key: string;
  /** Undefined: removed. */
  value: Uint8Array | undefined;
}

export class ModelStore implements Store {
  readonly #schedule: (step: StoreStep) => Promise<void>;
  readonly #durable: State;
  readonly #visible: State;
  /** Committed, not durable yet. */
  #pending: Write[][] = [];
  #queue: Promise<unknown> = Promise.resolve();
  #failure: CommitFailure | undefined;
  /** Of the commit that failed in doubt: what it wrote. */
  #doubtful: Write[] | null = null;
  #crashed = false;
  #closed = false;
  /** Transactions committed so far, for directed tests. */
  commits = 0;
  /** Every commit so far, in its order, as one number. */
  digest = 0;
  /** Told of each commit that fails as it was asked to, and of what it had written. */
  onFailure: (failure: CommitFailure, writes: readonly Write[]) => void = () => undefined;

  constructor(options: ModelStoreOptions = {}, durable = new State(), pending: Write[][] = []) {
    this.#schedule = options.schedule ?? (() => Promise.resolve());
    this.#durable = durable;
    this.#visible = durable.copy();
    this.#pending = pending;
    for (const writes of pending) this.#visible.apply(writes);
  }

  get(space: Space, key: Uint8Array): Uint8Array | undefined {
    this.#assertOpen();
    return this.#visible.get(space, key);
  }

  range(space: Space, options: RangeOptions): Entry[] {
    this.#assertOpen();
    return this.#visible.range(space, options);
  }

  count(space: Space): number {
    this.#assertOpen();
    return this.#visible.count(space);
  }

  async transact<T>(change: (txn: StoreTransaction) => T): Promise<T> {
    this.#assertOpen();
    const turn = this.#queue.then(() => this.#run(change));
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  async sync(): Promise<void> {
    this.#assertOpen();
    await this.#queue;
    await this.#step("durable");
    this.#makeDurable();
  }

  async close(): Promise<void> {
    await this.#queue;
    this.#closed = true;
  }

  /** Another store with the same content, all of it durable. */
  copy(options: ModelStoreOptions = {}): ModelStore {
    return new ModelStore(options, this.#visible.copy());
  }

  /** Another store with the same content, what is not durable included. */
  fork(options: ModelStoreOptions = {}): ModelStore {
    return this.#next(options, this.#durable.copy(), [...this.#pending]);
  }

  /** The next commit fails so. */
  failNextCommit(failure: CommitFailure): void {
    this.#failure = failure;
  }

  /** What a power cut leaves for certain. */
  get durable(): StoreReader {
    return this.#durable;
  }

  /** Committed transactions that are not durable. */
  get pendingCount(): number {
    return this.#pending.length;
  }

  /** Ends this store at once: nothing that waits for it goes on. Gives the one that is found. */
  crash(power: boolean, choose: (n: number) => number, options?: ModelStoreOptions): ModelStore {
    this.#crashed = true;
    return this.afterCrash(power, choose, options);
  }

  /**
   * The store that would be found after a crash now: of power with the first choose(n + 1) of the n
   * pending transactions, durable; of the process with all of them, still pending.
   */
  afterCrash(
    power: boolean,
    choose: (n: number) => number,
    options?: ModelStoreOptions,
  ): ModelStore {
    const after = options ?? { schedule: this.#schedule };
    const pending = this.#doubtful === null ? this.#pending : [...this.#pending, this.#doubtful];
    if (!power) {
      // After a kill the caches say whether the doubtful one is there.
      const there = this.#doubtful === null ? pending.length : choose(2) + this.#pending.length;
      return this.#next(after, this.#durable.copy(), pending.slice(0, there));
    }
    const kept = choose(pending.length + 1);
    assert(kept >= 0 && kept <= pending.length, "choose(n) gives 0 … n - 1");
    const durable = this.#durable.copy();
    for (const writes of pending.slice(0, kept)) durable.apply(writes);
    return this.#next(after, durable, []);
  }

  #next(options: ModelStoreOptions, durable: State, pending: Write[][]): ModelStore {
    const next = new ModelStore(options, durable, pending);
    next.digest = this.digest;
    next.onFailure = this.onFailure;
    return next;
  }

  async #run<T>(change: (txn: StoreTransaction) => T): Promise<T> {
    await this.#step("commit");
    // It is this one that fails, even if it fails by itself.
    const failure = this.#failure;
    this.#failure = undefined;
    if (this.#doubtful !== null)
      throw new PandoError("EIO", "store: an earlier commit is in doubt");
    const txn = new ModelTransaction(this.#visible);
    let result: T;
    try {
      result = change(txn);
      assert(!(result instanceof Promise), "a transaction's function is synchronous");
    } catch (error) {
      txn.undo();
      throw error;
    } finally {
      txn.end();
    }
    if (failure !== undefined) {
      txn.undo();
      this.onFailure(failure, txn.writes);
      if (failure === "doubt") this.#doubtful = txn.writes;
      const code = failure === "doubt" ? "EIO" : failure;
      throw new PandoError(code, "store: the commit failed, as the test asked for");
    }
    this.#pending.push(txn.writes);
    this.commits++;
    this.#note(txn.writes);
    await this.#step("durable");
    this.#makeDurable();
    return result;
  }

  #note(writes: readonly Write[]): void {
    for (const { space, key, value } of writes) {
      const name = Buffer.from(`${space} ${key} ${value === undefined ? "removed" : "put"}`);
      this.digest = native.crc32c(value ?? new Uint8Array(0), native.crc32c(name, this.digest));
    }
  }

  async #step(step: StoreStep): Promise<void> {
    await this.#schedule(step);
    if (this.#crashed) await new Promise(() => undefined);
  }

  #makeDurable(): void {
    for (const writes of this.#pending) this.#durable.apply(writes);
    this.#pending = [];
  }

  #assertOpen(): void {
    if (this.#closed || this.#crashed) throw new PandoError("ECLOSED", "store: closed");
  }
}

class ModelTransaction implements StoreTransaction {
  readonly writes: Write[] = [];
  readonly #state: State;
  readonly #undo: Write[] = [];
  #active = true;

  constructor(state: State) {
    this.#state = state;
  }

  get(space: Space, key: Uint8Array): Uint8Array | undefined {
    return this.#reader().get(space, key);
  }

  range(space: Space, options: RangeOptions): Entry[] {
    return this.#reader().range(space, options);
  }

  count(space: Space): number {
    return this.#reader().count(space);
  }

  put(space: Space, key: Uint8Array, value: Uint8Array): void {
    this.#write({ space, key: toText(key), value: new Uint8Array(value) });
  }

  remove(space: Space, key: Uint8Array): boolean {
    const there = this.get(space, key) !== undefined;
    if (there) this.#write({ space, key: toText(key), value: undefined });
    return there;
  }

  undo(): void {
    this.#state.apply(this.#undo.reverse());
  }

  end(): void {
    this.#active = false;
  }

  #write(write: Write): void {
    const before = this.#reader().get(write.space, toBytes(write.key));
    this.#undo.push({ ...write, value: before });
    this.writes.push(write);
    this.#state.apply([write]);
  }

  #reader(): StoreReader {
    assert(this.#active, "a transaction is used while it runs only");
    return this.#state;
  }
}

interface Content {
  values: Map<string, Uint8Array>;
  sorted: string[] | null;
  /** Another state has the same values: they are not to be changed. */
  shared: boolean;
}

/** Keys as text, a character for a byte: the order of such texts is the order of the bytes. */
class State implements StoreReader {
  readonly #spaces = new Map<Space, Content>(
    SPACES.map((space) => [space, { values: new Map(), sorted: null, shared: false }]),
  );

  copy(): State {
    const copy = new State();
    for (const [space, content] of this.#spaces) {
      content.shared = true;
      copy.#spaces.set(space, { ...content });
    }
    return copy;
  }

  apply(writes: readonly Write[]): void {
    for (const { space, key, value } of writes) {
      const content = this.#of(space);
      if (content.shared) content.values = new Map(content.values);
      content.shared = false;
      if (value === undefined) {
        if (content.values.delete(key)) content.sorted = null;
      } else {
        if (!content.values.has(key)) content.sorted = null;
        content.values.set(key, value);
      }
    }
  }

  get(space: Space, key: Uint8Array): Uint8Array | undefined {
    const value = this.#of(space).values.get(toText(key));
    return value === undefined ? undefined : Buffer.from(value);
  }

  range(space: Space, options: RangeOptions): Entry[] {
    const content = this.#of(space);
    content.sorted ??= [...content.values.keys()].sort();
    const start = options.start === undefined ? "" : toText(options.start);
    const end = options.end === undefined ? null : toText(options.end);
    const found: Entry[] = [];
    for (let at = lowerBound(content.sorted, start); at < content.sorted.length; at++) {
      const key = content.sorted[at] as string;
      if ((end !== null && key >= end) || found.length === options.limit) break;
      found.push({ key: toBytes(key), value: Buffer.from(content.values.get(key) ?? []) });
    }
    return found;
  }

  count(space: Space): number {
    return this.#of(space).values.size;
  }

  #of(space: Space): Content {
    const content = this.#spaces.get(space);
    assert(content !== undefined, `there is no space ${space}`);
    return content;
  }
}

// A store that is read from one place and changed in memory only. What would be written to the
// store below is seen by whoever reads through this one, and is gone with it: so that recovery can
// run, and its result be looked at, without a trace.
//
// Committed, visible and durable are one here: nothing survives.
import { assert } from "../base/assert.js";
import { PandoError } from "../base/errors.js";
import type { Entry, RangeOptions, Space, Store, StoreReader, StoreTransaction } from "./store.js";
import { lowerBound, toBytes, toText } from "./text-key.js";

const ENTRIES_PER_READ = 1024;

/** What has changed in one space; keys as text, a character for a byte, so that order is kept. */
interface Changes {
  /** Undefined: removed. */
  values: Map<string, Uint8Array | undefined>;
  /** Of the keys; null after a key was added. */
  sorted: string[] | null;
}

export class OverlayStore implements Store {
  readonly #below: StoreReader;
  readonly #changes = new Map<Space, Changes>();
  #closed = false;

  constructor(below: StoreReader) {
    this.#below = below;
  }

  get(space: Space, key: Uint8Array): Uint8Array | undefined {
    this.#assertOpen();
    const changes = this.#changes.get(space)?.values;
    const text = toText(key);
    if (changes?.has(text) !== true) return this.#below.get(space, key);
    const value = changes.get(text);
    return value === undefined ? undefined : new Uint8Array(value);
  }

  range(space: Space, options: RangeOptions): Entry[] {
    this.#assertOpen();
    const changes = this.#changes.get(space);
    if (changes === undefined) return this.#below.range(space, options);
    const limit = options.limit ?? Number.POSITIVE_INFINITY;
    const found: Entry[] = [];
    for (const entry of this.#merge(space, changes, options)) {
      if (found.length === limit) break;
      found.push(entry);
    }
    return found;
  }

  count(space: Space): number {
    this.#assertOpen();
    let count = this.#below.count(space);
    for (const [text, value] of this.#changes.get(space)?.values ?? []) {
      const before = this.#below.get(space, toBytes(text)) !== undefined;
      count += Number(value !== undefined) - Number(before);
    }
    return count;
  }

  async transact<T>(change: (txn: StoreTransaction) => T): Promise<T> {
    this.#assertOpen();
    const undo: (() => void)[] = [];
    let active = true;
    const store = (): this => {
      assert(active, "a transaction is used while it runs only");
      return this;
    };
    const txn: StoreTransaction = {
      get: (space, key) => store().get(space, key),
      range: (space, options) => store().range(space, options),
      count: (space) => store().count(space),
      put: (space, key, value) => store().#set(space, key, new Uint8Array(value), undo),
      remove: (space, key) => {
        const there = store().get(space, key) !== undefined;
        if (there) this.#set(space, key, undefined, undo);
        return there;
      },
    };
    try {
      const result = change(txn);
      assert(!(result instanceof Promise), "a transaction's function is synchronous");
      return result;
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    } finally {
      active = false;
    }
  }

  /** What has changed so far; a value that is undefined was removed. */
  *changes(): Generator<{ space: Space; key: Uint8Array; value: Uint8Array | undefined }> {
    for (const [space, { values }] of this.#changes) {
      for (const [key, value] of values) yield { space, key: toBytes(key), value };
    }
  }

  async sync(): Promise<void> {
    this.#assertOpen();
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #assertOpen(): void {
    if (this.#closed) throw new PandoError("ECLOSED", "store: closed");
  }

  #set(space: Space, key: Uint8Array, value: Uint8Array | undefined, undo: (() => void)[]): void {
    const changes = this.#changes.get(space) ?? { values: new Map(), sorted: null };
    this.#changes.set(space, changes);
    const { values } = changes;
    const text = toText(key);
    const known = values.has(text);
    const before = values.get(text);
    if (!known) changes.sorted = null;
    values.set(text, value);
    undo.push(() => {
      if (known) values.set(text, before);
      else {
        values.delete(text);
        changes.sorted = null;
      }
    });
  }

  /** Both in the order of their keys; a change hides what is below it. */
  *#merge(space: Space, changes: Changes, options: RangeOptions): Generator<Entry> {
    changes.sorted ??= [...changes.values.keys()].sort();
    const { sorted, values } = changes;
    const end = options.end === undefined ? null : toText(options.end);
    let at = lowerBound(sorted, options.start === undefined ? "" : toText(options.start));
    const changedBefore = function* (key: string | null): Generator<Entry> {
      for (; at < sorted.length; at++) {
        const text = sorted[at] as string;
        if ((key !== null && text >= key) || (end !== null && text >= end)) return;
        const value = values.get(text);
        if (value !== undefined) yield { key: toBytes(text), value: new Uint8Array(value) };
      }
    };
    for (const entry of this.#entriesBelow(space, options)) {
      const text = toText(entry.key);
      yield* changedBefore(text);
      if (!values.has(text)) yield entry;
    }
    yield* changedBefore(null);
  }

  /** A bounded number at a time, however many are asked for. */
  *#entriesBelow(space: Space, { start, end }: RangeOptions): Generator<Entry> {
    const bounds: RangeOptions = { limit: ENTRIES_PER_READ };
    if (start !== undefined) bounds.start = start;
    if (end !== undefined) bounds.end = end;
    for (;;) {
      const entries = this.#below.range(space, bounds);
      yield* entries;
      const last = entries.at(-1);
      if (last === undefined || entries.length < ENTRIES_PER_READ) return;
      bounds.start = Buffer.concat([last.key, Uint8Array.of(0)]);
    }
  }
}

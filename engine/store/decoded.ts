// Records that are read again and again, as the layers above a deep one are for every snapshot of
// it: decoded once, and good for as long as the store gives the very bytes they were decoded from.
// So nothing has to be told of changes, transactions that were undone, or other stores.
import type { RecordCodec } from "./codec-records.js";
import type { Space } from "./store.js";

/** Some 500 bytes each; when there are more, all are forgotten. */
const MAX_KEPT = 8192;

interface Kept<T> {
  value: Uint8Array;
  record: Readonly<T>;
}

export class Decoded<T extends object> {
  readonly #codec: RecordCodec<T>;
  readonly #space: Space;
  readonly #kept = new Map<number, Kept<T>>();

  constructor(codec: RecordCodec<T>, space: Space) {
    this.#codec = codec;
    this.#space = space;
  }

  /** `id` is what `key` says. ECORRUPT, naming space and key, if `value` is no such record. */
  decode(id: number, key: Uint8Array, value: Uint8Array): Readonly<T> {
    const kept = this.#kept.get(id);
    if (kept !== undefined && Buffer.compare(kept.value, value) === 0) return kept.record;
    const record = Object.freeze(this.#codec.decode(this.#space, key, value));
    if (this.#kept.size >= MAX_KEPT) this.#kept.clear();
    this.#kept.set(id, { value, record });
    return record;
  }
}

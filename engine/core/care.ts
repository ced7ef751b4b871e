// What is done for a pool while it is served, by those who look after it: the check of all that it
// says of itself, copies of its metadata, what a deletion would bring back, and giving free blocks
// back to the device. None of it changes what anybody reads.
import { PandoError } from "../base/errors.js";
import { getSnapshot, getVolume } from "../store/catalogue.js";
import type { FreeMap } from "../store/free-map.js";
import type { Store } from "../store/store.js";
import type { CheckReport, TrimProgress } from "./api.js";
import type { BackupMarks, BackupStore } from "./backup-marks.js";
import { type CheckStore, checkHere } from "./check.js";
import type { Checkpointer } from "./checkpointer.js";
import type { DataPath } from "./data-path.js";
import { countFreed } from "./freed-by-delete.js";
import type { Mutex } from "./mutex.js";
import type { Pace } from "./pace.js";
import { Trim } from "./trim.js";

export interface CareParts {
  store: Store;
  path: DataPath;
  map: FreeMap;
  pace: Pace;
  blockSizeBytes: number;
  /** The pool's now. */
  dataBlocks: () => number;
  checkpointer: Checkpointer;
  catalogue: Mutex;
  marks: BackupMarks;
  /** Where there is none, there are no backups. */
  backups: { store: BackupStore } | undefined;
  /** In this process if it is not given. */
  checkStore: CheckStore | undefined;
  /** What the device has given for the free blocks is kept. */
  keepsRoom: boolean;
  /** Blocks that were at the device are free again. */
  freed: () => void;
}

export class Care {
  readonly #parts: CareParts;
  readonly trimming: Trim;

  constructor(parts: CareParts) {
    this.#parts = parts;
    this.trimming = new Trim(parts);
  }

  async check(): Promise<CheckReport> {
    const { store, checkStore = checkHere } = this.#parts;
    return checkStore(store, (work) => this.#fixed(work));
  }

  backUpMetadata(): AsyncIterable<Uint8Array> {
    const { backups, marks } = this.#parts;
    if (backups === undefined) throw new PandoError("EINVAL", "this pool has no backups");
    return backups.store((work) => this.#fixed(() => marks.take(work)));
  }

  /** In bytes; of the volume itself if no snapshot is named. */
  async *countFreed(
    volume: string,
    snapshot: string | null,
  ): AsyncGenerator<undefined, number | null> {
    const { store, checkpointer, blockSizeBytes } = this.#parts;
    const checkpoint = () => checkpointer.run();
    const blocks = yield* countFreed({ store, checkpoint }, () =>
      snapshot === null
        ? getVolume(store, volume).layer
        : getSnapshot(store, volume, snapshot).layer,
    );
    return blocks === null ? null : blocks * blockSizeBytes;
  }

  trim(startBytes: number): AsyncIterable<TrimProgress> {
    if (this.#parts.keepsRoom) {
      throw new PandoError("EINVAL", "the pool's file has all of its room, and keeps it", {
        hint: 'its file system could not promise it again; with "discard": "on" it is given back',
      });
    }
    return this.trimming.run(startBytes);
  }

  /** `work`, while everything is in the store and nothing goes there. */
  #fixed<T>(work: () => Promise<T>): Promise<T> {
    const { catalogue, checkpointer } = this.#parts;
    return catalogue.run(() => checkpointer.runAndHold(work));
  }
}

// A pool that grows while it is served: makes the room on its device, says so in store and
// superblocks (grow.ts), and then lets the free map have the new blocks. Also the one place through
// which a pool in service writes its superblocks, one change at a time, each on top of the last.
//
// Nobody is lent a new block before the superblocks that have it are durable: a record in the
// journal must not name a block that recovery does not know.
import { isPandoError, PandoError } from "../base/errors.js";
import { findGrowRecord } from "../store/catalogue.js";
import type { Store } from "../store/store.js";
import type { Superblock } from "../store/superblock.js";
import { type GrowingDevice, grow } from "./grow.js";
import { Mutex } from "./mutex.js";

export interface GrowRequest {
  /** Of the device; null: all of a block device. */
  sizeBytes: number | null;
  /** A file that takes its space as it is written. */
  sparse: boolean;
}

export interface GrowingPlace {
  /** What the pool is to become. EINVAL for what cannot be; nothing is changed. */
  plan(current: Superblock, request: GrowRequest): Superblock;
  /** The device gets the room. ENOSPC if there is none; the pool may be in use meanwhile. */
  makeRoom(larger: Superblock, request: GrowRequest): Promise<void>;
  device(): GrowingDevice & { close(): void };
}

export interface GrowthParts {
  store: Store;
  superblock: Superblock;
  /** Without one the pool does not grow while it is served. */
  place: GrowingPlace | undefined;
  /** Writes both superblocks, durably. */
  write: (superblock: Superblock) => Promise<void>;
  /** Nobody knows what the device and the store say. */
  inDoubt: () => void;
}

export class Growth {
  readonly #parts: GrowthParts;
  /** Held while the superblocks change. */
  readonly #writes = new Mutex();
  /** One grow at a time. */
  readonly #grows = new Mutex();
  #superblock: Superblock;

  constructor(parts: GrowthParts) {
    this.#parts = parts;
    this.#superblock = parts.superblock;
  }

  /** As it is on the device, durably. */
  get superblock(): Superblock {
    return this.#superblock;
  }

  /** The superblocks have this number of reclaims. */
  raise(reclaims: number): Promise<void> {
    return this.#writes.run(async () => {
      const raised = { ...this.#superblock, reclaims };
      await this.#parts.write(raised);
      this.#superblock = raised;
    });
  }

  /** `change` runs the last part alone among all changes of the pool; `grown` ends it. */
  run(
    request: GrowRequest,
    change: (work: () => Promise<void>) => Promise<void>,
    grown: (dataBlocks: number) => void,
  ): Promise<void> {
    const { place } = this.#parts;
    if (place === undefined) {
      throw new PandoError("EINVAL", "this pool does not grow while it is served");
    }
    return this.#grows.run(async () => {
      const larger = place.plan(this.#superblock, request);
      await place.makeRoom(larger, request);
      await change(async () => {
        await this.#writes.run(() => this.#say(place, larger));
        grown(larger.dataBlocks);
      });
    });
  }

  async #say(place: GrowingPlace, planned: Superblock): Promise<void> {
    const { store, inDoubt } = this.#parts;
    const larger = { ...planned, reclaims: this.#superblock.reclaims };
    const device = place.device();
    try {
      await device.flush();
      await grow(store, device, larger);
      this.#superblock = larger;
    } catch (error) {
      // With the intent in the store the next opening goes one way or the other; this one cannot.
      if (!isPandoError(error, "ENOSPC") || findGrowRecord(store) !== undefined) inDoubt();
      throw error;
    } finally {
      device.close();
    }
  }
}

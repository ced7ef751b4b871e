// What layers take: counts that the store keeps, and what memory has beyond them. Nothing here
// reads an index block.
//
//   own      blocks that the layer owns
//   shared   mapped by it, owned by another layer
//   freed    what comes back if it is deleted. Exact for a layer that nobody else has to do with:
//            its own, and that of hidden parents which go with it. Where others may map some of it,
//            it is at most so much; freed-by-delete.ts counts.
import type { LayerDelta } from "../../native/native.js";
import type { LayerRecord } from "../store/codec-records.js";
import { getLayer, listChildren, mappedBlocks } from "../store/layers.js";
import type { StoreReader } from "../store/store.js";

export interface LayerSpace {
  ownBlocks: number;
  sharedBlocks: number;
  freedBlocks: number;
  /** freedBlocks is an upper bound. */
  freedAtMost: boolean;
}

/** Numbers; when there are more, all are forgotten. */
const MAX_KEPT = 16_384;

/**
 * What frozen layers see mapped, which stays the same for as long as they are frozen: a snapshot of
 * a deep line need not walk all of it. `exact`: no count was on its way from memory to the store,
 * and would have been seen in both, when what is to be kept was read.
 */
export class FrozenTotals {
  readonly #totals: Map<number, number>;
  readonly #exact: boolean;

  constructor(totals: Map<number, number>, exact: boolean) {
    this.#totals = totals;
    this.#exact = exact;
  }

  get all(): ReadonlyMap<number, number> {
    return this.#totals;
  }

  keep(layer: number, mapped: number): void {
    if (!this.#exact) return;
    if (this.#totals.size >= MAX_KEPT) this.#totals.clear();
    this.#totals.set(layer, mapped);
  }
}

/** Good for one listing: in one step, since counts move from memory to the store. */
export class LayerSpaces {
  readonly #reader: StoreReader;
  readonly #owned: ReadonlyMap<number, number>;
  readonly #mapped: ReadonlyMap<number, number>;
  readonly #memo = new Map<number, number>();
  readonly #frozen: FrozenTotals;
  readonly #records = new Map<number, LayerRecord>();

  constructor(reader: StoreReader, pending: readonly LayerDelta[], frozen: FrozenTotals) {
    this.#reader = reader;
    this.#owned = new Map(pending.map(({ layer, owned }) => [layer, owned]));
    this.#mapped = new Map(pending.map(({ layer, mapped }) => [layer, mapped]));
    this.#frozen = frozen;
  }

  of(layer: number): LayerSpace {
    const ownBlocks = this.#own(layer);
    const mapped = mappedBlocks(this.#reader, layer, {
      memo: this.#memo,
      frozen: this.#frozen.all,
      pending: this.#mapped,
      layerOf: (id) => this.#record(id),
    });
    if (this.#record(layer).state === "frozen") this.#frozen.keep(layer, mapped);
    return { ownBlocks, sharedBlocks: mapped - ownBlocks, ...this.#freedBy(layer, mapped) };
  }

  #record(layer: number): LayerRecord {
    const known = this.#records.get(layer);
    if (known !== undefined) return known;
    const record = getLayer(this.#reader, layer);
    this.#records.set(layer, record);
    return record;
  }

  #own(layer: number): number {
    return this.#record(layer).ownedBlocks + (this.#owned.get(layer) ?? 0);
  }

  #freedBy(layer: number, mapped: number): { freedBlocks: number; freedAtMost: boolean } {
    let freedBlocks = this.#own(layer);
    let others = listChildren(this.#reader, layer, 1).length;
    for (let { parent } = this.#record(layer); parent !== null; ) {
      const record = this.#record(parent);
      if (record.state !== "hidden") break;
      freedBlocks += this.#own(parent);
      others += listChildren(this.#reader, parent, 2).length - 1;
      parent = record.parent;
    }
    if (others === 0) return { freedBlocks, freedAtMost: false };
    return { freedBlocks: Math.min(freedBlocks, mapped), freedAtMost: true };
  }
}

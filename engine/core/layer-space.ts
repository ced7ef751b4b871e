// What layers take: counts that the store keeps, and what memory has beyond them. Nothing here
// reads an index block.
//
//   own      blocks that the layer owns
//   shared   mapped by it, owned by another layer
//   freed    what comes back if it is deleted. Exact for a layer without children: its own, and
//            that of hidden parents which go with it. A layer with one child gives back what the
//            child does not map, which is not counted: then it is at most so much. With more
//            children it is nothing for now.
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

/** Good for one listing: in one step, since counts move from memory to the store. */
export class LayerSpaces {
  readonly #reader: StoreReader;
  readonly #owned: ReadonlyMap<number, number>;
  readonly #mapped: ReadonlyMap<number, number>;
  readonly #memo = new Map<number, number>();
  readonly #records = new Map<number, LayerRecord>();

  constructor(reader: StoreReader, pending: readonly LayerDelta[]) {
    this.#reader = reader;
    this.#owned = new Map(pending.map(({ layer, owned }) => [layer, owned]));
    this.#mapped = new Map(pending.map(({ layer, mapped }) => [layer, mapped]));
  }

  of(layer: number): LayerSpace {
    const ownBlocks = this.#own(layer);
    const mapped = mappedBlocks(this.#reader, layer, this.#memo, this.#mapped, (id) =>
      this.#record(id),
    );
    return { ownBlocks, sharedBlocks: mapped - ownBlocks, ...this.#freedBy(layer) };
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

  #freedBy(layer: number): { freedBlocks: number; freedAtMost: boolean } {
    const children = listChildren(this.#reader, layer, 2).length;
    if (children === 1) return { freedBlocks: this.#own(layer), freedAtMost: true };
    if (children > 1) return { freedBlocks: 0, freedAtMost: false };
    let freedBlocks = this.#own(layer);
    for (let { parent } = this.#record(layer); parent !== null; ) {
      const record = this.#record(parent);
      if (record.state !== "hidden") break;
      const siblings = listChildren(this.#reader, parent, 3).length - 1;
      if (siblings > 1) break;
      freedBlocks += this.#own(parent);
      // It is folded into the one that is left.
      if (siblings === 1) return { freedBlocks, freedAtMost: true };
      parent = record.parent;
    }
    return { freedBlocks, freedAtMost: false };
  }
}

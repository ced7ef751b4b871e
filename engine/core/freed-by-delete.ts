// What deleting a volume or a snapshot would free, to the block: what it maps and no other volume
// or snapshot does. A list gives bounds from counts alone (layer-space.ts); this reads index
// blocks.
//
// Whose blocks can it be? Its own, and those of hidden layers above it, up to the first that a
// snapshot keeps: that one maps whatever is further up. Who else may map them? Volumes and
// snapshots below any of these layers, each as its nearest index block says; nobody further down
// maps more than they do. Of its own blocks without anybody below it, all come free, uncounted.
//
// The store is read in batches that others have their turn between. A fold between two of them
// would move what is counted: while one of these layers has a fold ahead of it, there is no answer;
// and if the tree has changed meanwhile, it is all counted again.
import { SLOTS_PER_SPAN } from "../base/constants.js";
import { decodeIndexBlock, getBlock, isOwned } from "../store/codec-index-block.js";
import { decodeSpanKey, rangeOf, spanKey } from "../store/codec-keys.js";
import { findLayer, getLayer, listChildren } from "../store/layers.js";
import type { StoreReader } from "../store/store.js";

export interface FreedParts {
  store: StoreReader;
  /** Resolves when every index block that is dirty now is in the store. */
  checkpoint(): Promise<void>;
}

/** Those who may map what it maps: with more of them it is not counted. */
const MAX_KIN = 64;
/** Index blocks that are looked at without letting others have their turn, all kin's together. */
const LOOKS_PER_BATCH = 512;
const TRIES = 3;

/** Yields after each batch. Null: it cannot be said now. `find`: whose, as long as it is there. */
export async function* countFreed(
  { store, checkpoint }: FreedParts,
  find: () => number,
): AsyncGenerator<undefined, number | null> {
  find();
  await checkpoint();
  for (let tries = 0; tries < TRIES; tries++) {
    const kin = kinOf(store, find());
    if (kin === null) return null;
    const count = new Count(store, kin);
    let same = true;
    while (same && !count.step()) {
      yield;
      const now = kinOf(store, find());
      same = now !== null && isSame(now, kin);
    }
    if (same) return count.blocks;
  }
  return null;
}

/** A layer, and those below it as far as nobody sees less than they do. */
interface Member {
  id: number;
  /** Its storage key. */
  key: number;
  /** "none": hidden, or dead; "self": the one that would be deleted. */
  owner: "self" | "other" | "none";
  indexBlocks: number;
  ownedBlocks: number;
  children: Member[];
}

/** The one that would be deleted, and the hidden layers above it from the nearest one on. */
interface Kin {
  line: Member[];
  members: number;
}

function kinOf(store: StoreReader, self: number): Kin | null {
  const line = [self];
  for (let { parent } = getLayer(store, self); parent !== null; ) {
    const record = findLayer(store, parent);
    if (record?.state !== "hidden") break;
    line.push(parent);
    parent = record.parent;
  }
  let members = 0;
  const collect = (id: number): Member | null => {
    if (++members > MAX_KIN) return null;
    const { key, state, indexBlocks, ownedBlocks } = getLayer(store, id);
    const named = state === "live" || state === "frozen";
    const owner = id === self ? "self" : named ? "other" : "none";
    const member: Member = { id, key, owner, indexBlocks, ownedBlocks, children: [] };
    if (owner === "other") return member;
    const children = listChildren(store, id, MAX_KIN + 1);
    if (state === "hidden" && children.length === 1) return null;
    for (const child of children) {
      const below = collect(child);
      if (below === null) return null;
      member.children.push(below);
    }
    return member;
  };
  const top = collect(line.at(-1) as number);
  if (top === null) return null;
  const found: Member[] = [];
  for (let at: Member | undefined = top; at !== undefined; ) {
    found.unshift(at);
    at = at.children.find(({ id }) => line.includes(id));
  }
  return { line: found, members };
}

function isSame(a: Kin, b: Kin): boolean {
  return JSON.stringify(shapeOf(a.line.at(-1))) === JSON.stringify(shapeOf(b.line.at(-1)));
}

function shapeOf(member: Member | undefined): unknown {
  return member && [member.id, member.key, member.owner, member.children.map(shapeOf)];
}

class Count {
  blocks = 0;
  readonly #store: StoreReader;
  readonly #left: Member[];
  readonly #limit: number;
  #from = 0;

  constructor(store: StoreReader, { line, members }: Kin) {
    this.#store = store;
    this.#left = [...line];
    this.#limit = Math.max(1, Math.floor(LOOKS_PER_BATCH / members));
  }

  /** One batch more; true: that was the last. */
  step(): boolean {
    const [at] = this.#left;
    if (at === undefined) return true;
    if (at.owner === "self" && at.children.length === 0) {
      this.blocks += at.ownedBlocks;
      return this.#next();
    }
    const { key } = fewestSpans(at);
    const range = { ...rangeOf(key), start: spanKey(key, this.#from), limit: this.#limit };
    const spans = this.#store.range("index", range).map((found) => decodeSpanKey(found.key).span);
    for (const span of spans) this.blocks += this.#only(at, span);
    const last = spans.at(-1);
    if (last === undefined || spans.length < this.#limit) return this.#next();
    this.#from = last + 1;
    return false;
  }

  #next(): boolean {
    this.#left.shift();
    this.#from = 0;
    return this.#left.length === 0;
  }

  /** Blocks that `owner` owns of the span and that only the one that would be deleted maps. */
  #only(owner: Member, span: number): number {
    const raw = this.#indexBlock(owner, span);
    if (raw === null) return 0;
    let self = owner.owner === "self" ? raw : null;
    const others: Uint8Array[] = [];
    const collect = ({ children }: Member, inherited: Uint8Array): void => {
      for (const child of children) {
        const seen = this.#indexBlock(child, span) ?? inherited;
        if (child.owner === "self") self = seen;
        if (child.owner === "other") others.push(seen);
        else collect(child, seen);
      }
    };
    collect(owner, raw);
    if (self === null || others.includes(raw)) return 0;
    let only = 0;
    for (let slot = 0; slot < SLOTS_PER_SPAN; slot++) {
      const block = getBlock(raw, slot);
      if (!isOwned(raw, slot) || getBlock(self, slot) !== block) continue;
      if (!others.some((other) => getBlock(other, slot) === block)) only++;
    }
    return only;
  }

  #indexBlock({ key }: Member, span: number): Uint8Array | null {
    const at = spanKey(key, span);
    const value = this.#store.get("index", at);
    return value === undefined ? null : decodeIndexBlock(at, value).raw;
  }
}

/** Only spans that each who sees all of it otherwise has an index block for count. */
function fewestSpans(owner: Member): Member {
  return owner.children
    .filter((child) => child.owner === "other")
    .reduce((least, child) => (child.indexBlocks < least.indexBlocks ? child : least), owner);
}

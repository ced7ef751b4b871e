// Free space. Owns which blocks are free, lent to the data path, in use, or released.
//
// A block moves   free -> lent -> used -> released -> free   (or back from lent to free, unused)
// and never skips a step. `released` exists because the transaction that records the release must
// be durable, and every read and write that started before it finished, before anyone else may
// write there.
//
// In the store a block is allocated or not; what is lent is not in it. Chunks are read when they
// are first needed, and from then on memory is ahead of the store: so load() comes before a
// transaction that clears bits, or a chunk read after it would take the blocks for free too early.
//
// Invariants: free + lent + used + released = dataBlocks; block 0 is never handed out, so 0 can
// mean "hole".
// Not here: what a block contains (index block), when a layer gives it up (journal, reclaim), the
// store's own bits (free-map-patch.ts).
import { assert } from "../base/assert.js";
import { BLOCKS_PER_CHUNK } from "../base/constants.js";
import { appendRun, type BlockRun } from "./block-run.js";
import { CHUNK_BYTES, clearBit, decodeChunk, setBit } from "./codec-bitmaps.js";
import { chunkKey } from "./codec-keys.js";
import type { StoreReader } from "./store.js";

export interface FreeMapOptions {
  dataBlocks: number;
  /** As the store has it when the map is made. */
  allocatedBlocks: number;
}

export interface FreeCounts {
  free: number;
  lent: number;
  used: number;
  released: number;
}

type State = keyof FreeCounts;

/** A block's state is the bit of it in each plane. */
interface Chunk {
  low: Uint8Array;
  high: Uint8Array;
}

const PLANES: Record<State, { low: boolean; high: boolean }> = {
  free: { low: false, high: false },
  lent: { low: true, high: false },
  used: { low: false, high: true },
  released: { low: true, high: true },
};

/** Chunks that one lend() reads from the store while it looks for long runs. */
const READS_PER_LEND = 256;
const SHORTEN_BY = 4;

export class FreeMap {
  readonly #reader: StoreReader;
  #dataBlocks: number;
  readonly #chunks: (Chunk | undefined)[];
  /** No free run in the chunk is longer than this. */
  #longest: Uint16Array;
  readonly #counts: FreeCounts;
  /** The chunk where the last search ended, and the next one begins. */
  #cursor = 0;

  constructor(reader: StoreReader, options: FreeMapOptions) {
    const { dataBlocks, allocatedBlocks } = options;
    assert(allocatedBlocks <= dataBlocks, "no more is allocated than there is");
    this.#reader = reader;
    this.#dataBlocks = dataBlocks;
    const chunks = Math.floor(dataBlocks / BLOCKS_PER_CHUNK) + 1;
    this.#chunks = new Array<Chunk | undefined>(chunks).fill(undefined);
    this.#longest = new Uint16Array(chunks).fill(BLOCKS_PER_CHUNK);
    this.#counts = {
      free: dataBlocks - allocatedBlocks,
      lent: 0,
      used: allocatedBlocks,
      released: 0,
    };
  }

  counts(): FreeCounts {
    return { ...this.#counts };
  }

  /**
   * free -> lent: up to `blocksWanted` blocks in up to `maxRuns` runs, long ones first; fewer if
   * there are fewer, none if the pool is full.
   */
  lend(blocksWanted: number, maxRuns: number): BlockRun[] {
    assert(blocksWanted > 0 && maxRuns > 0, "something is wanted");
    const runs: BlockRun[] = [];
    let left = Math.min(blocksWanted, this.#counts.free);
    let reads = READS_PER_LEND;
    let minimum = Math.min(left, BLOCKS_PER_CHUNK);
    while (left > 0) {
      const start = this.#cursor;
      for (let i = 0; i < this.#chunks.length && left > 0; i++) {
        const at = (start + i) % this.#chunks.length;
        if ((this.#longest[at] as number) < minimum) continue;
        // The last round reads whatever it must; those before settle for what is known.
        if (this.#chunks[at] === undefined && minimum > 1 && reads-- <= 0) continue;
        left -= this.#takeFrom(at, minimum, left, runs, maxRuns);
        if (runs.length > maxRuns) return this.#giveBackLast(runs);
        this.#cursor = at;
      }
      if (minimum === 1) break;
      minimum = Math.max(1, Math.floor(minimum / SHORTEN_BY));
    }
    return runs;
  }

  /**
   * free -> lent: the free runs from block `from` on, as many as fit, in chunks that it reads until
   * one is found. `next` is where the search goes on; behind the last block it is over.
   */
  takeFree(
    from: number,
    { maxRuns, maxBlocks }: { maxRuns: number; maxBlocks: number },
  ): { runs: BlockRun[]; next: number } {
    const runs: BlockRun[] = [];
    let left = maxBlocks;
    let next = from;
    for (let reads = 0; next <= this.#dataBlocks && reads < READS_PER_LEND; reads++) {
      const at = Math.floor(next / BLOCKS_PER_CHUNK);
      const base = at * BLOCKS_PER_CHUNK;
      const chunk = this.#chunk(at);
      while (next < base + BLOCKS_PER_CHUNK) {
        const first = nextFree(chunk, next - base);
        const count = Math.min(nextTaken(chunk, first) - first, left);
        next = base + first;
        if (count === 0) break;
        if (runs.length === maxRuns) return { runs, next };
        this.#move([{ first: next, count }], "free", "lent");
        appendRun(runs, next, count);
        next += count;
        left -= count;
        if (left === 0) return { runs, next };
      }
    }
    return { runs, next };
  }

  /** lent -> free: what was lent and never written. */
  giveBack(runs: readonly BlockRun[]): void {
    this.#move(runs, "lent", "free");
  }

  /** lent -> used: an index block maps it. */
  use(runs: readonly BlockRun[]): void {
    this.#move(runs, "lent", "used");
  }

  /**
   * Reads what the store has of these blocks, if it was not read yet. Comes before the transaction
   * that changes it: memory is then ahead of the store until the caller says how it ended.
   */
  load(runs: readonly BlockRun[]): void {
    for (const { first, count } of runs) {
      const last = Math.floor((first + count - 1) / BLOCKS_PER_CHUNK);
      for (let at = Math.floor(first / BLOCKS_PER_CHUNK); at <= last; at++) this.#chunk(at);
    }
  }

  /** The same, for one chunk. */
  loadChunk(at: number): void {
    this.#chunk(at);
  }

  /** The pool has more blocks, durably; all of the new ones are free. */
  grow(dataBlocks: number): void {
    assert(dataBlocks >= this.#dataBlocks, "a pool does not shrink");
    const before = this.#dataBlocks;
    this.#dataBlocks = dataBlocks;
    this.#counts.free += dataBlocks - before;
    const last = Math.floor(before / BLOCKS_PER_CHUNK);
    // What was no block counted as used there.
    const { high } = this.#chunks[last] ?? {};
    const end = Math.min(dataBlocks + 1, (last + 1) * BLOCKS_PER_CHUNK);
    for (let block = before + 1; high !== undefined && block < end; block++) {
      clearBit(high, block % BLOCKS_PER_CHUNK);
    }
    const chunks = Math.floor(dataBlocks / BLOCKS_PER_CHUNK) + 1;
    const longest = new Uint16Array(chunks).fill(BLOCKS_PER_CHUNK);
    longest.set(this.#longest.subarray(0, last));
    this.#longest = longest;
    while (this.#chunks.length < chunks) this.#chunks.push(undefined);
  }

  /** used -> released: its owner gave it up, in a transaction that is durable. After load(). */
  retire(runs: readonly BlockRun[]): void {
    this.#move(runs, "used", "released");
  }

  /** released -> free: that transaction is durable, and nobody reads or writes it any more. */
  release(runs: readonly BlockRun[]): void {
    this.#move(runs, "released", "free");
  }

  /** Asserts it, before something is done to them that cannot be undone. */
  requireReleased(runs: readonly BlockRun[]): void {
    for (const { first, count } of runs) {
      for (let block = first; block < first + count; block++) {
        const chunk = this.#chunk(Math.floor(block / BLOCKS_PER_CHUNK));
        const mask = 1 << (block & 7);
        const byte = (block % BLOCKS_PER_CHUNK) >> 3;
        const both = (chunk.low[byte] as number) & (chunk.high[byte] as number);
        assert((both & mask) !== 0, `block ${block} is not released`);
      }
    }
  }

  /** Takes free runs of at least `minimum` blocks; gives the number of blocks taken. */
  #takeFrom(
    at: number,
    minimum: number,
    wanted: number,
    runs: BlockRun[],
    maxRuns: number,
  ): number {
    const chunk = this.#chunk(at);
    const base = at * BLOCKS_PER_CHUNK;
    let taken = 0;
    let longestLeft = 0;
    let bit = 0;
    while (bit < BLOCKS_PER_CHUNK) {
      const first = nextFree(chunk, bit);
      const end = nextTaken(chunk, first);
      const length = end - first;
      bit = end;
      if (length === 0) break;
      const take = length < minimum ? 0 : Math.min(length, wanted - taken);
      if (take > 0) {
        const run = { first: base + first, count: take };
        this.#move([run], "free", "lent");
        appendRun(runs, run.first, run.count);
        taken += take;
      }
      longestLeft = Math.max(longestLeft, length - take);
      if (taken === wanted || runs.length > maxRuns) return taken;
    }
    this.#longest[at] = longestLeft;
    return taken;
  }

  /** A run too many was begun: it goes back. */
  #giveBackLast(runs: BlockRun[]): BlockRun[] {
    this.giveBack([runs.pop() as BlockRun]);
    return runs;
  }

  #move(runs: readonly BlockRun[], from: State, to: State): void {
    for (const { first, count } of runs) {
      const inside = first >= 1 && count >= 1 && first + count - 1 <= this.#dataBlocks;
      assert(inside, `blocks ${first} + ${count} are outside the pool`);
      for (let block = first; block < first + count; block++) this.#moveBlock(block, from, to);
      this.#counts[from] -= count;
      this.#counts[to] += count;
      if (to === "free") this.#lengthen(first, count);
    }
    assert(this.#counts[from] >= 0, `less than no block is ${from}`);
  }

  #moveBlock(block: number, from: State, to: State): void {
    const chunk = this.#chunk(Math.floor(block / BLOCKS_PER_CHUNK));
    const bit = block % BLOCKS_PER_CHUNK;
    const byte = bit >> 3;
    const mask = 1 << (bit & 7);
    const low = chunk.low[byte] as number;
    const high = chunk.high[byte] as number;
    const before = PLANES[from];
    const fits = ((low & mask) !== 0) === before.low && ((high & mask) !== 0) === before.high;
    assert(fits, `block ${block} is not ${from}, it cannot become ${to}`);
    const after = PLANES[to];
    chunk.low[byte] = after.low ? low | mask : low & ~mask;
    chunk.high[byte] = after.high ? high | mask : high & ~mask;
  }

  /**
   * Blocks have become free: the chunk's longest run may have grown, at most to all that is free
   * around them.
   */
  #lengthen(first: number, count: number): void {
    const last = Math.floor((first + count - 1) / BLOCKS_PER_CHUNK);
    for (let at = Math.floor(first / BLOCKS_PER_CHUNK); at <= last; at++) {
      this.#longest[at] = BLOCKS_PER_CHUNK;
    }
  }

  #chunk(at: number): Chunk {
    const known = this.#chunks[at];
    if (known !== undefined) return known;
    const key = chunkKey(at);
    const value = this.#reader.get("free", key);
    const high = value === undefined ? new Uint8Array(CHUNK_BYTES) : decodeChunk(key, value);
    // What is no block of the pool counts as used: it is never lent.
    if (at === 0) setBit(high, 0);
    for (let bit = this.#dataBlocks + 1 - at * BLOCKS_PER_CHUNK; bit < BLOCKS_PER_CHUNK; bit++) {
      setBit(high, bit);
    }
    const chunk = { low: new Uint8Array(CHUNK_BYTES), high };
    this.#chunks[at] = chunk;
    return chunk;
  }
}

/** The first free bit from `bit` on, or the end of the chunk. */
function nextFree(chunk: Chunk, bit: number): number {
  let at = bit;
  while (at < BLOCKS_PER_CHUNK) {
    const taken = takenByte(chunk, at);
    if (taken === 0xff && (at & 7) === 0) at += 8;
    else if (((taken >> (at & 7)) & 1) === 1) at++;
    else return at;
  }
  return BLOCKS_PER_CHUNK;
}

function nextTaken(chunk: Chunk, bit: number): number {
  let at = bit;
  while (at < BLOCKS_PER_CHUNK) {
    const taken = takenByte(chunk, at);
    if (taken === 0 && (at & 7) === 0) at += 8;
    else if (((taken >> (at & 7)) & 1) === 0) at++;
    else return at;
  }
  return BLOCKS_PER_CHUNK;
}

function takenByte(chunk: Chunk, bit: number): number {
  return (chunk.low[bit >> 3] as number) | (chunk.high[bit >> 3] as number);
}

// Changes of the free map in the store: bits per chunk, and with them the count of allocated
// blocks, in one transaction.
// Operations come in the order in which they happened: a block may be freed and allocated again in
// one patch.
import { assert } from "../base/assert.js";
import { BLOCKS_PER_CHUNK } from "../base/constants.js";
import { PandoError } from "../base/errors.js";
import type { BlockRun } from "./block-run.js";
import type { BlockSet } from "./block-set.js";
import { getSpaceRecord, putSpaceRecord } from "./catalogue.js";
import {
  CHUNK_BYTES,
  clearBit,
  decodeChunk,
  encodeBitmap,
  getBit,
  isEmpty,
  setBit,
} from "./codec-bitmaps.js";
import { chunkKey } from "./codec-keys.js";
import type { StoreReader, StoreTransaction } from "./store.js";

export interface FreeMapChange extends BlockRun {
  op: "allocate" | "free";
}

/**
 * Applies the changes, in their order. ECORRUPT if a block is allocated twice or freed twice:
 * nothing may be written then.
 */
export function applyToFreeMap(txn: StoreTransaction, changes: readonly FreeMapChange[]): void {
  const patch = new FreeMapPatch(txn);
  for (const change of changes) patch.apply(change);
  patch.write(txn);
}

/** Frees all of the set, each chunk in one go. ECORRUPT as above. */
export function freeAll(txn: StoreTransaction, blocks: BlockSet): void {
  const patch = new FreeMapPatch(txn);
  patch.freeAll(blocks);
  patch.write(txn);
}

/**
 * A patch that is collected before its transaction (recovery reads the whole journal first). Nobody
 * else may change the free map between the first apply() and write().
 */
export class FreeMapPatch {
  readonly #reader: StoreReader;
  readonly #chunks = new Map<number, Uint8Array>();
  #allocated = 0;

  constructor(reader: StoreReader) {
    this.#reader = reader;
  }

  apply(change: FreeMapChange): void {
    const { op, first, count } = change;
    assert(first >= 1 && count >= 1, `blocks ${first} + ${count} are outside the pool`);
    const allocate = op === "allocate";
    for (let block = first; block < first + count; block++) {
      const bits = this.#chunk(Math.floor(block / BLOCKS_PER_CHUNK));
      const bit = block % BLOCKS_PER_CHUNK;
      if (getBit(bits, bit) === allocate) throw twice(block, op);
      if (allocate) setBit(bits, bit);
      else clearBit(bits, bit);
    }
    this.#allocated += allocate ? count : -count;
  }

  freeAll(blocks: BlockSet): void {
    for (const [chunk, freed] of blocks.chunks) {
      assert(chunk > 0 || !getBit(freed, 0), "block 0 is outside the pool");
      const bits = this.#chunk(chunk);
      for (let byte = 0; byte < CHUNK_BYTES; byte++) {
        const mask = freed[byte] as number;
        const missing = mask & ~(bits[byte] as number);
        if (missing !== 0) {
          throw twice(chunk * BLOCKS_PER_CHUNK + byte * 8 + Math.log2(missing & -missing), "free");
        }
        bits[byte] = (bits[byte] as number) & ~mask;
      }
    }
    this.#allocated -= blocks.count;
  }

  write(txn: StoreTransaction): void {
    for (const [chunk, bits] of this.#chunks) {
      const key = chunkKey(chunk);
      if (isEmpty(bits)) txn.remove("free", key);
      else txn.put("free", key, encodeBitmap(key, bits));
    }
    if (this.#allocated === 0) return;
    const allocatedBlocks = getSpaceRecord(txn).allocatedBlocks + this.#allocated;
    assert(allocatedBlocks >= 0, "less than nothing is allocated");
    putSpaceRecord(txn, { allocatedBlocks });
  }

  #chunk(chunk: number): Uint8Array {
    let bits = this.#chunks.get(chunk);
    if (bits === undefined) {
      const key = chunkKey(chunk);
      const value = this.#reader.get("free", key);
      bits = value === undefined ? new Uint8Array(CHUNK_BYTES) : decodeChunk(key, value);
      this.#chunks.set(chunk, bits);
    }
    return bits;
  }
}

function twice(block: number, op: FreeMapChange["op"]): PandoError {
  const what = op === "allocate" ? "allocated" : "freed";
  return new PandoError("ECORRUPT", `free map: block ${block} is ${what} twice`, { field: "free" });
}

// A set of blocks, as bits by chunk of the free map: what an index block owns may lie everywhere,
// and each chunk is to be read and written once for all of it.
import { BLOCKS_PER_CHUNK } from "../base/constants.js";
import { appendRun, type BlockRun } from "./block-run.js";
import { CHUNK_BYTES, getBit, setBit } from "./codec-bitmaps.js";

export class BlockSet {
  readonly #chunks = new Map<number, Uint8Array>();
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** By number, in the order in which they were first needed. */
  get chunks(): ReadonlyMap<number, Uint8Array> {
    return this.#chunks;
  }

  /** False: it is in the set already. */
  add(block: number): boolean {
    const chunk = Math.floor(block / BLOCKS_PER_CHUNK);
    const bit = block % BLOCKS_PER_CHUNK;
    let bits = this.#chunks.get(chunk);
    if (bits === undefined) {
      bits = new Uint8Array(CHUNK_BYTES);
      this.#chunks.set(chunk, bits);
    }
    if (getBit(bits, bit)) return false;
    setBit(bits, bit);
    this.#count++;
    return true;
  }

  /** All of them, some chunks at a time: lists of about `blocks` blocks, at least a chunk's. */
  *runs(blocks: number): Generator<BlockRun[]> {
    let runs: BlockRun[] = [];
    let listed = 0;
    for (const chunk of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      listed += appendChunk(runs, chunk, this.#chunks.get(chunk) as Uint8Array);
      if (listed < blocks) continue;
      yield runs;
      runs = [];
      listed = 0;
    }
    if (runs.length > 0) yield runs;
  }
}

/** Gives the number of blocks. */
function appendChunk(runs: BlockRun[], chunk: number, bits: Uint8Array): number {
  let count = 0;
  for (let byte = 0; byte < CHUNK_BYTES; byte++) {
    const value = bits[byte] as number;
    for (let bit = 0; value >> bit !== 0; bit++) {
      if (((value >> bit) & 1) === 0) continue;
      appendRun(runs, chunk * BLOCKS_PER_CHUNK + byte * 8 + bit, 1);
      count++;
    }
  }
  return count;
}

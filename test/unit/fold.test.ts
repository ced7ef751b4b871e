// How much of a fold goes into one transaction, by where the blocks lie that it frees.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { BLOCKS_PER_CHUNK } from "../../engine/base/constants.js";
import { fitting, type MergedSpan } from "../../engine/core/fold.js";
import type { BlockRun } from "../../engine/store/block-run.js";

const test = suite("fold");

function merged(...freed: BlockRun[]): MergedSpan {
  return { span: 0, raw: new Uint8Array(0), adopted: new Uint8Array(0), freed };
}

const inChunk = (chunk: number, count = 1): BlockRun => ({
  first: chunk * BLOCKS_PER_CHUNK + 7,
  count,
});

test("as many go together as free blocks in so many chunks, and one always does", () => {
  const near = [merged(inChunk(0)), merged(inChunk(0, 9)), merged(inChunk(1)), merged(inChunk(0))];
  assert.is(fitting(near, 2), 4);
  assert.is(fitting(near, 1), 2);
  assert.is(fitting(near, 0), 1);
  const far = merged(inChunk(1), inChunk(2), inChunk(3));
  assert.is(fitting([far, far, merged(inChunk(4))], 2), 1, "one, whatever it takes");
  assert.is(fitting([far, far, merged(inChunk(4))], 3), 2);
  assert.is(fitting([merged(), merged(), merged()], 0), 3, "nothing is freed");
  assert.is(fitting([], 1), 0);
});

test("a run over the end of a chunk is in both", () => {
  const both = merged({ first: 2 * BLOCKS_PER_CHUNK - 1, count: 2 });
  assert.is(fitting([merged(inChunk(1)), both], 1), 1);
  assert.is(fitting([merged(inChunk(1)), both], 2), 2);
});

test.run();

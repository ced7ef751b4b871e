// What one transaction of a reclaim takes, of a layer whose blocks lie everywhere, against plain
// sets of blocks.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { nextBatch, type ReclaimBatch, retireBlocks } from "../../engine/core/reclaim-batch.js";
import type { BlockRun } from "../../engine/store/block-run.js";
import { BlockSet } from "../../engine/store/block-set.js";
import { getSpaceRecord, putIdsRecord, putSpaceRecord } from "../../engine/store/catalogue.js";
import { emptyIndexBlock, setSlot } from "../../engine/store/codec-index-block.js";
import { FreeMap } from "../../engine/store/free-map.js";
import { applyToFreeMap, freeAll } from "../../engine/store/free-map-patch.js";
import { changeIndex } from "../../engine/store/index-changes.js";
import { createLayer } from "../../engine/store/layers.js";
import { Lineage } from "../../engine/store/lineage.js";
import { seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";

const test = suite("reclaim batch");
const turn = async () => undefined;
const CHUNK = 8192;
const CHUNKS = 40;
const DATA_BLOCKS = CHUNKS * CHUNK - 1;

const blocksOf = (runs: readonly BlockRun[]): number[] =>
  runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));

/** A layer with an index block for each list of blocks. */
async function layerOf(lists: number[][]): Promise<{ store: ModelStore; layer: number }> {
  const store = new ModelStore();
  const layer = await store.transact((txn) => {
    putIdsRecord(txn, { nextLayer: 1 });
    putSpaceRecord(txn, { allocatedBlocks: 0 });
    const { id } = createLayer(txn, null);
    changeIndex(txn, new Lineage(), (index) => {
      lists.forEach((blocks, span) => {
        const raw = emptyIndexBlock();
        blocks.forEach((block, slot) => {
          setSlot(raw, slot, block, true);
        });
        index.put(id, span * 3, raw);
      });
    });
    const all = [...new Set(lists.flat())];
    applyToFreeMap(
      txn,
      all.map((first) => ({ op: "allocate" as const, first, count: 1 })),
    );
    return id;
  });
  return { store, layer };
}

function mapOf(store: ModelStore): FreeMap {
  return new FreeMap(store, { dataBlocks: DATA_BLOCKS, ...getSpaceRecord(store) });
}

function listsOf(seed: number, spans: number, each: number): number[][] {
  const random = seeded(seed);
  const taken = new Set<number>();
  return Array.from({ length: spans }, () => {
    const blocks: number[] = [];
    while (blocks.length < each) {
      const block = 1 + random.below(DATA_BLOCKS);
      if (!taken.has(block)) blocks.push(block);
      taken.add(block);
    }
    return blocks;
  });
}

async function take(
  store: ModelStore,
  map: FreeMap,
  layer: number,
  batch: ReclaimBatch,
): Promise<void> {
  await store.transact((txn) => {
    changeIndex(txn, new Lineage(), (index) => {
      for (const span of batch.spans) assert.ok(index.remove(layer, span));
    });
    freeAll(txn, batch.owned);
  });
  const retire = (runs: BlockRun[]) => {
    map.retire(runs);
    map.release(runs);
  };
  await retireBlocks(batch.owned, { turn, retire });
}

test("batches take every index block and every block once, and free them all", async () => {
  for (const [spans, chunks] of [
    [1, CHUNKS],
    [7, 3],
    [1000, 12],
    [1000, CHUNKS],
  ] as [number, number][]) {
    const lists = listsOf(spans + chunks, 100, 5);
    const { store, layer } = await layerOf(lists);
    const map = mapOf(store);
    const parts = { store, map, turn, stopped: () => false };
    const seen: number[] = [];
    for (;;) {
      const batch = await nextBatch(parts, layer, { spans, chunks });
      if (batch === null) break;
      assert.ok(batch.spans.length <= spans);
      assert.ok(batch.owned.chunks.size <= chunks || batch.spans.length === 1);
      const blocks = batch.spans.flatMap((span) => lists[span / 3] as number[]);
      const listed = [...batch.owned.runs(1)].flatMap(blocksOf);
      assert.equal(
        listed,
        [...blocks].sort((a, b) => a - b),
      );
      assert.is(batch.owned.count, blocks.length);
      seen.push(...batch.spans);
      await take(store, map, layer, batch);
    }
    assert.equal(
      seen,
      lists.map((_, span) => span * 3),
    );
    assert.equal([...store.range("free", {})], []);
    assert.is(getSpaceRecord(store).allocatedBlocks, 0);
    assert.equal(map.counts(), { free: DATA_BLOCKS, lent: 0, used: 0, released: 0 });
  }
});

test("as much as fits goes together", async () => {
  const lists = listsOf(3, 200, 40);
  const { store, layer } = await layerOf(lists);
  const parts = { store, map: mapOf(store), turn, stopped: () => false };
  assert.is((await nextBatch(parts, layer, { spans: 500, chunks: CHUNKS }))?.spans.length, 200);
  assert.is((await nextBatch(parts, layer, { spans: 150, chunks: CHUNKS }))?.spans.length, 150);
  assert.is((await nextBatch(parts, layer, { spans: 500, chunks: 1 }))?.spans.length, 1);
});

test("what the map has not read before the transaction is read by then", async () => {
  const { store, layer } = await layerOf([[5, 9000, 9001]]);
  const map = mapOf(store);
  const batch = await nextBatch({ store, map, turn, stopped: () => false }, layer, {
    spans: 9,
    chunks: 9,
  });
  assert.ok(batch !== null);
  await store.transact((txn) => freeAll(txn, batch.owned));
  // Durably free, and not yet the map's to lend.
  assert.not(blocksOf(map.lend(DATA_BLOCKS, 9)).includes(9000));
});

test("others have their turns, and it ends when it is told to", async () => {
  const lists = listsOf(4, 300, 2);
  const { store, layer } = await layerOf(lists);
  let asked = 0;
  const stopped = () => ++asked > 1;
  const limits = { spans: 1000, chunks: CHUNKS };
  assert.is(await nextBatch({ store, map: mapOf(store), turn, stopped }, layer, limits), null);
  assert.is(asked, 2);
  let turns = 0;
  const counting = async () => void turns++;
  const parts = { store, map: mapOf(store), turn: counting, stopped: () => false };
  const batch = await nextBatch(parts, layer, limits);
  assert.is(batch?.spans.length, 300);
  assert.ok(turns >= 9 && turns < 30, `${turns} turns`);
});

test("a block that is owned twice, or free already, is refused, and nothing is written", async () => {
  const { store, layer } = await layerOf([[7, 8], [8]]);
  const parts = { store, map: mapOf(store), turn, stopped: () => false };
  const limits = { spans: 9, chunks: 9 };
  try {
    await nextBatch(parts, layer, limits);
    assert.unreachable();
  } catch (error) {
    assert.ok(isPandoError(error, "ECORRUPT"));
    assert.match(error.message, /layer 1, span 3: it owns block 8 twice/);
  }
  const before = store.range("free", {});
  const free = new BlockSet();
  for (const block of [7, 8, 20_003]) free.add(block);
  try {
    await store.transact((txn) => freeAll(txn, free));
    assert.unreachable();
  } catch (error) {
    assert.ok(isPandoError(error, "ECORRUPT"));
    assert.match(error.message, /block 20003 is freed twice/);
  }
  assert.equal(store.range("free", {}), before);
});

test.run();

// The allocator and the store's free map, against plain sets of blocks.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { type BlockRun, countBlocks } from "../../engine/store/block-run.js";
import { getSpaceRecord, putSpaceRecord } from "../../engine/store/catalogue.js";
import { decodeChunk, getBit } from "../../engine/store/codec-bitmaps.js";
import { decodeChunkKey } from "../../engine/store/codec-keys.js";
import { FreeMap } from "../../engine/store/free-map.js";
import { applyToFreeMap, type FreeMapChange } from "../../engine/store/free-map-patch.js";
import { type Random, seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";

const test = suite("free map");

async function emptyStore(): Promise<ModelStore> {
  const store = new ModelStore();
  await store.transact((txn) => putSpaceRecord(txn, { allocatedBlocks: 0 }));
  return store;
}

function storedBlocks(store: ModelStore): Set<number> {
  const blocks = new Set<number>();
  for (const { key, value } of store.range("free", {})) {
    const bits = decodeChunk(key, value);
    for (let bit = 0; bit < 8192; bit++) {
      if (getBit(bits, bit)) blocks.add(decodeChunkKey(key) * 8192 + bit);
    }
  }
  return blocks;
}

const blocksOf = (runs: readonly BlockRun[]): number[] =>
  runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));

const change = (op: FreeMapChange["op"], runs: readonly BlockRun[]): FreeMapChange[] =>
  runs.map((run) => ({ op, ...run }));

test("an empty pool lends one long run, from block 1, never block 0", async () => {
  const map = new FreeMap(await emptyStore(), { dataBlocks: 20000, allocatedBlocks: 0 });
  assert.equal(map.lend(1000, 8), [{ first: 1, count: 1000 }]);
  assert.equal(map.lend(1000, 8), [{ first: 1001, count: 1000 }]);
});

test("everything is lent once, down to the last block, then nothing", async () => {
  for (const dataBlocks of [1, 7, 8191, 8192, 8193, 20000]) {
    const map = new FreeMap(await emptyStore(), { dataBlocks, allocatedBlocks: 0 });
    const seen = new Set<number>();
    for (;;) {
      const runs = map.lend(3000, 2);
      if (runs.length === 0) break;
      assert.ok(runs.length <= 2);
      for (const block of blocksOf(runs)) {
        assert.ok(block >= 1 && block <= dataBlocks && !seen.has(block), `block ${block}`);
        seen.add(block);
      }
    }
    assert.is(seen.size, dataBlocks);
    assert.equal(map.counts(), { free: 0, lent: dataBlocks, used: 0, released: 0 });
  }
});

test("long runs are preferred to fragments, and fragments are lent when there is nothing else", async () => {
  const store = await emptyStore();
  await store.transact((txn) => {
    const changes: FreeMapChange[] = [];
    for (let block = 1; block <= 8000; block += 2) {
      changes.push({ op: "allocate", first: block, count: 1 });
    }
    applyToFreeMap(txn, changes);
  });
  const map = new FreeMap(store, { dataBlocks: 16000, allocatedBlocks: 4000 });
  assert.equal(map.lend(4096, 4), [{ first: 8192, count: 4096 }]);
  while (map.lend(4096, 4).some(({ count }) => count > 1));
  const fragments = map.lend(100, 16);
  assert.is(fragments.length, 16);
  assert.ok(fragments.every(({ first, count }) => count === 1 && first % 2 === 0));
});

test("a block never skips a step", async () => {
  const map = new FreeMap(await emptyStore(), { dataBlocks: 100, allocatedBlocks: 0 });
  const runs = map.lend(10, 1);
  assert.throws(() => map.retire(runs), /is not used/);
  assert.throws(() => map.release(runs), /is not released/);
  map.use(runs);
  assert.throws(() => map.use(runs), /is not lent/);
  assert.throws(() => map.giveBack(runs), /is not lent/);
  map.retire(runs);
  assert.throws(() => map.retire(runs), /is not used/);
  map.release(runs);
  assert.throws(() => map.release(runs), /is not released/);
  assert.throws(() => map.use([{ first: 0, count: 1 }]), /outside the pool/);
  assert.throws(() => map.use([{ first: 100, count: 2 }]), /outside the pool/);
  assert.is(map.counts().free, 100);
});

test("a retired block is not lent, whatever the store says meanwhile", async () => {
  const store = await emptyStore();
  const all = [{ first: 1, count: 50 }];
  await store.transact((txn) => applyToFreeMap(txn, change("allocate", all)));
  const map = new FreeMap(store, { dataBlocks: 50, allocatedBlocks: 50 });
  const freed = [{ first: 7, count: 3 }];
  map.retire(freed);
  await store.transact((txn) => applyToFreeMap(txn, change("free", freed)));
  assert.equal(map.lend(10, 10), []);
  map.release(freed);
  assert.equal(map.lend(10, 10), freed);
});

test("freeing or allocating twice is refused, and nothing of the patch is written", async () => {
  const store = await emptyStore();
  await store.transact((txn) =>
    applyToFreeMap(txn, change("allocate", [{ first: 8190, count: 5 }])),
  );
  for (const bad of [
    change("allocate", [{ first: 8194, count: 1 }]),
    change("free", [{ first: 8190, count: 6 }]),
    change("free", [
      { first: 8190, count: 1 },
      { first: 8190, count: 1 },
    ]),
  ]) {
    const error = await store
      .transact((txn) => applyToFreeMap(txn, [{ op: "allocate", first: 1, count: 1 }, ...bad]))
      .catch((caught: unknown) => caught);
    assert.ok(isPandoError(error, "ECORRUPT"));
    assert.equal([...storedBlocks(store)], [8190, 8191, 8192, 8193, 8194]);
    assert.is(getSpaceRecord(store).allocatedBlocks, 5);
  }
});

test("a chunk of which nothing is allocated is absent", async () => {
  const store = await emptyStore();
  const runs = [{ first: 8000, count: 9000 }];
  await store.transact((txn) => applyToFreeMap(txn, change("allocate", runs)));
  assert.is(store.count("free"), 3);
  await store.transact((txn) => applyToFreeMap(txn, change("free", runs)));
  assert.is(store.count("free"), 0);
  assert.is(getSpaceRecord(store).allocatedBlocks, 0);
});

test("random lives of blocks agree with plain sets, over restarts", async () => {
  for (let seed = 1; seed <= 8; seed++) await randomRun(seeded(seed));
});

async function randomRun(random: Random): Promise<void> {
  const dataBlocks = 1000 + random.below(20000);
  const store = await emptyStore();
  let map = new FreeMap(store, { dataBlocks, allocatedBlocks: 0 });
  let lent: BlockRun[] = [];
  const used: BlockRun[] = [];
  const taken = new Set<number>();
  for (let step = 0; step < 150; step++) {
    const dice = random.below(10);
    if (dice < 4) {
      const runs = map.lend(1 + random.below(3000), 1 + random.below(20));
      for (const block of blocksOf(runs)) {
        assert.not(taken.has(block), `block ${block} is lent twice`);
        taken.add(block);
      }
      lent.push(...runs.map((run) => ({ ...run })));
    } else if (dice < 5 && lent.length > 0) {
      const back = lent.splice(random.below(lent.length), 1);
      map.giveBack(back);
      for (const block of blocksOf(back)) taken.delete(block);
    } else if (dice < 7 && lent.length > 0) {
      const now = lent.splice(random.below(lent.length), 2);
      map.use(now);
      await store.transact((txn) => applyToFreeMap(txn, change("allocate", now)));
      used.push(...now);
    } else if (dice < 9 && used.length > 0) {
      const gone = used.splice(random.below(used.length), 1);
      map.retire(gone);
      await store.transact((txn) => applyToFreeMap(txn, change("free", gone)));
      map.release(gone);
      for (const block of blocksOf(gone)) taken.delete(block);
    } else if (random.oneIn(5)) {
      for (const block of blocksOf(lent)) taken.delete(block);
      lent = [];
      const { allocatedBlocks } = getSpaceRecord(store);
      map = new FreeMap(store, { dataBlocks, allocatedBlocks });
    }
    const counts = map.counts();
    assert.equal(counts, {
      free: dataBlocks - taken.size,
      lent: countBlocks(lent),
      used: countBlocks(used),
      released: 0,
    });
    assert.is(getSpaceRecord(store).allocatedBlocks, countBlocks(used));
  }
  assert.equal([...storedBlocks(store)].sort(), blocksOf(used).sort());
}

test.run();

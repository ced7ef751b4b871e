// Index blocks in a tree of layers, against a plain model: what each layer sees, the counts, the
// span sets, and the cache.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { putIdsRecord } from "../../engine/store/catalogue.js";
import {
  countSlots,
  emptyIndexBlock,
  inheritIndexBlock,
  setSlot,
} from "../../engine/store/codec-index-block.js";
import { spanKey } from "../../engine/store/codec-keys.js";
import { changeIndex } from "../../engine/store/index-changes.js";
import * as layers from "../../engine/store/layers.js";
import { Lineage, lookupNearest, lookupNearestHeader } from "../../engine/store/lineage.js";
import { seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";

const test = suite("index changes");
const SPANS = [0, 1, 4095, 4096, 70000];

async function emptyStore(): Promise<ModelStore> {
  const store = new ModelStore();
  await store.transact((txn) => putIdsRecord(txn, { nextLayer: 1 }));
  return store;
}

/** A line of `depth` layers, the last one live. */
async function line(store: ModelStore, depth: number): Promise<number[]> {
  return store.transact((txn) => {
    const ids: number[] = [];
    for (let i = 0; i < depth; i++) {
      const parent = ids.at(-1) ?? null;
      if (parent !== null) layers.freezeLayer(txn, parent);
      ids.push(layers.createLayer(txn, parent).id);
    }
    return ids;
  });
}

const blockAt = (slot: number, block: number): Uint8Array => {
  const raw = emptyIndexBlock();
  setSlot(raw, slot, block, true);
  return raw;
};

test("a look-up takes the nearest layer, at any depth", async () => {
  const store = await emptyStore();
  const ids = await line(store, 6);
  const lineage = new Lineage();
  const [root, , middle, , , leaf] = ids as [number, number, number, number, number, number];
  await store.transact((txn) =>
    changeIndex(txn, lineage, (index) => {
      index.put(root, 5, blockAt(0, 1));
      index.put(middle, 5, blockAt(0, 2));
      index.put(root, 6, blockAt(0, 3));
    }),
  );
  for (const cache of [lineage, new Lineage()]) {
    assert.is(lookupNearest(store, cache, leaf, 5)?.owner, middle);
    assert.is(lookupNearest(store, cache, root, 5)?.owner, root);
    assert.is(lookupNearest(store, cache, leaf, 6)?.owner, root);
    assert.is(lookupNearest(store, cache, leaf, 7), null);
    assert.is(lookupNearestHeader(store, cache, leaf, 6)?.mapped, 1);
  }
});

test("a promised index block that is not there is ECORRUPT, never a hole", async () => {
  const store = await emptyStore();
  const [root, leaf] = (await line(store, 2)) as [number, number];
  const change = (layer: number): Promise<void> =>
    store.transact((txn) =>
      changeIndex(txn, new Lineage(), (index) => index.put(layer, 5, blockAt(0, layer))),
    );
  await change(root);
  await change(leaf);
  await store.transact((txn) => txn.remove("index", spanKey(leaf, 5)));
  const corrupt = (error: unknown): boolean => isPandoError(error, "ECORRUPT");
  assert.throws(() => lookupNearest(store, new Lineage(), leaf, 5), corrupt);
  const again = await change(leaf).catch((error: unknown) => error);
  assert.ok(corrupt(again));
});

test("a parent that is not older than its child is ECORRUPT, not an endless walk", async () => {
  const store = await emptyStore();
  const [root, leaf] = (await line(store, 2)) as [number, number];
  await store.transact((txn) => {
    layers.putLayer(txn, root, { ...layers.getLayer(txn, root), parent: leaf });
  });
  assert.throws(
    () => lookupNearest(store, new Lineage(), leaf, 5),
    (error: unknown) => isPandoError(error, "ECORRUPT"),
  );
});

test("random changes: what layers see, their counts and their span sets agree with a plain model", async () => {
  for (let seed = 1; seed <= 12; seed++) await randomRun(seed);
});

async function randomRun(seed: number): Promise<void> {
  const random = seeded(seed);
  const store = await emptyStore();
  const lineage = new Lineage();
  const parents = new Map<number, number | null>();
  const frozen = new Set<number>();
  /** Index blocks by layer and span. */
  const model = new Map<string, Uint8Array>();
  let nextBlock = 1;

  const nearest = (layer: number | null, span: number): Uint8Array | undefined => {
    for (let at = layer; at !== null; at = parents.get(at) ?? null) {
      const raw = model.get(`${at}/${span}`);
      if (raw !== undefined) return raw;
    }
    return undefined;
  };

  const root = await store.transact((txn) => layers.createLayer(txn, null).id);
  parents.set(root, null);
  for (let step = 0; step < 60; step++) {
    if (random.oneIn(8)) {
      const parent = random.pick([...parents.keys()]);
      const child = await store.transact((txn) => {
        if (!frozen.has(parent)) layers.freezeLayer(txn, parent);
        return layers.createLayer(txn, parent).id;
      });
      frozen.add(parent);
      parents.set(child, parent);
      continue;
    }
    const live = [...parents.keys()].filter((id) => !frozen.has(id));
    await store.transact((txn) =>
      changeIndex(txn, lineage, (index) => {
        for (let i = random.below(4); i >= 0; i--) {
          const layer = random.pick(live);
          const span = random.pick(SPANS);
          const own = model.get(`${layer}/${span}`);
          if (random.oneIn(5)) {
            assert.is(index.remove(layer, span), own !== undefined);
            model.delete(`${layer}/${span}`);
            continue;
          }
          const inherited = nearest(layer, span) ?? emptyIndexBlock();
          const raw = own === undefined ? inheritIndexBlock(inherited) : new Uint8Array(own);
          for (let n = random.below(20); n >= 0; n--) {
            const hole = random.oneIn(3);
            setSlot(raw, random.below(512), hole ? 0 : nextBlock++, !hole);
          }
          index.put(layer, span, raw);
          model.set(`${layer}/${span}`, raw);
        }
      }),
    );
  }
  const fresh = new Lineage();
  const memo = new Map<number, number>();
  for (const layer of parents.keys()) {
    let mapped = 0;
    let owned = 0;
    let count = 0;
    for (const span of SPANS) {
      const expected = nearest(layer, span);
      mapped += expected === undefined ? 0 : countSlots(expected).mapped;
      const own = model.get(`${layer}/${span}`);
      owned += own === undefined ? 0 : countSlots(own).owned;
      count += own === undefined ? 0 : 1;
      for (const cache of [lineage, fresh]) {
        const found = lookupNearest(store, cache, layer, span);
        assert.is(found === null, expected === undefined);
        if (found !== null) assert.ok(Buffer.from(found.block.raw).equals(expected as Uint8Array));
      }
    }
    const record = layers.getLayer(store, layer);
    assert.is(record.ownedBlocks, owned, `owned, layer ${layer}, seed ${seed}`);
    assert.is(record.indexBlocks, count, `index blocks, layer ${layer}, seed ${seed}`);
    assert.is(layers.mappedBlocks(store, layer, { memo }), mapped, `mapped, seed ${seed}`);
    assert.is(layers.mappedBlocks(store, layer), mapped);
  }
  assert.is(store.count("index"), model.size);
}

test("a span set's piece goes with its last span", async () => {
  const store = await emptyStore();
  const [root] = (await line(store, 1)) as [number];
  const lineage = new Lineage();
  const change = (action: "put" | "remove", span: number): Promise<unknown> =>
    store.transact((txn) =>
      changeIndex(txn, lineage, (index) =>
        action === "put" ? index.put(root, span, blockAt(1, 1)) : index.remove(root, span),
      ),
    );
  await change("put", 5000);
  await change("put", 5001);
  assert.is(store.count("spans"), 1);
  await change("remove", 5000);
  assert.is(store.count("spans"), 1);
  await change("remove", 5001);
  assert.is(store.count("spans"), 0);
  assert.equal(layers.getLayer(store, root).indexBlocks, 0);
});

test.run();

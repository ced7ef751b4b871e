// The pool check: a healthy pool is clean, and each way to damage one is found and named.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkStore } from "../../engine/core/check.js";
import { recover } from "../../engine/core/recovery.js";
import * as catalogue from "../../engine/store/catalogue.js";
import {
  decodeIndexBlock,
  encodeIndexBlock,
  getBlock,
  isOwned,
  setSlot,
} from "../../engine/store/codec-index-block.js";
import * as keys from "../../engine/store/codec-keys.js";
import { reclaimRecord } from "../../engine/store/codec-records.js";
import { applyToFreeMap } from "../../engine/store/free-map-patch.js";
import { changeIndex } from "../../engine/store/index-changes.js";
import * as layers from "../../engine/store/layers.js";
import { Lineage } from "../../engine/store/lineage.js";
import type { Space, StoreReader, StoreTransaction } from "../../engine/store/store.js";
import { seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";
import { ReferencePool } from "../sim/reference-pool.js";

const test = suite("check");
const TIME = "2026-01-02T03:04:05.000Z";

async function healthyPool(): Promise<ModelStore> {
  const pool = new ReferencePool(new ModelStore(), seeded(11));
  await pool.create();
  for (let i = 0; i < 80; i++) await pool.step();
  pool.commit();
  await recover(pool.store, pool.device);
  return pool.store;
}

const healthy = await healthyPool();

/** Changes the first index block with a slot that `wanted` takes, behind everybody's back. */
function changeSlot(
  txn: StoreTransaction,
  wanted: (raw: Uint8Array, slot: number) => boolean,
  change: (raw: Uint8Array, slot: number) => void,
): void {
  for (const { key, value } of txn.range("index", {})) {
    const { raw, inherited } = decodeIndexBlock(key, value);
    for (let slot = 0; slot < 512; slot++) {
      if (!wanted(raw, slot)) continue;
      change(raw, slot);
      txn.put("index", key, encodeIndexBlock(key, raw, inherited).value);
      return;
    }
  }
  throw new Error("no such slot");
}

/** As changeSlot, with counts and span sets in step: an engine that is wrong, not a bad disk. */
function mistakeSlot(
  txn: StoreTransaction,
  wanted: (raw: Uint8Array, slot: number) => boolean,
  change: (raw: Uint8Array, slot: number) => void,
): void {
  const layerOf = new Map(layers.listLayers(txn).map(({ id, record }) => [record.key, id]));
  for (const { key, value } of txn.range("index", {})) {
    const { raw } = decodeIndexBlock(key, value);
    const slot = Array.from({ length: 512 }, (_, at) => at).find((at) => wanted(raw, at));
    if (slot === undefined) continue;
    change(raw, slot);
    const { storageKey, span } = keys.decodeSpanKey(key);
    changeIndex(txn, new Lineage(), (index) =>
      index.put(layerOf.get(storageKey) as number, span, raw),
    );
    return;
  }
  throw new Error("no such slot");
}

const owned = (raw: Uint8Array, slot: number): boolean => isOwned(raw, slot);
const inherited = (raw: Uint8Array, slot: number): boolean =>
  getBlock(raw, slot) !== 0 && !isOwned(raw, slot);
const first = (txn: StoreTransaction, space: "index" | "spans" | "free" | "children") =>
  txn.range(space, { limit: 1 })[0] as { key: Uint8Array; value: Uint8Array };
const layerIn = (txn: StoreTransaction, state: string): number =>
  layers.listLayers(txn).find(({ record }) => record.state === state)?.id as number;

const DAMAGE: [string, RegExp, (txn: StoreTransaction) => void][] = [
  [
    "a block with two owners",
    /owns block \d+, which is owned already/,
    (txn) => {
      let block = 0;
      changeSlot(txn, owned, (raw, slot) => {
        block = getBlock(raw, slot);
      });
      const other = (raw: Uint8Array, slot: number): boolean =>
        isOwned(raw, slot) && getBlock(raw, slot) !== block;
      changeSlot(txn, other, (raw, slot) => setSlot(raw, slot, block, true));
    },
  ],
  [
    "a block outside the pool",
    /outside the pool/,
    (txn) => changeSlot(txn, owned, (raw, slot) => setSlot(raw, slot, 4_000_000_000, true)),
  ],
  [
    "a mapped block that no ancestor owns",
    /which no ancestor owns/,
    (txn) => changeSlot(txn, inherited, (raw, slot) => setSlot(raw, slot, 19_999, false)),
  ],
  [
    "an owner that gave up what it owns",
    /is allocated, and owned by nobody/,
    (txn) => changeSlot(txn, owned, (raw, slot) => setSlot(raw, slot, 0, false)),
  ],
  [
    "a dropped block, all counts in step",
    /is allocated, and owned by nobody/,
    (txn) => mistakeSlot(txn, owned, (raw, slot) => setSlot(raw, slot, 0, false)),
  ],
  [
    "an own bit that is missing, all counts in step",
    /which no ancestor owns/,
    (txn) => mistakeSlot(txn, owned, (raw, slot) => setSlot(raw, slot, getBlock(raw, slot), false)),
  ],
  [
    "an own bit too many, all counts in step",
    /owns block \d+, which is owned already/,
    (txn) =>
      mistakeSlot(txn, inherited, (raw, slot) => setSlot(raw, slot, getBlock(raw, slot), true)),
  ],
  [
    "an index block that went missing, its span and all counts in step",
    /is allocated, and owned by nobody|which no ancestor owns|count as inherited/,
    (txn) => changeIndex(txn, new Lineage(), (index) => index.remove(1, 0)),
  ],
  [
    "an index block that the span set promises",
    /should have an index block for span \d+, and has none|for \d+ index blocks/,
    (txn) => txn.remove("index", first(txn, "index").key),
  ],
  [
    "a parent that is gone",
    /the parent of layer \d+, layer 1, is missing/,
    (txn) => txn.remove("layers", keys.layerKey(1)),
  ],
  [
    "a leak in the free map",
    /block 19999 is allocated, and owned by nobody/,
    (txn) => applyToFreeMap(txn, [{ op: "allocate", first: 19_999, count: 1 }]),
  ],
  [
    "an owned block that is free",
    /is owned, and free in the free map/,
    (txn) =>
      changeSlot(txn, owned, (raw, slot) =>
        applyToFreeMap(txn, [{ op: "free", first: getBlock(raw, slot), count: 1 }]),
      ),
  ],
  [
    "a chunk that is gone",
    /is owned, and free in the free map/,
    (txn) => txn.remove("free", first(txn, "free").key),
  ],
  [
    "a wrong count of allocated blocks",
    /blocks are counted as allocated/,
    (txn) => catalogue.putSpaceRecord(txn, { allocatedBlocks: 1 }),
  ],
  ...(["indexBlocks", "ownedBlocks", "mappedDelta"] as const).map(
    (field): [string, RegExp, (txn: StoreTransaction) => void] => [
      `a wrong ${field}`,
      new RegExp(`${field} is \\d+, not \\d+`),
      (txn) => {
        const record = layers.getLayer(txn, 1);
        layers.putLayer(txn, 1, { ...record, [field]: record[field] + 1 });
      },
    ],
  ),
  [
    "an index block that its span set does not have",
    /the span set does not have the index block/,
    (txn) => txn.remove("spans", first(txn, "spans").key),
  ],
  [
    "an index block of nobody",
    /is nobody's/,
    (txn) => {
      const key = keys.spanKey(777, 0);
      const { key: of, value } = first(txn, "index");
      txn.put("index", key, encodeIndexBlock(key, decodeIndexBlock(of, value).raw, 0).value);
    },
  ],
  [
    "a flipped byte",
    /checksum/,
    (txn) => {
      const { key, value } = first(txn, "index");
      const bad = new Uint8Array(value);
      bad[9] = (bad[9] as number) ^ 1;
      txn.put("index", key, bad);
    },
  ],
  [
    "a child that is not listed",
    /is not listed as a child/,
    (txn) => txn.remove("children", first(txn, "children").key),
  ],
  [
    "a child too many",
    /is listed as a child of layer 1, and is not/,
    (txn) => txn.put("children", keys.childKey(1, 888), new Uint8Array(0)),
  ],
  [
    "a live parent",
    /the parent of layer \d+, layer 1, is live/,
    (txn) => layers.putLayer(txn, 1, { ...layers.getLayer(txn, 1), state: "live" }),
  ],
  [
    "a dead layer that nobody reclaims",
    /is dead and not listed for reclaim/,
    (txn) => txn.remove("reclaim", keys.layerKey(layerIn(txn, "dead"))),
  ],
  [
    "a layer in use that is reclaimed",
    /is live and listed for reclaim/,
    (txn) => {
      const key = keys.layerKey(layerIn(txn, "live"));
      txn.put("reclaim", key, reclaimRecord.encode(key, { since: TIME }));
    },
  ],
  [
    "a live layer of nobody",
    /is live and nobody's/,
    (txn) => {
      const [volume] = catalogue.listVolumes(txn);
      catalogue.deleteVolume(txn, volume?.name as string);
    },
  ],
  [
    "a layer of two volumes",
    /have the same layer/,
    (txn) => {
      const [volume] = catalogue.listVolumes(txn);
      const record = { ...(volume?.record as catalogue.VolumeEntry["record"]) };
      record.uuid = "40000000-0000-4000-8000-000000000000";
      catalogue.createVolume(txn, "twin", record);
    },
  ],
  [
    "a volume without its UUID's entry",
    /is not found by its UUID/,
    (txn) => {
      const [volume] = catalogue.listVolumes(txn);
      txn.remove("uuids", keys.textKey(volume?.record.uuid as string));
    },
  ],
  [
    "an id that will be given again",
    /is not below the next id/,
    (txn) => catalogue.putIdsRecord(txn, { nextLayer: 2 }),
  ],
];

test("a healthy pool is clean", () => {
  const report = checkStore(healthy);
  assert.equal(report.problems, []);
  assert.ok(report.clean);
  assert.ok(report.layers >= 5 && report.indexBlocks >= 5 && report.ownedBlocks >= 100);
});

for (const [what, expected, damage] of DAMAGE) {
  test(`finds ${what}`, async () => {
    const store = healthy.copy();
    await store.transact((txn) => {
      damage(txn);
    });
    const report = checkStore(store);
    assert.not(report.clean);
    const found = report.problems.some((problem) => expected.test(problem));
    assert.ok(found, report.problems.slice(0, 3).join("; "));
    assert.ok(report.problems.length <= 101);
  });
}

test("finds entries that are counted and not there", () => {
  const count = (space: Space): number => healthy.count(space) + Number(space === "snapshots");
  const store: StoreReader = {
    get: (space, key) => healthy.get(space, key),
    range: (space, options) => healthy.range(space, options),
    count,
  };
  const { problems } = checkStore(store);
  assert.is(problems.length, 1);
  assert.match(problems[0] ?? "", /^snapshots: \d+ entries are counted, and \d+ are there/);
});

test.run();

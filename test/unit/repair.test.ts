// Repairs: what is derived is made anew from the index, with a journal still to be replayed, and
// every layer then reads as it must; what only looks derived is refused, and nothing is changed.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkStore } from "../../engine/core/check.js";
import { recoverInMemory } from "../../engine/core/offline-check.js";
import { planRepair } from "../../engine/core/repair.js";
import { getSpaceRecord, putSpaceRecord } from "../../engine/store/catalogue.js";
import {
  clearBit,
  decodeChunk,
  decodePiece,
  encodeBitmap,
  getBit,
  setBit,
} from "../../engine/store/codec-bitmaps.js";
import {
  decodeIndexBlock,
  emptyIndexBlock,
  encodeIndexBlock,
  getBlock,
  isOwned,
  setSlot,
} from "../../engine/store/codec-index-block.js";
import { decodeSpanKey } from "../../engine/store/codec-keys.js";
import { type LayerEntry, listLayers, putLayer } from "../../engine/store/layers.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import {
  type Entry,
  SPACES,
  type Space,
  type StoreReader,
  type StoreTransaction,
} from "../../engine/store/store.js";
import { seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";
import { ReferencePool, SPANS } from "../sim/reference-pool.js";
import { rejects } from "../support/refuses.js";

const test = suite("repair");

async function makePool(): Promise<ReferencePool> {
  const pool = new ReferencePool(new ModelStore(), seeded(11));
  await pool.create();
  for (let i = 0; i < 80; i++) await pool.step();
  await pool.checkpoint(false);
  for (let i = 0; i < 6; i++) pool.change();
  pool.commit();
  return pool;
}

const pool = await makePool();
const intact = contents(await recoverInMemory(pool.store, pool.device));

/** All that is not derived, as every layer sees it. */
function contents(store: StoreReader): string {
  const lineage = new Lineage();
  const views = listLayers(store).map(({ id, record: { parent, state, key } }) => {
    const spans = SPANS.map((span) => {
      const raw = lookupNearest(store, lineage, id, span)?.block.raw ?? emptyIndexBlock();
      return Buffer.from(raw).toString("base64");
    });
    return [id, parent, state, key, spans];
  });
  return JSON.stringify(views);
}

function everything(store: StoreReader): string {
  const hex = ({ key, value }: Entry): string =>
    `${Buffer.from(key).toString("hex")}=${Buffer.from(value).toString("hex")}`;
  return JSON.stringify(SPACES.map((space) => store.range(space, {}).map(hex)));
}

const first = (txn: StoreTransaction, space: Space): Entry => txn.range(space, {})[0] as Entry;
const layerWithIndex = (txn: StoreTransaction, nth: number): LayerEntry =>
  listLayers(txn).filter(({ record }) => record.indexBlocks > 1)[nth] as LayerEntry;

function flip(txn: StoreTransaction, space: Space): void {
  const { key, value } = first(txn, space);
  const bytes = new Uint8Array(value);
  bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
  txn.put(space, key, bytes);
}

function changeBits(
  txn: StoreTransaction,
  space: "free" | "spans",
  change: (bits: Uint8Array) => void,
): void {
  const { key, value } = first(txn, space);
  const bits = space === "free" ? decodeChunk(key, value) : decodePiece(key, value);
  change(bits);
  txn.put(space, key, encodeBitmap(key, bits));
}

const toggle = (bits: Uint8Array, bit: number): void =>
  getBit(bits, bit) ? clearBit(bits, bit) : setBit(bits, bit);

function miscount(txn: StoreTransaction, nth: number): void {
  const { id, record } = layerWithIndex(txn, nth);
  putLayer(txn, id, { ...record, mappedDelta: record.mappedDelta + 3 });
}

/** Of the layer that is `nth` of those that have several: its first index block goes. */
function loseIndexBlock(txn: StoreTransaction, nth: number, bitToo: boolean): void {
  const { key: wanted } = layerWithIndex(txn, nth).record;
  const { key } = txn
    .range("index", {})
    .find((entry) => decodeSpanKey(entry.key).storageKey === wanted) as Entry;
  txn.remove("index", key);
  if (!bitToo) return;
  const { span } = decodeSpanKey(key);
  const piece = txn
    .range("spans", {})
    .find((entry) => decodeSpanKey(entry.key).storageKey === wanted) as Entry;
  const bits = decodePiece(piece.key, piece.value);
  clearBit(bits, span % 4096);
  txn.put("spans", piece.key, encodeBitmap(piece.key, bits));
}

function changeOwned(txn: StoreTransaction, change: (raw: Uint8Array, slot: number) => void): void {
  for (const { key, value } of txn.range("index", {})) {
    const { raw, inherited } = decodeIndexBlock(key, value);
    const slot = Array.from({ length: 512 }, (_, at) => at).find((at) => isOwned(raw, at));
    if (slot === undefined) continue;
    change(raw, slot);
    txn.put("index", key, encodeIndexBlock(key, raw, inherited).value);
    return;
  }
}

const MENDED: [string, RegExp[], (txn: StoreTransaction) => void][] = [
  [
    "a free map with wrong bits",
    [/free map/],
    (txn) => {
      changeBits(txn, "free", (bits) => {
        for (const bit of [3, 9, 4000]) toggle(bits, bit);
      });
    },
  ],
  ["a chunk of the free map that is damaged", [/free map/], (txn) => flip(txn, "free")],
  [
    "a chunk of the free map that is lost",
    [/free map/],
    (txn) => {
      txn.remove("free", first(txn, "free").key);
    },
  ],
  [
    "a wrong count of allocated blocks",
    [/free map/],
    (txn) => {
      putSpaceRecord(txn, { allocatedBlocks: getSpaceRecord(txn).allocatedBlocks + 1 });
    },
  ],
  [
    "a record of the space that is damaged",
    [/free map/],
    (txn) => {
      const key = Buffer.from("space");
      const value = new Uint8Array(txn.get("meta", key) as Uint8Array);
      value[0] = (value[0] as number) ^ 1;
      txn.put("meta", key, value);
    },
  ],
  [
    "a span set with a bit too many",
    [/span set/],
    (txn) => {
      changeBits(txn, "spans", (bits) => setBit(bits, 77));
    },
  ],
  ["a span set that is damaged", [/span set/], (txn) => flip(txn, "spans")],
  [
    "a span set that is lost",
    [/span set/],
    (txn) => {
      txn.remove("spans", first(txn, "spans").key);
    },
  ],
  ["wrong counts", [/counts/], (txn) => miscount(txn, 0)],
  [
    "wrong counts of one layer, the span set of another, in one go",
    [/span set/, /counts/],
    (txn) => {
      miscount(txn, 1);
      flip(txn, "spans");
    },
  ],
  [
    "span set and free map",
    [/span set/, /free map/],
    (txn) => {
      flip(txn, "spans");
      flip(txn, "free");
    },
  ],
];

for (const [what, repaired, damage] of MENDED) {
  test(`${what} is made anew`, async () => {
    const store = pool.store.copy();
    await store.transact(damage);
    const before = everything(store);
    const repair = await planRepair(store, pool.device);
    assert.is(everything(store), before, "a plan writes nothing");
    assert.is(repair.report.repaired.length, repaired.length);
    for (const [at, sentence] of repaired.entries()) {
      assert.match(repair.report.repaired[at] as string, sentence);
    }
    await store.transact((txn) => repair.write(txn));
    assert.equal(checkStore(store).problems, []);
    assert.is(contents(store), intact);
    // The journal's blocks are the store's now: the next opening replays none of them twice.
    const reopened = await recoverInMemory(store, pool.device);
    assert.equal(checkStore(reopened).problems, []);
    assert.is(contents(reopened), intact);
  });
}

const REFUSED: [string, RegExp, (txn: StoreTransaction) => void][] = [
  ["an index block that is damaged", /index 0x/, (txn) => flip(txn, "index")],
  ["an index block that is lost", /one may be lost/, (txn) => loseIndexBlock(txn, 0, false)],
  [
    "one that is lost with its bit",
    /slots count as inherited/,
    (txn) => {
      loseIndexBlock(txn, 0, true);
    },
  ],
  [
    "counts and free map together",
    /counts of layer \d+ are wrong and the free map/,
    (txn) => {
      miscount(txn, 0);
      changeBits(txn, "free", (bits) => toggle(bits, 9));
    },
  ],
  [
    "a block with two owners",
    /owned already/,
    (txn) => {
      let block = 0;
      changeOwned(txn, (raw, slot) => {
        block = getBlock(raw, slot);
        const other = Array.from({ length: 512 }, (_, at) => at).find(
          (at) => at !== slot && isOwned(raw, at),
        ) as number;
        setSlot(raw, other, block, true);
      });
    },
  ],
  ["a layer that is damaged", /layers/, (txn) => flip(txn, "layers")],
  [
    "a layer that is lost",
    /nobody's|no layer|no record/,
    (txn) => {
      txn.remove("layers", first(txn, "layers").key);
    },
  ],
  [
    "a list of children that is wrong",
    /children|child/,
    (txn) => {
      txn.remove("children", first(txn, "children").key);
    },
  ],
];

for (const [what, problem, damage] of REFUSED) {
  test(`${what} is refused`, async () => {
    const store = pool.store.copy();
    await store.transact(damage);
    const before = everything(store);
    const error = await rejects(planRepair(store, pool.device), "ECORRUPT", problem);
    assert.match(`${error.message} ${error.context.hint ?? ""}`, problem);
    assert.is(everything(store), before);
  });
}

test("a pool without a fault is left as it is, its journal too", async () => {
  const store = pool.store.copy();
  const before = everything(store);
  const repair = await planRepair(store, pool.device);
  assert.equal(repair.report.repaired, []);
  await store.transact((txn) => repair.write(txn));
  assert.is(everything(store), before);
});

test.run();

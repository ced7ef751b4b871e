// The nearest index block on a long line, asked for once and often, against a walk of all layers.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { putIdsRecord } from "../../engine/store/catalogue.js";
import { emptyIndexBlock, setSlot } from "../../engine/store/codec-index-block.js";
import { spanKey } from "../../engine/store/codec-keys.js";
import { changeIndex } from "../../engine/store/index-changes.js";
import { createLayer, freezeLayer, getLayer } from "../../engine/store/layers.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import { type Random, seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";
import { refuses } from "../support/refuses.js";

const test = suite("lineage");
const DEPTH = 60;
/** Of two pieces. */
const SPANS = [0, 1, 7, 8, 4095, 4096, 5000];
const OFTEN = 8;
/** Short ways, and ways that are long from another layer on each. */
const FROM = [3, 15, 16, 17, 25, 40, 59];

interface Line {
  store: ModelStore;
  /** The root first. */
  layers: number[];
  has: Set<string>;
}

const placeOf = (layer: number, span: number): string => `${layer}/${span}`;

function indexBlock(number: number): Uint8Array {
  const raw = emptyIndexBlock();
  setSlot(raw, 0, number, true);
  return raw;
}

async function longLine(random: Random): Promise<Line> {
  const store = new ModelStore();
  const layers: number[] = [];
  const has = new Set<string>();
  await store.transact((txn) => {
    putIdsRecord(txn, { nextLayer: 1 });
    for (let at = 0; at < DEPTH; at++) {
      const { id } = createLayer(txn, layers.at(-1) ?? null);
      layers.push(id);
      if (at < DEPTH - 1) freezeLayer(txn, id);
    }
    changeIndex(txn, new Lineage(), (index) => {
      for (const layer of layers) {
        for (const span of SPANS) {
          if (!random.oneIn(12)) continue;
          index.put(layer, span, indexBlock(layer));
          has.add(placeOf(layer, span));
        }
      }
    });
  });
  return { store, layers, has };
}

/** What a walk finds. */
function ownerOf({ layers, has }: Line, from: number, span: number): number | undefined {
  const line = layers.slice(0, layers.indexOf(from) + 1).reverse();
  return line.find((layer) => has.has(placeOf(layer, span)));
}

function compare(line: Line, lineage: Lineage, what: string): void {
  for (const layer of FROM.map((at) => line.layers[at] as number)) {
    for (const span of [...SPANS, 2, 9000]) {
      const found = lookupNearest(line.store, lineage, layer, span)?.owner;
      assert.is(found, ownerOf(line, layer, span), `${what}: layer ${layer}, span ${span}`);
    }
  }
}

test("a long line, however often it is asked", async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const line = await longLine(seeded(seed));
    const lineage = new Lineage();
    for (let time = 0; time < OFTEN; time++) compare(line, lineage, `seed ${seed}, time ${time}`);
  }
});

test("what a transaction changes far up is seen at once", async () => {
  const line = await longLine(seeded(1));
  const lineage = new Lineage();
  for (let time = 0; time < OFTEN; time++) compare(line, lineage, `time ${time}`);
  const far = line.layers[5] as number;
  await line.store.transact((txn) => {
    changeIndex(txn, lineage, (index) => {
      for (const span of SPANS) {
        index.put(far, span, indexBlock(far));
        line.has.add(placeOf(far, span));
      }
    });
  });
  compare(line, lineage, "after it");
  lineage.clear();
  compare(line, lineage, "forgotten");
});

test("an index block that is promised and not there is an error, and never a hole", async () => {
  const line = await longLine(seeded(1));
  const layer = line.layers.at(-1) as number;
  const span = SPANS.find((each) => ownerOf(line, layer, each) !== undefined) as number;
  const owner = ownerOf(line, layer, span) as number;
  const key = spanKey(getLayer(line.store, owner).key, span);
  await line.store.transact((txn) => txn.remove("index", key));
  refuses(() => lookupNearest(line.store, new Lineage(), layer, span), "ECORRUPT", /has none/);
});

test.run();

// The overlay against a plain store to which the same is done: whatever is read is the same, and
// the store below never changes.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { OverlayStore } from "../../engine/store/overlay-store.js";
import type { RangeOptions, StoreReader } from "../../engine/store/store.js";
import { type Random, seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";

const test = suite("overlay store");
const KEYS = 40;

const keyOf = (n: number): Uint8Array => Uint8Array.of(n >> 3, 200 + (n & 7));

function randomRange(random: Random): RangeOptions {
  const options: RangeOptions = {};
  if (random.oneIn(2)) options.start = keyOf(random.below(KEYS));
  if (random.oneIn(2)) options.end = keyOf(random.below(KEYS));
  if (random.oneIn(2)) options.limit = random.below(12);
  return options;
}

function contents(store: StoreReader, options: RangeOptions = {}): string[] {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
  return store.range("index", options).map(({ key, value }) => `${hex(key)}=${hex(value)}`);
}

test("reads what a store would that had been changed, whatever lies below", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = seeded(seed);
    const below = new ModelStore();
    await below.transact((txn) => {
      for (let n = 0; n < KEYS; n++) {
        if (random.oneIn(2)) txn.put("index", keyOf(n), Uint8Array.of(n));
      }
    });
    const before = contents(below);
    const plain = below.copy();
    const overlay = new OverlayStore(below);
    for (let round = 0; round < 30; round++) {
      const key = keyOf(random.below(KEYS));
      const value = random.oneIn(3) ? null : Uint8Array.of(round, seed);
      for (const store of [plain, overlay]) {
        await store.transact((txn) => {
          if (value === null) txn.remove("index", key);
          else txn.put("index", key, value);
        });
      }
      const options = randomRange(random);
      assert.equal(contents(overlay, options), contents(plain, options), `seed ${seed}`);
      assert.is(overlay.count("index"), plain.count("index"));
    }
    assert.equal(contents(below), before);
  }
});

test("more entries below than are read at once", async () => {
  const below = new ModelStore();
  const wide = (n: number): Uint8Array => Uint8Array.of(n >> 8, n & 255);
  await below.transact((txn) => {
    for (let n = 0; n < 3000; n += 2) txn.put("index", wide(n), Uint8Array.of(1));
  });
  const overlay = new OverlayStore(below);
  await overlay.transact((txn) => {
    for (let n = 1; n < 3000; n += 2) txn.put("index", wide(n), Uint8Array.of(2));
    txn.remove("index", wide(2048));
  });
  const keys = overlay.range("index", {}).map(({ key }) => Buffer.from(key).readUInt16BE());
  const expected = Array.from({ length: 3000 }, (_, n) => n).filter((n) => n !== 2048);
  assert.equal(keys, expected);
});

test.run();

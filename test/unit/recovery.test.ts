// Recovery, cut at every step of the store and started again: every layer reads what it must, the
// check is clean.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { checkStore } from "../../engine/core/check.js";
import { type Recovered, recover } from "../../engine/core/recovery.js";
import * as catalogue from "../../engine/store/catalogue.js";
import { emptyIndexBlock } from "../../engine/store/codec-index-block.js";
import type { MappingRecord } from "../../engine/store/journal.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import { type Random, seeded } from "../prng.js";
import { ModelStore, type StoreStep } from "../sim/model-store.js";
import { ReferencePool, SPANS, SUPERBLOCK } from "../sim/reference-pool.js";

const test = suite("recovery");
const SMALL = { spansPerTransaction: 2 };

async function randomPool(random: Random, steps: number): Promise<ReferencePool> {
  const pool = new ReferencePool(new ModelStore(), random);
  await pool.create();
  for (let i = 0; i < steps; i++) await pool.step();
  pool.commit();
  return pool;
}

function assertRecovered(pool: ReferencePool, store: ModelStore, what: string): void {
  const lineage = new Lineage();
  for (const layer of pool.parents.keys()) {
    for (const span of SPANS) {
      const found = lookupNearest(store, lineage, layer, span)?.block.raw ?? emptyIndexBlock();
      const expected = pool.view(layer, span);
      // Own bits are the layer's that has the index block: the reference compares like with like.
      assert.ok(Buffer.from(found).equals(expected), `${what}: layer ${layer}, span ${span}`);
    }
  }
  assert.equal(checkStore(store).problems, [], what);
}

test("a pool that was checkpointed has nothing to replay, and its epoch is raised all the same", async () => {
  const pool = await randomPool(seeded(7), 40);
  await pool.checkpoint(false);
  const { epoch } = catalogue.getJournalRecord(pool.store);
  const result = await recover(pool.store, pool.device, SMALL);
  assert.is(result.replayedRecords, 0);
  assert.is(result.epoch, epoch + 1);
  assert.is(result.nextSequence, pool.nextSequence);
  assert.equal(result.superblock, SUPERBLOCK);
  assert.equal(catalogue.getJournalRecord(pool.store), {
    epoch: epoch + 1,
    tail: pool.nextSequence,
  });
  assertRecovered(pool, pool.store, "nothing to replay");
});

test("random pools, cut nowhere", async () => {
  let replayed = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const pool = await randomPool(seeded(seed), 60);
    const result = await recover(pool.store, pool.device, SMALL);
    replayed += result.replayedRecords;
    assertRecovered(pool, pool.store, `seed ${seed}`);
    const again = await recover(pool.store, pool.device, SMALL);
    assert.is(again.replayedRecords, 0);
    assert.is(again.epoch, result.epoch + 1);
    assertRecovered(pool, pool.store, `seed ${seed}, again`);
  }
  assert.ok(replayed > 500, `${replayed} records replayed`);
});

test("cut at the 1st commit, the 2nd, … and at each durable, by a kill and by power, until it is through", async () => {
  let points = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const pool = await randomPool(seeded(seed), 60);
    for (let at = 0; ; at++) {
      const cuts = await Promise.all([
        cutRecovery(pool, at, { power: false, keep: 0 }),
        cutRecovery(pool, at, { power: true, keep: 0 }),
        cutRecovery(pool, at, { power: true, keep: 1 }),
      ]);
      for (const found of cuts) {
        if (found === null) continue;
        points++;
        const result = await recover(found, pool.device, SMALL);
        assert.ok(result.epoch > pool.epoch);
        assertRecovered(pool, found, `seed ${seed}, cut at step ${at}`);
      }
      if (cuts.includes(null)) break;
    }
  }
  assert.ok(points > 200, `${points} points`);
});

/** The store that a recovery cut at step `at` leaves; null if it had come through before. */
async function cutRecovery(
  pool: ReferencePool,
  at: number,
  options: { power: boolean; keep: number },
): Promise<ModelStore | null> {
  let steps = 0;
  let reached = (): void => undefined;
  const cut = new Promise<null>((resolve) => {
    reached = () => resolve(null);
  });
  const schedule = async (_step: StoreStep): Promise<void> => {
    if (steps++ !== at) return;
    reached();
    await new Promise(() => undefined);
  };
  const copy = pool.store.copy({ schedule });
  const result = await Promise.race([recover(copy, pool.device, SMALL), cut]);
  if (result !== null) return null;
  return copy.crash(options.power, (n) => Math.min(options.keep, n - 1), {});
}

test("device and store are flushed before anything is read", async () => {
  const pool = await randomPool(seeded(3), 30);
  const order: string[] = [];
  const device = {
    sizeBytes: pool.device.sizeBytes,
    read: (offset: number, length: number) => {
      order.push("read");
      return pool.device.read(offset, length);
    },
    flush: async () => {
      order.push("flush");
    },
  };
  const store = pool.store.copy({
    schedule: async (step) => {
      if (step === "durable") order.push("sync");
    },
  });
  await recover(store, device, SMALL);
  assert.equal(order.slice(0, 3), ["flush", "sync", "read"]);
});

const refusal = (pool: ReferencePool): Promise<unknown> =>
  recover(pool.store, pool.device, SMALL).then(
    (result: Recovered) => result,
    (error: unknown) => error,
  );

test("a record of an unknown layer is ECORRUPT, and nothing is changed", async () => {
  const pool = await randomPool(seeded(3), 30);
  const before = JSON.stringify(pool.store.range("index", {}));
  const record: MappingRecord = {
    layer: 9999,
    span: 0,
    firstSlot: 0,
    slots: 1,
    firstBlock: 0,
    frees: [],
  };
  pool.device.writeBlock({
    sequence: pool.nextSequence,
    epoch: pool.epoch,
    durableUpTo: 0,
    uuid: SUPERBLOCK.uuid,
    firstOrdinal: 1,
    records: [record],
  });
  const error = await refusal(pool);
  assert.ok(isPandoError(error, "ECORRUPT"));
  assert.match(error.message, /layer 9999/);
  assert.is(JSON.stringify(pool.store.range("index", {})), before);
});

test("a device of another pool, or of another generation, is refused by field", async () => {
  for (const [field, value] of [
    ["uuid", SUPERBLOCK.uuid.replace("3f", "40")],
    ["generation", 2],
    ["dataBlocks", 5],
  ] as const) {
    const pool = await randomPool(seeded(3), 5);
    await pool.store.transact((txn) => {
      catalogue.putPoolRecord(txn, { ...catalogue.getPoolRecord(txn), [field]: value });
    });
    const error = await refusal(pool);
    assert.ok(isPandoError(error, "ECORRUPT"));
    assert.is(error.context.field, field);
  }
});

test("one torn superblock is normal, two are a refusal", async () => {
  const pool = await randomPool(seeded(3), 20);
  pool.device.bytes.fill(0, 0, 4096);
  assert.not(isPandoError(await refusal(pool)));
  pool.device.bytes.fill(0, 64 * 1024, 64 * 1024 + 4096);
  assert.ok(isPandoError(await refusal(pool), "ECORRUPT"));
});

test("a block of the old epoch that arrives late does not count", async () => {
  const pool = await randomPool(seeded(5), 30);
  const { epoch, nextSequence } = await recover(pool.store, pool.device, SMALL);
  pool.device.writeBlock({
    sequence: nextSequence,
    epoch: epoch - 1,
    durableUpTo: 0,
    uuid: SUPERBLOCK.uuid,
    firstOrdinal: 1,
    records: [{ layer: 1, span: 0, firstSlot: 0, slots: 1, firstBlock: 19999, frees: [] }],
  });
  const again = await recover(pool.store, pool.device, SMALL);
  assert.is(again.replayedRecords, 0);
  assert.is(again.epoch, epoch + 1);
  assertRecovered(pool, pool.store, "late block");
});

test.run();

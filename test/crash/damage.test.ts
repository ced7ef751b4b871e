// Damage on the media: any byte of a superblock, of the journal or of a value of the store changed.
// It is refused with the place named, or it changes nothing; what is read is never wrong. LMDB's
// own pages have no checksums: there every seed must end in the same contents, in problems that the
// check names, in an error, or in the death of the process that looked, and that is an error too.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { SUPERBLOCK_BYTES } from "../../engine/base/constants.js";
import { isPandoError } from "../../engine/base/errors.js";
import { checkPoolInChild } from "../../engine/check-child.js";
import { checkStore } from "../../engine/core/check.js";
import { recoverInMemory } from "../../engine/core/offline-check.js";
import { recover } from "../../engine/core/recovery.js";
import { encodeJournalBlock } from "../../engine/store/journal.js";
import { listLayers } from "../../engine/store/layers.js";
import { Lineage, lookupNearest } from "../../engine/store/lineage.js";
import { type Entry, SPACES, type Space, type StoreReader } from "../../engine/store/store.js";
import {
  checkSuperblock,
  chooseSuperblock,
  encodeSuperblock,
} from "../../engine/store/superblock.js";
import { fixtureFolder, unpackPool } from "../fixtures/packed-pool.js";
import { seeded } from "../prng.js";
import { ModelStore } from "../sim/model-store.js";
import { ReferencePool, SPANS, SUPERBLOCK } from "../sim/reference-pool.js";
import { finish, read, smallPool, write } from "../sim/small-pool.js";
import { damageBySeed, type Judged } from "../support/damaged-store.js";
import { temporaryFolder } from "../support/pando.js";

const test = suite("damage");
const folder = temporaryFolder();
const SEEDS = 300;
const JOURNAL_START = 1024 * 1024;
const BLOCK = 4096;

test.after(() => folder.remove());

/** A pool that has been checkpointed, with a few blocks in its journal since. */
async function referencePool(): Promise<ReferencePool> {
  const pool = new ReferencePool(new ModelStore(), seeded(11));
  await pool.create();
  for (let i = 0; i < 60; i++) await pool.step();
  await pool.checkpoint(false);
  for (let i = 0; i < 24; i++) pool.change();
  pool.commit();
  return pool;
}

/** What all layers see; or the sentence with which it is refused. */
function viewOf(store: StoreReader): string[] {
  const lineage = new Lineage();
  return listLayers(store).flatMap(({ id }) =>
    SPANS.map((span) => {
      const found = lookupNearest(store, lineage, id, span);
      return found === null ? "" : Buffer.from(found.block.raw).toString("base64");
    }),
  );
}

function flipped(bytes: Uint8Array, at: number, mask: number): Uint8Array {
  const copy = new Uint8Array(bytes);
  copy[at] = (copy[at] as number) ^ mask;
  return copy;
}

test("a superblock, each byte of one copy: the other one counts", () => {
  const good = encodeSuperblock(SUPERBLOCK);
  const size = SUPERBLOCK.deviceSizeBytes;
  for (let at = 0; at < SUPERBLOCK_BYTES; at++) {
    const bad = flipped(good, at, 1 << (at & 7));
    assert.equal(checkSuperblock(chooseSuperblock(bad, good), size), SUPERBLOCK);
    assert.equal(checkSuperblock(chooseSuperblock(good, bad), size), SUPERBLOCK);
  }
});

test("a superblock, each byte of both copies: refused by name", () => {
  const good = encodeSuperblock(SUPERBLOCK);
  for (let at = 0; at < SUPERBLOCK_BYTES; at++) {
    const a = flipped(good, at, 0xff);
    const b = flipped(good, (at + 1) % SUPERBLOCK_BYTES, 1);
    assert.throws(() => chooseSuperblock(a, b), /^superblock: neither copy/);
  }
});

test("the journal, each byte: what had been durable is refused, the last block is its end", async () => {
  const pool = await referencePool();
  const { tail } = JSON.parse(
    Buffer.from(pool.store.get("meta", Buffer.from("journal"))?.subarray(4) ?? []).toString(),
  ) as { tail: number };
  const blocks = pool.nextSequence - tail;
  assert.ok(blocks >= 5, `${blocks} blocks`);
  const whole = viewOf(await recoverInMemory(pool.store, pool.device));
  const lastAt = JOURNAL_START + ((pool.nextSequence - 1) % SUPERBLOCK.journalBlocks) * BLOCK;
  const saved = pool.device.bytes.subarray(lastAt, lastAt + BLOCK);
  const last = Buffer.from(saved);
  saved.fill(0);
  const withoutLast = viewOf(await recoverInMemory(pool.store, pool.device));
  saved.set(last);
  assert.not.equal(withoutLast, whole);
  const ends = { refused: 0, shorter: 0 };
  for (let sequence = tail; sequence < pool.nextSequence; sequence++) {
    const start = JOURNAL_START + (sequence % SUPERBLOCK.journalBlocks) * BLOCK;
    // Every byte of what is used, and some of the zeroes behind it.
    for (let at = 0; at < BLOCK; at += at < 0x120 ? 1 : 61) {
      const mask = 1 << (at & 7);
      pool.device.bytes[start + at] = (pool.device.bytes[start + at] as number) ^ mask;
      try {
        const view = viewOf(await recoverInMemory(pool.store, pool.device));
        assert.is(sequence, pool.nextSequence - 1, `block ${sequence} is missed at byte ${at}`);
        assert.equal(view, withoutLast);
        ends.shorter++;
      } catch (error) {
        if (!isPandoError(error, "ECORRUPT")) throw error;
        assert.match(error.message, `journal: block ${sequence} is lost`);
        ends.refused++;
      }
      pool.device.bytes[start + at] = (pool.device.bytes[start + at] as number) ^ mask;
    }
  }
  assert.ok(ends.refused > 1000 && ends.shorter > 300, JSON.stringify(ends));
  assert.equal(viewOf(await recoverInMemory(pool.store, pool.device)), whole);
});

test("a journal block that was written wrong is refused with its number and field", async () => {
  const pool = await referencePool();
  const sequence = pool.nextSequence;
  const base = { layer: 1, span: 0, firstSlot: 0, slots: 1, firstBlock: 0, frees: [] };
  const wrong = [
    { ...base, layer: 0 },
    { ...base, slots: 0 },
    { ...base, firstSlot: 511, slots: 2 },
    { ...base, firstBlock: SUPERBLOCK.dataBlocks + 1 },
    { ...base, frees: [{ first: 0, count: 1 }] },
    { ...base, frees: [{ first: SUPERBLOCK.dataBlocks, count: 2 }] },
  ];
  for (const record of wrong) {
    const { epoch } = pool;
    const { uuid } = SUPERBLOCK;
    const block = { sequence, epoch, durableUpTo: sequence, uuid, firstOrdinal: 1 };
    const at = JOURNAL_START + (sequence % SUPERBLOCK.journalBlocks) * BLOCK;
    pool.device.bytes.set(encodeJournalBlock({ ...block, records: [record] }), at);
    const refusal = await recoverInMemory(pool.store, pool.device).catch((error) => error);
    assert.ok(isPandoError(refusal, "ECORRUPT"), JSON.stringify(record));
    assert.match(refusal.message, `journal: block ${sequence}: `);
  }
});

test("a value of the store, each byte: it is named by whoever reads it, and no layer reads wrong", async () => {
  const pool = await referencePool();
  await recover(pool.store, pool.device);
  const expected = viewOf(pool.store);
  let values = 0;
  let reads = 0;
  for (const space of SPACES) {
    for (const { key, value } of pool.store.range(space, {})) {
      values++;
      for (let at = 0; at < value.length; at++) {
        const damaged = withValue(pool.store, space, {
          key,
          value: flipped(value, at, 1 << (at & 7)),
        });
        // The bitmaps are long, and all their bytes alike.
        if (at >= 64 && at % 97 !== 0) continue;
        const { clean, problems } = checkStore(damaged);
        assert.not(clean, `${space}, byte ${at}`);
        const named = problems.some((one) => one.startsWith(`store: ${space} `));
        assert.ok(named, `${space}, byte ${at}: ${problems[0]}`);
        reads++;
        try {
          assert.equal(viewOf(damaged), expected);
        } catch (error) {
          if (!isPandoError(error, "ECORRUPT")) throw error;
          assert.match(error.message, `store: ${space} `);
        }
      }
    }
  }
  assert.ok(values > 30 && reads > 1000, `${values} values, ${reads} reads`);
});

/** The store, but for one value. */
function withValue(store: StoreReader, space: Space, entry: Entry): StoreReader {
  const isIt = (key: Uint8Array): boolean => Buffer.from(key).equals(entry.key);
  return {
    count: (of) => store.count(of),
    get: (of, key) => (of === space && isIt(key) ? entry.value : store.get(of, key)),
    range: (of, options) => {
      const found = store.range(of, options);
      return of === space ? found.map((one) => (isIt(one.key) ? entry : one)) : found;
    },
  };
}

test("a damaged index block is an error to who reads it, and nothing to the others", async () => {
  const client = await smallPool({ indexCacheBytes: 0 });
  const { world } = client;
  await write(client, "a", 0, 8);
  await write(client, "a", 1000, 8);
  await world.run(client.checkpoint());
  await world.quiesce();
  await world.run(client.close("a"));
  const [entry] = world.store.range("index", {}) as [Entry];
  const put = (value: Uint8Array) =>
    world.run(world.store.transact((txn) => txn.put("index", entry.key, value)));
  await put(flipped(entry.value, 9, 1));
  await world.run(client.open("a"));
  const failed = await world.run(client.read("a", { sector: 0, count: 8 }));
  assert.is(failed?.value, "io-error");
  await read(client, "a", 1000, 8);
  await put(entry.value);
  await read(client, "a", 0, 8);
  await finish(client);
});

test(`LMDB's own pages, ${SEEDS} seeds: nothing reads as something else`, async () => {
  const path = join(folder.path, "pages");
  unpackPool(fixtureFolder("pool-v1"), path);
  const program = fileURLToPath(new URL("../support/damaged-store.js", import.meta.url));
  const verdicts = { same: 0, different: 0, problems: 0, error: 0 };
  const died: number[] = [];
  for (let first = 1; first <= SEEDS; ) {
    const args = [program, path, String(first), String(SEEDS + 1)];
    const child = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 120_000 });
    assert.is(child.error, undefined, String(child.error));
    const lines = child.stdout.trim().split("\n");
    const told = lines.map((line) => JSON.parse(line) as Partial<Judged> & { seed: number });
    for (const { seed, verdict } of told) {
      if (verdict !== undefined) verdicts[verdict]++;
      assert.is.not(verdict, "different", `seed ${seed}`);
    }
    const last = told.at(-1);
    assert.ok(last !== undefined && last.seed >= first, child.stderr);
    if (last?.verdict === undefined) died.push(last?.seed as number);
    else assert.is(child.status, 0, child.stderr);
    first = (last?.seed as number) + 1;
  }
  console.log(`${JSON.stringify(verdicts)}, ${died.length} died`);
  assert.ok(verdicts.problems > 0 && verdicts.error > 0 && died.length > 0);
  // What kills whoever looks is an error of the check, which names where it was.
  const meta = join(path, "meta-died");
  mkdirSync(meta);
  const whole = readFileSync(join(path, "meta/data.mdb"));
  writeFileSync(join(meta, "data.mdb"), damageBySeed(died[0] as number, whole).bytes);
  const refusal = await checkPoolInChild({ meta, data: join(path, "data") }).catch(
    (error) => error,
  );
  assert.ok(isPandoError(refusal, "ECORRUPT"), String(refusal));
  assert.match(refusal.message, /died reading .* \((SIG[A-Z]+|exit code)/);
});

test.run();

// Check, repair and inspection as their users run them: in a process of its own, whose death is an
// answer like any other, on a pool that nobody serves and on one in service; and nothing of the
// pool is changed but by a repair that has something to repair.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  checkPoolInChild,
  inspectPoolInChild,
  storeCheckInChild,
} from "../../engine/check-child.js";
import type { InspectItem, InspectPart } from "../../engine/core/inspect.js";
import { checkClosedPool, inspectClosedPool, repairClosedPool } from "../../engine/open-pool.js";
import { encodeBitmap } from "../../engine/store/codec-bitmaps.js";
import { chunkKey } from "../../engine/store/codec-keys.js";
import { openLmdbStore } from "../../engine/store/lmdb-store.js";
import type { StoreTransaction } from "../../engine/store/store.js";
import { STORE_PROGRAM } from "../../engine/store-child.js";
import { fixtureFolder, unpackPool } from "../fixtures/packed-pool.js";
import { temporaryFolder } from "../support/pando.js";
import { rejects } from "../support/refuses.js";
import { compareSamplePool, openSamplePool } from "../support/sample-pool.js";

const test = suite("store process");
const folder = temporaryFolder();
let path = "";
let pools = 0;
let sample: ReturnType<typeof unpackPool>;

test.before.each(() => {
  path = join(folder.path, `pool-${++pools}`);
  sample = unpackPool(fixtureFolder("pool-v1"), path);
});
test.after(() => folder.remove());

const check = () => checkClosedPool({ path, metaPath: null });
const hash = (name: string): string =>
  createHash("sha256")
    .update(readFileSync(join(path, name)))
    .digest("hex");

function damage(name: string, change: (bytes: Buffer) => void): void {
  const bytes = readFileSync(join(path, name));
  change(bytes);
  writeFileSync(join(path, name), bytes);
}

test("a pool that was killed is checked as it will be recovered, and is not written to", async () => {
  const before = [hash("data"), hash("meta/data.mdb")];
  const report = await check();
  assert.equal(report.problems, []);
  assert.ok(report.ownedBlocks > 100);
  assert.equal([hash("data"), hash("meta/data.mdb")], before);
  const { pool, close } = await openSamplePool(path);
  assert.equal((await pool.check()).problems, []);
  await close();
});

test("a pool in service is checked while it changes", async () => {
  const { pool, close } = await openSamplePool(path);
  let round = 0;
  const busy = { ended: false };
  const work = (async () => {
    for (; !busy.ended; round++) {
      await pool.createSnapshot("db", `s${round}`);
      await pool.checkpoint();
      if (round > 0) await pool.deleteSnapshot("db", `s${round - 1}`);
    }
  })();
  for (let i = 0; i < 3; i++) assert.equal((await pool.check()).problems, []);
  busy.ended = true;
  await work;
  assert.ok(round > 3, `${round} rounds`);
  await close();
});

test("a pool in service is refused", async () => {
  const { close } = await openSamplePool(path);
  await rejects(check(), "EBUSY", /is open in process/);
  await close();
});

test("a lock that the kernel has not taken back from a dead process is waited for", async () => {
  // It is the ended flock's, by what its parent still has open.
  const script = 'exec 9<>"$0"; flock 9; echo; exec sleep 1';
  const holder = spawn("bash", ["-c", script, join(path, "data")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(holder.stdout, "data");
  assert.equal((await check()).problems, []);
});

async function changeStore(change: (txn: StoreTransaction) => void): Promise<void> {
  const store = openLmdbStore(join(path, "meta"));
  await store.transact(change);
  await store.close();
}

test("what is derived is made anew, and the pool reads as it did", async () => {
  const options = { path, metaPath: null };
  assert.equal((await repairClosedPool(options)).repaired, []);
  const key = chunkKey(0);
  await changeStore((txn) => {
    txn.put("free", key, encodeBitmap(key, new Uint8Array(1024).fill(0x55)));
    const { key: piece } = txn.range("spans", {})[0] as { key: Uint8Array };
    txn.remove("spans", piece);
  });
  await rejects(check(), "ECORRUPT", /free map|span/);
  const { clean, repaired } = await repairClosedPool(options);
  assert.ok(clean);
  assert.is(repaired.length, 2);
  assert.equal((await check()).problems, []);
  const { pool, close } = await openSamplePool(path);
  await compareSamplePool(pool, sample);
  await close();
});

test("what is not derived is refused, and is as it was", async () => {
  await changeStore((txn) => {
    const { key, value } = txn.range("index", {})[0] as { key: Uint8Array; value: Uint8Array };
    const bytes = new Uint8Array(value);
    bytes[9] = (bytes[9] as number) ^ 1;
    txn.put("index", key, bytes);
  });
  const before = [hash("data"), hash("meta/data.mdb")];
  const error = await rejects(
    repairClosedPool({ path, metaPath: null }),
    "ECORRUPT",
    /index 0x.*checksum/,
  );
  assert.match(error.message, path);
  assert.equal([hash("data"), hash("meta/data.mdb")], before);
});

async function inspected(part: InspectPart, more = {}): Promise<InspectItem[]> {
  const request = { part, layer: null, all: false, ...more };
  const items: InspectItem[] = [];
  const batches = inspectClosedPool({ path, metaPath: null }, request);
  for await (const batch of batches) items.push(...batch);
  return items;
}

test("what lies in a pool is decoded as it lies there, and nothing is written", async () => {
  const before = [hash("data"), hash("meta/data.mdb")];
  const of = (items: InspectItem[], what: RegExp) => items.filter((item) => what.test(item.what));
  const whole = await inspected("pool");
  assert.equal(
    of(whole, /^superblock [AB]$/).map(({ valid }) => valid),
    [true, true],
  );
  const [journal] = of(whole, /^journal record$/);
  const blocks = of(await inspected("journal"), /^journal block/);
  assert.ok(blocks.length > 3);
  blocks.forEach(({ what, state, records }, at) => {
    assert.is(what, `journal block ${Number(journal?.tail) + at}`);
    assert.is(state, "journal");
    assert.ok((records as unknown[]).length > 0);
  });
  assert.ok(of(await inspected("journal", { all: true }), /^journal block/).length > blocks.length);
  const names = of(await inspected("catalogue"), /^(volume|snapshot) /).map(({ what }) => what);
  const volumes = Object.keys(sample.volumes).map((name) => `volume ${name}`);
  const snapshots = Object.keys(sample.snapshots).map((name) => `snapshot ${name}`);
  assert.equal(names.sort(), [...volumes, ...snapshots].sort());
  const layers = of(await inspected("layers"), /^layer /);
  assert.equal([...new Set(layers.map(({ state }) => state))].sort(), [
    "dead",
    "frozen",
    "hidden",
    "live",
  ]);
  const [{ what: layer = "" } = {}] = layers.filter(({ indexBlocks }) => Number(indexBlocks) > 1);
  const index = await inspected("index", { layer: Number(layer.slice("layer ".length)) });
  const slots = of(index, /^index block/).flatMap((item) => item.slots as { count: number }[]);
  assert.ok(slots.length > 0 && slots.every(({ count }) => count > 0));
  assert.ok(index.every(({ what }) => what.includes(`of ${layer},`)));
  assert.is((await inspected("free"))[0]?.what, "chunk 0 of the free map");
  assert.equal([hash("data"), hash("meta/data.mdb")], before);
});

test("damage is an item among the others, and keeps nobody from what is whole", async () => {
  await changeStore((txn) => {
    const { key, value } = txn.range("layers", {})[1] as { key: Uint8Array; value: Uint8Array };
    const bytes = new Uint8Array(value);
    bytes[9] = (bytes[9] as number) ^ 1;
    txn.put("layers", key, bytes);
  });
  const layers = (await inspected("layers")).filter(({ what }) => what.startsWith("layer "));
  assert.match(layers[1]?.damaged ?? "", /checksum/);
  assert.ok(layers.length > 4 && layers.filter(({ damaged }) => damaged).length === 1);
  damage("data", (bytes) => bytes.fill(0xff, 0, 4096));
  damage("meta/data.mdb", (bytes) => bytes.fill(0xff, 2 * 4096));
  const items = await inspected("pool");
  assert.is(items.find(({ what }) => what === "superblock A")?.valid, false);
  assert.is(items.find(({ what }) => what === "superblock B")?.valid, true);
  assert.match(items.find(({ what }) => what === "store")?.damaged ?? "", /store: .*meta/);
  damage("data", (bytes) => bytes.fill(0xff, 64 * 1024, 68 * 1024));
  const [, journal] = await inspected("journal");
  assert.match(journal?.damaged ?? "", /superblock/);
});

/** The program of the process, but for its death where it would open the store. */
async function* inspectedByDying(lastWords: string): AsyncGenerator<InspectItem[]> {
  const program = join(folder.path, "dying.mjs");
  const real = JSON.stringify(pathToFileURL(STORE_PROGRAM));
  const dies = `process.stdout.write(${JSON.stringify(lastWords)}, () => process.kill(process.pid, "SIGKILL"))`;
  writeFileSync(program, `process.argv[6] ? await import(${real}) : ${dies};`);
  const place = { meta: join(path, "meta"), data: join(path, "data") };
  yield* inspectPoolInChild(place, { part: "pool", layer: null, all: false }, program);
}

test("of a store that ends its process the rest is told without it", async () => {
  const items: InspectItem[] = [];
  for await (const batch of inspectedByDying("")) items.push(...batch);
  assert.equal(
    items.map(({ what }) => what),
    ["superblock A", "superblock B", "device", "store"],
  );
  assert.match(items.at(-1)?.damaged ?? "", /died reading its file \(SIGKILL\)/);
});

test("a process that dies when it has told of something has told all there is", async () => {
  const items: InspectItem[] = [];
  const dying = async (): Promise<void> => {
    for await (const batch of inspectedByDying('{"item":{"what":"one"}}\n')) items.push(...batch);
  };
  await rejects(dying(), "ECORRUPT", /died reading its file/);
  assert.equal(items, [{ what: "one" }]);
});

test("an error of the process is the error, with its place", async () => {
  damage("data", (bytes) => bytes.fill(0, 0, 128 * 1024));
  const error = await rejects(check(), "ECORRUPT", /superblock/);
  assert.match(error.message, path);
  assert.is(error.context.field, "superblock");
});

test("a store that LMDB does not take is an error in both", async () => {
  damage("meta/data.mdb", (bytes) => bytes.fill(0xff, 2 * 4096));
  await rejects(check(), "ECORRUPT", /store: .*meta/);
  let forgotten = 0;
  const inService = storeCheckInChild(join(path, "meta"), () => forgotten++);
  const nothing = { get: () => undefined, range: () => [], count: () => 0 };
  await rejects(
    inService(nothing, (work) => work()),
    "ECORRUPT",
    /store: .*meta/,
  );
  assert.is(forgotten, 1);
});

test("a folder that is no store is an error, not a report", async () => {
  const nowhere = join(folder.path, "nowhere");
  const place = { meta: nowhere, data: join(path, "data") };
  await rejects(checkPoolInChild(place), "ENOTFOUND", /nowhere.*is missing/);
});

test.run();

// The check as its users run it: in a process of its own, whose death is an answer like any other,
// on a pool that nobody serves and on one in service; and nothing of the pool is changed by it.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkPoolInChild, storeCheckInChild } from "../../engine/check-child.js";
import { checkClosedPool } from "../../engine/open-pool.js";
import { fixtureFolder, unpackPool } from "../fixtures/packed-pool.js";
import { temporaryFolder } from "../support/pando.js";
import { rejects } from "../support/refuses.js";
import { openSamplePool } from "../support/sample-pool.js";

const test = suite("check process");
const folder = temporaryFolder();
let path = "";
let pools = 0;

test.before.each(() => {
  path = join(folder.path, `pool-${++pools}`);
  unpackPool(fixtureFolder("pool-v1"), path);
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

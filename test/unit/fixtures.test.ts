// Pools that earlier versions have left, each as a daemon leaves it that is killed, and one that
// this version makes: they open, and read as they did. A new format adds a fixture and keeps the
// old ones.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { openDataDevice } from "../../engine/core/data-device.js";
import { recoverInMemory } from "../../engine/core/offline-check.js";
import { getJournalRecord } from "../../engine/store/catalogue.js";
import { listLayers } from "../../engine/store/layers.js";
import { openEnvironment } from "../../engine/store/lmdb-environment.js";
import { LmdbReader } from "../../engine/store/lmdb-store.js";
import { fixtureFolder, unpackPool } from "../fixtures/packed-pool.js";
import { temporaryFolder } from "../support/pando.js";
import { compareSamplePool, emptySamplePool, openSamplePool } from "../support/sample-pool.js";

const test = suite("fixtures");
const folder = temporaryFolder();
const FIXTURES = readdirSync(fixtureFolder(".")).filter((name) => name.startsWith("pool-v"));

test.after(() => folder.remove());

test("there is one of each format", () => {
  assert.ok(FIXTURES.includes("pool-v1"));
});

const present = join(folder.path, "present");
test.before(() => {
  const program = fileURLToPath(new URL("../fixtures/make-pool.js", import.meta.url));
  const made = spawnSync(process.execPath, [program, present], { encoding: "utf8" });
  assert.is(made.status, 0, made.stderr);
});

for (const fixture of [...FIXTURES.map(fixtureFolder), present]) {
  const name = basename(fixture);
  test(`${name}: has layers of each kind, and a journal that is not in the store yet`, async () => {
    const path = join(folder.path, `${name}-read`);
    unpackPool(fixture, path);
    const environment = openEnvironment(join(path, "meta"), "read");
    const device = openDataDevice(join(path, "data"), "r");
    const reader = new LmdbReader(environment);
    const states = new Set(listLayers(reader).map(({ record }) => record.state));
    assert.equal([...states].sort(), ["dead", "frozen", "hidden", "live"]);
    const recovered = await recoverInMemory(reader, device);
    assert.ok(getJournalRecord(recovered).tail > getJournalRecord(reader).tail + 3);
    device.close();
    await environment.root.close();
  });

  test(`${name}: opens, reads as it did, is clean, and can be emptied`, async () => {
    const path = join(folder.path, `${name}-opened`);
    const sample = unpackPool(fixture, path);
    // Once as it was left, once as this version leaves it.
    for (const isLast of [false, true]) {
      const { pool, close } = await openSamplePool(path);
      try {
        assert.is((await pool.info()).failure, null);
        await compareSamplePool(pool, sample);
        assert.equal((await pool.check()).problems, []);
        if (isLast) await emptySamplePool(pool);
      } finally {
        await close();
      }
    }
  });
}

test.run();

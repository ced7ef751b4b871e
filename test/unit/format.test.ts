// Making pools: what is made opens, what is refused leaves nothing behind.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type ErrorCode, isPandoError } from "../../engine/base/errors.js";
import { checkStore } from "../../engine/core/check.js";
import { openDataDevice } from "../../engine/core/data-device.js";
import { type CreatePoolOptions, createPool, poolPaths } from "../../engine/core/format.js";
import { recover } from "../../engine/core/recovery.js";
import { openLmdbStore } from "../../engine/store/lmdb-store.js";

const test = suite("format");
const MIB = 1024 * 1024;
let parent = "";
let path = "";

test.before.each(() => {
  parent = mkdtempSync(join(tmpdir(), "pando-format-"));
  path = join(parent, "pool");
});
test.after.each(() => rmSync(parent, { recursive: true, force: true }));

test("a pool that was made opens, empty and clean, epoch after epoch", async () => {
  const made = await createPool(path, { sizeBytes: 64 * MIB, sparse: true });
  assert.is(statSync(join(path, "data")).size, 64 * MIB);
  assert.is(made.dataOffsetBytes, 9 * MIB);
  assert.is(made.dataBlocks, (55 * MIB) / 4096);
  for (const epoch of [2, 3]) {
    const paths = poolPaths(path);
    const store = openLmdbStore(paths.meta);
    const device = openDataDevice(paths.data, "r");
    const found = await recover(store, device);
    assert.equal(found.superblock, made);
    assert.is(found.epoch, epoch);
    assert.is(found.replayedRecords, 0);
    assert.equal(checkStore(store), {
      clean: true,
      problems: [],
      layers: 0,
      indexBlocks: 0,
      ownedBlocks: 0,
    });
    device.close();
    await store.close();
  }
});

test("a truncated data file is refused by the field", async () => {
  await createPool(path, { sizeBytes: 64 * MIB, sparse: true, blockSizeBytes: 65536 });
  const store = openLmdbStore(join(path, "meta"));
  writeFileSync(join(path, "data"), openDataDevice(join(path, "data"), "r").read(0, 10 * MIB));
  const device = openDataDevice(join(path, "data"), "r");
  const error = await recover(store, device).catch((caught: unknown) => caught);
  assert.ok(isPandoError(error, "ECORRUPT"));
  assert.is(error.context.field, "deviceSize");
  device.close();
  await store.close();
});

test("bad options are refused by their name, and nothing is made", async () => {
  const cases: [CreatePoolOptions, string][] = [
    [{}, "sizeBytes"],
    [{ sizeBytes: 0 }, "sizeBytes"],
    [{ sizeBytes: Number.NaN }, "sizeBytes"],
    [{ sizeBytes: 64 * MIB + 512 }, "sizeBytes"],
    [{ sizeBytes: 64 * MIB + 4096, blockSizeBytes: 8192 }, "sizeBytes"],
    [{ sizeBytes: MIB }, "sizeBytes"],
    [{ sizeBytes: 64 * MIB, blockSizeBytes: 2048 }, "blockSizeBytes"],
    [{ sizeBytes: 64 * MIB, blockSizeBytes: 5000 }, "blockSizeBytes"],
    [{ sizeBytes: 2 ** 45 }, "blockSizeBytes"],
    [{ sizeBytes: 64 * MIB, journalBytes: 4096 }, "journalBytes"],
    [{ sizeBytes: 64 * MIB, journalBytes: MIB + 1 }, "journalBytes"],
    [{ sizeBytes: 64 * MIB, journalBytes: 2 ** 40 }, "journalBytes"],
    [{ sizeBytes: 64 * MIB, journalBytes: 64 * MIB }, "sizeBytes"],
  ];
  for (const [options, field] of cases) {
    const error = await createPool(path, options).catch((caught: unknown) => caught);
    assert.ok(isPandoError(error, "EINVAL"), `${JSON.stringify(options)}: ${error}`);
    assert.is(error.context.field, field, error.message);
    assert.equal(readdirSync(parent), []);
  }
});

test("what is not empty is refused and left alone", async () => {
  const refused = async (where: string): Promise<ErrorCode> => {
    const error = await createPool(where, { sizeBytes: 64 * MIB, sparse: true }).catch(
      (caught: unknown) => caught,
    );
    assert.ok(isPandoError(error), String(error));
    return error.code;
  };
  mkdirSync(path);
  writeFileSync(join(path, "precious"), "x");
  assert.is(await refused(path), "EEXIST");
  assert.equal(readdirSync(path), ["precious"]);
  assert.is(await refused(join(path, "precious")), "EEXIST");
  assert.is(await refused(join(parent, "no", "such", "pool")), "ENOTFOUND");
  const second = join(parent, "second");
  await createPool(second, { sizeBytes: 64 * MIB, sparse: true });
  assert.is(await refused(second), "EEXIST");
});

test("a failure on the way leaves nothing behind", async () => {
  writeFileSync(join(parent, "file"), "x");
  const metaPath = join(parent, "file", "meta");
  const options = { sizeBytes: 64 * MIB, sparse: true, metaPath };
  const error = await createPool(path, options).catch((caught: unknown) => caught);
  assert.ok(error instanceof Error);
  assert.not(existsSync(path));
  assert.equal(readdirSync(parent), ["file"]);
});

test.run();

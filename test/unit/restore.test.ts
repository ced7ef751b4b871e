// A backup of the metadata beside a device that has gone on: what restores reads as the device was
// at the end, not as at the backup; and what would read wrong is refused, with nothing changed.
//
// The daemon's death is a copy of its data file, made while it runs.
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { createPool } from "../../engine/core/format.js";
import type { Pool } from "../../engine/core/pool.js";
import { growPool } from "../../engine/grow-pool.js";
import { backUpClosedPool, type OpenedPool } from "../../engine/open-pool.js";
import { restorePool } from "../../engine/restore-pool.js";
import { IO_OP } from "../../native/native.js";
import { temporaryFolder } from "../support/pando.js";
import { rejects } from "../support/refuses.js";
import { openSamplePool } from "../support/sample-pool.js";

const test = suite("restore");
const folder = temporaryFolder();
const SECTOR = 4096;
const SIZE = 64 * SECTOR;
const JOURNAL_BLOCKS = 64;
let path = "";
let file = "";
let opened: OpenedPool;
let pools = 0;
let lefts = 0;

test.before.each(async () => {
  path = join(folder.path, `pool-${++pools}`);
  file = `${path}.backup`;
  const sizeBytes = 8 * 2 ** 20;
  await createPool(path, { sizeBytes, journalBytes: JOURNAL_BLOCKS * SECTOR, sparse: true });
  opened = await openSamplePool(path);
  await opened.pool.createVolume("db", SIZE);
  await write("db", 0, 16, "first");
});
test.after.each(() => opened.close());
test.after(() => folder.remove());

async function write(name: string, sector: number, sectors: number, text: string): Promise<void> {
  await io(name, IO_OP.write, sector, Buffer.alloc(sectors * SECTOR, `${text} `));
}

async function io(name: string, op: number, sector: number, data: Buffer): Promise<void> {
  const { pool } = opened;
  const bytes = op === IO_OP.write ? data : null;
  await pool.hold(name);
  const done = await pool.io(name, op, sector * SECTOR, data.length, bytes);
  const flushed = await pool.io(name, IO_OP.flush, 0, 0);
  await pool.release(name);
  assert.equal([done.status, flushed.status], ["ok", "ok"]);
}

async function read(pool: Pool, name: string): Promise<Buffer> {
  await pool.hold(name);
  const { data } = await pool.io(name, IO_OP.read, 0, SIZE);
  await pool.release(name);
  return Buffer.from(data ?? []);
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

async function backUp(): Promise<void> {
  writeFileSync(file, await collect(opened.pool.backUpMetadata()));
}

/** The pool as a daemon that is killed now leaves its device. Its store is lost. */
async function killed(): Promise<string> {
  const left = `${path}-left-${++lefts}`;
  mkdirSync(left);
  copyFileSync(join(path, "data"), join(left, "data"));
  await opened.close();
  return left;
}

async function refused(left: string, why: RegExp): Promise<void> {
  const before = readFileSync(join(left, "data"));
  await rejects(restorePool(file, { path: left, metaPath: null }), "ECORRUPT", why);
  assert.not.ok(existsSync(join(left, "meta")) || existsSync(join(left, ".meta.restoring")));
  assert.ok(readFileSync(join(left, "data")).equals(before));
}

async function restored(left: string): Promise<Pool> {
  const report = await restorePool(file, { path: left, metaPath: null });
  assert.ok(report.clean);
  opened = await openSamplePool(left);
  assert.equal((await opened.pool.check()).problems, []);
  return opened.pool;
}

test("what was written since the backup is there, snapshots of before are as they were", async () => {
  await opened.pool.createSnapshot("db", "monday");
  await write("db", 2, 4, "second");
  await backUp();
  await write("db", 4, 8, "third");
  await write("db", 20, 30, "fourth");
  await opened.pool.checkpoint();
  await io("db", IO_OP.discard, 22, Buffer.alloc(4 * SECTOR));
  await write("db", 5, 1, "in place");
  const expected = await read(opened.pool, "db");
  const pool = await restored(await killed());
  assert.ok((await read(pool, "db")).equals(expected));
  await pool.cloneVolume({ volume: "db", snapshot: "monday" }, "old");
  const old = await read(pool, "old");
  assert.ok(
    old.equals(Buffer.concat([Buffer.alloc(16 * SECTOR, "first "), old.subarray(16 * SECTOR)])),
  );
});

test("what was only named since is gone, and its name is free", async () => {
  await backUp();
  await opened.pool.createSnapshot("db", "empty");
  await opened.pool.createVolume("another", SIZE);
  const expected = await read(opened.pool, "db");
  const pool = await restored(await killed());
  assert.equal(
    (await pool.listVolumes()).map(({ name }) => name),
    ["db"],
  );
  assert.ok((await read(pool, "db")).equals(expected));
  await pool.createVolume("another", SIZE);
});

test("after a clean stop, until the pool is opened again", async () => {
  const expected = await read(opened.pool, "db");
  await opened.close();
  writeFileSync(file, await collect(backUpClosedPool({ path, metaPath: null })));
  const pool = await restored(await killed());
  assert.ok((await read(pool, "db")).equals(expected));
  await opened.close();
  opened = await openSamplePool(path);
  await refused(await killed(), /superblock: epoch.*it is older/);
});

test("a deleted snapshot that was folded, and written over in place", async () => {
  await opened.pool.createSnapshot("db", "monday");
  await backUp();
  await opened.pool.deleteSnapshot("db", "monday");
  await opened.pool.settle();
  await write("db", 0, 1, "changed");
  await refused(await killed(), /has given its blocks up/);
});

test("a deleted volume that was reclaimed, and its blocks are another's", async () => {
  await opened.pool.createVolume("gone", SIZE);
  await write("gone", 0, 64, "gone");
  await backUp();
  await opened.pool.deleteVolume("gone");
  await opened.pool.settle();
  await refused(await killed(), /has given its blocks up/);
});

test("a backup of after that is taken", async () => {
  await opened.pool.createSnapshot("db", "monday");
  await backUp();
  await opened.pool.deleteSnapshot("db", "monday");
  await opened.pool.settle();
  await write("db", 0, 1, "changed");
  await backUp();
  const expected = await read(opened.pool, "db");
  assert.ok((await read(await restored(await killed()), "db")).equals(expected));
});

test("a snapshot since, and writes after it", async () => {
  await backUp();
  await opened.pool.createSnapshot("db", "later");
  await write("db", 0, 1, "changed");
  await refused(await killed(), /record of layer 2, and the store has no layer 2/);
});

test("a journal that has come round", async () => {
  await backUp();
  for (let i = 0; i <= JOURNAL_BLOCKS; i++) {
    // To and fro, so that each one has a record.
    if (i % 2 === 0) await write("db", 40, 1, `round ${i}`);
    else await io("db", IO_OP.discard, 40, Buffer.alloc(SECTOR));
    if (i % 16 === 0) await opened.pool.checkpoint();
  }
  await refused(await killed(), /found at the place of sequence/);
});

test("a pool that was grown", async () => {
  await backUp();
  await opened.close();
  const sizeBytes = 16 * 2 ** 20;
  await growPool({ path, metaPath: null, sizeBytes, sparse: true });
  await refused(await killed(), /generation is 2 on the device and 1 in the store/);
});

test("another pool's backup, one that is cut or changed, a place that is taken", async () => {
  await backUp();
  const whole = readFileSync(file);
  const stranger = join(folder.path, `stranger-${pools}`);
  await createPool(stranger, { sizeBytes: 8 * 2 ** 20, sparse: true });
  const options = { path: stranger, metaPath: null };
  await rejects(restorePool(file, options), "EEXIST", /meta is there/);
  await rejects(
    restorePool(file, { path: stranger, metaPath: join(stranger, "other") }),
    "ECORRUPT",
    /it is of pool/,
  );
  await rejects(restorePool(file, { path, metaPath: `${path}-meta` }), "EBUSY", /is open in/);
  const left = await killed();
  for (const length of [0, 12, 100, whole.length / 2, whole.length - 1]) {
    writeFileSync(file, whole.subarray(0, length));
    await refused(left, /cut|no backup/);
  }
  writeFileSync(file, Buffer.concat([whole, Buffer.of(0)]));
  await refused(left, /more or less/);
  for (const at of [0, 9, 13, 20, 200, whole.length - 20, whole.length - 4]) {
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] as number) ^ 4;
    writeFileSync(file, bytes);
    await refused(left, /damaged|cut|no backup|more or less/);
  }
  writeFileSync(file, whole);
  await restored(left);
});

test.run();

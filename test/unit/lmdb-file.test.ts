// What LMDB would die of, or answer wrongly, is refused before it is opened; and nothing is changed
// by the refusal.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError, type PandoError } from "../../engine/base/errors.js";
import { openLmdbStore } from "../../engine/store/lmdb-store.js";

const test = suite("lmdb file");
let folder = "";
let file = "";

test.before.each(async () => {
  folder = mkdtempSync(join(tmpdir(), "pando-lmdb-"));
  file = join(folder, "data.mdb");
  const store = openLmdbStore(folder, { create: true });
  for (let round = 0; round < 5; round++) {
    await store.transact((txn) => {
      for (let i = 0; i < 200; i++) {
        txn.put("index", Buffer.from([round, i]), Buffer.alloc(3000, i));
      }
    });
  }
  await store.close();
});

test.after.each(() => rmSync(folder, { recursive: true, force: true }));

const hash = (): string => createHash("sha256").update(readFileSync(file)).digest("hex");

function refusal(): PandoError {
  try {
    openLmdbStore(folder);
  } catch (error) {
    assert.ok(isPandoError(error), String(error));
    return error;
  }
  throw new Error("not refused");
}

/** Bytes that LMDB has used, off its newest meta page. */
function usedBytes(): number {
  const bytes = readFileSync(file);
  const metas = [0, 4096].map((page) => ({
    last: bytes.readBigUInt64LE(page + 0x90),
    transaction: bytes.readBigUInt64LE(page + 0x98),
  }));
  const [a, b] = metas as [(typeof metas)[0], (typeof metas)[0]];
  return (Number((a.transaction > b.transaction ? a : b).last) + 1) * 4096;
}

test("the file is longer than LMDB has used of it, and opens again", async () => {
  assert.ok(usedBytes() > 4_000_000);
  assert.ok(statSync(file).size > usedBytes());
  assert.ok(statSync(file).blocks * 512 < usedBytes() + 1_000_000, "the rest takes no space");
  const store = openLmdbStore(folder);
  assert.is(store.get("index", Buffer.from([4, 7]))?.length, 3000);
  await store.close();
});

test("a missing file is refused by name, and not made", () => {
  rmSync(file);
  const error = refusal();
  assert.is(error.code, "ENOTFOUND");
  assert.is(error.context.path, file);
  assert.not(existsSync(file));
});

test("a file to be made must not be there", () => {
  const before = hash();
  try {
    openLmdbStore(folder, { create: true });
    assert.unreachable();
  } catch (error) {
    assert.ok(isPandoError(error, "EEXIST"));
  }
  assert.is(hash(), before);
});

test("a truncated file is refused with both sizes, wherever it was cut", () => {
  const used = usedBytes();
  for (const size of [used - 1, used - 4096, Math.floor(used / 2), 8192, 4097, 100, 0]) {
    truncateSync(file, size);
    const before = hash();
    const error = refusal();
    assert.is(error.code, "ECORRUPT");
    assert.match(error.message, file);
    assert.match(error.message, String(size));
    assert.is(hash(), before);
  }
});

test("a file that is no LMDB file is refused", () => {
  writeFileSync(file, Buffer.alloc(1_000_000, "no"));
  assert.is(refusal().code, "ECORRUPT");
});

test("one damaged meta page is normal: the other counts", async () => {
  const bytes = readFileSync(file);
  bytes.fill(0, 0, 4096);
  writeFileSync(file, bytes);
  truncateSync(file, 20_000);
  assert.is(refusal().code, "ECORRUPT");
});

test("a killed writer's file opens with all that had resolved", () => {
  const child = spawnSync(process.execPath, [fileURLToPath(import.meta.url), "write", folder], {
    encoding: "utf8",
  });
  assert.is(child.signal, "SIGKILL", child.stderr);
  const store = openLmdbStore(folder);
  const last = Number(child.stdout.trim().split("\n").at(-1));
  assert.ok(last >= 20);
  for (let i = 0; i <= last; i++) {
    assert.is(store.get("layers", Buffer.from(`k${i}`))?.length, 2500, `k${i}`);
  }
  return store.close();
});

test("a commit that fails rejects, changes nothing, and leaves the store and the process alive", () => {
  // A limit on the size of files, in units of 512 bytes; its signal is ignored, so that writes fail
  // instead.
  const limited = `trap '' XFSZ; ulimit -f 16000; exec "$0" "$@"`;
  const self = fileURLToPath(import.meta.url);
  const child = spawnSync("sh", ["-c", limited, process.execPath, self, "fill", folder], {
    encoding: "utf8",
  });
  assert.is(child.status, 0, child.stderr);
  const { committed, code, counts } = JSON.parse(child.stdout);
  assert.ok(committed > 1);
  assert.is(code, "EIO");
  assert.equal(counts, [committed * 10, committed * 10, 0, 1]);
});

/** Commits until it fails, three times over; then makes room and goes on. */
async function fill(directory: string): Promise<void> {
  const store = openLmdbStore(directory);
  let committed = 0;
  let code = "";
  const keys = (n: number): Buffer[] => Array.from({ length: 10 }, (_, i) => Buffer.from([n, i]));
  for (let failures = 0; failures < 3; ) {
    try {
      await store.transact((txn) => {
        for (const key of keys(committed)) txn.put("free", key, Buffer.alloc(30_000, committed));
      });
      committed++;
    } catch (error) {
      code = (error as PandoError).code;
      failures++;
    }
  }
  const counts = [store.count("free")];
  counts.push(store.range("free", {}).filter(({ key, value }) => key[0] === value[0]).length);
  await store.transact((txn) => {
    for (let n = 0; n < committed; n++) for (const key of keys(n)) txn.remove("free", key);
  });
  counts.push(store.count("free"));
  await store.transact((txn) => txn.put("free", Buffer.from("again"), Buffer.alloc(30_000)));
  counts.push(store.count("free"));
  await store.close();
  process.stdout.write(JSON.stringify({ committed, code, counts }));
}

async function writeUntilKilled(directory: string): Promise<void> {
  const store = openLmdbStore(directory);
  for (let i = 0; i < 1000; i++) {
    await store.transact((txn) => txn.put("layers", Buffer.from(`k${i}`), Buffer.alloc(2500, i)));
    process.stdout.write(`${i}\n`);
    if (i === 20) process.kill(process.pid, "SIGKILL");
  }
}

if (process.argv[2] === "write") await writeUntilKilled(process.argv[3] as string);
else if (process.argv[2] === "fill") await fill(process.argv[3] as string);
else test.run();

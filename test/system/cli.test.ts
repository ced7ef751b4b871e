// Bad input to the real thing: real commands, a real daemon, a pool on disk. Each is refused with
// one line that names the thing, exit code 1 (2 if used wrongly), and nothing is changed: every
// file of the pool and of its store has the same hash before and after.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import {
  type DaemonProcess,
  failed,
  freePort,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";

const real = pandoCommand("real");
const folder = temporaryFolder();
const pool = join(folder.path, "pool");
const socket = join(folder.path, "run", "pando.sock");
const nbdSocket = join(folder.path, "run", "nbd.sock");
const ZEROES = Buffer.alloc(1024 * 1024);
const quiet = ["--metrics", "none", "--target", "none"];
const pando = (...args: string[]) => runPando(real, args, { PANDO_SOCKET: socket });
const serve = (path: string) =>
  startPandoDaemon(real, ["--pool", path, "--socket", socket, ...quiet]);

/** Expects a daemon, and a check, on this path to be refused, and the path to be left as it is. */
async function refusedOpening(path: string, message: RegExp): Promise<void> {
  const before = hashes(path);
  const other = join(folder.path, "other", "pando.sock");
  const daemon = ["daemon", "--pool", path, "--socket", other, ...quiet];
  failed(await pando(...daemon), 1, message);
  failed(await pando("pool", "check", path), 1, message);
  assert.equal(hashes(path), before);
}

/** A copy of the pool to damage. */
function copyOfPool(name: string): { path: string; data: string; store: string } {
  const path = join(folder.path, name);
  // Not with Node's own, which would fill the holes.
  assert.is(spawnSync("cp", ["-a", pool, path]).status, 0);
  return { path, data: join(path, "data"), store: join(path, "meta", "data.mdb") };
}

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await pando(...args);
  assert.is(code, 0, stderr);
  return stdout;
}

test.before(async () => {
  await ok("pool", "create", pool, "--size", "64MiB", "--journal-size", "1MiB", "--sparse");
  const daemon = await serve(pool);
  await ok("volume", "create", "db", "--size", "16MiB");
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "db" });
  await nbd.write(0, Buffer.alloc(1024 * 1024, "x"));
  await nbd.flush();
  await nbd.close();
  await ok("snapshot", "create", "db@monday");
  await ok("volume", "clone", "db@monday", "db-test");
  await ok("snapshot", "create", "db-test@branched");
  assert.is(await daemon.stop(), 0);
});

test.after(() => {
  killDaemons();
  folder.remove();
});

test("a pool is made once, and where nothing else is", async () => {
  const before = hashes(pool);
  failed(await pando("pool", "create", pool, "--size", "64MiB"), 1, /pool/);
  assert.equal(hashes(pool), before);
  const precious = join(folder.path, "precious");
  mkdirSync(precious);
  writeFileSync(join(precious, "data"), "not a pool");
  failed(await pando("pool", "create", precious, "--size", "64MiB"), 1, /precious/);
  assert.is(readFileSync(join(precious, "data"), "utf8"), "not a pool");
  for (const size of ["10GG", "0", "5000", "4096"]) {
    const path = join(folder.path, `size-${size}`);
    failed(await pando("pool", "create", path, "--size", size), 1, /size|small/);
    assert.not(existsSync(path));
  }
});

test("a pool grows, and what is in it stays", async () => {
  const path = join(folder.path, "growing");
  await ok("pool", "create", path, "--size", "16MiB", "--journal-size", "1MiB");
  const grow = (size: string) => pando("pool", "grow", path, "--size", size);
  const before = hashes(path);
  failed(await grow("8MiB"), 1, /does not shrink/);
  failed(await grow("16MiB"), 1, /already/);
  failed(await grow("20000000"), 1, /not a multiple of the block size/);
  failed(await pando("pool", "grow", path), 1, /needs its new size/);
  failed(await pando("pool", "grow", join(folder.path, "none"), "--size", "1G"), 1, /not a pool/);
  assert.equal(hashes(path), before);
  let daemon = await serve(path);
  await ok("volume", "create", "big", "--size", "64MiB");
  failed(await grow("64MiB"), 1, new RegExp(`open in process ${daemon.pid}`));
  await daemon.stop();
  assert.match(await ok("pool", "grow", path, "--size", "64MiB"), /: 62 MiB for data\n$/);
  assert.match(await ok("pool", "check", path), /^clean/);
  daemon = await serve(path);
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "big" });
  for (let at = 0; at < 40; at++) await nbd.write(at * 2 ** 20, Buffer.alloc(2 ** 20, "x"));
  await nbd.flush();
  const data = join(path, "data");
  failed(await pando("pool", "grow"), 1, /needs its new size/);
  failed(await pando("pool", "grow", "--size", "8MiB"), 1, /does not shrink/);
  failed(await pando("pool", "grow", "--size", "20000000"), 1, /not a multiple of the block size/);
  assert.is(statSync(data).size, 64 * 2 ** 20);
  assert.match(await ok("pool", "grow", "--size", "72MiB"), /\nsize {8}70 MiB\n/);
  assert.ok(statSync(data).blocks * 512 >= 72 * 2 ** 20, "the file has all of its blocks");
  assert.match(await ok("pool", "grow", "--size", "80MiB", "--sparse"), /\nsize {8}78 MiB\n/);
  assert.is(statSync(data).size, 80 * 2 ** 20);
  for (let at = 40; at < 64; at++) await nbd.write(at * 2 ** 20, Buffer.alloc(2 ** 20, "y"));
  await nbd.flush();
  assert.match(await ok("pool", "check"), /^clean/);
  await nbd.close();
  await daemon.stop("SIGKILL");
  assert.match(await ok("pool", "check", path), /^clean/);
  daemon = await serve(path);
  assert.match(await ok("pool", "show"), /\nsize {8}78 MiB\n/);
  assert.is(await daemon.stop(), 0);
  assert.match(await ok("pool", "check", path), /^clean/);
});

test("what the daemon refuses changes nothing", async () => {
  const daemon = await serve(pool);
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "db-test" });
  try {
    const before = hashes(pool);
    const list = await ok("volume", "list", "--json");
    const create = (name: string, size: string) => ["volume", "create", name, "--size", size];
    const table: [1 | 2, RegExp, string[]][] = [
      [2, /Unknown argument: siz/, ["volume", "create", "x", "--size", "1G", "--siz", "1G"]],
      [2, /Missing required argument: size/, ["volume", "create", "x"]],
      [1, /"10GG" is not a valid size/, create("x", "10GG")],
      [1, /the size is 0/, create("x", "0")],
      [1, /5000 is not a multiple of the block size, 4096/, create("x", "5000")],
      [1, /size/, create("x", "2P")],
      [1, /\bdb\b/, create("db", "16MiB")],
      [1, /"\/" is not allowed/, create("../x", "16MiB")],
      [1, /"é" is not allowed/, create("café", "16MiB")],
      [1, /nothing/, ["volume", "show", "nothing"]],
      [1, /nothing/, ["volume", "delete", "nothing"]],
      [1, /nothing/, ["volume", "clone", "nothing", "x"]],
      [1, /nothing/, ["volume", "clone", "db@nothing", "x"]],
      [1, /\bdb\b/, ["volume", "clone", "db@monday", "db"]],
      [1, /nothing/, ["snapshot", "create", "nothing@x"]],
      [1, /monday/, ["snapshot", "create", "db@monday"]],
      [1, /nothing/, ["snapshot", "create", "db@x", "nothing@x"]],
      [1, /monday/, ["snapshot", "create", "db-test@x", "db@monday"]],
      [1, /db is in the group twice/, ["snapshot", "create", "db@x", "db@y"]],
      [1, /nothing/, ["volume", "rollback", "db@nothing"]],
      [1, /there is no snapshot db-test@x/, ["volume", "rollback", "db-test@x"]],
      [1, /"0" is not a valid iops/, ["volume", "set", "db", "--iops", "0"]],
      [1, /65536/, ["volume", "set", "db", "--bandwidth", "4096"]],
      [1, /nothing/, ["snapshot", "delete", "db@nothing"]],
      [1, /smaller|shrink|grow/, ["volume", "resize", "db", "--size", "8MiB"]],
      [1, /db-test.*(in use|open)/, ["volume", "rollback", "db-test@branched"]],
      [1, /is not a host NQN/, ["host", "allow", "db", "me"]],
      [1, /db-test.*(in use|open)/, ["volume", "delete", "db-test"]],
    ];
    for (const [code, message, args] of table) {
      failed(await pando(...args), code, message);
      assert.equal(hashes(pool), before, args.join(" "));
    }
    assert.is(await ok("volume", "list", "--json"), list);
  } finally {
    await nbd.close();
    await daemon.stop();
  }
});

test("metrics have a series for the volume that is open, and for no other", async () => {
  const metrics = `127.0.0.1:${await freePort()}`;
  const args = ["--pool", pool, "--socket", socket, "--target", "none", "--metrics", metrics];
  const daemon = await startPandoDaemon(real, args);
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "db-test" });
  const scrape = async () => (await fetch(`http://${metrics}/metrics`)).text();
  const open = await scrape();
  assert.match(open, '\npando_volume_sessions{volume="db-test",front_end="nbd"} 1\n');
  assert.match(open, '\npando_volume_shared_bytes{volume="db-test"} 1048576\n');
  assert.match(open, /\npando_pool_volumes 2\n/);
  assert.not.match(open, /volume="db"/);
  await nbd.close();
  while (/volume="/.test(await scrape())) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.is(await daemon.stop(), 0);
});

test("a pool that another daemon has open", async () => {
  const daemon = await serve(pool);
  try {
    await refusedOpening(pool, new RegExp(`\\b${daemon.pid}\\b`));
    assert.match(await ok("pool", "check"), /^clean/);
  } finally {
    await daemon.stop();
  }
});

test("what is no pool", async () => {
  const path = join(folder.path, "no-pool");
  await refusedOpening(path, /no-pool/);
  assert.not(existsSync(path));
  mkdirSync(path);
  await refusedOpening(path, /no-pool/);
  writeFileSync(`${path}.img`, Buffer.alloc(1024 * 1024));
  await refusedOpening(`${path}.img`, /no-pool\.img/);
  const { path: zeroed, data } = copyOfPool("zeroed");
  writeFileSync(data, Buffer.alloc(statSync(data).size));
  await refusedOpening(zeroed, /zeroed.*superblock|superblock.*zeroed/i);
});

test("another pool's data file", async () => {
  const stranger = join(folder.path, "stranger");
  await ok("pool", "create", stranger, "--size", "64MiB", "--journal-size", "1MiB", "--sparse");
  const { path, data } = copyOfPool("swapped");
  assert.is(spawnSync("cp", ["-a", join(stranger, "data"), data]).status, 0);
  await refusedOpening(path, /swapped.*(UUID|another pool)|(UUID|another pool).*swapped/i);
});

test("a data file that is too short", async () => {
  const { path, data } = copyOfPool("short");
  const { size } = statSync(data);
  for (const length of [size - 4096, size / 2, 1024 * 1024, 4096, 100, 0]) {
    truncateSync(data, length);
    await refusedOpening(path, /short/);
  }
  rmSync(data);
  await refusedOpening(path, /short/);
});

test("a store that is too short, or not there", async () => {
  const { path, store } = copyOfPool("storeless");
  // The file is longer than what is used of it. From long to short, so that no copy is needed.
  for (const length of [16384, 8192, 4096, 100, 0]) {
    truncateSync(store, length);
    await refusedOpening(path, /data\.mdb|storeless/);
  }
  rmSync(store);
  await refusedOpening(path, /data\.mdb|storeless/);
  assert.not(existsSync(store));
  renameSync(join(path, "meta"), join(path, "elsewhere"));
  await refusedOpening(path, /storeless/);
  assert.not(existsSync(join(path, "meta")));
});

test("both superblocks bad is a refusal, one is not", async () => {
  const { path, data } = copyOfPool("superblocks");
  flipByte(data, 0x28);
  const daemon = await serve(path);
  assert.match(await ok("pool", "check"), /^clean/);
  assert.is(await daemon.stop(), 0);
  flipByte(data, 64 * 1024 + 0x28);
  // Opening may have repaired the first one.
  if (hasSuperblock(data)) flipByte(data, 0x28);
  await refusedOpening(path, /superblock/i);
});

test("after all of that the pool is what it was", async () => {
  const daemon: DaemonProcess = await serve(pool);
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "db-test" });
  const read = await nbd.read(0, 1024 * 1024);
  await nbd.close();
  assert.ok(read.equals(Buffer.alloc(1024 * 1024, "x")));
  assert.match(await ok("pool", "check"), /^clean/);
  assert.is(await daemon.stop(), 0);
  assert.match(await ok("pool", "check", pool), /^clean/);
});

test.run();

/**
 * Of every file under `path`, by name; of LMDB's lock file, which every reader writes to, only the
 * name.
 */
function hashes(path: string): Record<string, string> {
  if (!existsSync(path)) return {};
  if (!statSync(path).isDirectory()) return { [path]: hash(path) };
  const entries = readdirSync(path, { recursive: true, encoding: "utf8" }).sort();
  const files = entries.filter((name) => statSync(join(path, name)).isFile());
  return Object.fromEntries(
    files.map((name) => [name, name.endsWith("lock.mdb") ? "" : hash(join(path, name))]),
  );
}

/** In pieces, of which those that are zero (most are) count by their length only. */
function hash(path: string): string {
  const sum = createHash("sha256");
  const piece = Buffer.allocUnsafe(ZEROES.length);
  const file = openSync(path, "r");
  for (let length = readSync(file, piece); length > 0; length = readSync(file, piece)) {
    const data = piece.subarray(0, length);
    if (data.equals(ZEROES.subarray(0, length))) sum.update(`zero ${length}`);
    else sum.update(data);
  }
  closeSync(file);
  return sum.digest("hex");
}

function flipByte(path: string, offset: number): void {
  const file = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, offset);
  writeSync(file, Buffer.of((byte[0] ?? 0) ^ 0xff), 0, 1, offset);
  closeSync(file);
}

/** Superblock A is the copy of superblock B that it should be, but for B's flipped byte. */
function hasSuperblock(path: string): boolean {
  const data = readFileSync(path);
  const a = data.subarray(0, 4096);
  const b = Buffer.from(data.subarray(64 * 1024, 64 * 1024 + 4096));
  b[0x28] = (b[0x28] ?? 0) ^ 0xff;
  return a.equals(b);
}

// A block device that is a pool by itself, on real loop devices: made, served, killed, moved to
// another device node as between machines; and whatever is on a device keeps a pool from being made
// there.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { sleep } from "../../engine/base/clock.js";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import {
  failed,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { needsCommands, needsRoot, skip } from "../support/skip.js";

const missing = needsRoot() ?? needsCommands("losetup", "mkfs.ext4", "blkid", "wipefs", "partx");
if (missing !== null) skip(missing);
const folder = temporaryFolder();
const image = join(folder.path, "disk.img");
writeFileSync(image, "");
truncateSync(image, 200 * 2 ** 20);
const first = spawnSync("losetup", ["--find", "--show", "--partscan", image], { encoding: "utf8" });
if (first.status !== 0) skip(`needs loop devices (${first.stderr.trim()})`);

const test = suite("device");
const real = pandoCommand("real");
const socket = join(folder.path, "run", "pando.sock");
const nbdSocket = join(folder.path, "run", "nbd.sock");
const attached = new Set([first.stdout.trim()]);
let device = first.stdout.trim();
const pando = (...args: string[]) => runPando(real, args, { PANDO_SOCKET: socket });
const serve = (...more: string[]) =>
  startPandoDaemon(real, [
    ...["--pool", device, "--socket", socket, "--metrics", "none", "--target", "none", ...more],
  ]);

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8" });
  assert.is(status, 0, `${program} ${args.join(" ")}: ${stderr}`);
  return stdout.trim();
}

function attach(): void {
  device = run("losetup", "--find", "--show", "--partscan", image);
  attached.add(device);
}

function detach(): void {
  run("losetup", "--detach", device);
  attached.delete(device);
}

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await pando(...args);
  assert.is(code, 0, stderr);
  return stdout;
}

const create = (...more: string[]) =>
  pando("pool", "create", device, "--journal-size", "1MiB", ...more);
const mounted = () => readFileSync("/proc/self/mountinfo", "utf8").includes(`${device}p1 `);
const openNbd = () => NbdClient.open({ socket: nbdSocket, name: "db" });

test.after(() => {
  killDaemons();
  for (const one of attached) {
    spawnSync("umount", [`${one}p1`]);
    spawnSync("umount", [one]);
    spawnSync("losetup", ["--detach", one]);
  }
  folder.remove();
});

test("what is on a device is kept, unless --force says that it is not wanted", async () => {
  const head = () => readFileSync(image).subarray(0, 2 ** 20);
  const untouched = async (code: RegExp, ...more: string[]) => {
    const before = head();
    failed(await create(...more), 1, code);
    assert.ok(head().equals(before));
  };
  run("mkfs.ext4", "-q", "-F", device);
  await untouched(/is not empty: it has .*ext4/);
  const mountpoint = join(folder.path, "run");
  run("mkdir", "-p", mountpoint);
  run("mount", device, mountpoint);
  await untouched(/is in use/);
  failed(await create("--force"), 1, /is in use/);
  run("umount", mountpoint);
  run("wipefs", "--all", device);
  run(
    "dd",
    "if=/dev/urandom",
    `of=${device}`,
    "bs=4096",
    "seek=7",
    "count=1",
    "conv=notrunc,fsync",
  );
  await untouched(/data in its first MiB/);
  await untouched(/64 MiB or more/, "--force", "--meta-size", "1MiB");
  await untouched(/no room/, "--force", "--meta-size", "1GiB");
  await untouched(/journal/, "--force", "--meta-size", "197MiB");
  failed(await pando("pool", "check", device), 1, /no partitions of Pando's/);
  assert.match(await ok("pool", "create", device, "--force"), /^made .*for data/);
  await untouched(/it has partitions/);
  device = `${device}p2`;
  await untouched(/is a partition/);
  device = device.slice(0, -2);
});

test("others read the table as it is meant", () => {
  const of = (tag: string, part: number) =>
    run("blkid", "--probe", "--output", "value", "--match-tag", tag, `${device}p${part}`);
  assert.is(run("blkid", "--probe", "--output", "value", "--match-tag", "PTTYPE", device), "gpt");
  assert.equal([of("PART_ENTRY_NAME", 1), of("PART_ENTRY_NAME", 2)], ["pando-meta", "pando-data"]);
  assert.equal([of("TYPE", 1), of("LABEL", 1)], ["ext4", "pando-meta"]);
  assert.not.ok(mounted());
});

test("it is served, killed and served again, and its file system comes and goes", async () => {
  let daemon = await serve();
  assert.ok(mounted());
  await ok("volume", "create", "db", "--size", "16MiB");
  const nbd = await openNbd();
  await nbd.write(0, Buffer.alloc(2 ** 20, "x"));
  await nbd.flush();
  failed(await pando("pool", "check", device), 1, new RegExp(`is open in process ${daemon.pid}`));
  await nbd.close();
  await daemon.stop("SIGKILL");
  assert.ok(mounted(), "nobody was there to unmount it");
  assert.match(await ok("pool", "check", device), /^clean/);
  assert.match(await ok("inspect", device, "catalogue"), /^volume db:/);
  daemon = await serve();
  await ok("snapshot", "create", "db@monday");
  assert.is(await daemon.stop(), 0);
  assert.not.ok(mounted());
  assert.match(await ok("inspect", device, "catalogue"), /snapshot db@monday:/);
  assert.not.ok(mounted());
});

test("it moves as a whole", async () => {
  const before = device;
  detach();
  // Somebody else takes the old name.
  const other = join(folder.path, "other.img");
  writeFileSync(other, "");
  truncateSync(other, 2 ** 20);
  attached.add(run("losetup", "--find", "--show", other));
  attach();
  assert.is.not(device, before);
  const daemon = await serve();
  const nbd = await openNbd();
  assert.ok((await nbd.read(0, 2 ** 20)).equals(Buffer.alloc(2 ** 20, "x")));
  await nbd.close();
  assert.match(await ok("snapshot", "list"), /db@monday/);
  assert.is(await daemon.stop(), 0);
});

test("what is free goes back to the device, if it is told so", async () => {
  for (const [discard, state] of [
    ["auto", "off"],
    ["on", "on"],
  ] as const) {
    const daemon = await serve("--discard", discard);
    await ok("volume", "create", "old", "--size", "16MiB");
    const nbd = await NbdClient.open({ socket: nbdSocket, name: "old" });
    for (let mib = 0; mib < 16; mib++) await nbd.write(mib * 2 ** 20, Buffer.alloc(2 ** 20, "y"));
    await nbd.flush();
    await nbd.close();
    const before = statSync(image).blocks * 512;
    await ok("volume", "delete", "old");
    const { state: is } = await waitForPunches(state === "on" ? 16 * 2 ** 20 : 0);
    assert.is(is, state);
    const given = before - statSync(image).blocks * 512;
    assert.ok(state === "on" ? given > 15 * 2 ** 20 : given < 2 ** 20, `${given} bytes are back`);
    assert.is(await daemon.stop(), 0);
    assert.match(await ok("pool", "check", device), /^clean/);
  }
});

test("what is free goes back when asked for, and the pool grows with its device", async () => {
  const larger = (mib: number): void => {
    truncateSync(image, mib * 2 ** 20);
    run("losetup", "--set-capacity", device);
  };
  const size = async () => JSON.parse(await ok("pool", "show", "--json")).sizeBytes;
  const daemon = await serve("--discard", "off");
  await ok("volume", "create", "old", "--size", "16MiB");
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "old" });
  for (let mib = 0; mib < 16; mib++) await nbd.write(mib * 2 ** 20, Buffer.alloc(2 ** 20, "y"));
  await nbd.flush();
  await nbd.close();
  await ok("volume", "delete", "old");
  await waitForPunches(0);
  const before = statSync(image).blocks * 512;
  await ok("pool", "trim");
  const given = before - statSync(image).blocks * 512;
  assert.ok(given > 15 * 2 ** 20, `${given} bytes are back`);
  const had = await size();
  larger(264);
  failed(await pando("pool", "grow", "--size", "1GiB"), 1, /bytes, not 1073741824/);
  await ok("pool", "grow");
  assert.is((await size()) - had, 64 * 2 ** 20);
  const kept = await openNbd();
  assert.ok((await kept.read(0, 2 ** 20)).equals(Buffer.alloc(2 ** 20, "x")));
  await kept.close();
  assert.is(await daemon.stop(), 0);
  larger(300);
  const grown = JSON.parse(await ok("pool", "grow", device, "--json"));
  assert.is(grown.sizeBytes - had, 100 * 2 ** 20);
  assert.match(await ok("pool", "check", device), /^clean/);
});

/** Nothing is waiting any more to be reclaimed, and so much has gone back. */
async function waitForPunches(bytes: number): Promise<{ state: string }> {
  for (;;) {
    const info = JSON.parse(await ok("pool", "show", "--json"));
    const { punchedBytes } = info.discard;
    if (info.reclaiming === 0 && info.pendingBytes === 0 && punchedBytes >= bytes) {
      return info.discard;
    }
    await sleep(100);
  }
}

test("its metadata is backed up and restored", async () => {
  const file = join(folder.path, "backup");
  await ok("pool", "backup-metadata", file, device);
  failed(await pando("pool", "restore-metadata", file, device), 1, /meta is there/);
  const mountpoint = join(folder.path, "run");
  run("mount", `${device}p1`, mountpoint);
  failed(await pando("pool", "check", device), 1, /is mounted on/);
  run("rm", "-r", join(mountpoint, "meta"));
  run("umount", mountpoint);
  assert.match(await ok("pool", "restore-metadata", file, device), /^restored; clean/);
  assert.match(await ok("pool", "check", device), /^clean/);
  assert.not.ok(mounted() || existsSync(join(mountpoint, "meta")));
});

test.run();

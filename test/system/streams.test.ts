// The contents of volumes on the move: real commands, a real daemon, streams and images in files.
// What arrives is what was sent, byte for byte; what is cut, damaged or does not fit is refused,
// and nothing is changed or what was right is kept to go on from.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { importImage } from "../../engine/cli/image.js";
import { NbdClient } from "../../engine/cli/nbd-client.js";
import { PandoClient } from "../../engine/serve/client.js";
import {
  failed,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { rejects } from "../support/refuses.js";
import { needsCommands, testUnless } from "../support/skip.js";

const MIB = 1024 * 1024;
const real = pandoCommand("real");
const folder = temporaryFolder();
const pool = join(folder.path, "pool");
const socket = join(folder.path, "run", "pando.sock");
const nbdSocket = join(folder.path, "run", "nbd.sock");
const file = (name: string) => join(folder.path, name);
const pando = (...args: string[]) => runPando(real, args, { PANDO_SOCKET: socket });

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await pando(...args);
  assert.is(code, 0, stderr);
  return stdout;
}

async function json<T>(...args: string[]): Promise<T> {
  return JSON.parse(await ok(...args, "--json")) as T;
}

/** The command's stdout goes to a file. */
function sendTo(path: string, ...args: string[]): void {
  const quoted = [process.execPath, real, "volume", "send", ...args, "--socket", socket];
  const script = `${quoted.map((word) => `'${word}'`).join(" ")} > '${path}'`;
  const { status, stderr } = spawnSync("sh", ["-c", script]);
  assert.is(status, 0, stderr.toString());
}

const receive = (path: string, name: string, ...more: string[]) =>
  pando("volume", "receive", name, "--file", path, ...more);

async function contents(name: string): Promise<Buffer> {
  const nbd = await NbdClient.open({ socket: nbdSocket, name });
  const parts: Buffer[] = [];
  for (let at = 0; at < nbd.sizeBytes; at += MIB) {
    parts.push(await nbd.read(at, Math.min(MIB, nbd.sizeBytes - at)));
  }
  await nbd.close();
  return Buffer.concat(parts);
}

async function change(work: (nbd: NbdClient) => Promise<void>): Promise<void> {
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "db" });
  await work(nbd);
  await nbd.flush();
  await nbd.close();
}

const fill = (text: string, bytes: number) => Buffer.alloc(bytes, text);

test.before(async () => {
  await ok("pool", "create", pool, "--size", "128MiB", "--journal-size", "1MiB", "--sparse");
  const quiet = ["--metrics", "none", "--target", "none"];
  await startPandoDaemon(real, ["--pool", pool, "--socket", socket, ...quiet]);
  await ok("volume", "create", "db", "--size", "16MiB");
  await change(async (nbd) => {
    await nbd.write(0, fill("one ", MIB));
    await nbd.write(5 * MIB, fill("two ", MIB));
    await nbd.write(5 * MIB + MIB, fill("three ", MIB));
    await nbd.write(16 * MIB - 4096, fill("last ", 4096));
  });
  await ok("snapshot", "create", "db@monday");
  await change(async (nbd) => {
    await nbd.write(8192, fill("new ", 4096));
    await nbd.zero(5 * MIB, 512 * 1024);
    await nbd.write(9 * MIB, fill("more ", 3 * 4096));
  });
  await ok("snapshot", "create", "db@tuesday");
  sendTo(file("monday"), "db@monday");
  sendTo(file("tuesday"), "db@tuesday", "--from", "db@monday");
});

test.after(() => {
  killDaemons();
  folder.remove();
});

test("a snapshot is read, and not written", async () => {
  const nbd = await NbdClient.open({ socket: nbdSocket, name: "db@monday" });
  assert.is((await nbd.read(8192, 4096)).toString("utf8", 0, 4), "one ");
  await nbd.write(0, fill("x", 4096)).then(
    () => assert.unreachable("it was written"),
    (error: Error) => assert.match(error.message, /read-only/),
  );
  failed(await pando("snapshot", "delete", "db@monday"), 1, /db@monday is in use by nbd/);
  await nbd.close();
});

test("a stream makes the volume that was sent, and then its next snapshot", async () => {
  assert.is((await receive(file("monday"), "copy")).code, 0);
  assert.ok((await contents("copy")).equals(await contents("db@monday")));
  assert.is((await receive(file("tuesday"), "copy")).code, 0);
  assert.ok((await contents("copy")).equals(await contents("db@tuesday")));
  assert.ok((await contents("copy@monday")).equals(await contents("db@monday")));
  // Holes come as holes, and what did not change does not come.
  assert.ok(statSync(file("monday")).size < 3.1 * MIB);
  assert.ok(statSync(file("tuesday")).size < 20_000);
  // A copy can be sent on, and what was sent from the first one fits onto it.
  sendTo(file("again"), "copy@tuesday");
  assert.is((await receive(file("again"), "copy2@tuesday")).code, 0);
  assert.ok((await contents("copy2")).equals(await contents("db@tuesday")));
});

test("a stream that was cut goes on where it ended", async () => {
  const whole = readFileSync(file("monday"));
  const before = await ok("volume", "list", "--json");
  writeFileSync(file("cut"), whole.subarray(0, 1.5 * MIB));
  failed(await receive(file("cut"), "cut"), 1, /it was cut/);
  assert.is(await ok("volume", "list", "--json"), before);
  failed(await pando("volume", "show", "cut"), 1, /there is no volume cut/);
  const [left] = await json<{ name: string; offsetBytes: number }[]>("volume", "receiving");
  assert.is(left?.name, "cut");
  assert.is(left?.offsetBytes, MIB);
  failed(await receive(file("monday"), "cut"), 1, /is being received already/);
  failed(await receive(file("tuesday"), "cut", "--resume"), 1, /of another stream/);
  sendTo(file("rest"), "db@monday", "--resume", String(left?.offsetBytes));
  assert.ok(statSync(file("rest")).size < whole.length);
  failed(await receive(file("rest"), "other"), 1, /the rest of one that was cut/);
  assert.is((await receive(file("rest"), "cut", "--resume")).code, 0);
  assert.ok((await contents("cut")).equals(await contents("db@monday")));
  assert.equal(await json("volume", "receiving"), []);
});

test("what is damaged or does not fit is refused, and nothing is there afterwards", async () => {
  const before = await ok("volume", "list", "--json");
  const whole = readFileSync(file("tuesday"));
  const damaged = (name: string, at: number, byte: number): string => {
    const bytes = Buffer.from(whole);
    bytes[at] = byte;
    writeFileSync(file(name), bytes);
    return file(name);
  };
  await ok("volume", "clone", "db@monday", "base");
  const flipped = whole.length - 40;
  const table: [RegExp, string, string][] = [
    [/has no snapshot that the stream begins at/, file("tuesday"), "base"],
    [/has no snapshot that the stream begins at/, file("tuesday"), "nobody"],
    [/db.* exists already/, file("monday"), "db"],
    [/snapshot copy@tuesday exists already/, file("tuesday"), "copy"],
    [/not a stream of Pando's/, damaged("magic", 0, 0), "x"],
    [/the stream has version 2, not 1/, damaged("version", 8, 2), "x"],
    [/its header is not what was written/, damaged("size", 48, 1), "x"],
    [/nothing cannot be read/, file("nothing"), "x"],
  ];
  for (const [message, path, name] of table) failed(await receive(path, name), 1, message);
  await ok("volume", "rollback", "copy@monday");
  await ok("snapshot", "delete", "copy@tuesday");
  failed(await receive(damaged("flip", flipped, 0xff), "copy"), 1, /is not what was written/);
  await ok("volume", "receive", "copy", "--abort");
  writeFileSync(file("longer"), Buffer.concat([whole, Buffer.alloc(1)]));
  failed(await receive(file("longer"), "copy"), 1, /goes on after its end/);
  await ok("volume", "receive", "copy", "--abort");
  await ok("volume", "delete", "base");
  assert.is((await json<object[]>("volume", "list")).length, JSON.parse(before).length);
  assert.ok((await contents("copy")).equals(await contents("db@monday")));
});

test("a raw image comes in and goes out as it is, without its holes", async () => {
  writeFileSync(file("image"), Buffer.alloc(0));
  truncateSync(file("image"), 8 * MIB + 100);
  const image = readFileSync(file("image"));
  fill("data ", 5000).copy(image, 3 * MIB + 1000);
  fill("end", 100).copy(image, 8 * MIB);
  writeFileSync(file("image"), image);
  const made = await json<{ sizeBytes: number; ownBytes: number }>(
    "volume",
    "import",
    file("image"),
    "imported",
  );
  assert.is(made.sizeBytes, 8 * MIB + 4096);
  assert.is(made.ownBytes, 3 * 4096);
  assert.ok((await contents("imported")).subarray(0, image.length).equals(image));
  await ok("snapshot", "create", "imported@s");
  await ok("volume", "export", "imported@s", file("out"));
  const out = readFileSync(file("out"));
  assert.ok(out.subarray(0, image.length).equals(image));
  assert.ok(statSync(file("out")).blocks * 512 < MIB, "the file is sparse");
  failed(await pando("volume", "export", "imported@s", file("out")), 1, /exists already/);
  failed(await pando("volume", "import", file("image"), "imported"), 1, /exists already/);
  failed(await pando("volume", "import", file("nothing"), "x"), 1, /cannot be read/);
  failed(await pando("volume", "import", folder.path, "x"), 1, /not a file|cannot be read/);
  failed(await pando("volume", "export", "db@nothing", file("no")), 1, /there is no snapshot/);
  assert.not(existsSync(file("no")));
});

test("an image that changes while it comes in makes no volume", async () => {
  const path = file("moving");
  const client = new PandoClient(socket);
  const begin = client.beginReceive.bind(client);
  const before = await ok("volume", "list");
  try {
    for (const meddle of [
      () => truncateSync(path, MIB),
      () => truncateSync(path, 4 * MIB),
      () => writeFileSync(path, fill("else ", 2 * MIB)),
    ]) {
      writeFileSync(path, fill("data ", 2 * MIB));
      // The size has been looked at, and nothing has been read.
      client.beginReceive = (request) => {
        meddle();
        return begin(request);
      };
      const contents = "11111111-2222-4333-8444-555555555555";
      const moving = importImage(client, { path, name: "moving", format: "raw", contents });
      await rejects(moving, "EINVAL", /changed while it was imported/);
      assert.is(await ok("volume", "list"), before);
      assert.equal(await client.listReceives(), []);
    }
  } finally {
    client.close();
  }
});

testUnless(needsCommands("qemu-img"), test)("a qcow2 image comes in and goes out", async () => {
  await ok("volume", "export", "db@tuesday", file("db.qcow2"), "--format", "qcow2");
  await ok("volume", "import", file("db.qcow2"), "from-qcow2");
  assert.ok((await contents("from-qcow2")).equals(await contents("db@tuesday")));
});

test.run();

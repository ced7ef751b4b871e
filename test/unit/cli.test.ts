// The CLI against a daemon that is a process, over a real socket; the pool behind it is a fake.
// (The CLI as a process of its own: system/cli.)
// What is tested: that each command says what it should, to people and to programs, and that what
// is wrong is refused with one line and the right exit code.
import { chmodSync, existsSync, lstatSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatDhchapKey } from "../../engine/base/dhchap-key.js";
import { formatTlsPsk } from "../../engine/base/tls-psk.js";
import { fakeEngine } from "../support/fake-engine.js";
import {
  type CommandResult,
  failed,
  killDaemons,
  pandoCommand,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";
import { runPandoHere } from "../support/pando-here.js";

const HOST = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
const loadFake = async () => fakeEngine;
const folder = temporaryFolder();
const socket = join(folder.path, "run", "pando.sock");
const quiet = ["--metrics", "none"];

const pando = (...args: string[]): Promise<CommandResult> =>
  runPandoHere(loadFake, args, { PANDO_SOCKET: socket });

async function json(...args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await pando(...args, "--json");
  assert.is(stderr, "");
  assert.is(code, 0);
  return JSON.parse(stdout);
}

async function text(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await pando(...args);
  assert.is(stderr, "");
  assert.is(code, 0);
  assert.not.match(stdout, / \n/);
  return stdout;
}

async function fails(code: 1 | 2, message: RegExp, ...args: string[]): Promise<string> {
  return failed(await pando(...args), code, message);
}

test.before(async () => {
  const args = ["--pool", "/pools/one", "--socket", socket, ...quiet];
  await startPandoDaemon(pandoCommand("fake"), [...args, "--advertise", "10.0.0.5:4420"]);
});

test.after(() => {
  killDaemons();
  folder.remove();
});

test("the socket is its owner's alone", () => {
  assert.is(lstatSync(socket).mode & 0o777, 0o600);
  assert.is(lstatSync(join(folder.path, "run")).mode & 0o777, 0o700);
});

test("volume create, show, resize", async () => {
  const made = (await json("volume", "create", "db", "--size", "10GiB")) as { uuid: string };
  assert.match(made.uuid, /^[0-9a-f-]{36}$/);
  const nqn = `nqn.2026-01.io.pando:volume:${made.uuid}`;
  const { createdAt, ...shown } = (await json("volume", "show", "db")) as { createdAt: string };
  assert.match(createdAt, /^\d{4}-\d\d-\d\dT/);
  assert.equal(shown, {
    name: "db",
    uuid: made.uuid,
    sizeBytes: 10 * 2 ** 30,
    ownBytes: 0,
    sharedBytes: 0,
    logicalBytes: 0,
    freedByDeleteBytes: 0,
    freedByDeleteAtMost: false,
    parent: null,
    nqn,
    addresses: [{ traddr: "10.0.0.5", trsvcid: "4420" }],
    nbdUri: `nbd+unix:///db?socket=${join(folder.path, "run", "nbd.sock")}`,
    allowedHosts: [],
    sessions: [],
    sharedVia: null,
    limits: { iops: null, bytesPerSecond: null },
  });
  const lines = await text("volume", "show", "db");
  assert.match(lines, /^name {5}db\n/);
  assert.match(lines, /\nsize {5}10 GiB \(10737418240 bytes\)\n/);
  assert.match(lines, /\nhosts {4}nobody; let one in: pando host allow db /);
  assert.match(lines, `\nconnect  nvme connect -t tcp -a 10.0.0.5 -s 4420 -n ${nqn}\n`);
  const larger = (await json("volume", "resize", "db", "--size", "20G")) as { sizeBytes: number };
  assert.is(larger.sizeBytes, 20 * 2 ** 30);
  await fails(1, /cannot shrink/, "volume", "resize", "db", "--size", "10G");
});

test("inspect: a line for each thing, lists below it, damage in between", async () => {
  assert.is(
    await text("inspect", "/pools/two"),
    [
      "pool of /pools/two: tail 7, runs 1…3 9, parent none",
      "journal block 7:",
      "  records: layer 2, first block 0, frees 4",
      "layer 3: DAMAGED: the checksum does not fit",
      "",
    ].join("\n"),
  );
  const items = (await json("inspect", "/pools/two", "journal")) as { what: string }[];
  assert.is(items[0]?.what, "journal of /pools/two");
  assert.is(items.length, 3);
  await fails(2, /Choices/, "inspect", "/pools/two", "everything");
  await fails(1, /is not a valid layer/, "inspect", "/pools/two", "index", "--layer", "x");
});

test("pool check --repair says what it made anew, and needs a pool that nobody serves", async () => {
  assert.is(
    await text("pool", "check", "/pools/damaged", "--repair"),
    [
      "made anew: the free map, from the own bits: 3 blocks",
      "clean: 1 layers, 2 index blocks, 3 owned blocks",
      "",
    ].join("\n"),
  );
  assert.match(await text("pool", "check", "/pools/two", "--repair"), /^nothing to repair\n/);
  await fails(1, /while no daemon serves it/, "pool", "check", "--repair");
});

test("pool backup-metadata makes a file that is whole, or none; restore-metadata", async () => {
  const file = join(folder.path, "backup");
  assert.is(await text("pool", "backup-metadata", file), `made ${file}: 22 B\n`);
  assert.is(readFileSync(file, "utf8"), "metadata of /pools/one");
  assert.is(lstatSync(file).mode & 0o777, 0o600);
  await fails(1, /is there already/, "pool", "backup-metadata", file);
  const other = join(folder.path, "other");
  await fails(1, /damaged/, "pool", "backup-metadata", other, "/pools/damaged");
  assert.not.ok(existsSync(other) || existsSync(`${other}.unfinished`));
  const restored = "restored; clean: 1 layers, 2 index blocks, 3 owned blocks\n";
  assert.is(await text("pool", "restore-metadata", file, "/pools/two"), restored);
  await fails(1, /does not fit/, "pool", "restore-metadata", `${file}.old`, "/pools/two");
  await fails(2, /Not enough/, "pool", "restore-metadata", file);
});

test("pool trim says how much it gave back, from where it is told to begin", async () => {
  assert.is(await text("pool", "trim"), "gave 4 GiB back to the device\n");
  assert.is(await text("pool", "trim", "--start", "3GiB"), "gave 1 GiB back to the device\n");
  assert.is(((await json("pool", "trim")) as { doneBytes: number }).doneBytes, 4 * 2 ** 30);
  await fails(1, /cut off/, "pool", "trim", "--start", "1MiB");
});

test("volume share and unshare", async () => {
  const shared = (await json("volume", "share", "db", "--via", "nvmet")) as {
    sharedVia: string;
    addresses: unknown[];
    nbdUri: string | null;
  };
  assert.equal([shared.sharedVia, shared.addresses, shared.nbdUri], ["nvmet", [], null]);
  await fails(2, /via/, "volume", "share", "db");
  await fails(2, /via/, "volume", "share", "db", "--via", "iscsi");
  const back = (await json("volume", "unshare", "db")) as { sharedVia: null };
  assert.is(back.sharedVia, null);
});

test("doctor reports what is missing, and that is no failure", async () => {
  const report = await text("doctor");
  assert.match(report, /^WHAT +OK +FOUND +TRY\nkernel +yes +Linux 6\.12 +-\n/);
  assert.match(report, /ublk +no +no \/dev\/ublk-control +modprobe ublk_drv/);
  assert.is(((await json("doctor")) as unknown[]).length, 2);
});

test("host allow and deny, and the line that connects", async () => {
  const { allowedHosts } = (await json("host", "allow", "db", HOST)) as { allowedHosts: string[] };
  assert.equal(allowedHosts, [HOST]);
  assert.match(await text("volume", "show", "db"), `--hostnqn=${HOST}\n`);
  const said = await text("host", "allow", "db", HOST);
  assert.match(
    said,
    /^allowed on db; on the host:\n {2}nvme connect -t tcp -a 10\.0\.0\.5 -s 4420 /,
  );
  assert.is(await text("host", "deny", "db", HOST), "denied on db\n");
  const after = (await json("volume", "show", "db")) as { allowedHosts: string[] };
  assert.equal(after.allowedHosts, []);
});

test("bench: a host of its own, for as long as it runs, and nobody's data", async () => {
  assert.match(
    await text("bench", "db", "--queues", "2", "--depth", "4", "--block", "8KiB"),
    /^reads {6}8000 IOPS, 62\.5 MiB\/s\n {2}latency {2}p50 80 µs, p99 100 µs, .*\nerrors {5}0\n$/,
  );
  const hosts = async () =>
    ((await json("volume", "show", "db")) as { allowedHosts: [] }).allowedHosts;
  assert.equal(await hosts(), []);
  await fails(1, /the target does not answer/, "bench", "db", "--target", "10.0.0.5:1");
  assert.equal(await hosts(), []);
  await fails(1, /randwrite writes over what db holds/, "bench", "db", "--pattern", "randwrite");
  const written = ["--pattern", "randwrite", "--overwrite"];
  assert.is(
    ((await json("bench", "db", ...written)) as { writes: { ops: number } }).writes.ops,
    32000,
  );
  await fails(1, /somebody has volume in-use open/, "bench", "in-use", ...written);
  assert.match(await text("bench", "in-use"), /IOPS/);
  await fails(1, /numeric ADDRESS:PORT/, "bench", "db", "--target", "nowhere");
  await fails(1, /--seconds 0/, "bench", "db", "--seconds", "0");
});

test("who is connected, and putting a host out", async () => {
  const host = "nqn.2014-08.org.example:a";
  assert.is(
    await text("host", "list"),
    [
      "VOLUME  HOST                       PEER            CONTROLLER  QUEUES  PROVEN  TLS  FOR",
      `in-use  ${host}  10.0.0.9:50000  7           2       no      yes  90 s`,
      "",
    ].join("\n"),
  );
  assert.equal(await json("host", "list", "db"), []);
  const ended = await text("host", "disconnect", "in-use", host);
  assert.is(ended, "disconnected from in-use; its last request has ended\n");
  const again = await text("host", "disconnect", "in-use", host);
  assert.is(again, `${host} was not connected to in-use\n`);
  assert.equal(await json("host", "list"), []);
});

test("a host's keys come from a file that nobody else may read, and are never shown", async () => {
  const file = join(folder.path, "host.key");
  const key = formatDhchapKey({ hash: "sha256", secret: Buffer.alloc(32, 7) });
  const set = ["host", "set-keys", HOST, "--key-file", file];
  await fails(1, /cannot read the host key: ENOENT/, ...set);
  writeFileSync(file, `${key}\n`, { mode: 0o644 });
  await fails(1, /readable for others/, ...set);
  chmodSync(file, 0o600);
  assert.not.match(await text(...set), key);
  assert.equal(await json("host", "keys"), [
    { hostNqn: HOST, bidirectional: false, proves: true, tls: false },
  ]);
  const listed = await text("host", "keys");
  assert.is(listed, `HOST${" ".repeat(HOST.length - 2)}PROVES  TLS\n${HOST}  host    -\n`);
  writeFileSync(file, key.replace(":01:", ":02:"));
  const said = await fails(1, /host key is not a DH-HMAC-CHAP key/, ...set);
  assert.not.match(said, key.slice(12, 40));
  assert.is(await text("host", "remove-keys", HOST), `${HOST} has no keys any more\n`);
  await fails(1, /has no keys/, "host", "remove-keys", HOST);
});

test("a host's TLS key comes the same way", async () => {
  const file = join(folder.path, "tls.key");
  const key = formatTlsPsk({ transform: "sha256", secret: Buffer.alloc(32, 7) });
  const set = ["host", "set-tls-key", HOST, "--key-file", file];
  writeFileSync(file, `${key}\n`, { mode: 0o644 });
  await fails(1, /readable for others/, ...set);
  chmodSync(file, 0o600);
  assert.is(await text(...set), `${HOST} has to use TLS, from now on\n`);
  assert.match(await text("host", "keys"), `${HOST}  -       required\n`);
  writeFileSync(file, key.replace(":01:", ":02:"));
  const said = await fails(1, /TLS key is not a TLS key of NVMe\/TCP/, ...set);
  assert.not.match(said, key.slice(20, 40));
  const longer = formatTlsPsk({ transform: "sha384", secret: Buffer.alloc(48, 7) });
  writeFileSync(file, longer);
  assert.match(
    await text(...set),
    /from now on\n {2}some hosts' tlshd cannot use a key for SHA-384/,
  );
  assert.is(await text("host", "remove-tls-key", HOST), `${HOST} has no TLS key\n`);
  await fails(1, /has no TLS key/, "host", "remove-tls-key", HOST);
});

test("snapshots, clones, and the tree of branches", async () => {
  assert.is(await text("snapshot", "create", "db@monday"), "made db@monday\n");
  const { name, volume } = (await json("snapshot", "create", "db@tuesday")) as {
    name: string;
    volume: string;
  };
  assert.equal([volume, name], ["db", "tuesday"]);
  const clone = (await json("volume", "clone", "db@monday", "db-test")) as { parent: string };
  assert.is(clone.parent, "db@monday");
  assert.match(await text("volume", "clone", "db", "live"), /\nparent {3}db\n/);
  await text("host", "allow", "db", HOST);
  assert.is(
    await text("volume", "list"),
    [
      "NAME          SIZE    OWN    SHARED  PARENT     SERVED",
      "in-use        4 KiB   0      0       -          nvme-tcp 10.0.0.5:4420, 1 host",
      "db            20 GiB  0      0       -          nvme-tcp 10.0.0.5:4420, 0 hosts",
      "├ db@monday   20 GiB  4 KiB  8 KiB   db         -",
      "│ └ db-test   20 GiB  0      8 KiB   db@monday  -",
      "├ db@tuesday  20 GiB  4 KiB  8 KiB   db         -",
      "└ live        20 GiB  0      8 KiB   db         -",
      "",
    ].join("\n"),
  );
  const volumes = (await json("volume", "list")) as { name: string }[];
  assert.equal(
    volumes.map((one) => one.name),
    ["in-use", "db", "db-test", "live"],
  );
  const snapshots = (await json("snapshot", "list", "db")) as { name: string }[];
  assert.equal(
    snapshots.map((one) => one.name),
    ["monday", "tuesday"],
  );
  const listed = await text("snapshot", "list");
  assert.match(listed, /^NAME {8}SIZE {4}OWN {4}SHARED {2}IF DELETED {5}CREATED\n/);
  assert.match(listed, /\ndb@monday {3}20 GiB {2}4 KiB {2}8 KiB {3}at most 4 KiB {2}/);
  const shown = await text("snapshot", "show", "db@monday");
  assert.match(shown, /^name +db@monday\n/);
  assert.match(shown, /\nnbd +nbd\+unix:\/\/\/db%40monday\?socket=/);
  const { nqn } = (await json("snapshot", "show", "db@monday")) as { nqn: string };
  assert.match(nqn, /^nqn\./);
  assert.is(await text("snapshot", "diff", "db@monday"), "0 8192 data\n");
  const diff = await text("snapshot", "diff", "db@monday", "db@tuesday");
  assert.is(diff, "0 8192 data\n12288 4096 zero\n");
  assert.equal(await json("snapshot", "diff", "db@monday", "db@tuesday"), [
    { offsetBytes: 0, lengthBytes: 8192, zero: false },
    { offsetBytes: 12288, lengthBytes: 4096, zero: true },
  ]);
  assert.is(await text("snapshot", "delete", "db@tuesday"), "deleted db@tuesday\n");
  const group = await text("snapshot", "create", "db@group", "db-test@group");
  assert.is(group, "made db@group\nmade db-test@group\n");
  const list = (await json("snapshot", "create", "db@other", "db-test@other")) as object[];
  assert.is(list.length, 2);
  for (const one of ["db@group", "db-test@group", "db@other", "db-test@other"]) {
    await text("snapshot", "delete", one);
  }
  const set = (...args: string[]) => text("volume", "set", "db", ...args);
  assert.match(await set("--iops", "2000", "--bandwidth", "1MiB"), /limits +2000 IOPS, 1 MiB\/s\n/);
  assert.match(await set("--iops", "none"), /limits +1 MiB\/s\n/);
  assert.match(await set("--bandwidth", "none"), /limits +-\n/);
  assert.match(await text("volume", "rollback", "db@monday"), /^name +db\n/);
  assert.equal(await json("volume", "delete", "live"), { deleted: "live" });
});

test("pool create, show, check", async () => {
  assert.equal(
    await json("pool", "create", "/pools/new", "--size", "1GiB", "--block-size", "16KiB"),
    {
      path: "/pools/new",
      uuid: "00000000-0000-4000-8000-000000000000",
      sizeBytes: 2 ** 30,
      blockSizeBytes: 16384,
    },
  );
  assert.match(await text("pool", "create", "/pools/new", "--sparse"), /^made \/pools\/new: 1 GiB/);
  const pool = (await json("pool", "show")) as { path: string; journal: object };
  assert.is(pool.path, "/pools/one");
  assert.equal(pool.journal, { sizeBytes: 2 ** 26, usedBytes: 8192 });
  const shown = await text("pool", "show");
  assert.match(shown, /\nstate {7}takes reads and writes\n/);
  assert.match(shown, /\nreserved {4}65 MiB, for superblocks and journal\n/);
  assert.match(shown, /\ndiscard {5}on; 4 KiB given back to the device since the start\n/);
  assert.match(await text("pool", "grow", "--size", "3TiB"), /\nsize {8}3 TiB\n/);
  assert.match(await text("pool", "check"), /^clean: /);
  assert.match(await text("pool", "check", "/pools/other"), /^clean: /);
  const damaged = await pando("pool", "check", "/pools/damaged");
  assert.is(damaged.code, 1);
  assert.match(damaged.stdout, /^not clean: .*\nblock 7 has two owners\n$/);
  assert.match(damaged.stderr, /^error: the pool \/pools\/damaged has 1 problem\n/);
});

test("used wrongly: exit code 2, and where to look", async () => {
  const table: [RegExp, string[]][] = [
    [/no command is named/, []],
    [/no verb/, ["volume"]],
    [/Unknown (argument|command): frob/, ["frob"]],
    [/Unknown (argument|command): frob/, ["volume", "frob"]],
    [/Unknown argument: siz/, ["volume", "create", "x", "--size", "1G", "--siz", "1G"]],
    [/Unknown argument: farce/, ["pool", "create", "/p", "--farce"]],
    [/Missing required argument: size/, ["volume", "create", "x"]],
    [/Not enough .*size/, ["volume", "create", "x", "--size"]],
    [/--size is given more than once/, ["volume", "create", "x", "--size", "1G", "--size", "2G"]],
    [/Not enough non-option arguments/, ["volume", "show"]],
    [/Unknown (argument|command): extra/, ["volume", "show", "db", "extra"]],
    [/Unknown argument: pol/, ["daemon", "--pol", "/p"]],
  ];
  for (const [message, args] of table) {
    assert.match(await fails(2, message, ...args), /\n {2}try: pando .*--help\n$/);
  }
});

test("wrong values: exit code 1, and nothing is changed", async () => {
  const before = [await json("volume", "list"), await json("snapshot", "list")];
  const create = (name: string, ...size: string[]) => ["volume", "create", name, ...size];
  const table: [RegExp, string[]][] = [
    [/"10GG" is not a valid size/, create("x", "--size", "10GG")],
    [/"-4096" is not a valid size/, create("x", "--size=-4096")],
    [/"1\.5G" is not a valid size/, create("x", "--size", "1.5G")],
    [/the size is 0/, create("x", "--size", "0")],
    [/5000 is not a multiple of the block size, 4096/, create("x", "--size", "5000")],
    [/there is a volume db already/, create("db", "--size", "1G")],
    [/"é" is not allowed/, create("café", "--size", "1G")],
    [/" " is not allowed/, create("a b", "--size", "1G")],
    [/it is empty/, create("", "--size", "1G")],
    [/longer than 128/, create("x".repeat(129), "--size", "1G")],
    [/there is no volume nothing/, ["volume", "show", "nothing"]],
    [/there is no volume nothing/, ["volume", "clone", "nothing", "x"]],
    [/there is no snapshot db@nothing/, ["volume", "clone", "db@nothing", "x"]],
    [/there is a volume db already/, ["volume", "clone", "db", "db"]],
    [/volume in-use is in use: nqn\.2014-08\.org\.example:a/, ["volume", "delete", "in-use"]],
    [/5000 is not a multiple/, ["volume", "resize", "db", "--size", "5000"]],
    [/there is a snapshot db@monday already/, ["snapshot", "create", "db@monday"]],
    [/"db" does not name a snapshot/, ["snapshot", "create", "db"]],
    [/"db" does not name a snapshot/, ["snapshot", "create", "db@x", "db"]],
    [/there is no volume nothing/, ["snapshot", "create", "db@x", "nothing@x"]],
    [/there is no snapshot db@nothing/, ["volume", "rollback", "db@nothing"]],
    [/there is no snapshot db@nothing/, ["snapshot", "show", "db@nothing"]],
    [/there is no snapshot db@nothing/, ["snapshot", "diff", "db@monday", "db@nothing"]],
    [/"0" is not a valid iops/, ["volume", "set", "db", "--iops", "0"]],
    [/the bandwidth is 0/, ["volume", "set", "db", "--bandwidth", "0"]],
    [/nothing to set/, ["volume", "set", "db"]],
    [/"db" does not name a snapshot/, ["volume", "send", "db"]],
    [/"x" is no place to go on from/, ["volume", "send", "db@monday", "--resume", "x"]],
    [/nothing is being received into db/, ["volume", "receive", "db", "--abort"]],
    [/"vmdk" is not a format/, ["volume", "import", "/dev/null", "x", "--format", "vmdk"]],
    [/is not a file/, ["volume", "import", "/dev/null", "x"]],
    [/there is no snapshot db@nothing/, ["volume", "export", "db@nothing", "/nowhere/x"]],
    [/"db" does not name a snapshot/, ["volume", "rollback", "db"]],
    [/there is no snapshot db@nothing/, ["snapshot", "delete", "db@nothing"]],
    [/is not a host NQN/, ["host", "allow", "db", "me"]],
    [/is not a host NQN/, ["host", "disconnect", "db", "me"]],
    [/there is no volume nothing/, ["host", "list", "nothing"]],
    [/blocks cannot be of 5000 bytes/, ["pool", "create", "/p", "--block-size", "5000"]],
    [/1000 is not a multiple of the block size, 4096/, ["pool", "create", "/p", "--size", "1000"]],
    [/"1X" is not a valid journal size/, ["pool", "create", "/p", "--journal-size", "1X"]],
  ];
  for (const [message, args] of table) await fails(1, message, ...args);
  assert.equal([await json("volume", "list"), await json("snapshot", "list")], before);
});

test("numbers as names are names", async () => {
  const made = (await json("volume", "create", "007", "--size", "4096")) as { name: string };
  assert.is(made.name, "007");
  await text("volume", "delete", "007");
});

test("help has an example for every verb, and goes to stdout", async () => {
  const verbs = {
    pool: [
      "create",
      "list",
      "grow",
      "show",
      "trim",
      "check",
      "backup-metadata",
      "restore-metadata",
    ],
    volume: [
      "create",
      "list",
      "show",
      "delete",
      "resize",
      "clone",
      "rollback",
      "set",
      "send",
      "receive",
      "receiving",
      "import",
      "export",
    ],
    snapshot: ["create", "show", "list", "diff", "delete"],
    host: [
      "allow",
      "deny",
      "disconnect",
      "list",
      "set-keys",
      "remove-keys",
      "set-tls-key",
      "remove-tls-key",
      "keys",
    ],
  };
  const all = Object.entries(verbs).flatMap(([noun, each]) => each.map((verb) => [noun, verb]));
  for (const words of [...all, ["inspect"], ["bench"], ["daemon"]]) {
    const help = await text(...words, "--help");
    assert.match(help, /\n {2}-h, --help /);
    assert.match(help, `Examples:\n  pando ${words.join(" ")}`);
  }
  assert.match(await text("--help"), /NOUN VERB/);
  assert.match(await text("--version"), /^\d+\.\d+\.\d+\n$/);
});

test("without a daemon: which socket was tried, and what to do", async () => {
  const nowhere = join(folder.path, "nowhere.sock");
  const hint = await fails(
    1,
    /no daemon answers on .*nowhere\.sock/,
    "pool",
    "show",
    "--socket",
    nowhere,
  );
  assert.match(hint, /pando daemon --pool PATH/);
  const runtimeDir = { XDG_RUNTIME_DIR: folder.path };
  failed(
    await runPandoHere(loadFake, ["volume", "list"], runtimeDir),
    1,
    /pando-\w+\/pando\/pando\.sock/,
  );
});

test("the CLI finds the daemon by the configuration file", async () => {
  const config = join(folder.path, "pando.json");
  writeFileSync(config, JSON.stringify({ pool: "/p", socket: "run/pando.sock" }));
  const found = await runPandoHere(loadFake, ["pool", "show", "--json", "--config", config]);
  assert.is(found.code, 0, found.stderr);
  const byVariable = await runPandoHere(loadFake, ["pool", "show"], { PANDO_CONFIG: config });
  assert.is(byVariable.code, 0, byVariable.stderr);
  writeFileSync(config, JSON.stringify({ pool: "/p", sokket: "run/pando.sock" }));
  const wrong = await runPandoHere(loadFake, ["pool", "show", "--config", config]);
  failed(wrong, 1, /pando\.json has an unknown key, "sokket"/);
});

test.run();

// The daemon as a process, with a fake pool behind it: how it starts, what keeps it from starting,
// how it stops, and what it tells machines over HTTP.
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { PandoClient } from "../../engine/serve/client.js";
import {
  failed,
  freePort,
  killDaemons,
  pandoCommand,
  runPando,
  startPandoDaemon,
  temporaryFolder,
} from "../support/pando.js";

const fake = pandoCommand("fake");
const folder = temporaryFolder();
const quiet = ["--metrics", "none"];

test.after(() => {
  killDaemons();
  folder.remove();
});

test("a daemon that cannot start says why in one line, and leaves nothing", async () => {
  const socket = join(folder.path, "one", "pando.sock");
  const daemon = await startPandoDaemon(fake, ["--pool", "/p", "--socket", socket, ...quiet]);
  const other = join(folder.path, "other", "pando.sock");
  const start = (...args: string[]) => runPando(fake, ["daemon", ...quiet, ...args]);
  failed(await start("--socket", other), 1, /no pool is named/);
  const busy = await start("--pool", "/pools/busy", "--socket", other);
  failed(busy, 1, /the pool \/pools\/busy is open in process 4711/);
  failed(await start("--pool", "/p", "--socket", socket), 1, /another daemon answers on /);
  failed(await start("--pool", "/p", "--log-level", "loud"), 1, /"loud" is not a log level/);
  failed(await start("--pool", "/p", "--index-cache", "0"), 1, /index cache size is 0/);
  const public_ = await start("--pool", "/p", "--target", "0.0.0.0:4420");
  failed(public_, 1, /hosts cannot connect to 0\.0\.0\.0:4420/);
  assert.is(lstatSync(join(folder.path, "other"), { throwIfNoEntry: false }), undefined);
  assert.is((await runPando(fake, ["pool", "show", "--socket", socket])).code, 0);
  await daemon.stop();
});

test("what is at the socket's path and is no socket stays", async () => {
  mkdirSync(join(folder.path, "taken"));
  const path = join(folder.path, "taken", "pando.sock");
  const start = () => runPando(fake, ["daemon", "--pool", "/p", "--socket", path, ...quiet]);
  writeFileSync(path, "precious");
  failed(await start(), 1, /is there already and is not a socket/);
  assert.ok(lstatSync(path).isFile());
  rmSync(path);
  symlinkSync("/dev/null", path);
  failed(await start(), 1, /is there already and is not a socket/);
});

test("after kill -9 the next daemon takes over the socket that was left", async () => {
  const left = join(folder.path, "left", "pando.sock");
  const args = ["--pool", "/p", "--socket", left, ...quiet];
  const first = await startPandoDaemon(fake, args);
  assert.is(await first.stop("SIGKILL"), "SIGKILL");
  assert.ok(lstatSync(left).isSocket());
  const second = await startPandoDaemon(fake, args);
  assert.is((await runPando(fake, ["pool", "show", "--socket", left])).code, 0);
  assert.is(await second.stop("SIGTERM"), 0);
  assert.is(lstatSync(left, { throwIfNoEntry: false }), undefined);
});

test("SIGINT and SIGTERM stop it cleanly", async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const path = join(folder.path, signal, "pando.sock");
    const one = await startPandoDaemon(fake, ["--pool", "/p", "--socket", path, ...quiet]);
    assert.is(await one.stop(signal), 0);
    assert.match(one.log(), /"msg":"stopped"/);
  }
});

test("a metrics port that is taken is named, and the control socket is gone again", async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const address = taken.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const path = join(folder.path, "third", "pando.sock");
  const args = ["--pool", "/p", "--socket", path, "--metrics", `127.0.0.1:${port}`];
  const result = await runPando(fake, ["daemon", ...args]);
  taken.close();
  failed(result, 1, new RegExp(`cannot serve metrics on 127\\.0\\.0\\.1:${port}: it is in use`));
  assert.is(lstatSync(path, { throwIfNoEntry: false }), undefined);
});

test("systemd is told by the command that it has for that", async () => {
  const bin = join(folder.path, "bin");
  const told = join(folder.path, "told");
  mkdirSync(bin);
  writeFileSync(join(bin, "systemd-notify"), `#!/bin/sh\necho "$1" >> ${told}\n`);
  chmodSync(join(bin, "systemd-notify"), 0o755);
  const path = join(folder.path, "unit", "pando.sock");
  const one = await startPandoDaemon(fake, ["--pool", "/p", "--socket", path, ...quiet], {
    NOTIFY_SOCKET: "/nowhere",
    PATH: `${bin}:${process.env.PATH}`,
  });
  await one.stop();
  assert.is(readFileSync(told, "utf8"), "READY=1\nSTOPPING=1\n");
});

test("several pools: each request says which, and one that does not open keeps nobody else", async () => {
  const config = join(folder.path, "several.json");
  const path = join(folder.path, "several", "pando.sock");
  const pools = [
    { name: "lost", pool: "/pools/busy", target: "none" },
    { name: "fast", pool: "/pools/fast", target: "none" },
    { name: "bulk", pool: "/pools/bulk", target: "none" },
  ];
  writeFileSync(config, JSON.stringify({ pools }));
  const one = await startPandoDaemon(fake, ["--config", config, "--socket", path, ...quiet]);
  assert.match(one.log(), /"pool":"lost".*the pool is not served/);
  const on = async <T>(name: string | null, work: (client: PandoClient) => Promise<T>) => {
    const client = new PandoClient(path, name);
    return work(client).finally(() => client.close());
  };
  const add = (client: PandoClient) => client.createVolume("db", 4096);
  await on("bulk", add);
  const names = async (client: PandoClient) => (await client.listVolumes()).map(({ name }) => name);
  assert.equal(await on("bulk", names), ["in-use", "db"]);
  assert.equal(await on("fast", names), ["in-use"]);
  for (const [name, code, why] of [
    [null, "EINVAL", /several pools: lost, fast, bulk$/],
    ["slow", "ENOTFOUND", /no pool "slow": it serves lost, fast, bulk$/],
    [
      "lost",
      "EBUSY",
      /the pool lost is not served: the pool \/pools\/busy is open in process 4711$/,
    ],
  ] as const) {
    const error = await on(name, add).catch((thrown: unknown) => thrown);
    assert.ok(isPandoError(error, code));
    assert.match(error.message, why);
  }
  const listed = await runPando(fake, ["pool", "list", "--socket", path]);
  assert.match(listed.stdout, /^lost +\/pools\/busy +- +- +the pool lost is not served/m);
  assert.match(listed.stdout, /^bulk +\/pools\/bulk +\S+ \S+ +\S+ \S+ +takes reads and writes$/m);
  const shown = await runPando(fake, ["pool", "show", "--pool", "fast", "--socket", path]);
  assert.match(shown.stdout, /\/pools\/fast/);
  assert.is(await one.stop(), 0);
  writeFileSync(config, JSON.stringify({ pools: pools.slice(0, 1) }));
  const args = ["--config", config, "--socket", path, "--log-level", "fatal", ...quiet];
  const none = await runPando(fake, ["daemon", ...args]);
  failed(none, 1, /the pool lost is not served/);
});

test("metrics, health and readiness", async () => {
  const port = await freePort();
  const path = join(folder.path, "http", "pando.sock");
  const args = ["--pool", "/p", "--socket", path, "--metrics", `127.0.0.1:${port}`];
  const one = await startPandoDaemon(fake, args);
  const get = (what: string, method = "GET") =>
    fetch(`http://127.0.0.1:${port}${what}`, { method, headers: { connection: "close" } });
  try {
    await runPando(fake, ["volume", "create", "idle", "--size", "1G", "--socket", path]);
    assert.is((await get("/healthz")).status, 200);
    assert.is((await get("/readyz")).status, 200);
    assert.is((await get("/")).status, 404);
    assert.is((await get("/metrics", "POST")).status, 405);
    const response = await get("/metrics?x=1");
    assert.match(response.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
    const metrics = await response.text();
    assert.match(metrics, "\npando_pool_volumes 2\n");
    assert.match(metrics, 'pando_volume_sessions{volume="in-use",front_end="nvme-tcp"} 1\n');
    assert.not.match(metrics, /idle/);
  } finally {
    await one.stop();
  }
});

test.run();

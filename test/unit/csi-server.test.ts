// The CSI driver on its socket: one call at a time for each subject, what the log says and what it
// never does, and how `pando-csi` starts.
import { spawn, spawnSync } from "node:child_process";
import { lstatSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { status } from "@grpc/grpc-js";
import { pino } from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadCsiConfig } from "../../csi/config.js";
import { controllerServices } from "../../csi/controller.js";
import { identityService } from "../../csi/identity.js";
import { startCsiServer } from "../../csi/server.js";
import { StorageNodes } from "../../csi/storage-nodes.js";
import { FakeNode, MOUNT } from "../support/csi.js";
import { CsiClient } from "../support/csi-client.js";
import { temporaryFolder } from "../support/pando.js";
import { refuses } from "../support/refuses.js";

const PROGRAM = fileURLToPath(new URL("../../csi/main.js", import.meta.url));

const folder = temporaryFolder();
test.after(() => folder.remove());

test("one call at a time, and nothing secret in the log", async () => {
  let logged = "";
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      logged += chunk.toString();
      done();
    },
  });
  const node = new FakeNode("a");
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const createVolume = node.pool.createVolume.bind(node.pool);
  node.pool.createVolume = async (name, sizeBytes) => {
    await held;
    return createVolume(name, sizeBytes);
  };
  const socket = join(folder.path, "csi.sock");
  const server = await startCsiServer({
    socket,
    services: {
      Identity: identityService({ driverName: "csi.pando.io", version: "1", zones: false }),
      ...controllerServices({ nodes: new StorageNodes([node]), maxVolumesPerNode: null }),
    },
    log: pino({ level: "trace" }, stream),
  });
  const client = new CsiClient(socket);
  const request = {
    name: "pvc-1",
    volumeCapabilities: [{ ...MOUNT, mount: { ...MOUNT.mount, mountFlags: ["password=hush"] } }],
    secrets: { key: "hush" },
  };
  const first = client.call("Controller", "CreateVolume", request);
  const code = await client.call("Controller", "CreateVolume", request).then(
    () => status.OK,
    (error: { code: status }) => error.code,
  );
  assert.is(code, status.ABORTED);
  release();
  const { volume } = await first;
  assert.match((volume as { volumeId: string }).volumeId, /^a\/pvc-1\//);
  const again = await client.call("Controller", "CreateVolume", request);
  assert.equal(again, await first);
  const { ready } = await client.call("Identity", "Probe", {});
  assert.equal(ready, { value: true });
  client.close();
  await server.close();
  assert.match(logged, /"name":"pvc-1"/);
  assert.match(logged, /"code":"ABORTED"/);
  assert.not.match(logged, /hush/);
  assert.is(lstatSync(socket, { throwIfNoEntry: false }), undefined);
});

const TLS = { certificate: "c", key: "k", authority: "/a" };
const NODE = { name: "a", address: "10.0.0.5:9751" };

function load(content: unknown, flags = {}) {
  const path = join(folder.path, "csi.json");
  writeFileSync(path, JSON.stringify(content));
  return loadCsiConfig(path, flags);
}

test("a daemon with several pools is a storage node for each", () => {
  const pools = ["fast", "bulk"].map((pool) => ({ ...NODE, name: `a-${pool}`, pool }));
  const { storageNodes } = load({ storageNodes: pools, tls: TLS, mode: "controller" });
  const named = storageNodes.map(({ name, pool }) => [name, pool]);
  assert.equal(named, [
    ["a-fast", "fast"],
    ["a-bulk", "bulk"],
  ]);
});

test("the configuration: paths are relative to it, flags override it", () => {
  const config = load({ storageNodes: [NODE], tls: TLS, mode: "node" }, { mode: "controller" });
  assert.equal(config.storageNodes, [
    { name: "a", address: { host: "10.0.0.5", port: 9751 }, zone: null },
  ]);
  assert.equal(config.tls, {
    certificate: join(folder.path, "c"),
    key: join(folder.path, "k"),
    authority: "/a",
  });
  assert.is(config.mode, "controller");
  assert.is(config.endpoint, "/csi/csi.sock");
  assert.is(config.driverName, "csi.pando.io");
  assert.is(config.maxVolumesPerNode, null);
  const local = { storageNodes: [{ name: "a", address: "127.0.0.1:1" }], maxVolumesPerNode: "9" };
  assert.is(load(local).maxVolumesPerNode, 9);
  assert.equal(loadCsiConfig(undefined, { mode: "node" }).storageNodes, []);
});

test("each wrong value is named", () => {
  const good = { storageNodes: [NODE], tls: TLS };
  const table: [object, string][] = [
    [{ ...good, nodes: [] }, "nodes"],
    [{ ...good, mode: "both" }, "mode"],
    [{ ...good, mode: 1 }, "mode"],
    [{ ...good, endpoint: "tcp://1.2.3.4:5" }, "endpoint"],
    [{ ...good, driverName: "A B" }, "driverName"],
    [{ ...good, hostNqn: "me" }, "host"],
    [{ ...good, maxVolumesPerNode: "0" }, "maxVolumesPerNode"],
    [{ ...good, logLevel: "loud" }, "logLevel"],
    [{ tls: TLS }, "storageNodes"],
    [{ storageNodes: [NODE] }, "tls"],
    [{ storageNodes: [NODE], tls: { ...TLS, key: undefined } }, "tls.key"],
    [{ storageNodes: [NODE], tls: { ...TLS, password: "x" } }, "tls.password"],
    [{ ...good, storageNodes: [NODE, NODE] }, "storageNodes[1].name"],
    [{ ...good, storageNodes: [{ ...NODE, name: "A/b" }] }, "storageNodes[0].name"],
    [{ ...good, storageNodes: [{ ...NODE, address: "x" }] }, "storageNodes[0].address"],
    [{ ...good, storageNodes: [{ ...NODE, port: "1" }] }, "storageNodes[0].port"],
    [{ ...good, storageNodes: {} }, "storageNodes"],
  ];
  for (const [content, field] of table) {
    assert.is(refuses(() => load(content), "EINVAL", /./).context.field, field);
  }
  refuses(() => loadCsiConfig(join(folder.path, "none.json"), {}), "EINVAL", /cannot read/);
});

test("pando-csi says in one line why it does not start", () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [PROGRAM, ...args], { encoding: "utf8", timeout: 30_000 });
  const none = run("--mode", "controller");
  assert.is(none.status, 1);
  assert.match(none.stderr, /^error: storageNodes is missing: [^\n]+\n$/);
  assert.match(run("--frobnicate").stderr, /^error: Unknown argument: frobnicate\n$/);
  const help = run("--help");
  assert.is(help.status, 0);
  assert.match(help.stdout, /--max-volumes-per-node/);
});

test("a node plugin without its key serves, and says so at once", async () => {
  const socket = join(folder.path, "node.sock");
  const args = ["--mode=node", `--endpoint=${socket}`];
  const key = ["--host-nqn=nqn.2014-08.org.example:node-1", "--tls-key-file=/none/tls.key"];
  const plugin = spawn(process.execPath, [PROGRAM, ...args, ...key]);
  const ended = new Promise((resolve) => plugin.once("close", resolve));
  let said = "";
  for await (const text of plugin.stderr.setEncoding("utf8")) {
    said += text;
    if (!text.includes('"msg":"serving"')) continue;
    const client = new CsiClient(socket);
    await client.call("Identity", "Probe", {});
    client.close();
    plugin.kill("SIGTERM");
  }
  assert.is(await ended, 0, said);
  const [warned = ""] = said.split("\n");
  assert.match(warned, /"level":40,.*cannot read the TLS key: .*\/none\/tls.key.*tlsKeyFile/);
});

test.run();

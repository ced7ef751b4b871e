// Storage nodes that Kubernetes names: what is asked of it, what its answers mean, and what becomes
// of volumes when nodes come, move and go.
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { loadCsiConfig } from "../../csi/config.js";
import { Discovery } from "../../csi/discovery.js";
import {
  type KubernetesConfig,
  listNodes,
  type NodeList,
  readNodeList,
} from "../../csi/kubernetes.js";
import { StorageNodes } from "../../csi/storage-nodes.js";
import { formatAddress } from "../../engine/base/address.js";
import { PandoError } from "../../engine/base/errors.js";
import { makeLog } from "../../engine/base/log.js";
import { makeAuthority } from "../support/certificates.js";
import { FakeNode, GIB, refusesWith } from "../support/csi.js";
import { temporaryFolder } from "../support/pando.js";
import { needsCommands } from "../support/skip.js";

const folder = temporaryFolder();
test.after(() => folder.remove());
const log = makeLog("fatal");

function nodeObject(name: string, address: string | null, annotations = {}, labels = {}): object {
  const addresses = [
    { type: "Hostname", address: name },
    ...(address === null ? [] : [{ type: "InternalIP", address }]),
  ];
  return { metadata: { name, annotations, labels }, status: { addresses } };
}

const listOf = (...items: object[]) => JSON.stringify({ kind: "NodeList", items });

test("a node's name is its own, or the one that it is given", () => {
  const long = "ip-10-0-0-5.eu-central-1.compute.internal";
  const given = { "pando.io/storage-node-name": "rack-1" };
  const { nodes, refused } = readNodeList(
    listOf(
      nodeObject("storage-1", "10.0.0.5"),
      nodeObject(long, "10.0.0.6", given),
      nodeObject("v6", "fd00::7", {}, { "topology.kubernetes.io/zone": "z1" }),
    ),
    9751,
  );
  const told = nodes.map(({ name, address }) => `${name} ${formatAddress(address)}`);
  assert.equal(told, ["storage-1 10.0.0.5:9751", "rack-1 10.0.0.6:9751", "v6 [fd00::7]:9751"]);
  assert.equal(refused, []);
  assert.equal(
    nodes.map(({ zone }) => zone),
    [null, null, "z1"],
  );
});

test("a node that cannot be one is left out, with the reason", () => {
  const long = "ip-10-0-0-5.eu-central-1.compute.internal";
  const { nodes, refused } = readNodeList(
    listOf(
      nodeObject(long, "10.0.0.5"),
      nodeObject("bare", null),
      nodeObject("a", "10.0.0.6"),
      nodeObject("b", "10.0.0.7", { "pando.io/storage-node-name": "a" }),
    ),
    9751,
  );
  assert.equal(
    nodes.map(({ name }) => name),
    ["a"],
  );
  assert.match(refused[0] ?? "", /compute\.internal.*annotate pando\.io\/storage-node-name/);
  assert.match(refused[1] ?? "", /bare: it has no internal address/);
  assert.match(refused[2] ?? "", /node b: a is another one's name/);
  for (const text of ["", "null", "[]", '{"kind":"Status"}']) {
    assert.throws(() => readNodeList(text, 9751), /no list of nodes/);
  }
});

const needsOpenssl = needsCommands("openssl");
(needsOpenssl === null ? test : test.skip)(
  "one list is asked for, with the token of now",
  async () => {
    const tls = makeAuthority(folder.path, "kubernetes").issue("kubernetes.default.svc");
    const token = join(folder.path, "token");
    const asked: (string | undefined)[][] = [];
    let answer = { code: 200, body: listOf(nodeObject("storage-1", "10.0.0.5")) };
    const pem = { cert: readFileSync(tls.certificate), key: readFileSync(tls.key) };
    const server: Server = createServer(pem, (request, response) => {
      asked.push([request.method, request.url, request.headers.authorization]);
      response.writeHead(answer.code).end(answer.body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const config: KubernetesConfig = {
      server: `https://localhost:${port}`,
      token,
      authority: tls.authority,
      nodes: "pando.io/storage-node=true",
      apiPort: 9751,
    };
    try {
      for (const secret of ["first", "second"]) {
        writeFileSync(token, `${secret}\n`);
        assert.is((await listNodes(config)).nodes[0]?.name, "storage-1");
      }
      const path = "/api/v1/nodes?labelSelector=pando.io%2Fstorage-node%3Dtrue";
      assert.equal(asked, [
        ["GET", path, "Bearer first"],
        ["GET", path, "Bearer second"],
      ]);
      answer = { code: 403, body: '{"kind":"Status"}' };
      const refused = await listNodes(config).catch((error: unknown) => error);
      assert.ok(refused instanceof PandoError);
      assert.match(refused.message, /status 403/);
      assert.not.match(refused.message, /second/);
      // Whoever is at that address without a certificate of the authority hears no token.
      const stranger = makeAuthority(folder.path, "stranger");
      const heard = asked.length;
      await listNodes({ ...config, authority: stranger.path }).then(
        () => assert.unreachable(),
        (error: PandoError) => assert.is(error.code, "ECLOSED"),
      );
      assert.is(asked.length, heard);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  },
);

interface Scene {
  nodes: StorageNodes;
  /** By address. */
  daemons: Map<string, FakeNode>;
  /** What Kubernetes says next, and until that has been heard. */
  says(answer: NodeList | Error): Promise<void>;
}

const started: Discovery[] = [];
test.after.each(async () => {
  for (const one of started.splice(0)) await one.close();
});

const at = (name: string, host: string, zone: string | null = null) => ({
  name,
  address: { host, port: 9751 },
  zone,
});

async function begin(first: (NodeList | Error)[], configured: FakeNode[] = []): Promise<Scene> {
  const nodes = new StorageNodes(configured);
  const daemons = new Map<string, FakeNode>();
  const answers = [...first];
  let heard = () => {};
  let last: NodeList | Error = answers[0] ?? new Error("nothing");
  const list = async () => {
    const answer = answers.shift();
    if (answer !== undefined) last = answer;
    else heard();
    if (last instanceof Error) throw last;
    return last;
  };
  const discovery = await Discovery.start({
    nodes,
    list,
    log,
    pauseMs: 1,
    attempts: first.length,
    connect({ name, address }) {
      const node = new FakeNode(name);
      daemons.set(formatAddress(address), node);
      return node.daemon;
    },
  });
  started.push(discovery);
  return {
    nodes,
    daemons,
    async says(answer) {
      answers.push(answer);
      for (let round = 0; round < 2; round++) {
        await new Promise<void>((resolve) => {
          heard = resolve;
        });
      }
    },
  };
}

const names = (found: { node: { name: string } }[]) => found.map(({ node }) => node.name).sort();

test("a new node is used, and one that has gone keeps its volumes and gets no new ones", async () => {
  const scene = await begin([{ nodes: [at("a", "10.0.0.1")], refused: [] }]);
  const { nodes } = scene;
  const both = [at("a", "10.0.0.1"), at("b", "10.0.0.2")];
  await scene.says({ nodes: both, refused: [] });
  assert.equal(names(await nodes.byRoom()), ["a", "b"]);
  const { uuid } = await nodes.get("b").daemon.createVolume("kept", GIB);
  await scene.says({ nodes: [at("a", "10.0.0.1")], refused: [] });
  assert.equal(names(await nodes.byRoom()), ["a"], "nothing new on b");
  assert.ok(await nodes.findVolume({ node: "b", volume: "kept", uuid }));
  assert.is(nodes.all.length, 2, "b is still in every list");
  await scene.says({ nodes: both, refused: [] });
  assert.equal(names(await nodes.byRoom()), ["a", "b"]);
  assert.is(scene.daemons.size, 2, "b was not connected to again");
});

test("a node that has moved is asked at its new address", async () => {
  const scene = await begin([{ nodes: [at("a", "10.0.0.1")], refused: [] }]);
  await scene.says({ nodes: [at("a", "10.0.0.9")], refused: [] });
  assert.is(scene.nodes.get("a").daemon, scene.daemons.get("10.0.0.9:9751")?.daemon);
  assert.is(scene.nodes.all.length, 1);
  await scene.says({ nodes: [at("a", "10.0.0.9", "z2")], refused: [] });
  assert.is(scene.nodes.get("a").zone, "z2");
});

test("no answer changes nothing", async () => {
  const scene = await begin([{ nodes: [at("a", "10.0.0.1")], refused: [] }]);
  await scene.says(new Error("no route"));
  assert.equal(names(await scene.nodes.byRoom()), ["a"]);
  await scene.says({ nodes: [], refused: [] });
  assert.is(scene.nodes.all.length, 1);
  await refusesWith(
    Promise.resolve().then(() => scene.nodes.get("z")),
    status.UNAVAILABLE,
    /z/,
  );
});

test("nothing is served before the first answer", async () => {
  const scene = await begin([new Error("no route"), { nodes: [at("a", "10.0.0.1")], refused: [] }]);
  assert.equal(names(await scene.nodes.byRoom()), ["a"]);
  await begin([new Error("no route")]).then(
    () => assert.unreachable(),
    (error: Error) => assert.is(error.message, "no route"),
  );
});

test("what the configuration names is not Kubernetes' to change", async () => {
  const mine = new FakeNode("a");
  const scene = await begin([{ nodes: [at("a", "10.0.0.1")], refused: [] }], [mine]);
  await scene.says({ nodes: [], refused: [] });
  assert.is(scene.nodes.get("a").daemon, mine.daemon);
  assert.equal(names(await scene.nodes.byRoom()), ["a"]);
});

test("the configuration says where to ask, and a pod needs to say nothing", () => {
  const path = join(folder.path, "csi.json");
  const tls = { certificate: "tls.crt", key: "tls.key", authority: "ca.crt" };
  const load = (settings: object) => {
    writeFileSync(path, JSON.stringify(settings));
    return loadCsiConfig(path, {});
  };
  assert.equal(load({ tls, kubernetes: {} }).kubernetes, {
    server: "https://kubernetes.default.svc",
    apiPort: 9751,
    nodes: "pando.io/storage-node=true",
    token: "/var/run/secrets/kubernetes.io/serviceaccount/token",
    authority: "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
  });
  const relative = load({ tls, kubernetes: { token: "token", apiPort: "9000" } }).kubernetes;
  assert.is(relative?.token, join(folder.path, "token"));
  assert.is(relative?.apiPort, 9000);
  for (const [kubernetes, message] of [
    [{ server: "http://10.0.0.1" }, /^kubernetes\.server is "http:\/\/10\.0\.0\.1", not a URL/],
    [{ apiPort: "none" }, /^kubernetes\.apiPort is "none", not a port/],
    [{ label: "x" }, /^kubernetes\.label is not a key; there are nodes, apiPort/],
    [true, /^kubernetes is not an object/],
  ] as [unknown, RegExp][]) {
    assert.throws(() => load({ tls, kubernetes }), message);
  }
  const placed = load({ tls, kubernetes: {}, topology: "zone", zone: "eu-1" });
  assert.equal([placed.topology, placed.zone], ["zone", "eu-1"]);
  assert.is(load({ tls, kubernetes: {}, zone: "" }).zone, null, "a label that is not there");
  for (const [more, message] of [
    [{ topology: "rack" }, /^topology is "rack"; there are none, zone/],
    [{ zone: "a/b" }, /^zone cannot be "a\/b"/],
    [{ storageNodes: [{ name: "a", address: "[::1]:1", zone: "-" }] }, /^storageNodes\[0\]\.zone/],
  ] as [object, RegExp][]) {
    assert.throws(() => load({ tls, kubernetes: {}, ...more }), message);
  }
  assert.throws(() => load({ kubernetes: {} }), /^tls is missing, and the nodes of Kubernetes/);
  assert.throws(() => load({}), /^storageNodes is missing: .* those of kubernetes/);
});

test.run();

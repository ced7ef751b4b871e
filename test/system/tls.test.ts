// TLS at a real daemon's target, with Node's own client as host: who has to use it, who may, and
// what is told of it. What a Linux host makes of it: npm run tls-host.
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect as connectPlain, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatTlsPsk, type TlsCandidate, tlsCandidates } from "../../engine/base/tls-psk.js";
import { PandoClient } from "../../engine/serve/client.js";
import { connectQueue, INVALID_HOST, INVALID_PARAMETERS, SUCCESS } from "../support/nvme-queue.js";
import { temporaryFolder } from "../support/pando.js";
import { type PandoNode, startNode, targetOf } from "./pando-node.js";

const HOST = "nqn.2014-08.org.example:host";
const OTHER = "nqn.2014-08.org.example:other";
const KEY = { transform: "sha256", secret: Buffer.alloc(32, 0x5e) } as const;

const folder = temporaryFolder();
let node: PandoNode;
let client: PandoClient;
let port: number;
let names: { hostNqn: string; subsystemNqn: string };

test.before(async () => {
  node = await startNode({ poolSize: "256MiB", advertise: "127.0.0.1", sparse: true });
  client = new PandoClient(node.socket);
  await client.createVolume("db", 2 ** 24);
  for (const host of [HOST, OTHER]) await client.allowHost("db", host);
  const target = targetOf(await node.showVolume("db"));
  port = Number(target.trsvcid);
  names = { hostNqn: HOST, subsystemNqn: target.nqn };
});

test.after(async () => {
  client?.close();
  await node?.remove();
  folder.remove();
});

test("a host that gets a key is put out, and comes back with it only", async () => {
  const before = await plain();
  assert.is(await connectQueue(before, names), SUCCESS);
  before.resume();
  const ended = once(before, "close");
  await setKey();
  await ended;

  assert.is(await whileOpen(plain(), (stream) => connectQueue(stream, names)), INVALID_HOST);
  const other = { ...names, hostNqn: OTHER };
  assert.is(await whileOpen(plain(), (stream) => connectQueue(stream, other)), SUCCESS);

  for (const key of tlsCandidates(KEY, names).filter(({ identity }) => identity.length < 250)) {
    const status = await whileOpen(secure(key), async (stream) => {
      const connected = await connectQueue(stream, names);
      const [connection] = await client.listConnections();
      assert.equal([connection?.hostNqn, connection?.tls], [HOST, true]);
      return connected;
    });
    assert.is(status, SUCCESS, key.identity);
  }
});

test("the identity's names are Connect's", async () => {
  const [key] = tlsCandidates(KEY, names) as [TlsCandidate];
  const ask = (of: typeof names) => whileOpen(secure(key), (stream) => connectQueue(stream, of));
  assert.is(await ask({ ...names, hostNqn: OTHER }), INVALID_HOST);
  const discovery = "nqn.2014-08.org.nvmexpress.discovery";
  assert.is(await ask({ ...names, subsystemNqn: discovery }), INVALID_PARAMETERS);
});

test("another key opens nothing, and the log says why but no key", async () => {
  const [key] = tlsCandidates(KEY, names) as [TlsCandidate];
  await refused(secure({ ...key, secret: Buffer.alloc(32, 1) }));
  await refused(secure(tlsCandidates(KEY, { ...names, hostNqn: OTHER })[0] as TlsCandidate));
  await logged(/the key of host .*example:host.* is another/);
  await logged(/host .*example:other.* has no TLS key/);
  assert.equal(await client.listHostKeys(), [
    { hostNqn: HOST, bidirectional: false, proves: false, tls: true },
  ]);
  const secrets = [formatTlsPsk(KEY).slice(16, 40), KEY.secret.toString("hex").slice(0, 20)];
  for (const secret of secrets) assert.not.ok(node.log().includes(secret));
});

test("without its key a host comes in the open again, unless TLS is required of all", async () => {
  const [key] = tlsCandidates(KEY, names) as [TlsCandidate];
  await client.removeHostTlsKey(HOST);
  await refused(secure(key));
  assert.is(await whileOpen(plain(), (stream) => connectQueue(stream, names)), SUCCESS);

  await client.setHostTlsKey(HOST, formatTlsPsk(KEY));
  await node.killDaemon();
  await node.startDaemon(["--target-tls", "required"]);
  assert.is(await whileOpen(secure(key), (stream) => connectQueue(stream, names)), SUCCESS);
  const other = { ...names, hostNqn: OTHER };
  assert.is(await whileOpen(plain(), (stream) => connectQueue(stream, other)), null);
  await logged(/it begins without TLS, which is required here/);
  assert.equal((await node.stopAndCheck()).problems, []);
});

test.run();

async function setKey(): Promise<void> {
  const path = join(folder.path, "key");
  writeFileSync(path, `${formatTlsPsk(KEY)}\n`, { mode: 0o600 });
  await node.pando("host", "set-tls-key", HOST, "--key-file", path);
}

async function plain(): Promise<Socket> {
  const stream = connectPlain(port, "127.0.0.1");
  stream.on("error", () => undefined);
  await once(stream, "connect");
  return stream;
}

async function secure({ identity, secret }: TlsCandidate): Promise<Socket> {
  const stream = connectTls({
    host: "127.0.0.1",
    port,
    minVersion: "TLSv1.3",
    ciphers: "TLS_AES_128_GCM_SHA256",
    pskCallback: () => ({ identity, psk: secret }),
    checkServerIdentity: () => undefined,
  });
  await once(stream, "secureConnect");
  stream.on("error", () => undefined);
  return stream;
}

async function whileOpen<T>(opened: Promise<Socket>, work: (stream: Socket) => Promise<T>) {
  const stream = await opened;
  try {
    return await work(stream);
  } finally {
    stream.destroy();
  }
}

/** The daemon writes it some time after. */
async function logged(pattern: RegExp): Promise<void> {
  for (let tries = 0; tries < 200 && !pattern.test(node.log()); tries++) await sleep(20);
  assert.match(node.log(), pattern);
}

async function refused(opening: Promise<Socket>): Promise<void> {
  const failure = await opening.then(
    (stream) => {
      stream.destroy();
      return null;
    },
    (error: unknown) => error,
  );
  assert.ok(failure !== null, "the handshake succeeded");
}

// Who may connect and who is: the list is durable before the host is put out, the call returns when
// the host's last request has ended, and says so when it has not.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import { volumeNqn } from "../../engine/base/nqn.js";
import { HostVolumes } from "../../engine/core/host-volumes.js";
import { type Fence, type HostConnection, Hosts } from "../../engine/core/hosts.js";
import * as catalogue from "../../engine/store/catalogue.js";
import { ModelStore } from "../sim/model-store.js";
import { turnsDuring } from "../support/turns.js";

const UUID = "3f8a1c52-9d0e-4b67-8a21-000000000001";
const HOST = "nqn.2014-08.org.example:a";
const OTHER = "nqn.2014-08.org.example:b";
const TLS_KEY = "NVMeTLSkey-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
const HOST_KEY = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

interface Scene {
  hosts: Hosts;
  /** What happened, in order. */
  said: string[];
  /** Whose connections were asked for; null is everybody's. */
  asked: (string | null)[];
  allowed(): string[];
}

async function scene(
  fence: Fence = { controllers: 1, ended: true },
  connected: HostConnection[] = [],
): Promise<Scene> {
  const said: string[] = [];
  const asked: (string | null)[] = [];
  const store = new ModelStore();
  await store.transact((txn) => {
    catalogue.createVolume(txn, "db", {
      uuid: UUID,
      layer: 1,
      sizeBytes: 4096,
      createdAt: "2026-01-02T03:04:05.000Z",
      allowedHosts: [OTHER],
      origin: null,
    });
  });
  const allowed = () => catalogue.getVolume(store, "db").allowedHosts;
  const hosts = new Hosts({
    store,
    volumes: new HostVolumes(store, () => false),
    change: (work) => work(),
    settled: async () => said.push("settled"),
    closed: () => false,
    news: {
      async disconnect(uuid, host) {
        said.push(`disconnect ${uuid === UUID} ${host}, listed: ${allowed().includes(host)}`);
        return fence;
      },
      async connections(host) {
        asked.push(host);
        return connected.filter(({ hostNqn }) => host === null || hostNqn === host);
      },
      resized: () => said.push("resized"),
      exportsChanged: (names) => said.push(`told ${names}`),
    },
  });
  return { hosts, said, asked, allowed };
}

const connection = (uuid: string): HostConnection => ({
  subsystemNqn: volumeNqn(uuid),
  hostNqn: HOST,
  peer: "10.0.0.9:1234",
  controllerId: 3,
  ioQueues: 2,
  authenticated: false,
  tls: false,
  connectedMs: 61_500,
});

test("an allowed host is told that there is something to discover", async () => {
  const { hosts, said, allowed } = await scene();
  await hosts.allow("db", HOST);
  assert.equal(allowed(), [HOST, OTHER]);
  assert.equal(said, [`told ${HOST}`]);
});

test("a denied host is off the list before it is put out, and fenced when the call returns", async () => {
  const { hosts, said, allowed } = await scene();
  await hosts.allow("db", HOST);
  said.length = 0;
  await hosts.deny("db", HOST);
  assert.equal(allowed(), [OTHER]);
  assert.equal(said, [`told ${HOST}`, `disconnect true ${HOST}, listed: false`, "settled"]);
});

test("a host that was never on the list is fenced too", async () => {
  const { hosts, said } = await scene({ controllers: 0, ended: true });
  await hosts.deny("db", HOST);
  assert.equal(said.at(-2), `disconnect true ${HOST}, listed: false`);
});

test("a fence that is not complete is an error, and the list is changed all the same", async () => {
  const { hosts, allowed } = await scene({ controllers: 1, ended: false });
  for (const call of [() => hosts.deny("db", OTHER), () => hosts.disconnect("db", OTHER)]) {
    const error = await call().then(
      () => null,
      (thrown: unknown) => thrown,
    );
    assert.ok(isPandoError(error, "EBUSY"));
    assert.match((error as Error).message, /requests of it still run/);
  }
  assert.equal(allowed(), []);
});

test("disconnecting leaves the list alone", async () => {
  const { hosts, said, allowed } = await scene({ controllers: 2, ended: true });
  assert.is(await hosts.disconnect("db", OTHER), 2);
  assert.equal(allowed(), [OTHER]);
  assert.equal(said, [`disconnect true ${OTHER}, listed: true`, "settled"]);
  const missing = await hosts.disconnect("none", OTHER).catch((error: Error) => error.message);
  assert.is(missing, "there is no volume none");
});

test("to put a host out, nobody looks at what others have", async () => {
  const { hosts, asked } = await scene();
  await hosts.allow("db", HOST);
  await hosts.disconnect("db", HOST);
  await hosts.deny("db", HOST);
  await hosts.setTlsKey(HOST, TLS_KEY);
  await hosts.setKeys(HOST, { host: HOST_KEY, controller: null });
  assert.equal(new Set(asked), new Set([HOST]));
});

test("others get their turns while many connections are listed", async () => {
  const { hosts } = await scene(undefined, Array(1200).fill(connection(UUID)));
  const turns = await turnsDuring(async () => assert.is((await hosts.connections()).length, 1200));
  assert.ok(turns >= 2);
});

test("connections carry the volume's name; what is being deleted is left out", async () => {
  const gone = "3f8a1c52-9d0e-4b67-8a21-00000000000f";
  const { hosts } = await scene(undefined, [connection(UUID), connection(gone)]);
  const expected = {
    volume: "db",
    hostNqn: HOST,
    peer: "10.0.0.9:1234",
    controllerId: 3,
    ioQueues: 2,
    authenticated: false,
    tls: false,
    connectedSeconds: 61,
  };
  assert.equal(await hosts.connections(), [expected]);
  assert.equal(await hosts.connections("db"), [expected]);
});

test("a host that gets a TLS key is put out where it is connected without", async () => {
  const plain = { ...connection(UUID), controllerId: 4 };
  const { hosts, said } = await scene(undefined, [{ ...plain, tls: true }]);
  await hosts.setTlsKey(HOST, TLS_KEY);
  assert.equal(said, [`told ${HOST}`]);
  assert.equal(hosts.keys(), [{ hostNqn: HOST, proves: false, bidirectional: false, tls: true }]);

  const other = await scene(undefined, [plain]);
  await other.hosts.setTlsKey(HOST, TLS_KEY);
  assert.equal(other.said, [`told ${HOST}`, `disconnect true ${HOST}, listed: false`, "settled"]);
  await other.hosts.removeTlsKey(HOST);
  assert.equal(other.hosts.keys(), []);
  const missing = await other.hosts.removeTlsKey(HOST).catch((error: Error) => error.message);
  assert.is(missing, `host ${HOST} has no TLS key`);
  const bad = await other.hosts.setTlsKey(HOST, "NVMeTLSkey-1:01:AAAA:").catch(String);
  assert.match(String(bad), /is not a TLS key of NVMe\/TCP/);
});

test("both kinds of keys of a host are told in one line", async () => {
  const { hosts } = await scene();
  await hosts.setTlsKey(OTHER, TLS_KEY);
  await hosts.setKeys(OTHER, { host: HOST_KEY, controller: null });
  await hosts.setKeys(HOST, { host: HOST_KEY, controller: null });
  assert.equal(hosts.keys(), [
    { hostNqn: HOST, proves: true, bidirectional: false, tls: false },
    { hostNqn: OTHER, proves: true, bidirectional: false, tls: true },
  ]);
});

test.run();

// What TypeScript believes of the messages against what the .proto file makes of them: a message
// with every field set comes back as it was, through the very functions that the wire has.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { method, type StreamName, service, type UnaryName } from "../../engine/serve/protocol.js";
import { nbdUri } from "../../engine/serve/view.js";

const VOLUME = {
  name: "db",
  uuid: "u",
  sizeBytes: 2 ** 50,
  ownBytes: 1,
  sharedBytes: 2,
  logicalBytes: 3,
  freedByDeleteBytes: 1,
  freedByDeleteAtMost: true,
  origin: { volume: "a", snapshot: "b" },
  createdAt: "2026-01-01T00:00:00.000Z",
  allowedHosts: ["nqn.2014-08.org.example:a"],
  sessions: [{ frontEnd: "nbd", hostNqn: "", count: 3 }],
  nqn: "nqn",
  addresses: [{ traddr: "::1", trsvcid: "4420" }],
  sharedVia: "nvmet",
  nbdUri: "nbd",
  limits: { iops: 100, bytesPerSecond: 2 ** 40 },
};
const POOL = {
  uuid: "u",
  path: "/p",
  blockSizeBytes: 4096,
  sizeBytes: 2 ** 44,
  usedBytes: 1,
  freeBytes: 2,
  reservedBytes: 9,
  pendingBytes: 1,
  spaceLevel: 3,
  discard: { state: "on", punchedBytes: 10, skippedBytes: 11 },
  volumes: 3,
  snapshots: 4,
  layers: 5,
  reclaiming: 6,
  failure: "why",
  journal: { sizeBytes: 7, usedBytes: 8 },
  counters: { reads: 2 ** 52, ratio: 0.5 },
  reclaim: {
    layersWaiting: 1,
    spansWaiting: 2,
    layersReclaimed: 3,
    layersFolded: 4,
    spansReclaimed: 5,
    spansFolded: 6,
    spansSwept: 8,
    freedBytes: 7,
  },
};
const SNAPSHOT = {
  volume: "db",
  name: "s",
  uuid: "u",
  sizeBytes: 4096,
  createdAt: "t",
  volumeUuid: "v",
  ownBytes: 1,
  sharedBytes: 2,
  logicalBytes: 3,
  freedByDeleteBytes: 4,
  freedByDeleteAtMost: true,
};
const CONNECTION = {
  volume: "db",
  hostNqn: "nqn",
  peer: "[::1]:5",
  controllerId: 1,
  ioQueues: 2,
  authenticated: true,
  tls: true,
  connectedSeconds: 3,
};
const RECEIVE = {
  name: "db",
  snapshot: "s",
  contents: "c",
  base: "b",
  sizeBytes: 2 ** 50,
  offsetBytes: 2 ** 49,
  nbdUri: "nbd",
};
const REPORT = { clean: true, problems: ["p"], layers: 1, indexBlocks: 2, ownedBlocks: 3 };
const BY_NAME = { name: "db" };
const BY_SNAPSHOT = { volume: "db", snapshot: "s" };
const BY_HOST = { volume: "db", hostNqn: "nqn" };
const BY_SIZE = { name: "db", sizeBytes: 2 ** 40 };

const MESSAGES: Record<UnaryName | StreamName, { request: object; response: object }> = {
  ListPools: {
    request: {},
    response: {
      pools: [
        { name: "p", path: "/p", uuid: "u", sizeBytes: 2 ** 44, usedBytes: 2 ** 43, failure: "f" },
      ],
    },
  },
  GetPool: { request: {}, response: POOL },
  CheckPool: { request: {}, response: REPORT },
  GrowPool: { request: { sizeBytes: 2 ** 44, sparse: true }, response: POOL },
  BackUpMetadata: { request: {}, response: { data: Buffer.from([1, 2, 3]) } },
  CreateVolume: { request: BY_SIZE, response: VOLUME },
  TrimPool: {
    request: { startBytes: 2 ** 41 },
    response: { doneBytes: 2 ** 42, sizeBytes: 2 ** 43, trimmedBytes: 2 ** 40 },
  },
  GetVolume: { request: { ...BY_NAME, countFreed: true }, response: VOLUME },
  ListVolumes: {
    request: { after: "a" },
    response: { volumes: [VOLUME, { ...VOLUME, name: "b" }] },
  },
  DeleteVolume: { request: BY_NAME, response: {} },
  ResizeVolume: { request: BY_SIZE, response: VOLUME },
  CloneVolume: { request: { source: VOLUME.origin, name: "c" }, response: VOLUME },
  SetVolumeLimits: {
    request: {
      name: "db",
      iops: { none: true, value: 0 },
      bytesPerSecond: { none: false, value: 2 ** 40 },
    },
    response: VOLUME,
  },
  RollbackVolume: { request: BY_SNAPSHOT, response: VOLUME },
  CreateSnapshot: { request: BY_SNAPSHOT, response: SNAPSHOT },
  GetSnapshot: {
    request: { ...BY_SNAPSHOT, countFreed: true },
    response: {
      snapshot: SNAPSHOT,
      allowedHosts: VOLUME.allowedHosts,
      sessions: VOLUME.sessions,
      nqn: "nqn",
      addresses: VOLUME.addresses,
      nbdUri: "nbd",
      contents: "c",
    },
  },
  BeginReceive: {
    request: {
      name: "db",
      snapshot: "s",
      contents: "c",
      base: "b",
      sizeBytes: 2 ** 50,
      resume: true,
    },
    response: RECEIVE,
  },
  AdvanceReceive: { request: { name: "db", offsetBytes: 2 ** 50 }, response: {} },
  FinishReceive: { request: BY_NAME, response: VOLUME },
  AbortReceive: { request: BY_NAME, response: {} },
  ListReceives: { request: {}, response: RECEIVE },
  CreateSnapshots: {
    request: { snapshots: [BY_SNAPSHOT, BY_SNAPSHOT] },
    response: { snapshots: [SNAPSHOT, SNAPSHOT] },
  },
  DiffSnapshots: {
    request: { base: BY_SNAPSHOT, target: BY_SNAPSHOT, startBytes: 2 ** 50 },
    response: { ranges: [{ offsetBytes: 2 ** 50, lengthBytes: 4096, zero: true }] },
  },
  ListSnapshots: { request: { volume: "db" }, response: { snapshots: [SNAPSHOT] } },
  DeleteSnapshot: { request: BY_SNAPSHOT, response: {} },
  AllowHost: { request: BY_HOST, response: VOLUME },
  DenyHost: { request: BY_HOST, response: VOLUME },
  ShareVolume: { request: { ...BY_NAME, via: "nvmet" }, response: VOLUME },
  UnshareVolume: { request: { ...BY_NAME, force: true }, response: VOLUME },
  DisconnectHost: { request: BY_HOST, response: { controllers: 2 } },
  SetHostKeys: { request: { hostNqn: "n", hostKey: "k", controllerKey: "c" }, response: {} },
  RemoveHostKeys: { request: { hostNqn: "n" }, response: {} },
  SetHostTlsKey: { request: { hostNqn: "n", key: "k" }, response: {} },
  RemoveHostTlsKey: { request: { hostNqn: "n" }, response: {} },
  ListHostKeys: {
    request: {},
    response: { hostNqn: "n", bidirectional: true, proves: true, tls: true },
  },
  ListConnections: { request: { volume: "db" }, response: CONNECTION },
};

test("the methods are the same on both sides", () => {
  assert.equal(Object.keys(service).sort(), Object.keys(MESSAGES).sort());
});

for (const [name, { request, response }] of Object.entries(MESSAGES)) {
  test(`${name} says the same on both sides`, () => {
    const definition = method<object, object>(name as UnaryName | StreamName);
    const sent = definition.requestDeserialize(definition.requestSerialize(request));
    assert.equal(plain(sent), request);
    const answered = definition.responseDeserialize(definition.responseSerialize(response));
    assert.equal(plain(answered), plain(response));
  });
}

test("what is absent is there with its default", () => {
  const definition = method<object, object>("GetVolume");
  const { origin, sessions } = plain(
    definition.responseDeserialize(definition.responseSerialize({})),
  ) as { origin: null; sessions: [] };
  assert.is(origin, null);
  assert.equal(sessions, []);
});

test("an NBD URI says the socket so that it can be read and is right", () => {
  assert.is(nbdUri("/run/pando/nbd.sock", "db"), "nbd+unix:///db?socket=/run/pando/nbd.sock");
  assert.is(nbdUri("/a b&c", "db"), "nbd+unix:///db?socket=/a%20b%26c");
});

test.run();

function plain(value: object): object {
  return JSON.parse(JSON.stringify(value)) as object;
}

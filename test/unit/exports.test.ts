// Which front end gets which volume: what the kernel's target serves is ublk's alone, and nobody
// learns of a volume that he may not have.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeLog } from "../../engine/base/log.js";
import { volumeNqn } from "../../engine/base/nqn.js";
import { VolumeExports } from "../../engine/core/exports.js";
import { HostVolumes } from "../../engine/core/host-volumes.js";
import { Mutex } from "../../engine/core/mutex.js";
import type { OpenVolume } from "../../engine/core/open-volumes.js";
import * as catalogue from "../../engine/store/catalogue.js";
import { type FrontEnd, OPEN_STATUS } from "../../native/native.js";
import { ModelStore } from "../sim/model-store.js";
import { turnsDuring } from "../support/turns.js";

const UUIDS = [1, 2].map((index) => `00000000-0000-4000-8000-00000000000${index}`);
const HOST = "nqn.2014-08.org.example:a";

/** Two volumes, "own" and "shared", both for HOST. */
async function scene(needsTls = false) {
  let closed = false;
  const store = new ModelStore();
  await store.transact((txn) => {
    for (const [index, name] of ["own", "shared"].entries()) {
      catalogue.createVolume(txn, name, {
        uuid: UUIDS[index] ?? "",
        layer: index + 1,
        sizeBytes: 2 ** 20,
        createdAt: "2026-01-02T03:04:05.000Z",
        allowedHosts: [HOST],
        origin: null,
      });
    }
  });
  const statuses: number[] = [];
  const lists: string[][] = [];
  const exports = new VolumeExports({
    addon: {
      exportsAnswerOpen: (_pool, _token, status) => void statuses.push(status),
      exportsAnswerList: (_pool, _token, names, tls) =>
        void lists.push([...names, ...(tls ? ["TLS"] : [])]),
    },
    pool: () => 1,
    store,
    volumes: {
      acquire: async () => ({ id: 1 }) as OpenVolume,
      release: async () => undefined,
      byId: () => undefined,
    },
    hostVolumes: new HostVolumes(store, () => closed),
    shared: () => new Set(UUIDS.slice(1)),
    authenticates: () => false,
    needsTls: () => needsTls,
    catalogue: new Mutex(),
    closed: () => closed,
    log: makeLog("fatal"),
  });
  const open = async (frontEnd: FrontEnd, name: string, hostNqn = HOST, tls = false) => {
    await exports.open({ type: "open", token: 1, frontEnd, name, hostNqn, peer: "test", tls });
    return statuses.at(-1);
  };
  const list = async (frontEnd: FrontEnd) => {
    await exports.list({ type: "list", token: 1, frontEnd, hostNqn: HOST });
    return lists.at(-1);
  };
  const close = () => {
    closed = true;
  };
  return { store, open, list, lists, close };
}

test("a host that has to use TLS gets nothing without, and is told so", async () => {
  const { open, list } = await scene(true);
  const own = volumeNqn(UUIDS[0] ?? "");
  assert.is(await open("nvme-tcp", own), OPEN_STATUS.denied);
  assert.is(await open("nvme-tcp", own, HOST, true), OPEN_STATUS.ok);
  assert.is(await open("nbd", "own", ""), OPEN_STATUS.ok);
  assert.equal(await list("nvme-tcp"), [own, "TLS"]);
  assert.equal(await list("nbd"), ["own"]);
});

test("what the kernel's target serves, it serves alone", async () => {
  const { open, list } = await scene();
  const [own = "", shared = ""] = UUIDS.map(volumeNqn);
  assert.is(await open("nvme-tcp", own), OPEN_STATUS.ok);
  assert.is(await open("nvme-tcp", shared), OPEN_STATUS.busy);
  assert.is(await open("nbd", "own", ""), OPEN_STATUS.ok);
  assert.is(await open("nbd", "shared", ""), OPEN_STATUS.busy);
  assert.is(await open("ublk", "shared", ""), OPEN_STATUS.ok);
  assert.is(await open("ublk", "own", ""), OPEN_STATUS.busy, "it was unshared meanwhile");
  assert.equal(await list("nvme-tcp"), [own]);
  assert.equal(await list("nbd"), ["own"]);
});

test("a pool that is closed meanwhile has nobody to answer, and no store to read", async () => {
  const { list, lists, close } = await scene();
  const listing = list("nvme-tcp");
  close();
  await listing;
  assert.equal(lists, []);
  assert.equal(await list("nvme-tcp"), [], "who asks a closed pool is told nothing");
});

test("others get their turns while many volumes are listed to NBD", async () => {
  const { store, list } = await scene();
  await store.transact((txn) => {
    for (let index = 0; index < 1200; index++) {
      catalogue.createVolume(txn, `v${index}`, {
        uuid: `00000000-0000-4000-8001-${String(index).padStart(12, "0")}`,
        layer: index + 10,
        sizeBytes: 4096,
        createdAt: "2026-01-02T03:04:05.000Z",
        allowedHosts: [],
        origin: null,
      });
    }
  });
  const turns = await turnsDuring(async () => {
    const names = (await list("nbd")) ?? [];
    assert.is(names.length, 1201);
    assert.equal(names, [...names].sort());
  });
  assert.ok(turns >= 2);
});

test("a stranger does not learn who serves a volume", async () => {
  const { open } = await scene();
  for (const uuid of UUIDS) {
    assert.is(await open("nvme-tcp", volumeNqn(uuid), `${HOST}2`), OPEN_STATUS.denied);
  }
});

test.run();

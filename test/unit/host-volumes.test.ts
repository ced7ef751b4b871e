// Which volumes a host may have: as the store says at every moment, and found without a look at all
// the others once the first one has asked.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HostVolumes } from "../../engine/core/host-volumes.js";
import * as catalogue from "../../engine/store/catalogue.js";
import type { Space, StoreReader } from "../../engine/store/store.js";
import { ModelStore } from "../sim/model-store.js";

const HOST = "nqn.2014-08.org.example:a";
const OTHER = "nqn.2014-08.org.example:b";
/** More than a page, and nobody's. */
const CROWD = 1200;

async function scene() {
  const store = new ModelStore();
  const walks: Space[] = [];
  let failing = false;
  const reader: StoreReader = {
    get: (space, key) => store.get(space, key),
    count: (space) => store.count(space),
    range: (space, range) => {
      if (failing) {
        failing = false;
        throw new Error("unreadable");
      }
      walks.push(space);
      return store.range(space, range);
    },
  };
  const create = (index: number, allowedHosts: string[]) =>
    store.transact((txn) =>
      catalogue.createVolume(txn, `v${index}`, {
        uuid: uuidOf(index),
        layer: index + 1,
        sizeBytes: 4096,
        createdAt: "2026-01-02T03:04:05.000Z",
        allowedHosts,
        origin: null,
      }),
    );
  for (let index = 0; index < CROWD; index++) await create(index, index % 600 === 1 ? [HOST] : []);
  let closed = false;
  const close = () => {
    closed = true;
  };
  const volumes = new HostVolumes(reader, () => closed);
  const names = async (host: string) => (await volumes.of(host)).map(({ name }) => name);
  const failNext = () => {
    failing = true;
  };
  return { store, walks, volumes, names, failNext, close };
}

function uuidOf(index: number): string {
  return `00000000-0000-4000-8000-${String(index).padStart(12, "0")}`;
}

test("does not read the store of a pool that has been closed", async () => {
  const { walks, names, close } = await scene();
  const asked = names(HOST);
  close();
  const said = await asked.then(String, String);
  assert.match(said, /closed/);
  assert.is(walks.length, 1);
});

test("walks through the store once, whoever asks how often", async () => {
  const { walks, names } = await scene();
  assert.equal(await Promise.all([names(HOST), names(OTHER)]), [["v1", "v601"], []]);
  assert.is(walks.length, 4, "three pages and the end");
  assert.equal(await names(HOST), ["v1", "v601"]);
  assert.equal(await names("nqn.2014-08.org.example:stranger"), []);
  assert.is(walks.length, 4);
});

test("follows what is allowed, denied and deleted, during the walk too", async () => {
  const { store, volumes, names } = await scene();
  const walking = names(OTHER);
  await store.transact((txn) => catalogue.allowHost(txn, "v0", OTHER));
  volumes.allowed(OTHER, uuidOf(0));
  assert.equal(await walking, ["v0"]);
  await store.transact((txn) => catalogue.allowHost(txn, "v3", OTHER));
  volumes.allowed(OTHER, uuidOf(3));
  assert.equal(await names(OTHER), ["v0", "v3"]);
  await store.transact((txn) => catalogue.denyHost(txn, "v0", OTHER));
  volumes.denied(OTHER, uuidOf(0));
  assert.equal(await names(OTHER), ["v3"]);
  // What counts is the record, whatever has been said.
  await store.transact((txn) => catalogue.denyHost(txn, "v3", OTHER));
  assert.equal(await names(OTHER), []);
  await store.transact((txn) => catalogue.deleteVolume(txn, "v1"));
  assert.equal(await names(HOST), ["v601"]);
});

test("a store that fails is asked again", async () => {
  const { names, failNext } = await scene();
  failNext();
  const failed = await names(HOST).catch((error: Error) => error.message);
  assert.is(failed, "unreadable");
  assert.equal(await names(HOST), ["v1", "v601"]);
});

test.run();

// Volumes, snapshots and layers in the store: what changes together is in step, and what must not
// happen is refused.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { isPandoError } from "../../engine/base/errors.js";
import * as catalogue from "../../engine/store/catalogue.js";
import type { VolumeRecord } from "../../engine/store/codec-records.js";
import * as layers from "../../engine/store/layers.js";
import type { StoreTransaction } from "../../engine/store/store.js";
import { ModelStore } from "../sim/model-store.js";

const test = suite("catalogue");
const TIME = "2026-01-02T03:04:05.000Z";
const uuid = (n: number): string => `3f8a1c52-9d0e-4b67-8a21-${String(n).padStart(12, "0")}`;

const volume = (n: number): VolumeRecord => ({
  uuid: uuid(n),
  layer: n,
  sizeBytes: 4096,
  createdAt: TIME,
  allowedHosts: [],
  origin: null,
});

async function emptyStore(): Promise<ModelStore> {
  const store = new ModelStore();
  await store.transact((txn) => catalogue.putIdsRecord(txn, { nextLayer: 1 }));
  return store;
}

const codeOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "none",
    (error) => (isPandoError(error) ? error.code : (error as Error).name),
  );

test("volumes: create, find by name and UUID, change, delete", async () => {
  const store = await emptyStore();
  await store.transact((txn) => {
    catalogue.createVolume(txn, "db", volume(1));
    catalogue.createVolume(txn, "db2", volume(2));
  });
  assert.equal(catalogue.getVolume(store, "db"), volume(1));
  assert.is(catalogue.findNameByUuid(store, uuid(2)), "db2");
  assert.equal(
    catalogue.listVolumes(store).map(({ name }) => name),
    ["db", "db2"],
  );
  const again = store.transact((txn) => catalogue.createVolume(txn, "db", volume(3)));
  assert.is(await codeOf(again), "EEXIST");
  const sameUuid = store.transact((txn) => catalogue.createVolume(txn, "x", volume(1)));
  assert.is(await codeOf(sameUuid), "AssertionError");
  await store.transact((txn) => catalogue.updateVolume(txn, "db", { ...volume(1), layer: 9 }));
  assert.is(catalogue.getVolume(store, "db").layer, 9);
  const otherUuid = store.transact((txn) => catalogue.updateVolume(txn, "db", volume(7)));
  assert.is(await codeOf(otherUuid), "AssertionError");
  await store.transact((txn) => catalogue.deleteVolume(txn, "db"));
  assert.is(catalogue.findVolume(store, "db"), undefined);
  assert.is(catalogue.findNameByUuid(store, uuid(1)), undefined);
  assert.is(await codeOf(store.transact((txn) => catalogue.deleteVolume(txn, "db"))), "ENOTFOUND");
});

test("a list page by page is the list, wherever the pages end", async () => {
  const store = await emptyStore();
  const volumes = ["a", "a-b", "ab", "b", "b%"];
  const fields = { layer: 1, sizeBytes: 4096, createdAt: TIME, volumeUuid: uuid(1) };
  await store.transact((txn) => {
    for (const [index, name] of volumes.entries()) {
      catalogue.createVolume(txn, name, volume(index + 1));
      for (const [at, snapshot] of ["s", "s2", "t"].entries()) {
        const record = { ...fields, uuid: uuid(100 + index * 10 + at) };
        catalogue.createSnapshot(txn, name, snapshot, record);
      }
    }
  });
  for (let limit = 1; limit <= 6; limit++) {
    const names: string[] = [];
    for (let after: string | null = null; ; ) {
      const page = catalogue.listVolumes(store, { after, limit });
      assert.ok(page.length <= limit);
      if (page.length === 0) break;
      names.push(...page.map(({ name }) => name));
      assert.ok(names.length <= volumes.length, "no volume comes twice");
      after = names.at(-1) ?? null;
    }
    assert.equal(names, volumes);
    for (const of of [undefined, "a", "b"]) {
      const found: catalogue.SnapshotEntry[] = [];
      for (let after: { volume: string; snapshot: string } | null = null; ; ) {
        const page: catalogue.SnapshotEntry[] = catalogue.listSnapshots(store, of, {
          after,
          limit,
        });
        if (page.length === 0) break;
        found.push(...page);
        const last = page.at(-1) as catalogue.SnapshotEntry;
        after = { volume: last.volume, snapshot: last.name };
      }
      assert.equal(found, catalogue.listSnapshots(store, of));
    }
  }
});

test("hosts are allowed once, sorted, and denied harmlessly", async () => {
  const store = await emptyStore();
  await store.transact((txn) => {
    catalogue.createVolume(txn, "db", volume(1));
    catalogue.allowHost(txn, "db", "nqn.b");
    catalogue.allowHost(txn, "db", "nqn.a");
    catalogue.allowHost(txn, "db", "nqn.b");
    catalogue.denyHost(txn, "db", "nqn.c");
  });
  assert.equal(catalogue.getVolume(store, "db").allowedHosts, ["nqn.a", "nqn.b"]);
  await store.transact((txn) => catalogue.denyHost(txn, "db", "nqn.a"));
  assert.equal(catalogue.getVolume(store, "db").allowedHosts, ["nqn.b"]);
});

test("snapshots are listed by volume, and a name is used once in each", async () => {
  const store = await emptyStore();
  const fields = { layer: 1, sizeBytes: 4096, createdAt: TIME, volumeUuid: uuid(1) };
  const record = { uuid: uuid(7), ...fields };
  await store.transact((txn) => {
    catalogue.createSnapshot(txn, "db", "monday", { ...fields, uuid: uuid(5) });
    catalogue.createSnapshot(txn, "db", "tuesday", { ...fields, uuid: uuid(6) });
    catalogue.createSnapshot(txn, "db-test", "monday", record);
  });
  assert.is(catalogue.findNameByUuid(store, uuid(6)), "db@tuesday");
  assert.is(catalogue.listSnapshots(store).length, 3);
  assert.equal(
    catalogue.listSnapshots(store, "db").map(({ name }) => name),
    ["monday", "tuesday"],
  );
  const again = store.transact((txn) => catalogue.createSnapshot(txn, "db", "monday", record));
  assert.is(await codeOf(again), "EEXIST");
  await store.transact((txn) => catalogue.deleteSnapshot(txn, "db", "monday"));
  assert.is(catalogue.findNameByUuid(store, uuid(5)), undefined);
  const gone = store.transact((txn) => catalogue.deleteSnapshot(txn, "db", "monday"));
  assert.is(await codeOf(gone), "ENOTFOUND");
  assert.equal(catalogue.getSnapshot(store, "db-test", "monday"), record);
});

test("epoch and tail never go back", async () => {
  const store = await emptyStore();
  const put = (epoch: number, tail: number): Promise<unknown> =>
    codeOf(store.transact((txn) => catalogue.putJournalRecord(txn, { epoch, tail })));
  assert.is(await put(2, 10), "none");
  assert.is(await put(2, 9), "AssertionError");
  assert.is(await put(1, 10), "AssertionError");
  assert.is(await put(3, 10), "none");
});

test("layer ids rise and are never used again", async () => {
  const store = await emptyStore();
  const ids = await store.transact((txn) => {
    const first = layers.createLayer(txn, null).id;
    layers.abandonLayer(txn, first, TIME);
    layers.removeLayer(txn, first);
    return [first, layers.createLayer(txn, null).id];
  });
  assert.equal(ids, [1, 2]);
  assert.is(catalogue.getIdsRecord(store).nextLayer, 3);
});

/** frozen 1 <- live 2, live 3 */
function family(txn: StoreTransaction): void {
  const root = layers.createLayer(txn, null).id;
  layers.freezeLayer(txn, root);
  layers.createLayer(txn, root);
  layers.createLayer(txn, root);
}

test("only frozen and hidden layers have children", async () => {
  const store = await emptyStore();
  await store.transact(family);
  assert.equal(layers.listChildren(store, 1), [2, 3]);
  const onLive = store.transact((txn) => layers.createLayer(txn, 2));
  assert.is(await codeOf(onLive), "AssertionError");
  assert.equal(layers.listChildren(store, 2), []);
});

test("a deleted parent is hidden while it has children and dies with the last", async () => {
  const store = await emptyStore();
  await store.transact((txn) => {
    family(txn);
    layers.abandonLayer(txn, 1, TIME);
  });
  assert.is(layers.getLayer(store, 1).state, "hidden");
  assert.equal(layers.listReclaim(store), [{ id: 1, since: TIME }]);
  const remove = (id: number): Promise<{ parentDied: number | null }> =>
    store.transact((txn) => {
      layers.abandonLayer(txn, id, TIME);
      return layers.removeLayer(txn, id);
    });
  assert.equal(await remove(2), { parentDied: null });
  assert.is(layers.getLayer(store, 1).state, "hidden");
  assert.equal(await remove(3), { parentDied: 1 });
  assert.is(layers.getLayer(store, 1).state, "dead");
  await store.transact((txn) => layers.removeLayer(txn, 1));
  assert.equal(layers.listLayers(store), []);
  assert.is(store.count("children"), 0);
  assert.is(store.count("reclaim"), 0);
});

test("a layer in use, or with index blocks, is not removed", async () => {
  const store = await emptyStore();
  await store.transact(family);
  const remove = (id: number): Promise<unknown> =>
    codeOf(store.transact((txn) => layers.removeLayer(txn, id)));
  assert.is(await remove(1), "AssertionError");
  assert.is(await remove(2), "AssertionError");
  await store.transact((txn) => {
    layers.abandonLayer(txn, 2, TIME);
    txn.put("index", Buffer.from("000000000000000200000000", "hex"), Buffer.from("x"));
  });
  assert.is(await remove(2), "AssertionError");
});

test.run();

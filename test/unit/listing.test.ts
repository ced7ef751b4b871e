// Counts that are on their way from memory to the store are in both for a moment: a listing of that
// moment may show them twice, and must not keep it. The data path is a stand-in, since its messages
// cross the store's in the same way each time.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { DataPath } from "../../engine/core/data-path.js";
import { Listing } from "../../engine/core/listing.js";
import { Mutex } from "../../engine/core/mutex.js";
import type { OpenVolumes } from "../../engine/core/open-volumes.js";
import { createSnapshot, putIdsRecord } from "../../engine/store/catalogue.js";
import { createLayer, freezeLayer, putLayer } from "../../engine/store/layers.js";
import type { LayerDelta } from "../../native/native.js";
import { ModelStore } from "../sim/model-store.js";

const test = suite("listing");
const BLOCKS = 8;
const TWICE: LayerDelta[] = [{ layer: 1, owned: BLOCKS, mapped: BLOCKS }];

/** One snapshot of BLOCKS blocks, all of them counted in the store. */
async function listing(layerDeltas: () => Promise<LayerDelta[]>, indexWrites: Mutex) {
  const store = new ModelStore();
  await store.transact((txn) => {
    putIdsRecord(txn, { nextLayer: 1 });
    const { id, record } = createLayer(txn, null);
    putLayer(txn, id, { ...record, ownedBlocks: BLOCKS, mappedDelta: BLOCKS });
    freezeLayer(txn, id);
    createSnapshot(txn, "a", "s", {
      uuid: "00000000-0000-4000-8000-000000000001",
      layer: id,
      sizeBytes: 2 ** 20,
      createdAt: "2026-01-01T00:00:00.000Z",
      volumeUuid: "00000000-0000-4000-8000-000000000002",
    });
  });
  const path = { layerDeltas } as unknown as DataPath;
  const volumes = {} as unknown as OpenVolumes;
  return new Listing({
    store,
    path,
    volumes,
    blockSizeBytes: 1,
    indexWrites,
    unanswered: new Set(),
  });
}

test("what was listed while counts moved is not kept", async () => {
  const indexWrites = new Mutex();
  const moving = () => new Promise<void>((resolve) => setImmediate(resolve));
  const asked = new Map<string, () => Promise<LayerDelta[]>>([
    ["they moved before", async () => TWICE],
    [
      "they began to meanwhile",
      async () => {
        void indexWrites.run(moving);
        return TWICE;
      },
    ],
    [
      "they did meanwhile",
      async () => {
        await indexWrites.run(moving);
        return TWICE;
      },
    ],
  ]);
  for (const [when, first] of asked) {
    let layerDeltas = first;
    const list = await listing(() => layerDeltas(), indexWrites);
    const before = when === "they moved before" ? indexWrites.run(moving) : Promise.resolve();
    const [shown] = await list.snapshots();
    assert.is(shown?.logicalBytes, 2 * BLOCKS, "as the data path says");
    await before;
    await indexWrites.run(moving);
    layerDeltas = async () => [];
    for (let times = 0; times < 2; times++) {
      assert.is((await list.snapshots())[0]?.logicalBytes, BLOCKS, when);
    }
    layerDeltas = async () => TWICE;
    assert.is((await list.snapshots())[0]?.logicalBytes, BLOCKS, "what is kept is used");
  }
});

test.run();

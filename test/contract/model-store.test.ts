import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ModelStore, type StoreStep } from "../sim/model-store.js";
import { storeContract } from "./store.js";

storeContract("store contract: model", async () => new ModelStore());

const test = suite("model store");
const key = Buffer.from("k");
const put = (store: ModelStore, value: string) =>
  store.transact((txn) => txn.put("meta", key, Buffer.from(value)));
const read = (store: ModelStore): string => Buffer.from(store.get("meta", key) ?? []).toString();

/** Commits pass, durability waits until it is let go. */
function held(): { schedule: (step: StoreStep) => Promise<void>; go: () => void } {
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  return { schedule: (step) => (step === "durable" ? gate : Promise.resolve()), go };
}

test("committed is visible, not durable: a power cut may take it, or keep it", async () => {
  for (const kept of [0, 1]) {
    const store = new ModelStore({ schedule: held().schedule });
    put(store, "new");
    await new Promise(setImmediate);
    assert.is(read(store), "new");
    assert.is(store.pendingCount, 1);
    assert.is(read(store.crash(true, () => kept)), kept === 1 ? "new" : "");
  }
});

test("a kill keeps what was visible, still not durable", async () => {
  const store = new ModelStore({ schedule: held().schedule });
  put(store, "new");
  await new Promise(setImmediate);
  const killed = store.crash(false, () => 0, {});
  assert.is(read(killed), "new");
  assert.is(killed.pendingCount, 1);
  assert.is(read(killed.crash(true, () => 0, {})), "");
  const again = store.crash(false, () => 0, {});
  await again.sync();
  assert.is(again.pendingCount, 0);
  assert.is(read(again.crash(true, () => 0, {})), "new");
});

test("what has resolved is durable", async () => {
  const gate = held();
  const store = new ModelStore({ schedule: gate.schedule });
  const done = put(store, "new");
  gate.go();
  await done;
  assert.is(read(store.crash(true, () => 0, {})), "new");
});

test("an injected failure rejects with its code and changes nothing", async () => {
  const store = new ModelStore();
  await put(store, "old");
  store.failNextCommit("ENOSPC");
  const code = await put(store, "new").catch((error: { code: string }) => error.code);
  assert.is(code, "ENOSPC");
  assert.is(read(store), "old");
  await put(store, "newer");
  assert.is(read(store), "newer");
});

test.run();

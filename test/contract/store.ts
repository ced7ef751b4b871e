// What every Store must do, run against LMDB and against the simulator's model.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Store } from "../../engine/store/store.js";

const bytes = (text: string): Uint8Array => Buffer.from(text);
const show = (value: Uint8Array | undefined): string | undefined =>
  value === undefined ? undefined : Buffer.from(value).toString();

/** `open` gives an empty store each time; the suite closes it. */
export function storeContract(name: string, open: () => Promise<Store>): void {
  const test = suite(name);
  let store: Store;
  test.before.each(async () => {
    store = await open();
  });
  test.after.each(async () => {
    await store.close();
  });

  test("a transaction's writes are there when it resolves, with its result", async () => {
    const result = await store.transact((txn) => {
      txn.put("meta", bytes("a"), bytes("1"));
      return 42;
    });
    assert.is(result, 42);
    assert.is(show(store.get("meta", bytes("a"))), "1");
    assert.is(store.get("meta", bytes("b")), undefined);
  });

  test("a transaction sees its own writes and removals", async () => {
    await store.transact((txn) => {
      assert.is(txn.remove("layers", bytes("a")), false);
      txn.put("layers", bytes("a"), bytes("1"));
      txn.put("layers", bytes("b"), bytes("2"));
      assert.is(show(txn.get("layers", bytes("a"))), "1");
      assert.is(txn.count("layers"), 2);
      assert.is(txn.range("layers", {}).length, 2);
      assert.is(txn.remove("layers", bytes("a")), true);
      assert.is(txn.get("layers", bytes("a")), undefined);
      assert.is(txn.count("layers"), 1);
    });
    assert.is(store.count("layers"), 1);
  });

  test("a throw rolls everything back, and the error comes through as it is", async () => {
    await store.transact((txn) => txn.put("meta", bytes("a"), bytes("old")));
    const boom = new Error("boom");
    let caught: unknown;
    try {
      await store.transact((txn) => {
        txn.put("meta", bytes("a"), bytes("new"));
        txn.put("meta", bytes("b"), bytes("new"));
        throw boom;
      });
    } catch (error) {
      caught = error;
    }
    assert.is(caught, boom);
    assert.is(show(store.get("meta", bytes("a"))), "old");
    assert.is(store.get("meta", bytes("b")), undefined);
  });

  test("a throw in one transaction leaves those beside it alone", async () => {
    const outcomes = await Promise.allSettled([
      store.transact((txn) => txn.put("meta", bytes("a"), bytes("1"))),
      store.transact((txn) => {
        txn.put("meta", bytes("b"), bytes("2"));
        throw new Error("boom");
      }),
      store.transact((txn) => txn.put("meta", bytes("c"), bytes("3"))),
    ]);
    assert.equal(
      outcomes.map((outcome) => outcome.status),
      ["fulfilled", "rejected", "fulfilled"],
    );
    assert.is(show(store.get("meta", bytes("a"))), "1");
    assert.is(store.get("meta", bytes("b")), undefined);
    assert.is(show(store.get("meta", bytes("c"))), "3");
  });

  test("transactions run in the order of the calls, each seeing the one before", async () => {
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        store.transact((txn) => {
          order.push(i);
          const before = txn.get("meta", bytes("n"));
          assert.is(Number(show(before) ?? 0), i);
          txn.put("meta", bytes("n"), bytes(String(i + 1)));
        }),
      ),
    );
    assert.equal(
      order,
      Array.from({ length: 20 }, (_, i) => i),
    );
  });

  test("a range is in the order of the keys' bytes, from start to before end", async () => {
    await store.transact((txn) => {
      for (const key of [[2], [0, 255], [1], [0], [1, 0], [255], [128, 1]]) {
        txn.put("index", Uint8Array.from(key), Uint8Array.from(key));
      }
    });
    const keys = (options: object): number[][] =>
      store.range("index", options).map(({ key }) => [...key]);
    assert.equal(keys({}), [[0], [0, 255], [1], [1, 0], [2], [128, 1], [255]]);
    assert.equal(keys({ start: Uint8Array.of(1), end: Uint8Array.of(2) }), [[1], [1, 0]]);
    assert.equal(keys({ start: Uint8Array.of(1, 0), limit: 2 }), [[1, 0], [2]]);
    assert.equal(keys({ start: Uint8Array.of(3), end: Uint8Array.of(3, 0) }), []);
    for (const { key, value } of store.range("index", {})) assert.equal([...key], [...value]);
  });

  test("empty and large values come back as they were", async () => {
    const large = Buffer.alloc(100_000, "pando");
    await store.transact((txn) => {
      txn.put("children", bytes("empty"), new Uint8Array(0));
      txn.put("children", bytes("large"), large);
    });
    assert.is(store.get("children", bytes("empty"))?.length, 0);
    assert.ok(large.equals(store.get("children", bytes("large")) as Uint8Array));
    assert.is(store.range("children", {}).length, 2);
  });

  test("what was read stays as it was read", async () => {
    await store.transact((txn) => {
      for (let i = 0; i < 50; i++) txn.put("free", Uint8Array.of(i), Buffer.alloc(64, i));
    });
    const read = store.get("free", Uint8Array.of(7)) as Uint8Array;
    const all = store.range("free", {});
    await store.transact((txn) => {
      for (let i = 0; i < 50; i++) txn.put("free", Uint8Array.of(i), Buffer.alloc(64, 255));
    });
    assert.ok(read.every((byte) => byte === 7));
    all.forEach(({ value }, i) => {
      assert.ok(value.every((byte) => byte === i));
    });
  });

  test("the same key in two spaces is two keys", async () => {
    await store.transact((txn) => {
      txn.put("index", bytes("k"), bytes("1"));
      txn.put("spans", bytes("k"), bytes("2"));
    });
    assert.is(show(store.get("index", bytes("k"))), "1");
    assert.is(show(store.get("spans", bytes("k"))), "2");
    await store.transact((txn) => txn.remove("index", bytes("k")));
    assert.is(show(store.get("spans", bytes("k"))), "2");
  });

  test("a transaction cannot be used after it has ended", async () => {
    let kept: { get(space: "meta", key: Uint8Array): unknown } | undefined;
    await store.transact((txn) => {
      kept = txn;
    });
    assert.throws(() => kept?.get("meta", bytes("a")));
  });

  test("after close everything is refused with ECLOSED, and closing twice is harmless", async () => {
    await store.sync();
    await store.close();
    await store.close();
    assert.throws(
      () => store.get("meta", bytes("a")),
      (error: { code?: string }) => error.code === "ECLOSED",
    );
    const late = await store.transact(() => 0).catch((error: { code?: string }) => error.code);
    assert.is(late, "ECLOSED");
  });

  test.run();
}

// The index worker's answers, on LMDB and in a real worker thread: while the main thread
// checkpoints, no answer may be older than the last transaction that had resolved when the question
// was asked.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { putIdsRecord } from "../../engine/store/catalogue.js";
import { emptyIndexBlock, getBlock, setSlot } from "../../engine/store/codec-index-block.js";
import { IndexAnswers } from "../../engine/store/index-answers.js";
import { changeIndex } from "../../engine/store/index-changes.js";
import * as layers from "../../engine/store/layers.js";
import { Lineage } from "../../engine/store/lineage.js";
import { openEnvironment } from "../../engine/store/lmdb-environment.js";
import { LmdbReader, type LmdbStore, openLmdbStore } from "../../engine/store/lmdb-store.js";
import type { IndexRequest } from "../../native/native.js";

interface Answer {
  token: number;
  owner: number;
  /** The block in slot 0; -1: it failed; -2: the layer is gone. */
  block: number;
}

/** A long way, of which the worker keeps what it comes to. */
const DEPTH = 24;

function serve(): void {
  const environment = openEnvironment(workerData.directory);
  const answers = new IndexAnswers(new LmdbReader(environment));
  parentPort?.on("message", (requests: IndexRequest[] | "close") => {
    if (requests === "close") {
      environment.root.close().then(() => parentPort?.close());
      return;
    }
    const found: Answer[] = [];
    answers.answerAll(requests, {
      answer: (token, owner, raw) =>
        found.push({ token, owner, block: raw === null ? 0 : getBlock(raw, 0) }),
      fail: (token) => found.push({ token, owner: 0, block: -1 }),
      gone: (token) => found.push({ token, owner: 0, block: -2 }),
    });
    parentPort?.postMessage(found);
  });
}

class Client {
  readonly #worker: Worker;

  constructor(directory: string) {
    this.#worker = new Worker(fileURLToPath(import.meta.url), { workerData: { directory } });
  }

  ask(requests: IndexRequest[]): Promise<Answer[]> {
    return new Promise((resolve) => {
      this.#worker.once("message", resolve);
      this.#worker.postMessage(requests);
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#worker.once("exit", () => resolve());
      this.#worker.postMessage("close");
    });
  }
}

async function line(store: LmdbStore): Promise<number[]> {
  return store.transact((txn) => {
    putIdsRecord(txn, { nextLayer: 1 });
    const ids: number[] = [];
    for (let i = 0; i < DEPTH; i++) {
      const parent = ids.at(-1) ?? null;
      if (parent !== null) layers.freezeLayer(txn, parent);
      ids.push(layers.createLayer(txn, parent).id);
    }
    return ids;
  });
}

const blockOf = (block: number): Uint8Array => {
  const raw = emptyIndexBlock();
  setSlot(raw, 0, block, true);
  return raw;
};

const test = suite("index answers");

test("an answer is never older than the question, through 200 checkpoints", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pando-answers-"));
  const store = openLmdbStore(directory, { create: true });
  const client = new Client(directory);
  try {
    const ids = await line(store);
    const leaf = ids.at(-1) as number;
    const ask = async (span: number): Promise<Answer> =>
      (await client.ask([{ token: 1, layer: leaf, span }]))[0] as Answer;
    const lineage = new Lineage();
    assert.equal(await ask(0), { token: 1, owner: 0, block: 0 });
    for (let round = 1; round <= 200; round++) {
      const layer = ids[round % DEPTH] as number;
      const span = Math.floor(round / DEPTH);
      await store.transact((txn) =>
        changeIndex(txn, lineage, (index) => index.put(layer, span, blockOf(round))),
      );
      const nearest = await ask(span);
      const expected = Math.max(layer, nearest.owner);
      assert.is(nearest.owner, expected, `round ${round}`);
      if (nearest.owner === layer) assert.is(nearest.block, round);
    }
  } finally {
    await client.close();
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  }
});

test("questions and transactions at the same time: each answer is at least as new as its question", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pando-answers-"));
  const store = openLmdbStore(directory, { create: true });
  const client = new Client(directory);
  try {
    const ids = await line(store);
    const leaf = ids.at(-1) as number;
    const lineage = new Lineage();
    let written = 0;
    let asked = 0;
    let done = false;
    const change = (round: number): Promise<void> =>
      store.transact((txn) =>
        changeIndex(txn, lineage, (index) => {
          index.remove(leaf, 7);
          index.put(ids[round % 2 === 0 ? 0 : DEPTH - 1] as number, 7, blockOf(round));
        }),
      );
    await change(1);
    await client.ask([]);
    const writer = (async () => {
      for (let round = 2; round < 100 || (asked < 60 && round < 2000); round++) {
        await change(round);
        written = round;
      }
      done = true;
    })();
    const late: string[] = [];
    while (!done) {
      const known = written;
      const requests = [1, 2, 3].map((token) => ({ token, layer: leaf, span: 7 }));
      const found = await client.ask(requests);
      const blocks = new Set(found.map(({ block }) => block));
      if (blocks.size > 1) late.push(`two states in a batch: ${[...blocks]}`);
      if (Math.min(...blocks) < known) late.push(`${[...blocks]} after ${known}`);
      asked++;
    }
    await writer;
    assert.equal(late, []);
    assert.ok(asked >= 60, `${asked} batches`);
  } finally {
    await client.close();
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  }
});

test("a layer that is no more says so, to its own question only", async () => {
  const directory = mkdtempSync(join(tmpdir(), "pando-answers-"));
  const store = openLmdbStore(directory, { create: true });
  const client = new Client(directory);
  try {
    const [root] = (await line(store)) as [number];
    const found = await client.ask([
      { token: 5, layer: 999, span: 0 },
      { token: 6, layer: root, span: 0 },
    ]);
    assert.equal(found, [
      { token: 5, owner: 0, block: -2 },
      { token: 6, owner: 0, block: 0 },
    ]);
  } finally {
    await client.close();
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  }
});

if (isMainThread) test.run();
else serve();

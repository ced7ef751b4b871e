// The index worker's thread: it opens the pool's store, answers what the data path misses, and does
// nothing else, so that no I/O waits for the main thread. Started by index-service.ts.
import { parentPort, workerData } from "node:worker_threads";
import { native } from "../../native/native.js";
import { assert } from "../base/assert.js";
import { IndexAnswers } from "./index-answers.js";
import type { FromIndexWorker, IndexWorkerData, ToIndexWorker } from "./index-messages.js";
import { openEnvironment } from "./lmdb-environment.js";
import { LmdbReader } from "./lmdb-store.js";

assert(parentPort !== null, "the index worker runs in a worker thread");
const port = parentPort;
const { directory, poolId } = workerData as IndexWorkerData;
const environment = openEnvironment(directory);
const answers = new IndexAnswers(new LmdbReader(environment));

native.indexServe(poolId, (requests) =>
  answers.answerAll(requests, {
    answer: (token, owner, block) => native.indexAnswer(poolId, token, owner, block),
    gone: (token) => native.indexGone(poolId, token),
    fail: (token, error) => {
      native.indexAnswer(poolId, token, 0, null, true);
      post({ kind: "failed", message: error instanceof Error ? error.message : String(error) });
    },
  }),
);
port.on("message", ({ kind }: ToIndexWorker) => {
  assert(kind === "close", `the index worker does not know the message ${kind}`);
  environment.root.close().then(() => port.close());
});
post({ kind: "ready" });

function post(message: FromIndexWorker): void {
  port.postMessage(message);
}

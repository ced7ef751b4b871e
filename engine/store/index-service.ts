// Starts and ends the index worker of a pool.
import { Worker } from "node:worker_threads";
import { PandoError } from "../base/errors.js";
import type { FromIndexWorker, IndexWorkerData, ToIndexWorker } from "./index-messages.js";

export interface IndexServiceOptions extends IndexWorkerData {
  /**
   * A look-up failed (its I/O has been answered with an error), or the worker has ended by itself.
   */
  onFailure: (error: PandoError) => void;
}

export interface IndexService {
  /** After the data path has stopped asking: what is asked later is not answered. */
  close(): Promise<void>;
}

/** Resolves when the worker serves. */
export async function startIndexService(options: IndexServiceOptions): Promise<IndexService> {
  const { directory, poolId, onFailure } = options;
  const data: IndexWorkerData = { directory, poolId };
  const worker = new Worker(new URL("./index-worker.js", import.meta.url), { workerData: data });
  let closing = false;
  const ended = new Promise<void>((resolve) => {
    worker.once("exit", () => resolve());
  });
  await new Promise<void>((resolve, reject) => {
    worker.on("message", (message: FromIndexWorker) => {
      if (message.kind === "ready") resolve();
      else onFailure(failure(directory, message.message));
    });
    worker.on("error", (cause) => {
      reject(failure(directory, cause.message, cause));
      onFailure(failure(directory, cause.message, cause));
    });
    worker.once("exit", () => {
      reject(failure(directory, "it ended before it was ready"));
      if (!closing) onFailure(failure(directory, "it ended by itself"));
    });
  });
  return {
    close: async () => {
      if (!closing) {
        closing = true;
        const message: ToIndexWorker = { kind: "close" };
        worker.postMessage(message);
      }
      await ended;
    },
  };
}

function failure(directory: string, what: string, cause?: unknown): PandoError {
  return new PandoError(
    "EIO",
    `index worker of ${directory}: ${what}`,
    { path: directory },
    { cause },
  );
}

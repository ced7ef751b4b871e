// What the index worker and its service say to each other.

export interface IndexWorkerData {
  /** The folder of the store. */
  directory: string;
  poolId: number;
}

export type FromIndexWorker =
  | { kind: "ready" }
  /** A look-up failed, and the I/O with it. */
  | { kind: "failed"; message: string };

export type ToIndexWorker = { kind: "close" };

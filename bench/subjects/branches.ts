// What can be branched: one interface over Pando, qcow2 overlays and reflinked files, all served
// over NBD, so that the client sees the same from each. Volumes are named; each is on its subject's
// own file system place.
import { pause } from "./server-process.js";

const LOAD_TIMEOUT_MS = 30_000;
const POLL_MS = 10;

export interface Branches {
  /** For tables and plots. */
  name: string;
  /** A volume of that size, served, empty. */
  create(volume: string, sizeBytes: number): Promise<void>;
  uri(volume: string): string;
  /** A call of the subject that does nothing; null where it has no calls. */
  nothing: (() => Promise<void>) | null;
  /** What the volume has now, kept; writes may be under way. */
  snapshot(volume: string, snapshot: string): Promise<void>;
  /** A writable copy of the snapshot, served. */
  clone(volume: string, snapshot: string, clone: string): Promise<void>;
  /** Of a clone that nobody uses. */
  deleteClone(clone: string): Promise<void>;
  /** That the subject's data takes on disk. */
  allocatedBytes(): Promise<number>;
  /** That the subject has had written so far, its metadata included. */
  writtenBytes(): number;
  stop(): Promise<void>;
}

/** Until a load that has been started has begun to write: its client takes a while. */
export async function untilLoaded(branches: Branches): Promise<void> {
  const before = branches.writtenBytes();
  const deadline = Date.now() + LOAD_TIMEOUT_MS;
  while (branches.writtenBytes() === before) {
    if (Date.now() > deadline) throw new Error(`${branches.name}: the load does not begin`);
    await pause(POLL_MS);
  }
}

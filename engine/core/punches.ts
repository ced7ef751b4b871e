// Gives free blocks back to the device: holes in a file, discards on a block device.
//
// A block comes here when it is released and could be free: its release is durable, and no device
// I/O knows it any more. It stays released until the device has answered, so it is nobody's all the
// while: there is no order between a punch and the writes of the block's next owner to get wrong.
//
// Space comes before holes. A write that finds no block waits for the batch at the device only;
// whatever else waits is free at once, unpunched. So is what is more than can wait. And the hosts
// come before both: batches rest while they ask for something.
//
// Not here: why a block is free (release_queue.cc, space.ts). What a daemon that is killed has not
// punched stays as it is until the block is used again.
import type { Log } from "../base/log.js";
import { appendRun, type BlockRun, countBlocks } from "../store/block-run.js";
import type { DataPath } from "./data-path.js";
import type { Pace } from "./pace.js";

/** At the device at a time: some milliseconds. */
const BATCH_RUNS = 64;
const BATCH_BYTES = 256 * 1024 * 1024;
/** Runs that may wait: a few MiB of memory. */
const MAX_WAITING_RUNS = 65_536;
/** The device cannot do it, and will not be able to at the next try. */
const UNSUPPORTED = new Set(["EOPNOTSUPP", "ENOTSUP", "ENOTTY", "ENOSYS", "EINVAL", "EPERM"]);

export interface PunchesParts {
  path: DataPath;
  pace: Pace;
  log: Log;
  blockSizeBytes: number;
  /** The configuration says so. */
  enabled: boolean;
  /** They may be written again. */
  free: (runs: readonly BlockRun[]) => void;
}

export interface PunchCounts {
  /** They are released, and free when the device has answered. */
  waitingBlocks: number;
  // Since the pool was opened.
  punchedBlocks: number;
  /** Free without having been punched: somebody wanted them, or too many waited, or it failed. */
  skippedBlocks: number;
}

export class Punches {
  readonly #parts: PunchesParts;
  readonly #batchBlocks: number;
  #waiting: BlockRun[] = [];
  #sorted = true;
  #unsupported = false;
  #failing = false;
  #stopped = false;
  /** Somebody wants blocks more than holes. */
  #rushing = 0;
  #atDevice: Promise<unknown> | null = null;
  #working: Promise<void> | null = null;
  readonly #counts: PunchCounts = { waitingBlocks: 0, punchedBlocks: 0, skippedBlocks: 0 };

  constructor(parts: PunchesParts) {
    this.#parts = parts;
    this.#batchBlocks = BATCH_BYTES / parts.blockSizeBytes;
  }

  get state(): "on" | "off" | "unsupported" {
    if (!this.#parts.enabled) return "off";
    return this.#unsupported ? "unsupported" : "on";
  }

  counts(): PunchCounts {
    return { ...this.#counts };
  }

  /** Released blocks: free when they are punched. */
  add(runs: readonly BlockRun[]): void {
    const rests = this.state !== "on" || this.#stopped || this.#rushing > 0;
    if (rests || this.#waiting.length + runs.length > MAX_WAITING_RUNS) {
      this.skip(runs);
      return;
    }
    this.#waiting.push(...runs);
    this.#sorted = false;
    this.#counts.waitingBlocks += countBlocks(runs);
    this.#working ??= this.#work().finally(() => {
      this.#working = null;
    });
  }

  /** Free at once, without having been punched. */
  skip(runs: readonly BlockRun[]): void {
    if (runs.length === 0) return;
    if (this.#parts.enabled) this.#counts.skippedBlocks += countBlocks(runs);
    this.#parts.free(runs);
  }

  /**
   * Whatever waits is free when `work` begins, but for what is at the device, and what comes
   * meanwhile is at once.
   */
  async rush<T>(work: () => Promise<T>): Promise<T> {
    this.#rushing++;
    this.#letGo();
    try {
      return await work();
    } finally {
      this.#rushing--;
    }
  }

  /** What is at the device now is free. */
  async answered(): Promise<void> {
    await this.#atDevice;
  }

  /** Everything that waits now is punched, without rests. */
  async idle(): Promise<void> {
    await this.#parts.pace.hurry(async () => this.#working);
  }

  /** Nothing goes to the device any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#parts.pace.stop();
    this.#letGo();
    await this.#working;
  }

  #letGo(): void {
    const runs = this.#waiting;
    this.#waiting = [];
    this.#counts.waitingBlocks -= countBlocks(runs);
    this.skip(runs);
  }

  async #work(): Promise<void> {
    await this.#parts.pace.begin();
    while (this.#waiting.length > 0) {
      const batch = this.#takeBatch();
      this.#atDevice = this.#punch(batch).then(() => {
        this.#counts.waitingBlocks -= countBlocks(batch);
        this.#parts.free(batch);
      });
      await this.#atDevice;
      this.#atDevice = null;
      await this.#parts.pace.rest();
    }
  }

  /** Neighbours that came one by one are one hole. */
  #takeBatch(): BlockRun[] {
    if (!this.#sorted) this.#waiting = mergeFromTheEnd(this.#waiting);
    this.#sorted = true;
    const batch: BlockRun[] = [];
    for (let blocks = 0; batch.length < BATCH_RUNS && blocks < this.#batchBlocks; ) {
      const run = this.#waiting.pop();
      if (run === undefined) break;
      batch.push(run);
      blocks += run.count;
    }
    return batch;
  }

  async #punch(runs: readonly BlockRun[]): Promise<void> {
    const blocks = countBlocks(runs);
    const failure = await this.#parts.path.punchBlocks(runs);
    if (failure === null) {
      this.#counts.punchedBlocks += blocks;
      this.#failing = false;
      return;
    }
    // What the device has of them is nobody's, whatever it is.
    this.#counts.skippedBlocks += blocks;
    if (!this.#failing) {
      this.#parts.log.warn({ code: failure }, "free blocks were not given back to the device");
    }
    this.#failing = true;
    this.#unsupported ||= UNSUPPORTED.has(failure);
  }
}

/** In falling order, so that the lowest are taken from the end. */
function mergeFromTheEnd(runs: BlockRun[]): BlockRun[] {
  const merged: BlockRun[] = [];
  for (const run of runs.sort((a, b) => a.first - b.first)) appendRun(merged, run.first, run.count);
  return merged.reverse();
}

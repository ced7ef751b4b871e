// Gives all that is free back to the device, now: what became free before discards were switched
// on, or was skipped for a write's sake.
//
// From the lowest block to the highest, in batches. A batch's blocks are lent to nobody but this
// while they are at the device, and then free again: a punch never meets a block's next owner. A
// write that finds no other block waits for one batch. Between two of them it rests while hosts ask
// for something (pace.ts). It keeps nothing: whoever is cut off goes on at the place that he was
// told last, and a block that is punched twice is none the worse for it.
import { PandoError } from "../base/errors.js";
import { type BlockRun, countBlocks } from "../store/block-run.js";
import type { FreeMap } from "../store/free-map.js";
import type { TrimProgress } from "./api.js";
import type { DataPath } from "./data-path.js";
import type { Pace } from "./pace.js";

/** At the device at a time: some milliseconds, as of punches.ts. */
const BATCH_RUNS = 64;
const BATCH_BYTES = 256 * 1024 * 1024;

export interface TrimParts {
  path: DataPath;
  map: FreeMap;
  pace: Pace;
  blockSizeBytes: number;
  /** The pool's now. */
  dataBlocks: () => number;
  /** Blocks are free again. */
  freed: () => void;
}

export class Trim {
  readonly #parts: TrimParts;
  #running = false;
  #stopped = false;
  #held = 0;
  #atDevice: Promise<string | null> | null = null;

  constructor(parts: TrimParts) {
    this.#parts = parts;
  }

  /** Blocks that are at the device: lent, and free for all that. */
  get heldBlocks(): number {
    return this.#held;
  }

  /** Yields after each batch. One at a time. */
  async *run(startBytes: number): AsyncGenerator<TrimProgress> {
    const { map, pace, blockSizeBytes, dataBlocks } = this.#parts;
    const from = Math.floor(startBytes / blockSizeBytes);
    if (!Number.isSafeInteger(startBytes) || startBytes < 0 || from > dataBlocks()) {
      throw new PandoError("EINVAL", `${startBytes} is not a place in the pool`, {
        field: "startBytes",
      });
    }
    if (this.#running) throw new PandoError("EBUSY", "the pool is being trimmed already");
    this.#running = true;
    try {
      await pace.begin();
      let trimmed = 0;
      for (let next = from + 1; next <= dataBlocks(); ) {
        if (this.#stopped) throw new PandoError("ECLOSED", "the pool is closed");
        const batch = map.takeFree(next, {
          maxRuns: BATCH_RUNS,
          maxBlocks: BATCH_BYTES / blockSizeBytes,
        });
        if (batch.runs.length > 0) await this.#punch(batch.runs);
        trimmed += countBlocks(batch.runs);
        next = batch.next;
        yield {
          doneBytes: Math.min(next - 1, dataBlocks()) * blockSizeBytes,
          sizeBytes: dataBlocks() * blockSizeBytes,
          trimmedBytes: trimmed * blockSizeBytes,
        };
        await pace.rest();
      }
    } finally {
      this.#running = false;
    }
  }

  /** What is at the device now is free. */
  async answered(): Promise<void> {
    await this.#atDevice;
  }

  /** Nothing goes to the device any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#parts.pace.stop();
    await this.#atDevice;
  }

  async #punch(runs: BlockRun[]): Promise<void> {
    const { path, map, freed } = this.#parts;
    this.#held = countBlocks(runs);
    this.#atDevice = path.punchBlocks(runs).finally(() => {
      this.#held = 0;
      map.giveBack(runs);
      freed();
    });
    const failure = await this.#atDevice;
    this.#atDevice = null;
    if (failure === null) return;
    throw new PandoError("EIO", `the device does not take free blocks back: ${failure}`, {
      hint: "a file system without holes, or a device without discard, cannot",
    });
  }
}

// What a pool does by itself: checkpoints at intervals and when the data path calls for one, the
// reclaiming of what was deleted beside them, and another try soon after one that failed for want
// of room in the store, since writes may be standing still for it.
//
// Nobody waits for a rest of the reclaimer here: a checkpoint comes at its time however long a fold
// goes on.
import type { Clock } from "../base/clock.js";
import { isPandoError } from "../base/errors.js";
import type { Log } from "../base/log.js";
import type { Checkpointer } from "./checkpointer.js";
import type { DataPath } from "./data-path.js";
import type { Reclaimer } from "./reclaimer.js";

/** How long changes may stay in the journal only. */
const CHECKPOINT_INTERVAL_MS = 5_000;
/** After a failure; doubled with each further one, up to the interval. */
const FIRST_RETRY_MS = 100;

export interface BackgroundParts {
  clock: Clock;
  path: DataPath;
  checkpointer: Checkpointer;
  reclaimer: Reclaimer;
  log: Log;
  /** The pool can take nothing more: beside the intervals' work nothing is begun. */
  broken: () => boolean;
  /** At each interval. */
  onInterval: () => void;
}

export class Background {
  readonly #parts: BackgroundParts;
  readonly #stopTimer: () => void;
  #cancelRetry: (() => void) | null = null;
  #retryMs = FIRST_RETRY_MS;
  #checkpointing: Promise<void> | null = null;
  #reclaiming: Promise<void> | null = null;
  #stopped = false;

  constructor(parts: BackgroundParts) {
    this.#parts = parts;
    this.#stopTimer = parts.clock.every(CHECKPOINT_INTERVAL_MS, () => this.#interval());
    this.#interval();
  }

  /** The data path calls for a checkpoint. */
  checkpoint(): void {
    void this.#attempt(() => this.#parts.checkpointer.run());
  }

  /** Something was deleted. */
  reclaim(): void {
    if (this.#rests()) return;
    this.#reclaiming ??= this.#attempt(() => this.#reclaimAll()).finally(() => {
      this.#reclaiming = null;
    });
  }

  /** Makes what waits for a checkpoint or a reclaim free, at once. False: nothing waited. */
  async makeFree(): Promise<boolean> {
    try {
      return await this.#makeFree();
    } catch (error) {
      // It is the same work as at the intervals, and no less has to be done about its failure.
      this.#failed(error);
      throw error;
    }
  }

  async #makeFree(): Promise<boolean> {
    const { path, checkpointer, reclaimer } = this.#parts;
    const stats = await path.stats();
    const waiting = reclaimer.waiting().total > 0;
    if ((stats.pendingFreeBlocks ?? 0) === 0 && !waiting) return this.#makeFreeBySweep();
    await checkpointer.run();
    if (waiting) await reclaimer.runNow();
    // Whatever came free is told before this answer.
    await path.stats();
    return true;
  }

  /** The last resort: it looks at a lot for what may be little. */
  async #makeFreeBySweep(): Promise<boolean> {
    const { path, checkpointer, reclaimer } = this.#parts;
    if (reclaimer.shared().total === 0) return false;
    await checkpointer.run();
    const freed = await reclaimer.sweepNow();
    await path.stats();
    return freed;
  }

  /** Nothing is begun any more; `ended` is for what is under way. */
  stop(): { ended: Promise<void> } {
    this.#stopped = true;
    this.#stopTimer();
    this.#cancelRetry?.();
    this.#parts.reclaimer.stop();
    const under = [this.#checkpointing, this.#reclaiming];
    return { ended: Promise.all(under).then(() => undefined) };
  }

  #rests(): boolean {
    return this.#stopped || this.#parts.broken();
  }

  #interval(): void {
    if (this.#rests()) return;
    this.#parts.onInterval();
    this.#checkpointing ??= this.#attempt(() => this.#checkpointIfDue()).finally(() => {
      this.#checkpointing = null;
    });
    this.reclaim();
  }

  async #checkpointIfDue(): Promise<void> {
    const stats = await this.#parts.path.stats();
    const journaled = stats.journalSequence !== stats.journalTail;
    const due = (stats.indexDirty ?? 0) > 0 || journaled || (stats.pendingFreeBlocks ?? 0) > 0;
    if (due) await this.#parts.checkpointer.run();
  }

  async #reclaimAll(): Promise<void> {
    const { checkpointer, reclaimer } = this.#parts;
    for (;;) {
      const { total, ready } = reclaimer.waiting();
      if (this.#stopped) return;
      if (total === 0) {
        const { total: shared, ready: turn } = reclaimer.shared();
        if (shared > 0 && !turn) await checkpointer.run();
        await reclaimer.sweep();
        return;
      }
      if (ready === 0) await checkpointer.run();
      await reclaimer.run();
    }
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.#retryMs = FIRST_RETRY_MS;
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    if (this.#stopped) return;
    this.#parts.log.error({ err: error }, "checkpoint or reclaim failed");
    if (!isPandoError(error, "ENOSPC")) {
      this.#parts.path.poison("the store's transaction");
      return;
    }
    // A full store can be tried again; anything else has to be recovered from.
    if (this.#cancelRetry !== null) return;
    const cancel = this.#parts.clock.every(this.#retryMs, () => {
      cancel();
      this.#cancelRetry = null;
      this.checkpoint();
      this.reclaim();
    });
    this.#cancelRetry = cancel;
    this.#retryMs = Math.min(2 * this.#retryMs, CHECKPOINT_INTERVAL_MS);
  }
}

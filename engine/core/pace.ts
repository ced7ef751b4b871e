// Background work beside the hosts': after each batch it rests for a moment if hosts have asked for
// anything since the one before, and goes on at once if they have not, or if somebody waits for
// what it does.
import type { Clock } from "../base/clock.js";
import type { DataPath } from "./data-path.js";

/** With batches of some milliseconds: most of the time is the hosts'. */
const REST_MS = 20;

export class Pace {
  readonly #clock: Clock;
  readonly #path: DataPath;
  #requests = 0;
  #hurried = 0;
  #wake: (() => void) | null = null;

  constructor(clock: Clock, path: DataPath) {
    this.#clock = clock;
    this.#path = path;
  }

  /** No rests while `work` goes on, and an end to the present one. */
  async hurry<T>(work: () => Promise<T>): Promise<T> {
    this.#hurried++;
    this.#wake?.();
    try {
      return await work();
    } finally {
      this.#hurried--;
    }
  }

  /** No rests any more. */
  stop(): void {
    this.#hurried++;
    this.#wake?.();
  }

  /** The work begins: what hosts asked for before does not count. */
  async begin(): Promise<void> {
    await this.#hostsAsked();
  }

  /** In the middle of something: whatever else there is to do comes first. */
  turn(): Promise<void> {
    return this.#clock.turn();
  }

  async rest(): Promise<void> {
    if (!(await this.#hostsAsked()) || this.#hurried > 0) return;
    await new Promise<void>((resolve) => {
      const cancel = this.#clock.every(REST_MS, () => this.#wake?.());
      this.#wake = () => {
        this.#wake = null;
        cancel();
        resolve();
      };
    });
  }

  async #hostsAsked(): Promise<boolean> {
    const { reads = 0, writes = 0, discards = 0, flushes = 0 } = await this.#path.stats();
    const requests = reads + writes + discards + flushes;
    const more = requests !== this.#requests;
    this.#requests = requests;
    return more;
  }
}

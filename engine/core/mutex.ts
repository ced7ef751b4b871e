// One thing at a time, in the order of the calls.

export class Mutex {
  #last: Promise<unknown> = Promise.resolve();
  #asked = 0;
  #ended = 0;

  /**
   * Null while something runs or waits; otherwise a number that is another one after the next run.
   */
  get quiet(): number | null {
    return this.#asked === this.#ended ? this.#ended : null;
  }

  /** Runs `work` when everything before it has ended, well or not. */
  run<T>(work: () => Promise<T>): Promise<T> {
    this.#asked++;
    const turn = this.#last.then(work, work).finally(() => {
      this.#ended++;
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

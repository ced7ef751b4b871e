// Who hands transactions to LMDB, and when. Its binding forgets what was handed over while a commit
// was under way that then fails: whoever asked would wait for ever. So they wait here; those who
// have waited go together, in their order, and become one commit.
export class CommitTurns {
  #underWay = 0;
  readonly #waiting: (() => void)[] = [];

  /** `work` hands over at once, and settles when that is durable or has failed. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#underWay > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#underWay = 1;
    try {
      return await work();
    } finally {
      this.#underWay -= 1;
      if (this.#underWay === 0) this.#next();
    }
  }

  #next(): void {
    const together = this.#waiting.splice(0);
    this.#underWay = together.length;
    for (const go of together) go();
  }
}

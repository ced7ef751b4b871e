// Waits that end, and work of which only so much goes on at a time.
import { setTimeout as sleep } from "node:timers/promises";

/** A moment after which nothing is waited for any more. */
export class Deadline {
  readonly #endMs: number;

  constructor(timeoutMs: number) {
    this.#endMs = performance.now() + timeoutMs;
  }

  get leftMs(): number {
    return Math.max(0, this.#endMs - performance.now());
  }

  /** Asks again and again, ever less often, until there is an answer; null when time is over. */
  async poll<T>(ask: () => Promise<T | null>): Promise<T | null> {
    for (let pauseMs = 10; ; pauseMs = Math.min(pauseMs * 1.5, 250)) {
      const answer = await ask();
      if (answer !== null) return answer;
      if (this.leftMs === 0) return null;
      await sleep(Math.min(pauseMs, this.leftMs));
    }
  }

  /** What `work` gives, or the error when time is over; `work` itself goes on to its end. */
  async bound<T>(work: Promise<T>, late: () => Error): Promise<T> {
    const over = new AbortController();
    const timer = sleep(this.leftMs, undefined, { signal: over.signal }).then(() => {
      throw late();
    });
    try {
      return await Promise.race([work, timer]);
    } finally {
      over.abort();
      timer.catch(() => undefined);
      // Late failures have been answered for by `late`.
      work.catch(() => undefined);
    }
  }
}

/** At most `limit` at a time, in the order of the calls. */
export class Limiter {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

/** One after another for each key, those of different keys at the same time. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<unknown>>();

  run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const done = before.then(work, work);
    const tail = done.catch(() => undefined);
    this.#tails.set(key, tail);
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    return done;
  }
}

// Time, as far as the engine knows it: passed in, so that a simulation has its own.
import { setImmediate as othersTurn } from "node:timers/promises";

export interface Clock {
  /** ISO 8601, UTC. */
  now(): string;
  /** Calls `run` every `intervalMs` until the returned function is called. */
  every(intervalMs: number, run: () => void): () => void;
  /** Resolves when whatever else there is to do has had its turn. */
  turn(): Promise<void>;
}

export const systemClock: Clock = {
  now: () => new Date().toISOString(),
  every(intervalMs, run) {
    const timer = setInterval(run, intervalMs);
    timer.unref();
    return () => clearInterval(timer);
  },
  turn: () => othersTurn(),
};

/** For the few who wait for the system; the engine itself never does. */
export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

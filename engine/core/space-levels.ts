// How full the pool is, as a level: 0, or how many of the configured thresholds are reached. A
// level and not an edge: whoever asks late, or was away, is told the same.
import { assert } from "../base/assert.js";
import type { Log } from "../base/log.js";

const NAMES = ["ok", "filling", "nearly full", "critical"] as const;

export const SPACE_LEVELS = NAMES.length - 1;

export interface SpaceLevel {
  /** 0 to SPACE_LEVELS. */
  level: number;
  usedPercent: number;
}

export class SpaceLevels {
  readonly #thresholds: readonly number[];
  readonly #log: Log;
  #logged = 0;

  /** `thresholds`: percent, rising, one for each level above 0. */
  constructor(thresholds: readonly number[], log: Log) {
    assert(thresholds.length === SPACE_LEVELS, "a threshold for each level");
    this.#thresholds = thresholds;
    this.#log = log;
  }

  at(used: number, total: number): SpaceLevel {
    const usedPercent = (100 * used) / total;
    const level = this.#thresholds.filter((threshold) => usedPercent >= threshold).length;
    return { level, usedPercent };
  }

  /** Says so when the level is another than the last time. */
  watch(used: number, total: number): void {
    const { level, usedPercent } = this.at(used, total);
    if (level === this.#logged) return;
    this.#logged = level;
    const text = `the pool is ${Math.floor(usedPercent)} % full: ${NAMES[level]}`;
    if (level === 0) this.#log.info({ level }, text);
    else this.#log.warn({ level }, text);
  }
}

// Which faults a run may meet, how often, and each decision to inject one.
//
// A rate is "once in so many", 0 is never. Decisions have a source of randomness of their own and
// are numbered in the order in which they are made, so that a run can be repeated without some of
// its faults: that is how a failing run is made shorter.
import { type Random, seeded } from "../prng.js";

/** By name: what it is, and once in what. */
export const FAULTS = {
  powerCut: "a power cut, with any subset of what was not flushed (turns)",
  kill: "the daemon is killed (turns)",
  recoveryCrash: "either of these again, during recovery (steps of a recovery)",
  dataError: "EIO of a read or write (operations of the device)",
  flushError: "EIO of a flush or journal write (operations of the device)",
  shortTransfer: "a read or write moves a part at first (operations of the device)",
  storeFull: "ENOSPC of a commit of the store (commits)",
  storeError: "EIO of a commit of the store, nothing changed (commits)",
  storeDoubt: "EIO of a commit of the store that may be found afterwards (commits)",
  slowStore: "the store takes a step once in so many turns",
  hang: "one thing is held back for long (steps)",
} as const;

export type Fault = keyof typeof FAULTS;
export type FaultRates = Record<Fault, number>;

export const NO_FAULTS: FaultRates = {
  powerCut: 0,
  kill: 0,
  recoveryCrash: 0,
  dataError: 0,
  flushError: 0,
  shortTransfer: 0,
  storeFull: 0,
  storeError: 0,
  storeDoubt: 0,
  slowStore: 0,
  hang: 0,
};

/** What the seed says, where nobody else does. */
export function ratesOf(seed: number): FaultRates {
  const failing = seed % 5 === 2;
  const slow = seed % 7 === 3;
  return {
    powerCut: slow ? 9000 : 200,
    kill: slow ? 18000 : 400,
    recoveryCrash: 12,
    dataError: failing ? 80 : 0,
    flushError: failing ? 150 : 0,
    shortTransfer: seed % 2 === 0 ? 12 : 0,
    storeFull: failing ? 40 : 0,
    storeError: failing ? 120 : 0,
    storeDoubt: failing ? 120 : 0,
    slowStore: slow ? 400 : 0,
    hang: 25,
  };
}

/** "none", or each rate that is not 0. */
export function describeRates(rates: FaultRates): string {
  const given = Object.entries(rates).filter(([, rate]) => rate > 0);
  return given.map(([fault, rate]) => `${fault} 1/${rate}`).join(", ") || "none";
}

export class FaultDice {
  readonly #random: Random;
  readonly #rates: FaultRates;
  readonly #skipped: ReadonlySet<number>;
  readonly #tell: (line: string) => void;
  #on = true;
  /** Decisions for a fault so far, those that were skipped included. */
  decided = 0;
  readonly injected = new Map<Fault, number>();

  constructor(
    seed: number,
    rates: FaultRates,
    skipped: ReadonlySet<number> = new Set(),
    tell: (line: string) => void = () => undefined,
  ) {
    this.#random = seeded(seed);
    this.#rates = rates;
    this.#skipped = skipped;
    this.#tell = tell;
  }

  /** True: inject it. */
  roll(fault: Fault): boolean {
    const rate = this.#rates[fault];
    if (!this.#on || rate === 0 || !this.#random.oneIn(rate)) return false;
    const number = this.decided++;
    if (this.#skipped.has(number)) return false;
    this.injected.set(fault, (this.injected.get(fault) ?? 0) + 1);
    this.#tell(`fault ${number}: ${fault}`);
    return true;
  }

  /** From now on everything works. */
  heal(): void {
    this.#on = false;
  }
}

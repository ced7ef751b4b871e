// Picks what happens next by a seed, unfairly: for a while one kind of step comes often and another
// hardly ever, and now and then one operation is not let through for as long as anything else can
// happen. Fair schedules never find the order in which a late write meets its block's next owner.
import type { Random } from "../prng.js";
import type { FaultDice } from "./faults.js";
import type { Choice, Scheduler } from "./world.js";

const MOODS = [1, 1, 1, 4, 16];
const MOOD_LENGTH = 60;
const LONGEST_HANG = 250;
const EIO = 5;
const ENOSPC = 28;

export interface SchedulerOptions {
  /** Without: nothing fails, and nothing is held back. */
  dice?: FaultDice;
  /**
   * The store takes a step once in so many turns, or if nothing else can happen; 0: like others.
   */
  slowStore?: number;
  /** Told when a write fails for want of room. */
  deviceFull?: () => void;
}

export function isOfStore({ kind }: Choice): boolean {
  return kind === "commit" || kind === "durable";
}

export class SeededScheduler {
  readonly #random: Random;
  readonly #options: SchedulerOptions;
  readonly #weights = new Map<Choice["kind"], number>();
  #moodLeft = 0;
  #held: { kind: Choice["kind"]; offset: number; left: number } | null = null;

  constructor(random: Random, options: SchedulerOptions = {}) {
    this.#random = random;
    this.#options = options;
  }

  /** For World.run and the like. */
  get pick(): Scheduler {
    return (choices) => this.choose(choices);
  }

  choose(choices: Choice[]): Choice | null {
    if (choices.length === 0) return null;
    this.#changeMood(choices);
    const { slowStore = 0 } = this.#options;
    const storeRests = slowStore > 0 && !this.#random.oneIn(slowStore);
    const free = choices.filter(
      (choice) => !this.#isHeld(choice) && !(storeRests && isOfStore(choice)),
    );
    if (free.length === 0) this.#held = null;
    return this.#weighted(free.length > 0 ? free : choices);
  }

  /**
   * Takes the step, which may fail, or be done in part. True: it failed so that the pool notices.
   */
  take(choice: Choice): boolean {
    const { dice } = this.#options;
    const { kind, length, shorten } = choice;
    const data = kind === "read" || kind === "write" || kind === "discard";
    if (shorten !== undefined && dice?.roll("shortTransfer") === true) {
      const units = length / shorten.unitBytes;
      shorten.take((1 + this.#random.below(units - 1)) * shorten.unitBytes);
      return false;
    }
    const onDisk = data || kind === "flush" || kind === "write-durable";
    const fails = onDisk && dice?.roll(data ? "dataError" : "flushError") === true;
    const full = kind === "write" && this.#random.oneIn(4);
    if (fails && full) this.#options.deviceFull?.();
    choice.take(fails ? (full ? ENOSPC : EIO) : 0);
    return fails && !data;
  }

  #changeMood(choices: Choice[]): void {
    const random = this.#random;
    if (this.#moodLeft-- <= 0) {
      this.#moodLeft = MOOD_LENGTH;
      for (const { kind } of choices) this.#weights.set(kind, random.pick(MOODS));
    }
    if (this.#held !== null && this.#held.left-- <= 0) this.#held = null;
    if (this.#held === null && this.#options.dice?.roll("hang") === true) {
      const { kind, offset } = random.pick(choices);
      this.#held = { kind, offset, left: random.below(LONGEST_HANG) };
    }
  }

  #isHeld({ kind, offset }: Choice): boolean {
    return this.#held?.kind === kind && this.#held.offset === offset;
  }

  #weighted(choices: Choice[]): Choice {
    const weight = ({ kind }: Choice): number => this.#weights.get(kind) ?? 1;
    let left = this.#random.below(choices.reduce((sum, choice) => sum + weight(choice), 0));
    for (const choice of choices) {
      left -= weight(choice);
      if (left < 0) return choice;
    }
    return choices[0] as Choice;
  }
}

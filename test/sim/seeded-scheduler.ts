// Picks what happens next by a seed, unfairly: for a while one kind of step comes often and another
// hardly ever, and now and then one operation is not let through for as long as anything else can
// happen. Fair schedules never find the order in which a late write meets its block's next owner.
import type { Random } from "../prng.js";
import type { Choice, Scheduler } from "./world.js";

const MOODS = [1, 1, 1, 4, 16];
const MOOD_LENGTH = 60;
const STARVE_ONE_IN = 25;
const LONGEST_STARVATION = 250;

export interface Faults {
  /** One in so many disk operations fails; 0: none. Only those that are data, unless `fatal`. */
  errorOneIn: number;
  /** Flushes and journal writes may fail too. */
  fatal: boolean;
  /** The store takes a step once in so many turns, or if nothing else can happen. */
  storeOneIn: number;
}

export const NO_FAULTS: Faults = { errorOneIn: 0, fatal: false, storeOneIn: 1 };
const EIO = 5;

export function isOfStore({ kind }: Choice): boolean {
  return kind === "commit" || kind === "durable";
}

export class SeededScheduler {
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #weights = new Map<Choice["kind"], number>();
  #moodLeft = 0;
  #starved: { kind: Choice["kind"]; offset: number; left: number } | null = null;
  failures = 0;

  constructor(random: Random, faults: Faults = NO_FAULTS) {
    this.#random = random;
    this.#faults = faults;
  }

  /** For World.run and the like. */
  get pick(): Scheduler {
    return (choices) => this.choose(choices);
  }

  choose(choices: Choice[]): Choice | null {
    if (choices.length === 0) return null;
    this.#changeMood(choices);
    const { storeOneIn } = this.#faults;
    const storeRests = storeOneIn > 1 && !this.#random.oneIn(storeOneIn);
    const free = choices.filter(
      (choice) => !this.#isStarved(choice) && !(storeRests && isOfStore(choice)),
    );
    if (free.length === 0) this.#starved = null;
    return this.#weighted(free.length > 0 ? free : choices);
  }

  /** Takes the step, which may fail. */
  take(choice: Choice): void {
    choice.take(this.#fails(choice) ? EIO : 0);
  }

  #changeMood(choices: Choice[]): void {
    const random = this.#random;
    if (this.#moodLeft-- <= 0) {
      this.#moodLeft = MOOD_LENGTH;
      for (const { kind } of choices) this.#weights.set(kind, random.pick(MOODS));
    }
    if (this.#starved !== null && this.#starved.left-- <= 0) this.#starved = null;
    if (this.#starved === null && random.oneIn(STARVE_ONE_IN)) {
      const { kind, offset } = random.pick(choices);
      this.#starved = { kind, offset, left: random.below(LONGEST_STARVATION) };
    }
  }

  #isStarved({ kind, offset }: Choice): boolean {
    return this.#starved?.kind === kind && this.#starved.offset === offset;
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

  #fails({ kind }: Choice): boolean {
    const { errorOneIn, fatal } = this.#faults;
    if (errorOneIn === 0) return false;
    const data = kind === "read" || kind === "write";
    const disk = data || kind === "flush" || kind === "write-durable";
    if (!disk || !this.#random.oneIn(data ? errorOneIn : errorOneIn * 2)) return false;
    if (!data && !fatal) return false;
    this.failures++;
    return true;
  }
}

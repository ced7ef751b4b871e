// What a sector may read as, given everything that was asked of it and when.
//
// Each change of a sector is a mark: when it was submitted, when it ended, from when on it must be
// durable. Changes that overlap in time may take effect in either order, so a read may give any
// mark that was not certainly overwritten before the read began: overwritten by a change that was
// submitted after the mark had ended, and that had ended by then. After a crash it may give any
// that was not certainly overwritten by a change that is durable. Each 512 bytes count alone: a
// sector may be torn between the units that the device writes whole.
//
// An image is a volume as it was at one instant between two moments: each sector is one of some
// marks, and all together must fit one instant. Sectors are settled as they are read. One that
// nobody was told of before the power went may have lost what the volume itself has: each sector
// is anything that the volume may be after the cut, too.
//
// What a crash would leave can be looked at without settling anything for good: on trial.
import { assert } from "../../engine/base/assert.js";
import { UNITS_PER_SECTOR } from "./blocks.js";

export interface Content {
  mayBe(unit: number, version: number): boolean;
  /** It was seen to be so. Throws if that contradicts what was seen before. */
  settle(unit: number, version: number): void;
}

export interface Mark {
  content: Content;
  began: number;
  /** Infinity while it is under way. */
  ended: number;
  /** It said that it was done; otherwise it may have happened in part. */
  ok: boolean;
  /** From when on it survives a crash; Infinity: it may not. */
  durable: number;
}

export const NEVER = Number.POSITIVE_INFINITY;
export const ALWAYS = Number.NEGATIVE_INFINITY;

export function written(version: number): Content {
  return {
    mayBe: (_unit, seen) => seen === version,
    settle: () => undefined,
  };
}

export function observed(versions: readonly number[]): Content {
  return {
    mayBe: (unit, seen) => versions[unit] === seen,
    settle: () => undefined,
  };
}

/** Takes back what was settled since the trial began; null: there is none. */
let trial: (() => void)[] | null = null;

/** Runs `work`, and forgets what was settled meanwhile. */
export async function onTrial(work: () => Promise<void>): Promise<void> {
  assert(trial === null, "one trial at a time");
  const undo: (() => void)[] = [];
  trial = undo;
  try {
    await work();
  } finally {
    trial = null;
    for (const takeBack of undo.reverse()) takeBack();
  }
}

export class History {
  #marks: Mark[];

  constructor(first: Content) {
    this.#marks = [initial(first)];
  }

  begin(content: Content, now: number): Mark {
    const mark = { content, began: now, ended: NEVER, ok: false, durable: NEVER };
    this.#marks.push(mark);
    return mark;
  }

  /** A flush that was submitted at `since` is acknowledged. */
  flushed(since: number, now: number): void {
    for (const mark of this.#marks) {
      if (mark.ok && mark.ended < since) mark.durable = Math.min(mark.durable, now);
    }
  }

  /** What may be seen by somebody who looked between these moments. */
  visible(from: number, to: number): Mark[] {
    const newest = this.#newest((mark) => mark.ended < from);
    return this.#marks.filter((mark) => mark.began < to && mark.ended >= newest);
  }

  /** What may be found after a crash. */
  durableOrNewer(): Mark[] {
    const newest = this.#newest((mark) => mark.durable < NEVER);
    return this.#marks.filter((mark) => mark.ended >= newest);
  }

  /** When the mark was overwritten for certain. */
  overwrittenAt(mark: Mark): number {
    let at = NEVER;
    for (const newer of this.#marks) {
      if (newer.ok && mark.ended < newer.began) at = Math.min(at, newer.ended);
    }
    return at;
  }

  /** It was found to be this after a crash, durably. */
  reset(versions: readonly number[]): void {
    this.#marks = [initial(observed(versions))];
  }

  /** When the last of these changes was submitted: what had ended before is overwritten by it. */
  #newest(which: (mark: Mark) => boolean): number {
    let newest = ALWAYS;
    for (const mark of this.#marks) {
      if (mark.ok && mark.began > newest && which(mark)) newest = mark.began;
    }
    return newest;
  }
}

/** One of `marks` has this version; if only one can have, it has. False: none. */
export function settle(marks: readonly Mark[], unit: number, version: number): boolean {
  let fitting = 0;
  let last: Content | undefined;
  for (const { content } of marks) {
    if (!content.mayBe(unit, version)) continue;
    fitting++;
    last = content;
  }
  if (fitting === 1) last?.settle(unit, version);
  return fitting > 0;
}

interface Candidate {
  mark: Mark;
  /** The instant was not after this. */
  until: number;
}

/** When an image was taken; `cut`: it may be what a power cut has left, and of no one instant. */
export interface Moments {
  from: number;
  to: number;
  cut: boolean;
}

/** A volume at one instant. */
export class Image {
  #from: number;
  #to: number;
  readonly #cut: boolean;
  readonly #histories: ReadonlyMap<number, Candidate[]>;
  readonly #other: (sector: number) => Content;
  readonly #seen = new Map<number, (number | undefined)[]>();

  /** `other`: what sectors are that have no history. */
  constructor(
    histories: ReadonlyMap<number, History>,
    other: (sector: number) => Content,
    { from, to, cut }: Moments,
  ) {
    this.#from = from;
    this.#to = to;
    this.#cut = cut;
    this.#other = other;
    this.#histories = new Map(
      [...histories].map(([sector, history]) => {
        const marks = new Set(history.visible(from, to));
        if (cut) for (const mark of history.durableOrNewer()) marks.add(mark);
        const candidates = [...marks];
        return [sector, candidates.map((mark) => ({ mark, until: history.overwrittenAt(mark) }))];
      }),
    );
  }

  at(sector: number): Content {
    const candidates = this.#histories.get(sector);
    if (candidates === undefined) return this.#other(sector);
    return {
      mayBe: (unit, version) => {
        const seen = this.#seen.get(sector)?.[unit];
        if (seen !== undefined) return seen === version;
        return candidates.some(({ mark }) => mark.content.mayBe(unit, version));
      },
      settle: (unit, version) => this.#settle(sector, candidates, unit, version),
    };
  }

  #settle(sector: number, candidates: Candidate[], unit: number, version: number): void {
    let seen = this.#seen.get(sector);
    if (seen === undefined) {
      seen = new Array<number | undefined>(UNITS_PER_SECTOR).fill(undefined);
      this.#seen.set(sector, seen);
    }
    if (seen[unit] === version) return;
    const before = { seen: seen[unit], from: this.#from, to: this.#to };
    trial?.push(() => {
      seen[unit] = before.seen;
      this.#from = before.from;
      this.#to = before.to;
    });
    seen[unit] = version;
    const fitting = candidates.filter(({ mark }) => mark.content.mayBe(unit, version));
    const [only] = fitting;
    if (only === undefined || fitting.length > 1) return;
    only.mark.content.settle(unit, version);
    if (this.#cut) return;
    this.#from = Math.max(this.#from, only.mark.began);
    this.#to = Math.min(this.#to, only.until);
    if (this.#from < this.#to) return;
    throw new Error(
      `sector ${sector} is of another instant than the rest: after ${this.#from}, before ${this.#to}`,
    );
  }
}

function initial(content: Content): Mark {
  return { content, began: ALWAYS, ended: ALWAYS, ok: true, durable: ALWAYS };
}

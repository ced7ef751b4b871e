// Makes a failing run shorter: leaves out operations, then faults, in ever smaller pieces, and
// keeps what still fails. Whatever fails counts, be it with another error than the first.

export interface Masks {
  operations: ReadonlySet<number>;
  faults: ReadonlySet<number>;
}

export interface Sizes {
  operations: number;
  faults: number;
}

export interface ShrinkOptions {
  /** What was drawn and decided in the run that failed. */
  sizes: Sizes;
  /** Runs it without these. */
  fails: (skipped: Masks) => Promise<boolean>;
  /** No further attempt is begun after this, by the machine's clock. */
  endMs: number;
}

export interface Shrunk {
  skipped: Masks;
  attempts: number;
}

export async function shrink({ sizes, fails, endMs }: ShrinkOptions): Promise<Shrunk> {
  let skipped: Masks = { operations: new Set(), faults: new Set() };
  let attempts = 0;
  for (const kind of ["faults", "operations", "faults"] as const) {
    skipped = { ...skipped, [kind]: await without(kind) };
  }
  return { skipped, attempts };

  async function without(kind: keyof Masks): Promise<ReadonlySet<number>> {
    let left = Array.from({ length: sizes[kind] }, (_, at) => at);
    left = left.filter((number) => !skipped[kind].has(number));
    let gone = skipped[kind];
    for (let size = left.length; size >= 1; size = Math.floor(size / 2)) {
      // From the end: what comes late matters least to the rest.
      for (let end = left.length; end > 0 && Date.now() < endMs; end -= size) {
        const piece = left.slice(Math.max(0, end - size), end);
        const attempt = new Set([...gone, ...piece]);
        attempts++;
        if (!(await fails({ ...skipped, [kind]: attempt }))) continue;
        gone = attempt;
        left = left.filter((number) => !attempt.has(number));
      }
    }
    return gone;
  }
}

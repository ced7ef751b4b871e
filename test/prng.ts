// A small seeded generator (mulberry32): the same seed, the same test.

export interface Random {
  /** 0 … n - 1. */
  below(n: number): number;
  /** True once in n. */
  oneIn(n: number): boolean;
  pick<T>(items: readonly T[]): T;
}

export function seeded(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const below = (n: number): number => Math.floor((next() / 2 ** 32) * n);
  return {
    below,
    oneIn: (n) => below(n) === 0,
    pick: <T>(items: readonly T[]): T => items[below(items.length)] as T,
  };
}

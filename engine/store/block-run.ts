// Consecutive blocks of the data device.

export interface BlockRun {
  first: number;
  count: number;
}

/** Adds to the list, to its last run if that ends where this one begins. */
export function appendRun(runs: BlockRun[], first: number, count: number): void {
  const last = runs.at(-1);
  if (last !== undefined && last.first + last.count === first) last.count += count;
  else runs.push({ first, count });
}

export function countBlocks(runs: readonly BlockRun[]): number {
  return runs.reduce((total, run) => total + run.count, 0);
}

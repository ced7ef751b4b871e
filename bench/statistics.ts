// Numbers of several rounds become one number and how far it can be trusted.

/** Of an even count the lower of the two in the middle: a value that was measured. */
export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

/** The smallest sample that at least `share` of all samples do not exceed; 0 if there is none. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0;
}

/** Half the range, as a part of the median: the ± of a table. 0 for fewer than two samples. */
export function spread(samples: readonly number[]): number {
  const middle = median(samples);
  if (samples.length < 2 || middle === 0) return 0;
  return (Math.max(...samples) - Math.min(...samples)) / 2 / Math.abs(middle);
}

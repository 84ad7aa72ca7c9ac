// Numbers of several runs, and what is said of them: the median, and how far the runs lay apart.

/** Of one quantity over all rounds; `values` in the order they were measured. */
export interface Spread {
  median: number;
  min: number;
  max: number;
  values: number[];
}

/** The value below which the fraction `rank` (0..1) of the values lies. NaN for none. */
export function quantile(values: readonly number[], rank: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(rank * sorted.length))] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Rounded to `digits` behind the point, so that a report shows no digits that mean nothing. */
export function spreadOf(values: readonly number[], digits = 3): Spread {
  const round = (value: number): number => Number(value.toFixed(digits));
  return {
    median: round(median(values)),
    min: round(Math.min(...values)),
    max: round(Math.max(...values)),
    values: values.map(round),
  };
}

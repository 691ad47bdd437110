// Ends of runs counted by the minute: the arithmetic of the chart.

export const MINUTES = 60;
export const ENDS = ["COMPLETED", "FAILED", "CANCELLED"];

/**
 * Bars of the last hour, whole minutes of the clock; `last` is the minute that is not over yet. Ends that are
 * older are forgotten.
 */
export function perMinute(ends, last) {
  const bars = Array.from({ length: MINUTES }, () => ({ COMPLETED: 0, FAILED: 0, CANCELLED: 0 }));
  for (const [id, { status, at }] of ends) {
    const bar = bars[MINUTES - 1 - (last - Math.floor(at / 60))];
    if (bar) bar[status] += 1;
    else if (last - Math.floor(at / 60) >= MINUTES) ends.delete(id);
  }
  return bars;
}

/** How many ends a bar stands for. */
export function size(bar) {
  return ENDS.reduce((sum, status) => sum + bar[status], 0);
}

/** The next of 1, 2, 5, 10, 20, 50 and so on. */
export function roundUp(count) {
  const power = 10 ** Math.floor(Math.log10(count));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= count);
}

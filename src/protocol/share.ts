/**
 * Max-min fair division: the smallest holding is raised first, until what is free is used or every
 * goal is met (CONTROL: water-filling; nobody can get more without taking from one who has less).
 *
 * S1  Nobody falls, nobody passes its goal, and what is given plus what is left is what was free.
 * S2  Something is left only when every goal is met.
 * S3  Of two below their goals, holdings after the division differ by at most 1, unless the larger
 *     was that large before and got nothing.
 * Ties go to the first in order, so a caller that keeps the least recently raised in front rotates
 * them. Without that, one of three senders takes everything at a bound of 1.
 */

/**
 * Raises `have` in place towards `goal`. All numbers are whole.
 *
 * @param count How many of the entries of both arrays take part, from the first.
 * @returns What is left of `free`.
 */
export function divide(
  have: number[],
  goal: readonly number[],
  count: number,
  free: number,
): number {
  let wanted = 0;
  let low = Infinity;
  let high = 0;
  for (let k = 0; k < count; k++) {
    const lacking = goal[k]! - have[k]!;
    if (lacking <= 0) continue;
    wanted += lacking;
    low = Math.min(low, have[k]!);
    high = Math.max(high, goal[k]!);
  }
  if (wanted === 0 || free <= 0) return free;
  const level = wanted <= free ? high : levelOf(have, goal, count, free, low, high);
  let left = free;
  for (let k = 0; k < count; k++) {
    const to = Math.min(goal[k]!, level);
    if (to <= have[k]!) continue;
    left -= to - have[k]!;
    have[k] = to;
  }
  for (let k = 0; k < count && left > 0; k++) {
    if (have[k] !== level || goal[k]! <= level) continue;
    have[k] = level + 1;
    left--;
  }
  return left;
}

/**
 * The highest whole level to which all may be raised with `free`. The cost of a level is piecewise
 * linear: Newton's steps from the last point find it in a few passes, and a halving in every third
 * step bounds them by the logarithm.
 *
 * @param low A level that costs nothing. @param high A level that costs more than `free`.
 */
function levelOf(
  have: readonly number[],
  goal: readonly number[],
  count: number,
  free: number,
  low: number,
  high: number,
): number {
  let at = low;
  for (let step = 1; high - low > 1; step++) {
    let cost = 0;
    let above = 0; // How many a level one higher would raise; `below`: how many one lower would not.
    let below = 0;
    for (let k = 0; k < count; k++) {
      const from = have[k]!;
      const to = goal[k]!;
      if (from <= at && at < to) above++;
      if (from < at) {
        if (at <= to) below++;
        cost += Math.max(0, Math.min(to, at) - from);
      }
    }
    let next: number;
    if (cost <= free) {
      low = at;
      if (above > free - cost) return low;
      next = at + Math.floor((free - cost) / above);
    } else {
      high = at;
      next = at - Math.ceil((cost - free) / below);
    }
    const inside = next > low && next < high;
    at = inside && step % 3 !== 0 ? next : Math.floor((low + high) / 2);
  }
  return low;
}

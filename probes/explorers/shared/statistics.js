// Statistics of a stretch of a flat array, values[from .. from + count). No DOM.

/** @import { Extent, Numbers } from "./types.js" */

/**
 * The smallest and the largest value; {low: Infinity, high: -Infinity} of an empty stretch.
 *
 * @param {Numbers} values
 * @param {number} [from]
 * @param {number} [count]
 * @returns {Extent}
 */
export function extent(values, from = 0, count = values.length - from) {
  let low = Infinity;
  let high = -Infinity;
  for (let n = from; n < from + count; n++) {
    if (values[n] < low) low = values[n];
    if (values[n] > high) high = values[n];
  }
  return { low, high };
}

/**
 * @param {Numbers} values
 * @param {number} [from]
 * @param {number} [count]
 * @returns {number}
 */
export function sumOf(values, from = 0, count = values.length - from) {
  let sum = 0;
  for (let n = from; n < from + count; n++) sum += values[n];
  return sum;
}

/**
 * The index of the largest value; of equal ones the first.
 *
 * @param {Numbers} values
 * @param {number} [from]
 * @param {number} [count]
 * @returns {number}
 */
export function argMax(values, from = 0, count = values.length - from) {
  let best = from;
  for (let n = from + 1; n < from + count; n++) if (values[n] > values[best]) best = n;
  return best;
}

/**
 * The largest magnitude; 0 of an empty stretch.
 *
 * @param {Numbers} values
 * @param {number} [from]
 * @param {number} [count]
 * @returns {number}
 */
export function maxMagnitude(values, from = 0, count = values.length - from) {
  let top = 0;
  for (let n = from; n < from + count; n++) {
    const size = Math.abs(values[n]);
    if (size > top) top = size;
  }
  return top;
}

/**
 * Entropy in nats of non-negative values, normalised to sum to 1: the unit of `AttentionMaps.entropy`, of stored runs and
 * of every label.
 *
 * @param {Numbers} values
 * @param {number} [from]
 * @param {number} [count]
 * @returns {number}
 */
export function entropyOf(values, from = 0, count = values.length - from) {
  let sum = 0;
  let weighted = 0;
  for (let n = from; n < from + count; n++) {
    const value = values[n];
    if (value > 0) {
      sum += value;
      weighted += value * Math.log(value);
    }
  }
  return sum > 0 ? Math.log(sum) - weighted / sum : 0;
}

/**
 * Throws if an output array is too short.
 *
 * @param {{length: number}} out
 * @param {number} length
 */
export function checkLength(out, length) {
  if (out.length < length) {
    throw new RangeError(`the output array must hold ${length} numbers, it holds ${out.length}`);
  }
}

// Which tokens are outliers, by the rule of probes.tokens, and the outline of a set of patches. No DOM.

import { patchCell } from "#shared/patches.js";

/** @import { NormBlock } from "./blocks.js" */

/**
 * The outliers of a block.
 *
 * @typedef {object} Outliers
 * @property {number} threshold norms above it are outliers
 * @property {number[]} tokens the largest norm first
 */

/**
 * @param {Float64Array} sorted
 * @returns {number} the median
 */
function middle(sorted) {
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Ratio of the mean to the median absolute deviation in a normal distribution; probes.tokens has the same number. */
const MEAN_TO_MEDIAN = 0.6744897501960817 / Math.sqrt(2 / Math.PI);

/**
 * The median of values from `from` on, and their median absolute deviation. If that is 0, the scaled mean absolute
 * deviation replaces it.
 *
 * @param {Float32Array} values
 * @param {number} from
 * @returns {{median: number, spread: number}}
 */
export function centreAndSpread(values, from) {
  const sorted = Float64Array.from(values.subarray(from)).sort();
  const median = middle(sorted);
  const away = sorted.map((value) => Math.abs(value - median)).sort();
  const spread = middle(away) || (away.reduce((sum, value) => sum + value, 0) / away.length) * MEAN_TO_MEDIAN;
  return { median, spread };
}

/**
 * Tokens from `from` on whose value is above a threshold.
 *
 * @param {Float32Array} values
 * @param {number} from
 * @param {number} threshold
 * @returns {number[]} the largest value first
 */
export function tokensAbove(values, from, threshold) {
  const found = [];
  for (let n = from; n < values.length; n++) if (values[n] > threshold) found.push(n);
  return found.sort((a, b) => values[b] - values[a]);
}

/**
 * @param {NormBlock} block
 * @param {number} k deviations above the median
 * @returns {Outliers}
 */
export function outliersOf({ values, prefix, median, spread }, k) {
  const threshold = median + k * spread;
  return { threshold, tokens: tokensAbove(values, prefix, threshold) };
}

/**
 * The outline of a set of patches: the sides between a patch of the set and one outside it.
 *
 * @param {readonly number[]} patches counted row by row
 * @param {number} rows
 * @param {number} cols
 * @returns {[x0: number, y0: number, x1: number, y1: number][]} lines, in patches
 */
export function outlineOf(patches, rows, cols) {
  const inside = new Set(patches);
  /** @type {[number, number, number, number][]} */
  const lines = [];
  for (const patch of patches) {
    const [row, col] = patchCell(patch, cols);
    if (row === 0 || !inside.has(patch - cols)) lines.push([col, row, col + 1, row]);
    if (row === rows - 1 || !inside.has(patch + cols)) lines.push([col, row + 1, col + 1, row + 1]);
    if (col === 0 || !inside.has(patch - 1)) lines.push([col, row, col, row + 1]);
    if (col === cols - 1 || !inside.has(patch + 1)) lines.push([col + 1, row, col + 1, row + 1]);
  }
  return lines;
}

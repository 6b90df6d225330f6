// The scales of the tiles. No DOM.

import { linearScale, logScale, signedLogScale, signedScale } from "#shared/scale.js";

/** @import { Scale } from "#shared/types.js" */

/** Decades that a logarithmic scale spans. Uniform attention over 1370 tokens lies 3.1 decades under 1. */
export const DECADES = 4;

/**
 * The scale of a tile.
 *
 * @param {"head" | "shared" | "log"} mode "head" and "shared" are linear; "log" covers the decades under `top`
 * @param {number} top the largest magnitude
 * @param {boolean} signed differences: 0 in the middle
 * @returns {Scale}
 */
export function attentionScale(mode, top, signed) {
  if (mode !== "head" && mode !== "shared" && mode !== "log") {
    throw new RangeError(`scale must be "head", "shared" or "log", got ${JSON.stringify(mode)}`);
  }
  if (!(top >= 0) || top === Infinity) {
    throw new RangeError(`the top of a scale must be finite and >= 0, got ${top}`);
  }
  const high = Math.max(top, 1e-30);
  if (mode !== "log") return signed ? signedScale(high) : linearScale(0, high);
  return signed ? signedLogScale(high, DECADES) : logScale(0, high, DECADES);
}

/**
 * @param {Scale} scale
 * @returns {boolean}
 */
export function isLogarithmic(scale) {
  return scale.kind !== "linear";
}

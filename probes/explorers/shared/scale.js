// Scales: from a value to a position on a colour bar, 0 to 1, and back. No DOM.
//
//     linear      low ................. high
//     log         low ................. high     positions follow the logarithm; low > 0
//     signed-log  -top .. -floor floor .. top    magnitudes follow the logarithm on either side of the middle

import { checkLength } from "./statistics.js";

/** @import { ColourTable, Extent, Numbers, Scale } from "./types.js" */

/**
 * @param {number} low
 * @param {number} high at least `low`; if both are equal, every value lies in the middle
 * @returns {Scale}
 */
export function linearScale(low, high) {
  if (!(high >= low) || !Number.isFinite(low) || !Number.isFinite(high)) {
    throw new RangeError(`a scale needs finite ends, low <= high, got ${low} and ${high}`);
  }
  return { kind: "linear", low, high, floor: 0 };
}

/**
 * A linear scale for depth maps: on a flat map every pixel takes the lowest colour, not the middle one.
 *
 * @param {number} low
 * @param {number} high
 * @returns {Scale}
 */
export function depthScale(low, high) {
  return linearScale(low, high > low ? high : low + 1);
}

/**
 * A linear scale with 0 in the middle.
 *
 * @param {number} top the largest magnitude
 * @returns {Scale}
 */
export function signedScale(top) {
  return linearScale(-top, top);
}

/**
 * A logarithmic scale. Values up to `low` lie at its bottom, 0 and negative ones included. It spans at most `decades`;
 * it is linear if no value is positive.
 *
 * @param {number} low
 * @param {number} high
 * @param {number} [decades]
 * @returns {Scale}
 */
export function logScale(low, high, decades = 6) {
  const scale = linearScale(low, high);
  return high > 0 ? { ...scale, kind: "log", low: Math.max(low, high * 10 ** -decades) } : scale;
}

/**
 * A logarithmic scale for differences. Magnitudes up to `decades` under the top lie in the middle.
 *
 * @param {number} top
 * @param {number} decades
 * @returns {Scale}
 */
export function signedLogScale(top, decades) {
  return { ...signedScale(top), kind: "signed-log", floor: top * 10 ** -decades };
}

/**
 * An extent that a linear scale can spread colours over: a constant array gets some room on either side.
 *
 * @param {Extent} extent
 * @returns {Extent}
 */
export function widened({ low, high }) {
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (high - low > 1e-12 * Math.max(size, 1e-18)) return { low, high };
  const room = Math.max(size * 1e-3, 1e-12);
  return { low: low - room, high: high + room };
}

/**
 * The position of a value, from 0 to 1: values outside the scale go to its ends.
 *
 * @param {Scale} scale
 * @param {number} value
 * @returns {number}
 */
export function positionOn(scale, value) {
  const { kind, low, high, floor } = scale;
  if (!(high > low)) return 0.5;
  let t = 0;
  if (kind === "linear") t = (value - low) / (high - low);
  else if (kind === "log") t = value > 0 ? Math.log(value / low) / Math.log(high / low) : 0;
  else {
    const size = Math.abs(value);
    const part = size > floor ? Math.log(size / floor) / Math.log(high / floor) : 0;
    t = (1 + (value < 0 ? -part : part)) / 2;
  }
  return t > 0 ? (t < 1 ? t : 1) : 0;
}

/**
 * The value at a position: the inverse of positionOn, for labels.
 *
 * @param {Scale} scale
 * @param {number} t
 * @returns {number}
 */
export function valueAt(scale, t) {
  const { kind, low, high, floor } = scale;
  if (kind === "linear") return low + t * (high - low);
  if (kind === "log") return low * (high / low) ** t;
  const part = Math.abs(2 * t - 1);
  const size = part === 0 ? 0 : floor * (high / floor) ** part;
  return t < 0.5 ? -size : size;
}

/**
 * Labels for a colour bar: [position, text] at equal distances.
 *
 * @param {Scale} scale
 * @param {number} count
 * @param {(value: number) => string} format
 * @returns {[number, string][]}
 */
export function ticksOf(scale, count, format) {
  return Array.from({ length: count }, (_, n) => {
    const t = n / (count - 1);
    return [t, format(valueAt(scale, t))];
  });
}

/**
 * The colour of a position, by matplotlib's rule: 256 equal bins.
 *
 * @param {number} t from 0 to 1
 * @returns {number} index into a colour table
 */
export function colourIndex(t) {
  const index = (t * 256) | 0;
  return index > 255 ? 255 : index;
}

/**
 * Colours values[from .. from + count) into out[0 .. count).
 *
 * @param {Numbers} values
 * @param {number} from
 * @param {number} count
 * @param {Scale} scale
 * @param {ColourTable} table
 * @param {Uint32Array} out
 */
export function colourise(values, from, count, scale, table, out) {
  checkLength(out, count);
  const { kind, low, high } = scale;
  if (kind === "linear" && high > low) {
    // The common case, without a call per value.
    const gain = 256 / (high - low);
    for (let n = 0; n < count; n++) {
      const index = ((values[from + n] - low) * gain) | 0;
      out[n] = table[index < 0 ? 0 : index > 255 ? 255 : index];
    }
    return;
  }
  for (let n = 0; n < count; n++) out[n] = table[colourIndex(positionOn(scale, values[from + n]))];
}

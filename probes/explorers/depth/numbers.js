// Numbers of the depth explorer: nearness, thresholds, plane, equalisation, by the rules of probes/depth.py. No DOM.

import { decodeArrays } from "#shared/bytes.js";
import { extent } from "#shared/statistics.js";

/** @import { Extent, Part } from "#shared/types.js" */

const LEVELS = 65536; // of the histogram equalisation

/**
 * @typedef {object} DepthMap
 * @property {string} name
 * @property {number} width
 * @property {number} height
 * @property {boolean} metric true: metres, larger is farther; false: inverse depth, larger is nearer
 * @property {Float32Array} values row by row
 * @property {number} low the smallest value
 * @property {number} high the largest value
 */

/** @typedef {{name: string, width: number, height: number, metric: boolean}} MapHeader */

/**
 * @typedef {object} Processing
 * @property {number} far pixels below this nearness are hidden, 0 to 1
 * @property {number} near pixels above this nearness are hidden, 0 to 1
 * @property {boolean} plane subtract the plane that best fits the remaining pixels
 * @property {boolean} equalise replace values by their rank among the remaining pixels
 */

/** @typedef {[number, number, number]} Plane [a, b, c] of a x + b y + c, with x and y from -1/2 to 1/2 */

/**
 * @typedef {object} Processed
 * @property {Uint8Array} mask 1 inside the thresholds
 * @property {Float32Array} values after the plane: depth, in the unit of the map
 * @property {Extent} span of the values inside the mask; 0 to 0 if it is empty
 * @property {Float32Array} shown what is coloured: the values, or their ranks after equalisation; meaningful inside the
 *   mask
 * @property {number} low the smallest shown value inside the mask; 0 if the mask is empty
 * @property {number} high the largest
 * @property {number} count pixels inside the mask
 * @property {Plane | null} plane the plane subtracted; null if none was asked for or the pixels do not determine one
 */

/**
 * A map from a message and its binary part.
 *
 * @param {MapHeader} header
 * @param {Part} part float32, little endian
 * @returns {DepthMap}
 * @throws {RangeError} if the header and the part disagree
 */
export function decodeDepth({ name, width, height, metric }, part) {
  const { values } = decodeArrays(name, [part], { values: width * height });
  const { low, high } = extent(values);
  return { name, width, height, metric, values, low, high };
}

/**
 * 0 at the map's farthest value, 1 at its nearest.
 *
 * @param {DepthMap} map
 * @param {number} value
 * @returns {number}
 */
export function nearnessOf(map, value) {
  if (!(map.high > map.low)) return 0;
  const unit = (value - map.low) / (map.high - map.low);
  return map.metric ? 1 - unit : unit;
}

/**
 * Metres at a nearness. Inverse distance is linear in nearness.
 *
 * @param {number} nearness
 * @param {number} nearest metres at nearness 1
 * @param {number} farthest metres at nearness 0
 * @returns {number}
 */
export function metresAt(nearness, nearest, farthest) {
  return 1 / (nearness * (1 / nearest - 1 / farthest) + 1 / farthest);
}

/**
 * @param {DepthMap} map
 * @param {number} far
 * @param {number} near
 * @returns {Uint8Array} 1 where far <= nearness <= near
 */
export function maskOf(map, far, near) {
  const mask = new Uint8Array(map.values.length);
  for (let n = 0; n < mask.length; n++) {
    // Python compares in float32.
    const unit = Math.fround(nearnessOf(map, map.values[n]));
    mask[n] = unit >= Math.fround(far) && unit <= Math.fround(near) ? 1 : 0;
  }
  return mask;
}

/**
 * The number of pixels in each bin of nearness.
 *
 * @param {DepthMap} map
 * @param {number} bins
 * @returns {Uint32Array} (bins)
 */
export function histogramOf(map, bins) {
  const counts = new Uint32Array(bins);
  for (const value of map.values) counts[Math.min(bins - 1, Math.floor(nearnessOf(map, value) * bins))]++;
  return counts;
}

/**
 * The plane that fits the masked pixels best by least squares.
 *
 * @param {DepthMap} map
 * @param {Uint8Array} mask
 * @returns {Plane | null} null if the masked pixels do not determine a plane
 */
export function planeOf(map, mask) {
  const { width, height, values } = map;
  let [count, sx, sy, sxx, sxy, syy, sv, sxv, syv] = [0, 0, 0, 0, 0, 0, 0, 0, 0];
  for (let row = 0, n = 0; row < height; row++) {
    const y = row / height - 0.5;
    for (let col = 0; col < width; col++, n++) {
      if (!mask[n]) continue;
      const x = col / width - 0.5;
      const v = values[n];
      count += 1;
      sx += x;
      sy += y;
      sxx += x * x;
      sxy += x * y;
      syy += y * y;
      sv += v;
      sxv += x * v;
      syv += y * v;
    }
  }
  if (count < 3) return null;
  const [mx, my, mv] = [sx / count, sy / count, sv / count];
  const [xx, xy, yy] = [sxx - mx * sx, sxy - mx * sy, syy - my * sy];
  const [xv, yv] = [sxv - mx * sv, syv - my * sv];
  const determinant = xx * yy - xy * xy;
  if (!(determinant > 1e-9 * xx * yy)) return null; // all on one line
  const a = (xv * yy - yv * xy) / determinant;
  const b = (yv * xx - xv * xy) / determinant;
  return [a, b, mv - a * mx - b * my];
}

/**
 * @param {DepthMap} map
 * @param {Plane} plane
 * @returns {Float32Array} the map minus the plane
 */
export function withoutPlane(map, [a, b, c]) {
  const { width, height, values } = map;
  const out = new Float32Array(values.length);
  for (let row = 0, n = 0; row < height; row++) {
    const base = b * (row / height - 0.5) + c;
    for (let col = 0; col < width; col++, n++) out[n] = values[n] - (a * (col / width - 0.5) + base);
  }
  return out;
}

/**
 * The smallest and the largest value inside a mask; {low: Infinity, high: -Infinity} if it is empty.
 *
 * @param {Float32Array} values
 * @param {Uint8Array} mask
 * @returns {Extent}
 */
function extentInside(values, mask) {
  let low = Infinity;
  let high = -Infinity;
  for (let n = 0; n < values.length; n++) {
    if (!mask[n]) continue;
    if (values[n] < low) low = values[n];
    if (values[n] > high) high = values[n];
  }
  return { low, high };
}

/**
 * Histogram equalisation: for each masked value the share of masked values below it, in 65536 levels of their range.
 *
 * @param {Float32Array} values
 * @param {Uint8Array} mask
 * @returns {Float32Array} 0 to 1; 0 outside the mask
 */
export function equalisedShares(values, mask) {
  const shares = new Float32Array(values.length);
  const { low, high } = extentInside(values, mask);
  if (!(high > low)) return shares;
  const gain = (LEVELS - 1) / (high - low);
  // below[level + 1] first counts the values of a level, then all values up to it.
  const below = new Uint32Array(LEVELS + 1);
  for (let n = 0; n < values.length; n++) if (mask[n]) below[Math.floor((values[n] - low) * gain) + 1]++;
  for (let level = 1; level <= LEVELS; level++) below[level] += below[level - 1];
  const top = below[LEVELS - 1]; // values below the highest level, which holds the largest value
  for (let n = 0; n < values.length; n++) if (mask[n]) shares[n] = below[Math.floor((values[n] - low) * gain)] / top;
  return shares;
}

/**
 * A map after thresholds, plane and equalisation.
 *
 * @param {DepthMap} map
 * @param {Processing} processing
 * @returns {Processed}
 */
export function processed(map, { far, near, plane, equalise }) {
  const mask = maskOf(map, far, near);
  const fitted = plane ? planeOf(map, mask) : null;
  const values = fitted ? withoutPlane(map, fitted) : map.values;
  const shown = equalise ? equalisedShares(values, mask) : values;
  let count = 0;
  for (const inside of mask) count += inside;
  const span = count ? extentInside(values, mask) : { low: 0, high: 0 };
  const { low, high } = equalise && count ? extentInside(shown, mask) : span;
  return { mask, values, span, shown, low, high, count, plane: fitted };
}

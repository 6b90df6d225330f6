// Depth maps as the kernel sends them: decoding, colouring, resampling. No DOM.
//
// A map holds 16-bit levels of its own range; 8-bit maps are widened on decoding. A pixel's colour depends on its level
// alone, so colouring builds one table of 65536 colours per map and looks up each pixel. The kernel colours animations
// by the same rules: `shade` in probes/figures/animation.py.

import { alignedBytes } from "#shared/bytes.js";
import { colourise, depthScale, linearScale } from "#shared/scale.js";

/** @import { ColourTable, Part, Scale } from "#shared/types.js" */

const LEVELS = 65536;

/**
 * @typedef {object} DepthMap
 * @property {number} width
 * @property {number} height
 * @property {number} low the value of level 0
 * @property {number} high the value of level 65535
 * @property {Uint16Array} levels row by row
 */

/**
 * @typedef {object} MapHeader
 * @property {number} width
 * @property {number} height
 * @property {number} low
 * @property {number} high
 * @property {number} bits per level: 8 or 16
 */

/**
 * @typedef {object} Colouring
 * @property {ColourTable} table low to high
 * @property {boolean} flip reverse the colours
 * @property {boolean} equalise give every colour about the same number of pixels
 * @property {[number, number] | null} span the values that the colours cover; null: the map's own range
 */

/**
 * A map from a message and its binary part.
 *
 * @param {MapHeader} header
 * @param {Part} part little endian
 * @returns {DepthMap}
 * @throws {RangeError} if the header and the part disagree
 */
export function decodeMap(header, part) {
  const { width, height, low, high, bits } = header;
  for (const [name, value] of Object.entries({ width, height })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(`map: ${name} must be a positive integer, got ${value}`);
    }
  }
  if (!(low <= high)) throw new RangeError(`map: the range must not be empty, got ${low} to ${high}`);
  const bytes = alignedBytes(part);
  const expected = (width * height * bits) / 8;
  if (bytes.byteLength !== expected) {
    throw new RangeError(
      `map: expected ${expected} bytes for ${width} x ${height} levels of ${bits} bits, got ${bytes.byteLength}`,
    );
  }
  const levels = bits === 8 ? Uint16Array.from(new Uint8Array(bytes), (level) => level * 257) : new Uint16Array(bytes);
  return { width, height, low, high, levels };
}

/**
 * @param {DepthMap} map
 * @param {number} level
 * @returns {number}
 */
export function valueOfLevel(map, level) {
  return map.low + (level / (LEVELS - 1)) * (map.high - map.low);
}

/**
 * The scale that the colours of a map cover. On a flat map every pixel gets the lowest colour.
 *
 * @param {DepthMap} map
 * @param {Pick<Colouring, "equalise" | "span">} colouring
 * @returns {Scale} of ranks, 0 to 1, if the map is equalised; else of values
 */
export function scaleOf(map, { equalise, span }) {
  if (equalise) return linearScale(0, 1);
  const [low, high] = span ?? [map.low, map.high];
  return depthScale(low, high);
}

// A slider move colours five maps: the values of their levels share one array.
const LEVEL_VALUES = new Float64Array(LEVELS);

/**
 * @param {DepthMap} map
 * @returns {Float64Array} the value of each level, until the next call
 */
function levelValues({ low, high }) {
  const step = (high - low) / (LEVELS - 1);
  for (let level = 0; level < LEVELS; level++) LEVEL_VALUES[level] = low + level * step;
  return LEVEL_VALUES;
}

/**
 * The colour of each level of a map.
 *
 * @param {DepthMap} map
 * @param {Colouring} colouring
 * @param {Uint32Array} [out] room for 65536 packed colours
 * @returns {Uint32Array} out
 */
export function levelColours(map, colouring, out = new Uint32Array(LEVELS)) {
  const { table, flip, equalise } = colouring;
  const values = equalise ? equalised(map.levels) : levelValues(map);
  colourise(values, 0, LEVELS, scaleOf(map, colouring), flip ? table.slice().reverse() : table, out);
  return out;
}

/**
 * Histogram equalisation: where each level ranks among the pixels, from 0 (the lowest) to 1.
 *
 * @param {Uint16Array} levels
 * @returns {Float64Array} (65536)
 */
export function equalised(levels) {
  const counts = new Uint32Array(LEVELS);
  for (const level of levels) counts[level]++;
  let lowest = 0;
  while (lowest < LEVELS - 1 && counts[lowest] === 0) lowest++;
  const first = counts[lowest];
  const rest = Math.max(1, levels.length - first);
  const ranks = new Float64Array(LEVELS);
  for (let level = 0, below = 0; level < LEVELS; level++) {
    below += counts[level];
    ranks[level] = Math.max(0, below - first) / rest;
  }
  return ranks;
}

/**
 * @param {DepthMap} map
 * @param {Uint32Array} colours of all levels
 * @param {Uint32Array} out one packed colour per pixel
 */
export function paintLevels({ levels }, colours, out) {
  for (let n = 0; n < levels.length; n++) out[n] = colours[levels[n]];
}

/**
 * The values of a map at another size: bilinear, corners aligned, as the models resize.
 *
 * @param {DepthMap} map
 * @param {number} width
 * @param {number} height
 * @returns {Float32Array} (height x width)
 */
export function valuesAt(map, width, height) {
  const out = new Float32Array(width * height);
  const gain = (map.high - map.low) / (LEVELS - 1);
  if (width === map.width && height === map.height) {
    for (let n = 0; n < out.length; n++) out[n] = map.low + map.levels[n] * gain;
    return out;
  }
  const stepX = stepBetween(map.width, width);
  const stepY = stepBetween(map.height, height);
  for (let row = 0; row < height; row++) {
    const y = row * stepY;
    const top = Math.min(map.height - 1, Math.floor(y));
    const bottom = Math.min(map.height - 1, top + 1);
    const down = y - top;
    for (let col = 0; col < width; col++) {
      const x = col * stepX;
      const left = Math.min(map.width - 1, Math.floor(x));
      const right = Math.min(map.width - 1, left + 1);
      const across = x - left;
      const upper = map.levels[top * map.width + left] * (1 - across) + map.levels[top * map.width + right] * across;
      const lower =
        map.levels[bottom * map.width + left] * (1 - across) + map.levels[bottom * map.width + right] * across;
      out[row * width + col] = map.low + (upper * (1 - down) + lower * down) * gain;
    }
  }
  return out;
}

/**
 * Source pixels per target pixel along an axis.
 *
 * @param {number} from
 * @param {number} to
 */
function stepBetween(from, to) {
  return to > 1 ? (from - 1) / (to - 1) : 0;
}

/**
 * The value under a point; points outside the map read its nearest pixel.
 *
 * @param {DepthMap} map
 * @param {number} x fraction of the width
 * @param {number} y fraction of the height
 * @returns {number}
 */
export function valueUnder(map, x, y) {
  const col = Math.min(map.width - 1, Math.max(0, Math.floor(x * map.width)));
  const row = Math.min(map.height - 1, Math.max(0, Math.floor(y * map.height)));
  return valueOfLevel(map, map.levels[row * map.width + col]);
}

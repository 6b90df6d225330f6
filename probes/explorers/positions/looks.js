// How images are painted: their values, scale and colours. No DOM.

import { lookup, signedColours } from "#shared/colours.js";
import { linearScale, logScale, signedScale, widened } from "#shared/scale.js";
import { extent, maxMagnitude, sumOf } from "#shared/statistics.js";
import { cutOf, MEAN, similarityTo } from "./data.js";

/** @import { ColourTable, Scale } from "#shared/types.js" */
/** @import { PositionData, Table } from "./data.js" */
/** @import { Cell } from "./places.js" */

/**
 * @typedef {object} Look
 * @property {PositionData} data
 * @property {number} index of the image, MEAN for the mean
 * @property {number} high
 * @property {number} wide
 * @property {Float32Array} values (high, wide)
 * @property {Scale} scale
 * @property {ColourTable} table
 * @property {number | null} power of a spectrum, its sum; null for values
 */

/**
 * @typedef {object} Style
 * @property {boolean} shared one scale for all images
 * @property {string} colormap of values without a sign
 * @property {boolean} dark
 */

/** Decades below its strongest wave that a spectrum shows. */
const DECADES = 4;

/**
 * A scale for values: around 0 if they have a sign, with some room if they are constant.
 *
 * @param {Float32Array} values
 * @param {boolean} signed
 * @returns {Scale}
 */
function scaleOf(values, signed) {
  if (signed) return signedScale(maxMagnitude(values) || 1e-12);
  const { low, high } = widened(extent(values));
  return linearScale(low, high);
}

/**
 * @param {PositionData} data
 * @returns {boolean} whether its values have a sign: those of tables always
 */
const isSigned = (data) => data.kind === "table" || data.signed;

/** @type {WeakMap<PositionData, Scale>} of all images of values together */
const valueScales = new WeakMap();

/** @type {WeakMap<Table, number>} power of the strongest wave of any channel */
const strongestWaves = new WeakMap();

/**
 * The scale of an image of values; its own, or that of all images together.
 *
 * @param {PositionData} data
 * @param {Float32Array} values of the image
 * @param {boolean} shared
 * @returns {Scale}
 */
function valueScale(data, values, shared) {
  if (!shared) return scaleOf(values, isSigned(data));
  const { count, high, wide } = data;
  const scale = valueScales.get(data) ?? scaleOf(data.values.subarray(0, count * high * wide), isSigned(data));
  valueScales.set(data, scale);
  return scale;
}

/**
 * @param {PositionData} data
 * @param {Style} style
 * @returns {ColourTable}
 */
function valueColours(data, { colormap, dark }) {
  return lookup(isSigned(data) ? signedColours(dark) : colormap);
}

/**
 * Image `index` of a table or of biases.
 *
 * @param {PositionData} data
 * @param {number} index
 * @param {Style} style
 * @returns {Look}
 */
export function imageLook(data, index, style) {
  const { high, wide, count } = data;
  const from = (index === MEAN ? count : index) * high * wide;
  const values = data.values.subarray(from, from + high * wide);
  const scale = valueScale(data, values, style.shared);
  return { data, index, high, wide, values, scale, table: valueColours(data, style), power: null };
}

/**
 * The spectrum of a channel.
 *
 * @param {Table} data
 * @param {number} index
 * @param {Style} style
 * @returns {Look}
 */
export function spectrumLook(data, index, { shared, colormap }) {
  const area = data.high * data.wide;
  const values = data.power.subarray(index * area, (index + 1) * area);
  let top = extent(values).high;
  if (shared) {
    top = strongestWaves.get(data) ?? extent(data.power).high;
    strongestWaves.set(data, top);
  }
  return powerLook(data, index, values, top, colormap);
}

/**
 * The mean spectrum of all channels.
 *
 * @param {Table} data
 * @param {Style} style
 * @returns {Look}
 */
export function meanSpectrumLook(data, { colormap }) {
  return powerLook(data, MEAN, data.meanPower, extent(data.meanPower).high, colormap);
}

/**
 * @param {Table} data
 * @param {number} index
 * @param {Float32Array} values
 * @param {number} top power at the top of the scale
 * @param {string} colormap
 * @returns {Look}
 */
function powerLook(data, index, values, top, colormap) {
  const { high, wide } = data;
  const scale = logScale(0, Math.max(top, 1e-30), DECADES); // a channel without power takes the darkest colour
  return { data, index, high, wide, values, scale, table: lookup(colormap), power: sumOf(values) };
}

/**
 * What is painted on the grid for the position on display: its similarity with all positions, or the bias from it to
 * every key.
 *
 * @param {PositionData} data
 * @param {Readonly<Cell>} cell
 * @param {Style & {centred: boolean, head: number}} style head: of biases, MEAN for the mean
 * @param {Float32Array} out (rows * cols + 1): of a table, the last one is the similarity with the class token
 * @returns {Look}
 */
export function gridLook(data, [row, col], style, out) {
  const { rows, cols } = data;
  const values = out.subarray(0, rows * cols);
  if (data.kind === "table") {
    similarityTo(data, row * cols + col, style.centred, out);
    const scale = scaleOf(values, false);
    return { data, index: MEAN, high: rows, wide: cols, values, scale, table: lookup(style.colormap), power: null };
  }
  const { index, scale, table } = imageLook(data, style.head, style);
  cutOf(data, index === MEAN ? data.count : index, row, col, values);
  return { data, index, high: rows, wide: cols, values, scale, table, power: null };
}

// Position tables and biases as they arrive from the kernel, and what follows from them for one position. No DOM.
//
// Both hold images: one per channel of a table, one per head of a block's biases. Offset images of biases run from the
// query, which is in the middle, to the key. What one query adds to the logits of all keys is a cut of rows x cols:
//
//     . . . . .       query (0, 0) of 3 x 3      query (1, 2)
//     . . . . .       sees the cut  Q k k        sees the cut  k k k
//     . . Q . .                     k k k                      k k Q
//     . . . . .                     k k k                      k k k
//     . . . . .

import { decodeArrays } from "#shared/bytes.js";
import { cosinesTo, directionOf, frameOf, inverseLength } from "#shared/similarity.js";
import { extent } from "#shared/statistics.js";

/** @import { Frame } from "#shared/similarity.js" */
/** @import { Message, Part } from "#shared/types.js" */

/**
 * @typedef {Message & {height: number, width: number, count: number, rows: number, cols: number, stored: boolean}}
 *   TableMessage
 */

/**
 * @typedef {Message & {
 *   height: number, width: number, block: number, count: number, rows: number, cols: number, windowed: boolean,
 *   shifted: boolean, prefix: boolean,
 * }} BiasMessage
 */

/**
 * What both encodings have.
 *
 * @typedef {object} Images
 * @property {number} height of the input, in pixels
 * @property {number} width
 * @property {number} count of images, the mean of heads excluded
 * @property {number} rows of positions; of keys
 * @property {number} cols
 * @property {number} high of an image
 * @property {number} wide
 * @property {Float32Array} values (images, high, wide); of biases, the mean of heads is the last image
 * @property {Float32Array} strength standard deviation of each image
 */

/**
 * @typedef {Images & {
 *   kind: "table", stored: boolean, classToken: Float32Array, frequency: Float32Array, meanPower: Float32Array,
 *   power: Float32Array, frames: [plain: PositionFrame, centred: PositionFrame],
 * }} Table power: (channels, down, right), the constant in the middle
 */

/**
 * @typedef {Images & {
 *   kind: "bias", block: number, windowed: boolean, shifted: boolean, ofPrefix: Float32Array | null, signed: boolean,
 * }} Bias ofPrefix: (heads, 3) entries of the class token: to patches, from patches, to itself; signed: values below 0
 *   occur
 */

/** @typedef {Table | Bias} PositionData */

/** @typedef {{frame: Frame, inverseOfClass: number}} PositionFrame inverseOfClass: one over the class token's length */

/** The number of the mean of heads. */
export const MEAN = -1;

/**
 * @param {TableMessage} message
 * @param {Part[]} parts
 * @returns {Table}
 */
export function decodeTable(message, parts) {
  const { count, rows, cols } = message;
  const area = rows * cols;
  const arrays = decodeArrays("table", parts, {
    values: count * area,
    classToken: count,
    strength: count,
    frequency: count,
    meanPower: area,
    power: count * area,
  });
  const { height, width, stored } = message;
  const frames = /** @type {[PositionFrame, PositionFrame]} */ (
    [false, true].map((centred) => positionFrame(arrays.values, arrays.classToken, area, centred))
  );
  return { kind: "table", height, width, count, rows, cols, stored, high: rows, wide: cols, ...arrays, frames };
}

/**
 * @param {BiasMessage} message
 * @param {Part[]} parts
 * @returns {Bias}
 */
export function decodeBias(message, parts) {
  const { height, width, block, count, rows, cols, windowed, shifted, prefix } = message;
  const [high, wide] = [2 * rows - 1, 2 * cols - 1];
  const area = high * wide;
  const expected = { heads: count * area, strength: count };
  const { heads, strength, ofPrefix } = prefix
    ? decodeArrays("bias", parts, { ...expected, ofPrefix: 3 * count })
    : { ...decodeArrays("bias", parts, expected), ofPrefix: null };
  const values = new Float32Array((count + 1) * area);
  values.set(heads);
  for (let n = 0; n < area; n++) {
    let sum = 0;
    for (let head = 0; head < count; head++) sum += heads[head * area + n];
    values[count * area + n] = sum / count;
  }
  const signed = extent(heads).low < 0;
  return {
    ...{ kind: "bias", height, width, block, count, rows, cols, windowed, shifted },
    ...{ high, wide, values, strength, ofPrefix, signed },
  };
}

/**
 * @param {PositionData} data
 * @returns {number} bytes of its images
 */
export function positionBytes(data) {
  return data.values.byteLength + (data.kind === "table" ? data.power.byteLength : 0);
}

/**
 * @param {Float32Array} values (channels, positions)
 * @param {Float32Array} classToken (channels)
 * @param {number} positions
 * @param {boolean} centred
 * @returns {PositionFrame}
 */
function positionFrame(values, classToken, positions, centred) {
  const frame = frameOf(values, classToken.length, positions, 0, centred);
  const square = classToken.reduce((sum, value, c) => sum + (value - frame.mean[c]) ** 2, 0);
  return { frame, inverseOfClass: inverseLength(square) };
}

/**
 * Cosines of one position's vector with all positions, and with the class token behind them.
 *
 * @param {Table} table
 * @param {number} at index of the position
 * @param {boolean} centred whether to subtract the mean of all positions first
 * @param {Float32Array} out (positions + 1)
 */
export function similarityTo({ values, classToken, rows, cols, frames }, at, centred, out) {
  const positions = rows * cols;
  if (!Number.isInteger(at) || at < 0 || at >= positions) {
    throw new RangeError(`position must be a whole number from 0 to ${positions - 1}, got ${at}`);
  }
  const { frame, inverseOfClass } = frames[Number(centred)];
  const direction = directionOf(values, frame, at);
  cosinesTo(values, frame, direction, out);
  out[positions] =
    inverseOfClass * direction.reduce((sum, value, c) => sum + value * (classToken[c] - frame.mean[c]), 0);
}

/**
 * The bias from a query to every key.
 *
 * @param {Bias} bias
 * @param {number} index of the image
 * @param {number} row of the query
 * @param {number} col
 * @param {Float32Array} out (rows * cols)
 */
export function cutOf({ values, high, wide, rows, cols }, index, row, col, out) {
  for (let r = 0; r < rows; r++) {
    const from = index * high * wide + (rows - 1 - row + r) * wide + cols - 1 - col;
    out.set(values.subarray(from, from + cols), r * cols);
  }
}

/**
 * Indices of the images in display order: by number, strongest first, or slowest waves first. Biases begin with MEAN.
 *
 * @param {PositionData} data
 * @param {"index" | "strength" | "frequency"} order
 * @returns {number[]}
 */
export function imageOrder(data, order) {
  const indices = Array.from({ length: data.count }, (_, n) => n);
  const { strength } = data;
  if (order === "strength") indices.sort((a, b) => strength[b] - strength[a] || a - b);
  else if (order === "frequency" && data.kind === "table") {
    const { frequency } = data;
    indices.sort((a, b) => frequency[a] - frequency[b] || a - b);
  }
  return data.kind === "bias" ? [MEAN, ...indices] : indices;
}

/**
 * The name of an image.
 *
 * @param {PositionData} data
 * @param {number} index MEAN, and the index after the last head, for the mean
 * @returns {string}
 */
export function imageName({ kind, count }, index) {
  if (index === MEAN || index === count) return kind === "bias" ? "Mean of heads" : "Mean";
  return `${kind === "bias" ? "Head" : "Channel"} ${index}`;
}

/**
 * What the data is, in words.
 *
 * @param {PositionData} data
 * @returns {string}
 */
export function describe(data) {
  const { count, rows, cols, height, width } = data;
  const grid = `${rows} \u00d7 ${cols}`;
  const input = `(input of ${height} \u00d7 ${width} pixels)`;
  if (data.kind === "table") {
    const origin = data.stored ? "as stored" : "resized from 37 \u00d7 37";
    return `Table of ${count} channels, ${grid} positions, ${origin} ${input}`;
  }
  const heads = `${count} ${count === 1 ? "head" : "heads"}`;
  const keys = `${data.windowed ? "windows" : "grid"} of ${grid} tokens`;
  return `Block ${data.block}: relative biases of ${heads}, ${keys} ${input}`;
}

// The norms and channels of blocks as they arrive from the kernel, and what follows from the channels. No DOM.

import { decodeArrays } from "#shared/bytes.js";
import { cosinesTo, directionOf, frameOf } from "#shared/similarity.js";
import { extent } from "#shared/statistics.js";
import { centreAndSpread } from "./outliers.js";

/** @import { Frame } from "#shared/similarity.js" */
/** @import { Message, Part } from "#shared/types.js" */

/**
 * @typedef {Message & {prefix: number, numbers: number[], blocks: [rows: number, cols: number, channels: number][]}}
 *   NormsMessage numbers: of the blocks
 */

/** @typedef {Message & {block: number, channels: number, tokens: number, unit: number}} TokensMessage */

/**
 * The norms of one block. `low`, `high`, `median` and `spread` are of its patches; see outliers.js for the last two.
 *
 * @typedef {object} NormBlock
 * @property {number} block its number
 * @property {number} rows
 * @property {number} cols
 * @property {number} prefix tokens before the patches
 * @property {number} tokens
 * @property {number} channels
 * @property {Float32Array} values (tokens)
 * @property {number} low
 * @property {number} high
 * @property {number} median
 * @property {number} spread
 */

/**
 * The output tokens of one block.
 *
 * @typedef {object} BlockChannels
 * @property {number} block its number
 * @property {number} channels
 * @property {number} tokens
 * @property {Float32Array} values (channels, tokens)
 * @property {Map<boolean, Frame>} frames for similarities, by whether they are centred; filled on demand
 */

/**
 * Decodes the norms of all blocks: float32, block after block, each with its prefix tokens and then its patches.
 *
 * @param {NormsMessage} header
 * @param {Part[]} parts
 * @returns {NormBlock[]}
 */
export function decodeNorms({ prefix, numbers, blocks }, parts) {
  const counts = blocks.map(([rows, cols]) => prefix + rows * cols);
  const { norms } = decodeArrays("norms", parts, { norms: counts.reduce((sum, count) => sum + count, 0) });
  let from = 0;
  return blocks.map(([rows, cols, channels], n) => {
    const tokens = counts[n];
    const values = norms.subarray(from, from + tokens);
    from += tokens;
    const statistics = { ...extent(values, prefix), ...centreAndSpread(values, prefix) };
    return { block: numbers[n], rows, cols, prefix, tokens, channels, values, ...statistics };
  });
}

/**
 * Decodes the channels of a block: fp16 in units of `unit`.
 *
 * @param {TokensMessage} header
 * @param {Part[]} parts
 * @returns {BlockChannels}
 */
export function decodeTokens({ block, channels, tokens, unit }, parts) {
  const { values } = decodeArrays("tokens", parts, { values: channels * tokens }, ["values"]);
  if (unit !== 1) for (let n = 0; n < values.length; n++) values[n] *= unit;
  return { block, channels, tokens, values, frames: new Map() };
}

/**
 * The cosine of each token of a block with one of them.
 *
 * @param {BlockChannels} data
 * @param {number} prefix tokens before the patches
 * @param {number} token
 * @param {boolean} centred whether to subtract the mean of the patches first
 * @returns {Float32Array} (tokens): 1 for the same direction, 0 for a right angle
 */
export function similarityWith({ values, channels, tokens, frames }, prefix, token, centred) {
  const frame = frames.get(centred) ?? frameOf(values, channels, tokens, prefix, centred);
  frames.set(centred, frame);
  const out = new Float32Array(tokens);
  cosinesTo(values, frame, directionOf(values, frame, token), out);
  return out;
}

/**
 * The channel that is largest in magnitude at a token.
 *
 * @param {Pick<BlockChannels, "channels" | "tokens" | "values">} data
 * @param {number} token
 * @returns {number}
 */
export function strongestChannel({ channels, tokens, values }, token) {
  let best = 0;
  for (let c = 1; c < channels; c++) {
    if (Math.abs(values[c * tokens + token]) > Math.abs(values[best * tokens + token])) best = c;
  }
  return best;
}

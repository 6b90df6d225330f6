// The map of the chosen block that is enlarged and laid over the picture: its norms, a channel, or similarities. No DOM.

import { lookup } from "#shared/colours.js";
import { tokenName } from "#shared/patches.js";
import { linearScale, logScale, signedScale } from "#shared/scale.js";
import { extent, maxMagnitude } from "#shared/statistics.js";
import { similarityWith } from "./blocks.js";

/** @import { ColourTable, Scale } from "#shared/types.js" */
/** @import { BlockChannels, NormBlock } from "./blocks.js" */

/** @typedef {"norm" | "channel" | "similarity"} Quantity */

/** @type {readonly Quantity[]} */
export const QUANTITIES = ["norm", "channel", "similarity"];

/**
 * @typedef {object} ShownMap
 * @property {Quantity} what
 * @property {NormBlock} block
 * @property {Float32Array} values (tokens) of the block, prefix tokens first
 * @property {Float32Array} patches (rows * cols): the values of the patches
 * @property {Scale} scale
 * @property {ColourTable} table
 * @property {boolean} signed whether the colours tell signs apart
 * @property {number | null} channel what === "channel": its number
 * @property {number | null} anchor what === "similarity": the token that the others are compared with
 */

/**
 * Scales of the norm maps, one per block.
 *
 * @param {readonly NormBlock[]} blocks
 * @param {"block" | "shared" | "log"} mode
 * @returns {Scale[]}
 */
export function normScales(blocks, mode) {
  if (mode === "block") return blocks.map(({ low, high }) => linearScale(low, high));
  const low = Math.min(...blocks.map((block) => block.low));
  const high = Math.max(...blocks.map((block) => block.high));
  const scale = mode === "log" ? logScale(low, high) : linearScale(low, high);
  return blocks.map(() => scale);
}

/**
 * @param {NormBlock} block
 * @param {Scale} scale
 * @param {ColourTable} table
 * @returns {ShownMap}
 */
export function normMap(block, scale, table) {
  const { values, prefix } = block;
  const patches = values.subarray(prefix);
  return { what: "norm", block, values, patches, scale, table, signed: false, channel: null, anchor: null };
}

/**
 * @param {NormBlock} block
 * @param {BlockChannels} data of the same block
 * @param {number} channel
 * @param {string} signedTable colours of values with a sign
 * @returns {ShownMap}
 */
export function channelMap(block, data, channel, signedTable) {
  const values = data.values.subarray(channel * data.tokens, (channel + 1) * data.tokens);
  const patches = values.subarray(block.prefix);
  const scale = signedScale(maxMagnitude(patches) || 1);
  const table = lookup(signedTable);
  return { what: "channel", block, values, patches, scale, table, signed: true, channel, anchor: null };
}

/**
 * Uncentred cosines are all large, and their differences matter: they span their own range. Of centred ones, 0 has a
 * meaning: they span -1 to 1.
 *
 * @param {NormBlock} block
 * @param {BlockChannels} data of the same block
 * @param {number} anchor
 * @param {boolean} centred
 * @param {string} signedTable colours of centred similarities
 * @param {ColourTable} table colours of others
 * @returns {ShownMap}
 */
export function similarityMap(block, data, anchor, centred, signedTable, table) {
  const values = similarityWith(data, block.prefix, anchor, centred);
  const patches = values.subarray(block.prefix);
  const { low, high } = extent(patches);
  const look = centred
    ? { scale: signedScale(1), table: lookup(signedTable) }
    : { scale: linearScale(low, high), table };
  return { what: "similarity", block, values, patches, ...look, signed: centred, channel: null, anchor };
}

/**
 * What a map shows, in words.
 *
 * @param {ShownMap} map
 * @param {string} [anchorName] of the token that the others are compared with
 * @returns {string}
 */
export function nameOf({ what, block, signed, channel, anchor }, anchorName) {
  if (what === "norm") return "norm";
  if (what === "channel") return `channel ${channel}`;
  return `${signed ? "centred " : ""}similarity with ${anchorName ?? tokenName(block, anchor ?? 0)}`;
}

/**
 * The quantity of a map with its unit.
 *
 * @param {ShownMap} map
 * @returns {string}
 */
export function unitOf(map) {
  if (map.what === "norm") return "L2 norm of a token";
  return map.what === "channel" ? `value of channel ${map.channel}` : `cosine, ${nameOf(map)}`;
}

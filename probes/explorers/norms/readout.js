// The line under the picture, the colour bar and the facts, in numbers and words. No DOM.

import { formatFixed, formatNumber } from "#shared/format.js";
import { tokenName } from "#shared/patches.js";
import { positionOn, ticksOf } from "#shared/scale.js";
import { extent, sumOf } from "#shared/statistics.js";
import { nameOf } from "./shown_map.js";

/** @import { ColourTable, Scale } from "#shared/types.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { Outliers } from "./outliers.js" */
/** @import { ShownMap } from "./shown_map.js" */

/**
 * How far a norm is from the median of its block's patches.
 *
 * @param {NormBlock} block
 * @param {Outliers} outliers
 * @param {number} norm
 * @returns {string} "" where all norms are equal
 */
function deviationText({ median, spread }, { threshold }, norm) {
  if (!(spread > 0)) return "";
  const deviations = (norm - median) / spread;
  const word = norm > threshold ? "outlier, " : "";
  return ` \u00b7 ${word}${formatFixed(Math.abs(deviations), 1)} MAD ${deviations < 0 ? "below" : "above"} the median`;
}

/**
 * The token to describe.
 *
 * @typedef {object} Reading
 * @property {NormBlock} block
 * @property {Outliers} outliers of the block
 * @property {number} token of the block
 * @property {ShownMap | null} map the displayed map, unless it shows the norm
 */

/**
 * @param {Reading} reading
 * @returns {[name: string, text: string]}
 */
export function readoutOf({ block, outliers, token, map }) {
  const norm = block.values[token];
  const isPrefix = token < block.prefix;
  const name = `${isPrefix ? "Token" : "Patch"} ${tokenName(block, token)}`;
  if (!map || map.what === "norm") {
    const deviation = isPrefix ? "" : deviationText(block, outliers, norm);
    return [name, `block ${block.block}: norm ${formatNumber(norm)}${deviation}`];
  }
  // The similarity of a token with itself says nothing.
  const value = token === map.anchor ? nameOf(map, "this one") : `${nameOf(map)} is ${formatNumber(map.values[token])}`;
  return [name, `block ${block.block}: ${value}, norm ${formatNumber(norm)}`];
}

/**
 * The colour bar of the displayed map.
 *
 * @param {Reading} reading
 * @param {{scale: Scale, table: ColourTable, shared: boolean}} norms how the norm maps are coloured; `shared`: with one
 *   range
 * @returns {{table: ColourTable, ticks: [number, string][], at: number | null, note: string}}
 */
export function barOf({ block, token, map }, norms) {
  const { scale, table } = map ?? norms;
  const value = (map ?? block).values[token];
  const at = map && token < block.prefix ? null : positionOn(scale, value);
  const range = norms.shared ? "one range for all blocks" : "each block has its own range";
  const what = map && map.what !== "norm" ? nameOf(map) : range;
  return { table, ticks: ticksOf(scale, 5, formatNumber), at, note: `Block ${block.block}; ${what}` };
}

/**
 * The numbers beside the enlarged map.
 *
 * @param {ShownMap} map
 * @param {Outliers} outliers
 * @returns {[name: string, value: string][]}
 */
export function factsOf({ what, block, values, patches }, { threshold, tokens }) {
  const { low, high } = extent(patches);
  /** @type {[string, string][]} */
  const prefix = Array.from({ length: block.prefix }, (_, n) => [tokenName(block, n), formatNumber(values[n])]);
  /** @type {[string, string]} */
  const range = ["range", `${formatNumber(low)} to ${formatNumber(high)}`];
  if (what !== "norm") return [range, ["mean", formatNumber(sumOf(patches) / patches.length)], ...prefix];
  return [
    range,
    ["median", `${formatNumber(block.median)}, MAD ${formatNumber(block.spread)}`],
    ...prefix,
    ["outliers", `${tokens.length} above ${formatNumber(threshold)}`],
  ];
}

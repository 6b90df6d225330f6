// What the attention explorer says in numbers and words. No DOM.

import { formatFixed, formatNumber, formatPercent, formatShortPercent } from "#shared/format.js";
import { prefixName, tokenName } from "#shared/patches.js";
import { positionOn, ticksOf, valueAt } from "#shared/scale.js";
import { argMax, entropyOf } from "#shared/statistics.js";
import { isLogarithmic } from "./scales.js";

/** @import { Grid, Scale } from "#shared/types.js" */
/** @import { Block } from "./block.js" */
/** @import { Mode } from "./selection.js" */

/**
 * The map to describe: a tile, or the mean of all.
 *
 * @typedef {{index: number, name: string, scale: Scale}} Map
 */

/**
 * A weight as the tiles write it; finer only where a logarithmic scale reaches that far.
 *
 * @param {Scale} scale
 * @param {number} value
 * @returns {string}
 */
export function formatWeight(scale, value) {
  const fine = isLogarithmic(scale) && Math.abs(value) >= valueAt(scale, 0);
  return fine ? formatPercent(value) : formatShortPercent(value);
}

/**
 * The sum of a column: 1 on average over tokens.
 *
 * @param {number} sum
 * @returns {string}
 */
export function formatSum(sum) {
  return `\u03a3 ${sum < 0.01 ? "<0.01" : formatNumber(sum)}`;
}

/**
 * The colour bar of a map.
 *
 * @param {Map} map
 * @param {object} read
 * @param {Float32Array} read.values (heads + 1, tokens)
 * @param {Grid} read.grid
 * @param {number} read.token that the pointer reads off; -1 for none
 * @param {boolean} read.shared whether all tiles have one scale
 * @returns {{ticks: [number, string][], at: number | null, note: string}}
 */
export function barOf({ index, name, scale }, { values, grid, token, shared }) {
  // A logarithmic bar begins with its lowest value, not with 0.
  const ticks = ticksOf(scale, isLogarithmic(scale) ? 5 : 3, formatPercent);
  if (token < 0)
    return { ticks, at: null, note: shared ? "one range for all tiles" : `${name}; each tile has its own range` };
  const value = values[index * (grid.prefix + grid.rows * grid.cols) + token];
  const note = `${name} at ${tokenName(grid, token)}: ${formatWeight(scale, value)}`;
  return { ticks, at: positionOn(scale, value), note };
}

/**
 * The line under the picture: the tokens, and what stands out in a map.
 *
 * @param {Map} map
 * @param {object} shown
 * @param {Block} shown.block
 * @param {Float32Array} shown.values (heads + 1, tokens)
 * @param {Mode} shown.mode
 * @param {readonly [a: number, b: number]} shown.tokens
 * @param {"row" | "column"} shown.direction
 * @returns {[name: string, text: string, title: string]}
 */
export function readoutOf({ index, name, scale }, { block, values, mode, tokens, direction }) {
  const from = index * block.tokens;
  const top = argMax(values, from + block.prefix, block.tokens - block.prefix) - from;
  const peak = `${formatWeight(scale, values[from + top])} at ${tokenName(block, top)}`;
  if (mode === "difference") {
    const [a, b] = tokens.map((token) => tokenName(block, token));
    return [`A ${a} \u2212 B ${b}`, `${name}: A leads most, by ${peak}`, ""];
  }
  const token = tokens[mode === "b" ? 1 : 0];
  const entropy = formatFixed(entropyOf(values, from, block.tokens), 2);
  return [
    token < block.prefix ? `Token ${prefixName(token)}` : `Patch ${tokenName(block, token)}`,
    `${name}: strongest ${peak} \u00b7 entropy ${entropy} nats`,
    `Entropy over all tokens${direction === "column" ? ", of the column divided by its sum" : ""}`,
  ];
}

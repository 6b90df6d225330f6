// The line under the grid, the colour bars and the words beside the grid. No DOM.

import { formatFixed, formatNumber, formatOffset, formatShortPercent } from "#shared/format.js";
import { positionOn, ticksOf } from "#shared/scale.js";
import { argMax } from "#shared/statistics.js";
import { imageName, MEAN } from "./data.js";

/** @import { Bias, Table } from "./data.js" */
/** @import { Look } from "./looks.js" */
/** @import { Cell } from "./places.js" */

/** @typedef {{ticks: [number, string][], at: number | null, note: string}} Bar */

/**
 * @param {number} down
 * @param {number} right
 * @returns {string}
 */
function offsetText(down, right) {
  return `${formatOffset(down)} down, ${formatOffset(right)} right`;
}

/**
 * @param {Look} look
 * @param {Readonly<Cell>} cell
 * @returns {number}
 */
function valueIn({ values, wide }, [row, col]) {
  return values[row * wide + col];
}

/**
 * The line under the grid.
 *
 * @param {Look} grid
 * @param {Readonly<Cell>} cell of the position on display
 * @param {Readonly<Cell> | null} read the cell under the pointer, while the position is pinned
 * @param {number} ofClass table: similarity with the class token
 * @returns {[name: string, text: string]}
 */
export function readoutOf(grid, cell, read, ofClass) {
  const { data, values, wide } = grid;
  const place = `(${cell.join(", ")})`;
  if (data.kind === "table") {
    if (read) return [`Position ${place}`, `cosine ${formatNumber(valueIn(grid, read))} with (${read.join(", ")})`];
    const near = values.reduce((count, value) => count + Number(value > 0.5), 0);
    const shares = `cosine over 0.5: ${near} of ${values.length}`;
    return [`Position ${place}`, `${shares} \u00b7 class token ${formatNumber(ofClass)}`];
  }
  const best = argMax(values);
  const at = read ?? [Math.floor(best / wide), best % wide];
  const value = formatNumber(values[at[0] * wide + at[1]]);
  const offset = offsetText(at[0] - cell[0], at[1] - cell[1]);
  return [`Query ${place}`, `${imageName(data, grid.index)}: ${read ? "" : "largest "}${value} at ${offset}`];
}

/**
 * The colour bar under the grid.
 *
 * @param {Look} grid
 * @param {Readonly<Cell> | null} read
 * @param {boolean} pinned
 * @returns {Bar}
 */
export function gridBar(grid, read, pinned) {
  return {
    ticks: ticksOf(grid.scale, 3, formatNumber),
    at: read && positionOn(grid.scale, valueIn(grid, read)),
    note: pinned ? "pinned" : "click to pin",
  };
}

/**
 * The colour bar under the images.
 *
 * @param {Look} look of the image under the pointer, else of the enlarged or the first one
 * @param {Readonly<Cell> | null} cell under the pointer
 * @param {boolean} shared one range for all images
 * @returns {Bar}
 */
export function imageBar(look, cell, shared) {
  const { data, index, scale } = look;
  const ticks = ticksOf(scale, 3, formatNumber);
  const name = imageName(data, index);
  if (!cell) {
    return { ticks, at: null, note: shared ? "one range for all images" : `${name}; each image has its own range` };
  }
  const value = valueIn(look, cell);
  let text = ` at (${cell.join(", ")}): ${formatNumber(value)}`;
  if (data.kind === "bias") {
    text = `: ${formatNumber(value)}, key ${offsetText(cell[0] - data.rows + 1, cell[1] - data.cols + 1)}`;
  } else if (look.power !== null) text = `: ${waveText(look, cell)} of the power`;
  return { ticks, at: positionOn(scale, value), note: name + text };
}

/**
 * A wave of a spectrum and its share of the power.
 *
 * @param {Look} look
 * @param {Readonly<Cell>} cell
 * @returns {string}
 */
function waveText(look, cell) {
  const { high, wide, power } = look;
  const periods = offsetText(cell[0] - Math.floor(high / 2), cell[1] - Math.floor(wide / 2));
  const share = formatShortPercent(valueIn(look, cell) / Math.max(power ?? 0, 1e-30));
  return `wave ${periods}${look.index === MEAN ? ":" : ","} ${share}`;
}

const SPECTRUM_WORDS =
  "Power of the whole table by waves across the grid, over four decades. The constant is in the middle; waves farther from it are finer.";

/**
 * The words beside the mean spectrum.
 *
 * @param {Look} spectrum
 * @param {Readonly<Cell> | null} cell under the pointer
 * @returns {string}
 */
export function spectrumText(spectrum, cell) {
  return cell ? `${waveText(spectrum, cell)} of the table's power` : SPECTRUM_WORDS;
}

/**
 * The words below the grid of biases: entries of the class token, or what the grid is.
 *
 * @param {Bias} bias
 * @param {number} head MEAN for the mean of heads
 * @returns {string}
 */
export function biasText(bias, head) {
  const { ofPrefix, count, windowed, shifted } = bias;
  if (!ofPrefix) {
    const hidden =
      " Its windows are shifted. Windows at the border also hide tokens that wrap around from the other side; the grid does not show this mask.";
    return (windowed ? "The grid is one window of this block." : "") + (shifted ? hidden : "");
  }
  const heads = head === MEAN ? Array.from({ length: count }, (_, n) => n) : [head];
  /** @param {number} n */
  const entry = (n) => formatNumber(heads.reduce((sum, one) => sum + ofPrefix[3 * one + n], 0) / heads.length);
  const name = imageName(bias, head).toLowerCase();
  return `Class token, ${name}: to patches ${entry(0)}, from patches ${entry(1)}, to itself ${entry(2)}`;
}

/**
 * The caption of an image: its strength, or its frequency.
 *
 * @param {Look} look
 * @param {boolean} byFrequency
 * @returns {string} "" for the mean
 */
export function detailOf({ data, index }, byFrequency) {
  if (index === MEAN) return "";
  if (byFrequency) return `${formatFixed(/** @type {Table} */ (data).frequency[index], 1)} waves`;
  return `sd ${formatNumber(data.strength[index] ?? 0)}`;
}

/**
 * The title of a saved image.
 *
 * @param {Look} grid
 * @param {Readonly<Cell>} cell
 * @returns {string}
 */
export function titleOf({ data, index }, cell) {
  const place = `(${cell.join(", ")})`;
  const what =
    data.kind === "bias"
      ? `Relative bias of block ${data.block}, query ${place}, ${imageName(data, index).toLowerCase()}`
      : `Position table, similarity with ${place}`;
  return `${what}, input ${data.height} \u00d7 ${data.width}`;
}

/**
 * The quantity of an image with its unit.
 *
 * @param {Look} look
 * @param {boolean} onGrid whether it lies on the grid
 * @returns {string}
 */
export function unitOf({ data, power }, onGrid) {
  if (data.kind === "bias") return "bias, added to the logit";
  if (onGrid) return "cosine";
  return power === null ? "value of the position table" : "power of a wave, logarithmic";
}

// The readout of the fusion explorer: the value under the pointer, or the range of what is on display. No DOM.

import { formatNumber, MINUS } from "#shared/format.js";
import { valueUnder } from "./depth_map.js";

/** @import { DepthMap } from "./depth_map.js" */

/** @typedef {"scaled" | "unscaled" | "difference" | "picture"} Show what the map area displays */

/** @type {Record<Show, string>} */
const NAMES = { scaled: "Scaled", unscaled: "Unscaled", difference: `Scaled ${MINUS} unscaled`, picture: "Picture" };

/**
 * A heading and a sentence.
 *
 * @param {object} display
 * @param {Show} display.show
 * @param {DepthMap} display.scaled
 * @param {DepthMap} display.unscaled
 * @param {{width: number, height: number, metric: boolean}} display.about of the picture and the model
 * @param {[x: number, y: number] | null} display.pointer fractions of the picture
 * @returns {[heading: string, sentence: string]}
 */
export function readoutWords({ show, scaled, unscaled, about, pointer }) {
  const unit = about.metric ? " m" : "";
  if (pointer) {
    const [x, y] = pointer;
    const now = valueUnder(scaled, x, y);
    const before = valueUnder(unscaled, x, y);
    const values = Object.entries({ scaled: now, unscaled: before, change: now - before });
    return [
      `Row ${pixelAt(y, about.height)}, column ${pixelAt(x, about.width)}`,
      values.map(([name, value]) => `${name} ${formatNumber(value)}${unit}`).join(" \u00b7 "),
    ];
  }
  if (show === "picture") return [NAMES.picture, ""];
  if (show === "difference") return [NAMES.difference, "red: larger with these scales, blue: smaller"];
  const { low, high } = show === "unscaled" ? unscaled : scaled;
  const what = about.metric ? "depth" : "inverse depth";
  if (low === high) {
    return [NAMES[show], `${what} ${formatNumber(low)}${unit} everywhere: the head's last ReLU passes nothing`];
  }
  return [NAMES[show], `${what} ${formatNumber(low)} to ${formatNumber(high)}${unit}`];
}

/**
 * @param {number} share of the side
 * @param {number} side in pixels
 */
function pixelAt(share, side) {
  return Math.min(side - 1, Math.max(0, Math.floor(share * side)));
}

/**
 * The points whose scale is not 1, for a label.
 *
 * @param {readonly string[]} points
 * @param {readonly number[]} scales
 * @returns {string}
 */
export function settingWords(points, scales) {
  const changed = points.flatMap((point, n) => (scales[n] === 1 ? [] : [`${point} \u00d7 ${signed(scales[n])}`]));
  return changed.length ? changed.join(", ") : "unscaled";
}

/**
 * A scale with a true minus sign and all its decimals.
 *
 * @param {number} scale
 * @returns {string}
 */
export function signed(scale) {
  return String(scale).replace("-", MINUS);
}

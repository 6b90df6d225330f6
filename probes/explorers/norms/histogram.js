// Histograms: counting, and the chart of the enlarged map.

import { sharpPen } from "#shared/canvas.js";
import { cssColour } from "#shared/colours.js";
import { element } from "#shared/elements.js";
import { formatNumber } from "#shared/format.js";
import { colourIndex, positionOn } from "#shared/scale.js";

/** @import { ShownMap } from "./shown_map.js" */

const BINS = 48;

/**
 * The bin of a value among equal bins from low to high. The last bin includes high.
 *
 * @param {number} value
 * @param {number} low
 * @param {number} high
 * @param {number} bins
 * @returns {number}
 */
export function binOf(value, low, high, bins) {
  if (!(high > low)) return 0;
  return Math.max(0, Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins)));
}

/**
 * Counts of values in equal bins from low to high.
 *
 * @param {Float32Array} values
 * @param {number} low
 * @param {number} high
 * @param {number} bins
 * @returns {Int32Array}
 */
export function histogram(values, low, high, bins) {
  const counts = new Int32Array(bins);
  for (const value of values) counts[binOf(value, low, high, bins)]++;
  return counts;
}

/**
 * @typedef {object} Histogram
 * @property {HTMLCanvasElement} node with data-bins (the counts) and data-bin (of the pointer's patch) for tests
 * @property {(map: ShownMap, threshold: number, token: number) => void} paint `threshold`: of outliers; `token`: where the
 *   pointer is
 */

/**
 * A chart in the map's own colours. Heights follow the logarithm of the counts.
 *
 * @returns {Histogram}
 */
export function createHistogram() {
  const node = element("canvas", { className: "dptx-histogram", role: "img" });
  return { node, paint: (map, threshold, token) => paintHistogram(node, map, threshold, token) };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ShownMap} map
 * @param {number} threshold
 * @param {number} token
 */
function paintHistogram(canvas, { what, block, patches, scale, table, signed }, threshold, token) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  let { low, high } = what === "norm" ? block : scale;
  if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  const counts = histogram(patches, low, high, BINS);
  const most = Math.max(...counts);
  const style = getComputedStyle(canvas);
  const muted = style.getPropertyValue("--dptx-muted");
  const pen = sharpPen(canvas, width, height);
  const [top, floor] = [16, height - 18];
  /** @param {number} value */
  const xOf = (value) => ((value - low) / (high - low)) * (width - 2) + 1;

  const outline = new Path2D(); // of all bars: bars near 0 may have the colour of the background
  for (let bin = 0; bin < BINS; bin++) {
    const [left, right] = [bin, bin + 1].map((n) => (n / BINS) * (width - 2) + 1);
    const middle = low + ((bin + 0.5) / BINS) * (high - low);
    const size = counts[bin] && Math.max(2, Math.round((Math.log1p(counts[bin]) / Math.log1p(most)) * (floor - top)));
    pen.fillStyle = cssColour(table, colourIndex(positionOn(scale, middle)));
    pen.fillRect(left, floor - size, right - left - 0.5, size);
    for (const x of [left, right]) outline.lineTo(x, floor - size + 0.5);
  }
  pen.strokeStyle = muted;
  pen.stroke(outline);
  pen.fillStyle = muted;
  pen.fillRect(0, floor, width, 1);

  pen.font = `11px ${style.fontFamily}`;
  pen.textBaseline = "alphabetic";
  const centre = signed ? "0" : formatNumber((low + high) / 2);
  /** @type {[string, number, CanvasTextAlign][]} */
  const labels = [
    [formatNumber(low), 0, "left"],
    [formatNumber(high), width, "right"],
    [centre, width / 2, "center"],
  ];
  for (const [text, x, align] of labels) {
    pen.textAlign = align;
    pen.fillText(text, x, height - 5);
  }
  pen.textAlign = "left";
  pen.fillText(`tallest bar ${most} patches, log heights`, 1, 10);

  if (what === "norm" && threshold < high) {
    pen.fillStyle = style.getPropertyValue("--dptx-a");
    for (let y = top; y < floor; y += 6) pen.fillRect(xOf(threshold) - 0.75, y, 1.5, 4);
  }
  const patch = token - block.prefix;
  if (patch >= 0) {
    // An arrow on the axis at the value of the pointer's patch.
    const x = xOf(patches[patch]);
    pen.fillStyle = style.color;
    pen.beginPath();
    pen.moveTo(x, floor - 1);
    pen.lineTo(x - 4, floor + 6);
    pen.lineTo(x + 4, floor + 6);
    pen.fill();
  }
  const peak = low + ((counts.indexOf(most) + 0.5) / BINS) * (high - low);
  const range = `Histogram from ${formatNumber(low)} to ${formatNumber(high)}`;
  canvas.setAttribute("aria-label", `${range}, most patches near ${formatNumber(peak)}`);
  canvas.dataset.bins = counts.join(",");
  canvas.dataset.bin = patch < 0 ? "" : String(binOf(patches[patch], low, high, BINS));
}

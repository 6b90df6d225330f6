// The thresholds of the depth explorer: two handles on one line, under a histogram of nearness.

import { sharpPen } from "#shared/canvas.js";
import { cssColour } from "#shared/colours.js";
import { button, setEnabled, slider } from "#shared/controls.js";
import { element, setText } from "#shared/elements.js";
import { formatFixed } from "#shared/format.js";
import { colourIndex } from "#shared/scale.js";
import { histogramOf } from "./numbers.js";

/** @import { ColourTable } from "#shared/types.js" */
/** @import { DepthMap } from "./numbers.js" */

/** @typedef {{far: number, near: number}} Thresholds shares of the map's range, 0 <= far <= near <= 1 */

const BINS = 128;

/**
 * @typedef {object} ThresholdRange
 * @property {HTMLElement} node
 * @property {(thresholds: Thresholds) => void} show
 * @property {(map: DepthMap, table: ColourTable, muted: string) => void} showHistogram muted: a colour for the rest
 * @property {(words: string) => void} showWords
 * @property {(name: keyof Thresholds) => void} focus
 */

/**
 * @param {object} events
 * @param {(thresholds: Thresholds) => void} events.onMove a handle moves
 * @param {() => void} events.onReset
 * @param {{far: string, near: string, reset: string}} titles tooltips
 * @returns {ThresholdRange}
 */
export function createThresholds({ onMove, onReset }, titles) {
  let { far, near } = { far: 0, near: 1 };
  /** @type {number | null} where both handles lay when the pointer took one */
  let met = null;

  /**
   * A handle stops at the other one. If one lies on the other, the direction of the drag decides which of them moves.
   *
   * @param {keyof Thresholds} name
   * @param {number} value
   */
  const slide = (name, value) => {
    if (met !== null) onMove({ far: Math.min(value, met), near: Math.max(value, met) });
    else if (name === "far") onMove({ far: Math.min(value, near), near });
    else onMove({ far, near: Math.max(value, far) });
  };
  const handle = (/** @type {keyof Thresholds} */ name) =>
    slider(titles[name], titles[name], (value) => slide(name, value), {
      className: `dptx-depth-${name}`,
      max: 1,
      step: 0.01,
      onpointerdown: () => {
        met = far === near ? far : null;
      },
      onkeydown: () => {
        met = null;
      },
    });
  const sliders = { far: handle("far"), near: handle("near") };
  const histogram = element("canvas", {
    className: "dptx-depth-histogram",
    role: "img",
    "aria-label": "Histogram of the map",
  });
  const words = element("span");
  const reset = button("Reset", titles.reset, onReset);
  /** @type {{map: DepthMap, counts: Uint32Array} | null} */
  let counted = null;

  return {
    node: element(
      "div",
      { className: "dptx-depth-range" },
      histogram,
      element("div", { className: "dptx-depth-track" }, sliders.far, sliders.near),
      element(
        "div",
        { className: "dptx-depth-ends" },
        element("span", {}, "far"),
        element("div", { className: "dptx-depth-words" }, words, reset),
        element("span", {}, "near"),
      ),
    ),
    show(thresholds) {
      ({ far, near } = thresholds);
      for (const [name, value] of Object.entries(thresholds)) {
        const input = sliders[/** @type {keyof Thresholds} */ (name)];
        input.value = String(value);
        input.setAttribute("aria-valuetext", formatFixed(value, 2));
      }
      setEnabled(reset, far > 0 || near < 1, sliders.far);
    },
    showHistogram(map, table, muted) {
      if (!histogram.clientWidth) return; // not on display
      if (counted?.map !== map) counted = { map, counts: histogramOf(map, BINS) };
      paintHistogram(histogram, counted.counts, { far, near }, table, muted);
    },
    showWords(text) {
      setText(words, text);
    },
    focus(name) {
      sliders[name].focus();
    },
  };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Uint32Array} counts
 * @param {Thresholds} thresholds
 * @param {ColourTable} table
 * @param {string} muted
 */
function paintHistogram(canvas, counts, { far, near }, table, muted) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const pen = sharpPen(canvas, width, height);
  // A few full bins, such as a sky, must not flatten the others: the scale ends at three times the 1/8 quantile.
  const sorted = [...counts].sort((one, other) => other - one);
  const top = Math.max(1, Math.min(sorted[0], 3 * sorted[Math.floor(counts.length / 8)] || sorted[0]));
  for (let bin = 0; bin < counts.length; bin++) {
    const nearness = (bin + 0.5) / counts.length;
    const inside = nearness >= far && nearness <= near;
    const bar = Math.min(1, counts[bin] / top) * (height - 2);
    pen.globalAlpha = inside ? 1 : 0.22;
    pen.fillStyle = inside ? cssColour(table, colourIndex(nearness)) : muted;
    pen.fillRect((bin * width) / counts.length, height - bar, width / counts.length - 0.5, bar);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = muted;
  pen.fillRect(0, height - 1, width, 1);
}

// One slider of the fusion explorer, with a number field and the thumbnail of the fusion level that it feeds.

import { PixelCanvas } from "#shared/canvas.js";
import { numberField, slider } from "#shared/controls.js";
import { element } from "#shared/elements.js";
import { formatFixed, formatNumber } from "#shared/format.js";
import { paintLevels } from "./depth_map.js";
import { signed } from "./readout.js";

/** @import { About, Thumbnail } from "./source.js" */

/**
 * @typedef {object} Row
 * @property {string} words on the scaled point: what it is, and which fusion level receives it
 * @property {number} level that receives it
 * @property {string} title
 */

/** @type {Record<string, Row>} by point */
const ROWS = {
  "reassembly.3": {
    words: "coarsest map, into level 3",
    level: 3,
    title: "Fusion level 3, the coarsest, receives reassembly map 3",
  },
  "fusion.3": {
    words: "level 3 (coarsest), into level 2",
    level: 2,
    title: "Fusion level 2 adds reassembly map 2 to the output of level 3",
  },
  "fusion.2": {
    words: "level 2, into level 1",
    level: 1,
    title: "Fusion level 1 adds reassembly map 1 to the output of level 2",
  },
  "fusion.1": {
    words: "level 1, into level 0 (finest)",
    level: 0,
    title: "Fusion level 0, the finest, adds reassembly map 0 to the output of level 1",
  },
  "reassembly.2": { words: "map 2, into level 2", level: 2, title: "Reassembly map 2" },
  "reassembly.1": { words: "map 1, into level 1", level: 1, title: "Reassembly map 1" },
  "reassembly.0": { words: "finest map, into level 0", level: 0, title: "Reassembly map 0, the finest" },
};

const MARKS = [-5, -2.5, 0, 1, 2.5, 5];

/**
 * @typedef {object} ScaleEvents
 * @property {(index: number, value: number) => void} onSlide to a value, by hand or by typing
 * @property {(index: number, by: number) => void} onStep an arrow key; by: 0.01 or 0.1 with a sign
 */

/**
 * @typedef {object} ScaleRow
 * @property {HTMLElement} node
 * @property {HTMLInputElement} input the slider
 * @property {(scale: number) => void} show
 * @property {(thumbnail: Thumbnail, colours: Uint32Array) => void} showThumbnail
 */

/**
 * @param {string} point
 * @param {number} index
 * @param {About} about
 * @param {ScaleEvents} events
 * @returns {ScaleRow}
 */
export function createScaleRow(point, index, about, { onSlide, onStep }) {
  const { words, level, title } = ROWS[point];
  const { reach } = about;
  const isLadder = index < about.sliders;
  const locked = about.steps && (!about.steps.length || !isLadder); // a page that holds no steps of it
  const range = { min: -reach, max: reach, step: 0.01 };
  const share = (/** @type {number} */ scale) => (scale + reach) / (2 * reach);
  let shown = 1;

  const input = slider(
    `Scale of ${point}: ${words}`,
    `${title}. The slider scales the point ${point}.`,
    (value) => onSlide(index, value),
    {
      ...range,
      className: "dptx-slider dptx-wide",
      disabled: Boolean(locked),
      dataset: { point },
      ondblclick: () => onSlide(index, 1),
      onkeydown: (/** @type {KeyboardEvent} */ event) => stepByArrows(event, (by) => onStep(index, by)),
    },
  );
  const number = numberEntry(`Scale of ${point}, as a number`, { ...range, disabled: Boolean(about.steps) }, (text) => {
    if (text.trim() !== "" && Number.isFinite(Number(text))) onSlide(index, Number(text));
    number.value = numberText(shown);
  });
  const norm = element("span", { className: "dptx-hint" });
  const output = `Output of fusion level ${level}, the point fusion.${level}: norm over channels`;
  const thumbnail = new PixelCanvas({ className: "dptx-thumb", role: "img", "aria-label": output });
  thumbnail.canvas.dataset.level = String(level);
  const node = element(
    "div",
    { className: isLadder ? "dptx-scale" : "dptx-scale dptx-scale-plain" },
    isLadder
      ? element(
          "div",
          { className: "dptx-thumb-box", title: output },
          thumbnail.canvas,
          element("span", { className: "dptx-thumb-name" }, `level ${level}`),
        )
      : null,
    element(
      "div",
      { className: "dptx-scale-name" },
      element("strong", {}, point),
      element("span", { className: "dptx-hint" }, words),
      isLadder ? norm : null,
    ),
    element("div", { className: "dptx-scale-track" }, input, ticks(reach, share)),
    number,
  );

  return {
    node,
    input,
    show(scale) {
      shown = scale;
      input.value = String(scale);
      input.style.setProperty("--dptx-low", String(Math.min(share(scale), share(1))));
      input.style.setProperty("--dptx-high", String(Math.max(share(scale), share(1))));
      input.setAttribute("aria-valuetext", formatFixed(scale, 2));
      if (!number.matches(":focus")) number.value = numberText(scale); // a focused field is being typed into
      node.classList.toggle("dptx-changed", scale !== 1);
    },
    showThumbnail({ map, mean }, colours) {
      paintLevels(map, colours, thumbnail.fit(map.height, map.width));
      thumbnail.paint();
      norm.textContent = `norm ${formatNumber(mean)}`;
      norm.title = output;
    },
  };
}

/** @param {number} scale */
function numberText(scale) {
  return String(Math.round(scale * 1e4) / 1e4);
}

/**
 * @param {number} reach
 * @param {(scale: number) => number} share
 * @returns {HTMLElement}
 */
function ticks(reach, share) {
  const marks = MARKS.filter((mark) => Math.abs(mark) <= reach).map((mark) => {
    const tick = element("span", { className: mark === 1 ? "dptx-tick-one" : "" }, signed(mark));
    tick.style.setProperty("--dptx-at", String(share(mark)));
    return tick;
  });
  return element("div", { className: "dptx-ticks", "aria-hidden": "true" }, ...marks);
}

/**
 * Arrow keys on a slider. The browser knows no larger step with Shift, and adding 0.01 drifts.
 *
 * @param {KeyboardEvent} event
 * @param {(by: number) => void} step
 */
function stepByArrows(event, step) {
  const { key, shiftKey } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[key];
  if (direction) {
    step(direction * (shiftKey ? 0.1 : 0.01));
    event.preventDefault();
  }
  if (direction || ["PageUp", "PageDown", "Home", "End"].includes(key)) event.stopPropagation();
}

/**
 * A field for a number. Leaving it commits it, and so do Enter and Escape.
 *
 * @param {string} label
 * @param {Record<string, any>} properties
 * @param {(text: string) => void} onCommit
 * @returns {HTMLInputElement}
 */
export function numberEntry(label, properties, onCommit) {
  return numberField(label, onCommit, {
    ...properties,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" && (event.key !== "Enter" || event.shiftKey)) return;
      /** @type {HTMLElement} */ (event.target).blur();
      event.stopPropagation();
    },
  });
}

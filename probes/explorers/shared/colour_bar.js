// The colour bar under the maps.

import { PixelCanvas, penOf } from "./canvas.js";
import { element, setText } from "./elements.js";
import { labelledTicks } from "./ticks.js";

/** @import { Tick } from "./ticks.js" */
/** @import { ColourTable } from "./types.js" */

const LABEL_SIZE = 11; // pixels, as in the style sheet
const FULL_WIDTH = 300; // of the bar before it is measured

/**
 * @typedef {object} ColourBar
 * @property {HTMLElement} node
 * @property {(
 *   table: ColourTable, ticks: readonly Tick[], at: number | null, note: string,
 * ) => void} show positions from 0 to 1; `at`: where the pointer's value lies, null to hide the arrow
 */

/** @returns {ColourBar} */
export function createColourBar() {
  const colours = new PixelCanvas({ className: "dptx-bar-colours" });
  const arrow = element("div", { className: "dptx-bar-pointer" });
  const labels = element("div", { className: "dptx-bar-ticks" });
  const words = element("div", { className: "dptx-bar-note" });
  const marks = element("div", { className: "dptx-bar-marks", "aria-hidden": "true" });
  const box = element("div", { className: "dptx-bar-box" }, colours.canvas, marks, arrow, labels);
  /** @type {ColourTable | null} */
  let shownTable = null;
  /** @type {readonly Tick[]} */
  let shownTicks = [];
  let width = FULL_WIDTH;
  const pen = penOf(element("canvas", { width: 1, height: 1 }));
  pen.font = `${LABEL_SIZE}px sans-serif`;

  /** Every tick has a mark; those whose labels fit have a label. */
  const drawTicks = () => {
    const labelled = labelledTicks(shownTicks, (text) => pen.measureText(text).width, width);
    marks.replaceChildren(
      ...shownTicks.map(([position]) => {
        const mark = element("i", {});
        mark.style.left = `${position * 100}%`;
        return mark;
      }),
    );
    labels.replaceChildren(
      ...labelled.map(([position, text]) => {
        const label = element("span", {}, text);
        label.style.left = `${position * 100}%`;
        if (position > 0) label.style.transform = position < 1 ? "translateX(-50%)" : "translateX(-100%)";
        return label;
      }),
    );
  };
  // Reading a width while painting would force a layout.
  new ResizeObserver(([{ contentRect }]) => {
    if (!contentRect.width || contentRect.width === width) return;
    width = contentRect.width;
    pen.font = `${LABEL_SIZE}px ${getComputedStyle(box).fontFamily}`;
    drawTicks();
  }).observe(box);
  return {
    node: element("div", { className: "dptx-bar", role: "group", "aria-label": "Colour bar" }, box, words),
    show(table, ticks, at, note) {
      if (shownTable !== table) {
        shownTable = table;
        colours.fit(1, 256).set(table);
        colours.paint();
      }
      if (ticks.join("|") !== shownTicks.join("|")) {
        shownTicks = ticks;
        drawTicks();
      }
      arrow.style.visibility = at === null ? "hidden" : "visible";
      if (at !== null) arrow.style.transform = `translateX(${(at * 100).toFixed(2)}%)`;
      setText(words, note);
      words.title = note; // a narrow bar cuts it off
    },
  };
}

// The colour bar under the maps.

import { PixelCanvas } from "./canvas.js";
import { element, setText } from "./elements.js";

/** @import { ColourTable } from "./types.js" */

/**
 * @typedef {object} ColourBar
 * @property {HTMLElement} node
 * @property {(
 *   table: ColourTable, ticks: [position: number, text: string][], at: number | null, note: string,
 * ) => void} show positions from 0 to 1; `at`: where the pointer's value lies, null to hide the arrow
 */

/** @returns {ColourBar} */
export function createColourBar() {
  const colours = new PixelCanvas({ className: "dptx-bar-colours" });
  const arrow = element("div", { className: "dptx-bar-pointer" });
  const labels = element("div", { className: "dptx-bar-ticks" });
  const words = element("div", { className: "dptx-bar-note" });
  const box = element("div", { className: "dptx-bar-box" }, colours.canvas, arrow, labels);
  /** @type {ColourTable | null} */
  let shownTable = null;
  let shownTicks = "";
  return {
    node: element("div", { className: "dptx-bar" }, box, words),
    show(table, ticks, at, note) {
      if (shownTable !== table) {
        shownTable = table;
        colours.fit(1, 256).set(table);
        colours.paint();
      }
      const key = ticks.join("|");
      if (key !== shownTicks) {
        shownTicks = key;
        labels.replaceChildren(
          ...ticks.map(([position, text]) => {
            const label = element("span", {}, text);
            label.style.left = `${position * 100}%`;
            return label;
          }),
        );
      }
      arrow.style.visibility = at === null ? "hidden" : "visible";
      if (at !== null) arrow.style.transform = `translateX(${(at * 100).toFixed(2)}%)`;
      setText(words, note);
    },
  };
}

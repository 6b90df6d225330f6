// The grid of positions or keys: it takes the keys, and the pointer moves the position on display.

import { createMark, PixelCanvas, putMark, sizeMarks } from "#shared/canvas.js";
import { element } from "#shared/elements.js";
import { placeIn, watchSpots } from "#shared/pointer.js";
import { colourise } from "#shared/scale.js";
import { cellAt } from "./places.js";

/** @import { Look } from "./looks.js" */
/** @import { Cell } from "./places.js" */

/**
 * @typedef {object} Grid
 * @property {HTMLElement} node
 * @property {HTMLCanvasElement} canvas
 * @property {(look: Look, cell: Readonly<Cell>, read: Readonly<Cell> | null) => void} paint `cell`: of the position on
 *   display; `read`: the cell that is read off while that is pinned
 */

/**
 * @param {object} options
 * @param {boolean} options.biased
 * @param {(cell: Cell) => void} options.onPoint
 * @param {(cell: Cell) => void} options.onTap
 * @param {() => void} options.onLeave
 * @returns {Grid}
 */
export function createGrid({ biased, onPoint, onTap, onLeave }) {
  const cells = new PixelCanvas();
  const { canvas } = cells;
  canvas.dataset.tile = "stage";
  const [mark, reading] = [createMark("a"), createMark("probe")];
  const what = biased ? "Grid of keys. Arrow keys move the query" : "Grid of positions. Arrow keys move the position";
  const node = element(
    "div",
    {
      className: "dptx-stage dptx-frame",
      tabIndex: 0,
      role: "application",
      "aria-label": `${what}, Enter pins it, question mark lists all keys.`,
    },
    canvas,
    mark,
    reading,
  );
  watchSpots(node, {
    spotOf: (event) => {
      const [right, down] = placeIn(node, event);
      return cellAt({ rows: canvas.height, cols: canvas.width }, [down, right]);
    },
    onPoint,
    onTap,
    onLeave,
  });
  return {
    node,
    canvas,
    paint({ high, wide, values, scale, table }, cell, read) {
      if (canvas.height !== high || canvas.width !== wide) {
        node.style.setProperty("--dptx-aspect", `${wide} / ${high}`);
        sizeMarks(node, { rows: high, cols: wide });
      }
      const pixels = cells.fit(high, wide);
      colourise(values, 0, high * wide, scale, table, pixels);
      cells.paint();
      putMark(mark, cell);
      putMark(reading, read);
    },
  };
}

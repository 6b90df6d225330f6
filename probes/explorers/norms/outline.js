// The outline of outliers over a map: dashed, unlike a mark.

import { sharpPen } from "#shared/canvas.js";
import { element } from "#shared/elements.js";
import { outlineOf } from "./outliers.js";

/** @import { NormBlock } from "./blocks.js" */
/** @import { Outliers } from "./outliers.js" */

/** @returns {HTMLCanvasElement} */
export function createOutline() {
  return element("canvas", { className: "dptx-outline", "aria-hidden": "true" });
}

/**
 * Draws the outline of outliers, or clears it.
 *
 * @param {HTMLCanvasElement} canvas over the map
 * @param {NormBlock} block
 * @param {Outliers | null} outliers null to draw none
 */
export function paintOutline(canvas, { prefix, rows, cols }, outliers) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  const pen = sharpPen(canvas, width, height);
  if (!outliers) return;
  const patches = outliers.tokens.map((token) => token - prefix);
  const path = new Path2D();
  for (const [x0, y0, x1, y1] of outlineOf(patches, rows, cols)) {
    path.moveTo((x0 * width) / cols, (y0 * height) / rows);
    path.lineTo((x1 * width) / cols, (y1 * height) / rows);
  }
  pen.lineCap = "square";
  for (const { line, colour, dashes } of [
    { line: 3.5, colour: "rgba(0, 0, 0, 0.65)", dashes: [] },
    { line: 1.75, colour: "#ffffff", dashes: [4, 5] },
  ]) {
    pen.setLineDash(dashes);
    pen.lineWidth = line;
    pen.strokeStyle = colour;
    pen.stroke(path);
  }
}

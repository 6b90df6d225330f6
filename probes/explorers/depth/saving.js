// Files of the depth explorer.

import { penOf } from "#shared/canvas.js";
import { download, downloadCanvas } from "#shared/download.js";
import { element } from "#shared/elements.js";
import { npy } from "#shared/files.js";

/** @import { DepthMap, Processed } from "./numbers.js" */

/**
 * Downloads a map as shown, as depth.npy; NaN outside the thresholds.
 *
 * @param {DepthMap} map
 * @param {Processed} result
 */
export function saveNumbers(map, { mask, shown }) {
  const kept = shown.map((value, n) => (mask[n] ? value : NaN));
  download("depth.npy", [npy(kept, [map.height, map.width])]);
}

/**
 * Downloads canvases of one size side by side, as depth.png.
 *
 * @param {readonly HTMLCanvasElement[]} canvases
 * @param {string} background
 */
export function savePanes(canvases, background) {
  const [{ width, height }] = canvases;
  const gap = Math.round(width / 40);
  const canvas = element("canvas", { width: canvases.length * (width + gap) - gap, height });
  const pen = penOf(canvas);
  pen.fillStyle = background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (const [n, one] of canvases.entries()) pen.drawImage(one, n * (width + gap), 0);
  downloadCanvas(canvas, "depth");
}

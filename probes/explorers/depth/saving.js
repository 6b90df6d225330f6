// Files of the depth explorer.

import { penOf } from "#shared/canvas.js";
import { download, downloadCanvas } from "#shared/download.js";
import { element } from "#shared/elements.js";
import { npy } from "#shared/files.js";

/** @import { Link } from "#shared/link.js" */
/** @import { DepthMap, Processed } from "./numbers.js" */

/**
 * Downloads a map as shown, as depth.npy; NaN outside the thresholds.
 *
 * @param {Link} link
 * @param {string} note what the status strip adds
 * @param {DepthMap} map
 * @param {Processed} result
 */
export function saveNumbers(link, note, map, { mask, shown }) {
  const kept = shown.map((value, n) => (mask[n] ? value : NaN));
  download(link, "depth.npy", [npy(kept, [map.height, map.width])], undefined, note);
}

/**
 * Downloads canvases of one size side by side, as depth.png.
 *
 * @param {Link} link
 * @param {readonly HTMLCanvasElement[]} canvases
 * @param {string} background
 * @returns {Promise<void>}
 */
export function savePanes(link, canvases, background) {
  const [{ width, height }] = canvases;
  const gap = Math.round(width / 40);
  const canvas = element("canvas", { width: canvases.length * (width + gap) - gap, height });
  const pen = penOf(canvas);
  pen.fillStyle = background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (const [n, one] of canvases.entries()) pen.drawImage(one, n * (width + gap), 0);
  return downloadCanvas(link, canvas, "depth");
}

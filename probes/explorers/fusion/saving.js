// Files of the fusion explorer that the browser writes. The kernel writes exact numbers; a page without a kernel saves
// the levels that it holds.

import { penOf } from "#shared/canvas.js";
import { download, downloadCanvas } from "#shared/download.js";
import { element } from "#shared/elements.js";
import { npy } from "#shared/files.js";
import { greyPng } from "#shared/png.js";
import { valuesAt } from "./depth_map.js";
import { settingName } from "./setting.js";

/** @import { Link } from "#shared/link.js" */
/** @import { Show } from "./readout.js" */
/** @import { Scales } from "./setting.js" */
/** @import { About, ScaledMap } from "./source.js" */

/**
 * Downloads what is on display at the picture's own size, without decoration.
 *
 * @param {Link} link
 * @param {HTMLCanvasElement | ImageBitmap} shown
 * @param {Show} show what it is
 * @param {About} about
 * @param {Scales} scales
 * @returns {Promise<void>}
 */
export function savePng(link, shown, show, about, scales) {
  const canvas = element("canvas", { width: about.width, height: about.height });
  const pen = penOf(canvas);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(shown, 0, 0, canvas.width, canvas.height);
  const name = settingName(about.points, scales);
  /** @type {Record<Show, string>} */
  const names = {
    scaled: name,
    unscaled: "depth_unscaled",
    difference: name.replace("depth", "difference"),
    picture: "picture",
  };
  return downloadCanvas(link, canvas, names[show]);
}

/**
 * Downloads a map that a page holds, at the picture's size.
 *
 * @param {Link} link
 * @param {ScaledMap} map
 * @param {About} about
 * @param {"npy" | "png16"} format
 */
export async function saveLevels(link, map, about, format) {
  const { width, height, metric, points } = about;
  const name = settingName(points, map.about.scales);
  const values = valuesAt(map, width, height);
  const note = `this page holds ${2 ** map.about.bits} levels of the map; a notebook saves the exact numbers`;
  if (format === "npy") download(link, `${name}.npy`, [npy(values, [height, width])], undefined, note);
  else download(link, `${name}_16bit.png`, await greyPng(values, width, height, metric), "image/png", note);
}

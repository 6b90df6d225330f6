// Taking things out of the fusion explorer: the picture on display, the depth as numbers, and Python. Numbers come from the
// kernel; a page without one writes those that it holds.

import { npy } from "../shared/files.js";
import { saveBytes, savePicture } from "../shared/panel.js";
import { greyPng } from "../shared/png.js";
import { download } from "../shared/shell.js";
import { valuesAt } from "./depth_map.js";
import { settingName, settingPython } from "./setting.js";

/** Downloads what is on display, at the picture's own size and without decoration. */
export function savePng(view) {
  const { about, picture, scales } = view.source;
  const show = view.get("show");
  const shown = show === "picture" ? picture : view.cells.canvas;
  if (!view.painted || !shown) return;
  const canvas = document.createElement("canvas");
  canvas.width = about.width;
  canvas.height = about.height;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(shown, 0, 0, canvas.width, canvas.height);
  const name = { scaled: settingName(about.points, scales), unscaled: "depth_unscaled", picture: "picture" }[show];
  savePicture(canvas, name ?? settingName(about.points, scales).replace("depth", "difference"));
}

/** Downloads the scaled depth at the picture's size; kind: "npy" or "png16". */
export async function saveDepth(view, kind) {
  const { source } = view;
  if (!source.page) return source.save(kind);
  if (!source.settled) return;
  const { width, height, metric, points } = source.about;
  const name = settingName(points, source.scales);
  const values = valuesAt(source.map, width, height);
  if (kind === "npy") saveBytes(npy(values, [height, width]), `${name}.npy`);
  else download(`${name}_16bit.png`, await greyPng(values, width, height, metric), "image/png");
  const levels = 2 ** source.map.about.bits;
  source.link.say(`Saved ${name}: this page holds ${levels} levels of it; the exact numbers need the notebook`);
}

/** The code of this map. */
export function depthPython(view) {
  const { about, map, scales } = view.source;
  return map ? settingPython(about.points, scales, map.about.call) : "";
}

// Files of the fusion explorer that the browser writes. The kernel writes exact numbers; a page without a kernel saves
// the levels that it holds.

import { penOf } from "#shared/canvas.js";
import { download, downloadCanvas } from "#shared/download.js";
import { element } from "#shared/elements.js";
import { npy } from "#shared/files.js";
import { MINUS } from "#shared/format.js";
import { namedAfter, originTexts } from "#shared/origin.js";
import { greyPng } from "#shared/png.js";
import { BAR_HEIGHT, MARGIN, SnapshotSheet } from "#shared/snapshot_sheet.js";
import { valuesAt } from "./depth_map.js";
import { settingWords } from "./readout.js";
import { byName, settingName } from "./setting.js";

/** @import { Link } from "#shared/link.js" */
/** @import { BarContent } from "#shared/snapshot_sheet.js" */
/** @import { themeColours } from "#shared/theme.js" */
/** @import { Show } from "./readout.js" */
/** @import { Scales } from "./setting.js" */
/** @import { About, ScaledMap } from "./source.js" */

const GAP = 12; // pixels
const SIDE = 720; // of the longer side of a small map

/**
 * @typedef {object} Shown what is on display
 * @property {Show} show
 * @property {HTMLCanvasElement | ImageBitmap} image
 * @property {BarContent | null} bar null for the picture
 * @property {Scales} scales of the scaled map
 */

/**
 * @param {Shown} shown
 * @param {About} about
 * @returns {string}
 */
function nameOf({ show, scales }, { points }) {
  const name = settingName(points, scales);
  /** @type {Record<Show, string>} */
  const names = {
    scaled: name,
    unscaled: "depth_unscaled",
    difference: name.replace("depth", "difference"),
    picture: "picture",
  };
  return names[show];
}

/**
 * @param {Shown} shown
 * @param {About} about
 * @returns {string}
 */
export function shownTitle({ show, scales }, { points }) {
  const setting = settingWords(points, scales);
  if (show === "unscaled" || (show === "scaled" && setting === "unscaled")) return "Depth, unscaled";
  return { scaled: `Depth, ${setting}`, difference: `Scaled ${MINUS} unscaled depth: ${setting}`, picture: "Picture" }[
    show
  ];
}

/**
 * @param {Shown} shown
 * @param {About} about
 */
function textsOf(shown, about) {
  const { points, origin } = about;
  const facts = { title: shownTitle(shown, about), unit: shown.bar?.note, scales: byName(points, shown.scales) };
  return originTexts(origin, facts);
}

/**
 * Downloads what is on display with its title and its colour bar.
 *
 * @param {Link} link
 * @param {Shown} shown
 * @param {About} about
 * @param {ReturnType<typeof themeColours>} colours
 * @returns {Promise<void>}
 */
export function savePng(link, shown, about, colours) {
  const factor = Math.max(1, SIDE / Math.max(about.width, about.height));
  const [width, height] = [Math.round(about.width * factor), Math.round(about.height * factor)];
  const sheet = new SnapshotSheet({
    title: shownTitle(shown, about),
    origin: about.origin,
    width,
    height: height + (shown.bar ? GAP + BAR_HEIGHT : 0),
    colours,
  });
  sheet.drawPanel(shown.image, { x: MARGIN, y: sheet.top, width, height }, { smooth: true });
  const place = { x: MARGIN, y: sheet.top + height + GAP, width: Math.min(width, 480) };
  if (shown.bar) sheet.drawBar(shown.bar, place);
  return downloadCanvas(link, sheet.canvas, namedAfter(nameOf(shown, about), about.origin), {
    texts: textsOf(shown, about),
  });
}

/**
 * Downloads what is on display at the picture's own size, without decoration.
 *
 * @param {Link} link
 * @param {Shown} shown
 * @param {About} about
 * @returns {Promise<void>}
 */
export function savePlain(link, shown, about) {
  const canvas = element("canvas", { width: about.width, height: about.height });
  const pen = penOf(canvas);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(shown.image, 0, 0, canvas.width, canvas.height);
  const name = namedAfter(`${nameOf(shown, about)}_plain`, about.origin);
  return downloadCanvas(link, canvas, name, { texts: textsOf(shown, about) });
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
  const { width, height, metric, points, origin } = about;
  const { scales, bits } = map.about;
  const name = namedAfter(`${settingName(points, scales)}_${metric ? "metres" : "inverse"}`, origin);
  const values = valuesAt(map, width, height);
  const note = `this page holds ${2 ** bits} levels of the map; a notebook saves the exact numbers`;
  if (format === "npy") download(link, `${name}.npy`, [npy(values, [height, width])], undefined, note);
  else {
    const texts = originTexts(origin, { title: `Depth, ${settingWords(points, scales)}` });
    const parts = await greyPng(values, width, height, metric, texts);
    download(link, `${name}_16bit.png`, parts, "image/png", note);
  }
}

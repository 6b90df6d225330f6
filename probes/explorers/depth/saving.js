// Files of the depth explorer.

import { download, downloadCanvas } from "#shared/download.js";
import { npy } from "#shared/files.js";
import { formatFixed } from "#shared/format.js";
import { namedAfter, originTexts, safeName } from "#shared/origin.js";
import { BAR_HEIGHT, MARGIN, SnapshotSheet } from "#shared/snapshot_sheet.js";

/** @import { Link } from "#shared/link.js" */
/** @import { Origin } from "#shared/origin.js" */
/** @import { themeColours } from "#shared/theme.js" */
/** @import { Look } from "./looks.js" */
/** @import { DepthMap, Processed, Processing } from "./numbers.js" */

/** @typedef {{name: string, canvas: HTMLCanvasElement, look: Look | null}} SavedPane look: null for the picture */

const [GAP, CAPTION] = [12, 24]; // pixels
const SIDE = 720; // of the longer side of a small map; a canvas is not reduced

/**
 * The part of a file name that says how a map was processed.
 *
 * @param {DepthMap} map
 * @param {Processed} result
 * @param {Processing} processing
 * @returns {string}
 */
export function stateName({ name }, { plane }, { far, near }) {
  const parts = ["depth"];
  if (name !== "depth") parts.push(safeName(name));
  if (far > 0 || near < 1) parts.push(`${formatFixed(far, 2)}-${formatFixed(near, 2)}`);
  if (plane) parts.push("minus-plane");
  return parts.join("_");
}

/**
 * The numbers of a map after thresholds and plane, in its unit, and NaN outside the thresholds. Colours do not change
 * them.
 *
 * @param {Processed} result
 * @returns {Float32Array}
 */
export function savedValues({ mask, values }) {
  return values.map((value, n) => (mask[n] ? value : NaN));
}

/**
 * @param {Link} link
 * @param {string} note what the status strip adds
 * @param {DepthMap} map
 * @param {Processed} result
 * @param {Processing} processing
 * @param {Origin} origin
 */
export function saveNumbers(link, note, map, result, processing, origin) {
  const stem = `${stateName(map, result, processing)}_${map.metric ? "metres" : "inverse"}`;
  const file = npy(savedValues(result), [map.height, map.width]);
  download(link, `${namedAfter(stem, origin)}.npy`, [file], undefined, note);
}

/**
 * The title of the panes.
 *
 * @param {readonly string[]} names of both panes
 * @param {Processed} result
 * @param {Processing} processing
 * @returns {string}
 */
export function savedTitle(names, { plane }, { far, near, equalise }) {
  const words = [names.join(" and ")];
  if (far > 0 || near < 1) words.push(`nearness ${formatFixed(far, 2)} to ${formatFixed(near, 2)}`);
  if (plane) words.push("minus the plane");
  if (equalise) words.push("even colours");
  const title = words.join(", ");
  return title.charAt(0).toUpperCase() + title.slice(1);
}

/**
 * Downloads both panes side by side, with names and colour bars.
 *
 * @param {Link} link
 * @param {readonly SavedPane[]} panes of one size
 * @param {string} title
 * @param {string} name of the file, without origin and ending
 * @param {Origin} origin
 * @param {ReturnType<typeof themeColours>} colours
 * @returns {Promise<void>}
 */
export function savePanes(link, panes, title, name, origin, colours) {
  const [{ canvas: first }] = panes;
  const factor = Math.max(1, SIDE / Math.max(first.width, first.height));
  const [width, height] = [Math.round(first.width * factor), Math.round(first.height * factor)];
  const whole = panes.length * (width + MARGIN) - MARGIN;
  const sheet = new SnapshotSheet({
    title,
    origin,
    width: whole,
    height: CAPTION + height + GAP + BAR_HEIGHT,
    colours,
  });
  for (const [n, pane] of panes.entries()) {
    const [x, y] = [MARGIN + n * (width + MARGIN), sheet.top + CAPTION];
    sheet.write(pane.name, x, sheet.top, { size: 14, weight: 600, width });
    sheet.drawPanel(pane.canvas, { x, y, width, height });
    if (pane.look) sheet.drawBar(pane.look, { x, y: y + height + GAP, width: Math.min(width, 480) });
  }
  const units = panes.flatMap(({ look }) => look?.note ?? []);
  const texts = originTexts(origin, { title, unit: units[0] });
  return downloadCanvas(link, sheet.canvas, namedAfter(name, origin), { texts });
}

/**
 * Downloads a map in its colours, one pixel per pixel, without decoration.
 *
 * @param {Link} link
 * @param {HTMLCanvasElement} canvas
 * @param {string} title
 * @param {string} name of the file, without origin and ending
 * @param {Origin} origin
 * @returns {Promise<void>}
 */
export function savePlain(link, canvas, title, name, origin) {
  return downloadCanvas(link, canvas, namedAfter(`${name}_plain`, origin), { texts: originTexts(origin, { title }) });
}

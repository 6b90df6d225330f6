// The view as one image: the grid with its mark on the left, the images on display on the right, their colour bars below.

import { formatNumber } from "#shared/format.js";
import { ticksOf } from "#shared/scale.js";
import { BAR_HEIGHT, MARGIN, SnapshotSheet } from "#shared/snapshot_sheet.js";
import { unitOf } from "./readout.js";

/** @import { Origin } from "#shared/origin.js" */
/** @import { themeColours } from "#shared/theme.js" */
/** @import { Look } from "./looks.js" */
/** @import { Cell } from "./places.js" */

/**
 * @typedef {object} Snapshot
 * @property {string} title
 * @property {{canvas: HTMLCanvasElement, look: Look, cell: Readonly<Cell>}} grid
 * @property {{canvas: HTMLCanvasElement, name: string}[]} images
 * @property {Look} look whose colour bar belongs to the images
 * @property {string} looked the name of the image of this look
 * @property {boolean} shared whether all images have one range
 * @property {Origin} origin
 */

const [GAP, CAPTION] = [12, 22]; // pixels
const SIDE = 560; // of the grid
const BAR = 300; // width of a colour bar

/**
 * @param {Snapshot} shot
 * @param {ReturnType<typeof themeColours>} colours
 * @returns {HTMLCanvasElement}
 */
export function snapshotImage({ title, grid, images, look, looked, shared, origin }, colours) {
  const { high, wide } = grid.look;
  const aspect = high / wide;
  const width = Math.round(SIDE / Math.max(1, aspect));
  const height = Math.round((SIDE * aspect) / Math.max(1, aspect));
  const columns = Math.max(4, Math.ceil(Math.sqrt(1.6 * images.length)));
  const small = Math.max(110, Math.min(220, Math.floor(1000 / columns)));
  /** @param {{canvas: HTMLCanvasElement}} image */
  const heightOf = ({ canvas }) => Math.round((small * canvas.height) / canvas.width);
  const line = Math.max(...images.map(heightOf)) + CAPTION + GAP;
  const body = Math.max(height, Math.ceil(images.length / columns) * line);
  const sheet = new SnapshotSheet({
    title,
    origin,
    width: width + MARGIN + columns * (small + GAP) - GAP,
    height: body + GAP + BAR_HEIGHT,
    colours,
  });
  const { top } = sheet;
  sheet.drawPanel(grid.canvas, { x: MARGIN, y: top, width, height });
  const [row, col] = grid.cell;
  const [w, h] = [width / wide, height / high];
  sheet.drawFrame({ x: MARGIN + col * w, y: top + row * h, width: w, height: h }, 2.5, "#ffffff");

  const right = 2 * MARGIN + width;
  for (const [n, image] of images.entries()) {
    const x = right + (n % columns) * (small + GAP);
    const y = top + Math.floor(n / columns) * line;
    sheet.drawPanel(image.canvas, { x, y, width: small, height: heightOf(image) });
    sheet.write(image.name, x, y + heightOf(image) + 4, { weight: 500, width: small });
  }

  const range = shared ? "one range for all images" : `${looked}; each image has its own range`;
  for (const { shown, x, note, size } of [
    { shown: grid.look, x: MARGIN, note: unitOf(grid.look, true), size: Math.min(BAR, width) },
    { shown: look, x: right, note: `${unitOf(look, false)}: ${range}`, size: BAR },
  ]) {
    const ticks = ticksOf(shown.scale, 3, formatNumber);
    sheet.drawBar({ table: shown.table, ticks, note }, { x, y: top + body + GAP, width: size });
  }
  return sheet.canvas;
}

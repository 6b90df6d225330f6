// The view as one image: the grid with its mark on the left, the images on display on the right, their colour bars below.

import { penOf } from "#shared/canvas.js";
import { cssColour } from "#shared/colours.js";
import { element } from "#shared/elements.js";
import { formatNumber } from "#shared/format.js";

/** @import { themeColours } from "#shared/theme.js" */
/** @import { Look } from "./looks.js" */
/** @import { Cell } from "./places.js" */

/**
 * @typedef {object} Snapshot
 * @property {string} title
 * @property {{canvas: HTMLCanvasElement, look: Look, cell: Readonly<Cell>}} grid
 * @property {{canvas: HTMLCanvasElement, name: string}[]} images
 * @property {Look} look whose colour bar belongs to the images
 */

const MARGIN = 24;
const GAP = 12;
const CAPTION = 22;
const TITLE = 44;
const FOOTER = 40;
const SIDE = 560; // of the grid
const BAR = 220; // width of a colour bar

/**
 * @param {Snapshot} shot
 * @param {ReturnType<typeof themeColours>} colours
 * @returns {HTMLCanvasElement}
 */
export function snapshotImage({ title, grid, images, look }, colours) {
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
  const canvas = element("canvas", {
    width: 3 * MARGIN + width + columns * (small + GAP) - GAP,
    height: 2 * MARGIN + TITLE + body + FOOTER,
  });
  const pen = penOf(canvas);
  pen.fillStyle = colours.background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.textBaseline = "top";
  pen.fillStyle = colours.text;
  pen.font = `600 20px ${colours.font}`;
  pen.fillText(title, MARGIN, MARGIN);

  pen.imageSmoothingEnabled = false;
  const top = MARGIN + TITLE;
  pen.drawImage(grid.canvas, MARGIN, top, width, height);
  const [row, col] = grid.cell;
  const [cellWidth, cellHeight] = [width / wide, height / high];
  for (const { thick, ink } of [
    { thick: 5, ink: "rgba(0, 0, 0, 0.6)" },
    { thick: 2.5, ink: "#ffffff" },
  ]) {
    pen.lineWidth = thick;
    pen.strokeStyle = ink;
    pen.strokeRect(MARGIN + col * cellWidth, top + row * cellHeight, cellWidth, cellHeight);
  }

  const right = 2 * MARGIN + width;
  pen.font = `500 13px ${colours.font}`;
  for (const [n, image] of images.entries()) {
    const x = right + (n % columns) * (small + GAP);
    const y = top + Math.floor(n / columns) * line;
    pen.drawImage(image.canvas, x, y, small, heightOf(image));
    pen.fillStyle = colours.text;
    pen.fillText(image.name, x, y + heightOf(image) + 4, small);
  }

  const below = top + body + 12;
  for (const { shown, x } of [
    { shown: grid.look, x: MARGIN },
    { shown: look, x: right },
  ]) {
    for (let n = 0; n < 256; n++) {
      pen.fillStyle = cssColour(shown.table, n);
      pen.fillRect(x + (n * BAR) / 256, below, BAR / 256 + 1, 12);
    }
    pen.fillStyle = colours.muted;
    pen.fillText(`${formatNumber(shown.scale.low)} to ${formatNumber(shown.scale.high)}`, x + BAR + 12, below);
  }
  return canvas;
}

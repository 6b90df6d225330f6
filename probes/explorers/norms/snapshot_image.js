// The view as one image: the picture with the chosen block's map on the left, the maps of all blocks on the right.

import { penOf } from "#shared/canvas.js";
import { cssColour } from "#shared/colours.js";
import { element } from "#shared/elements.js";
import { formatNumber } from "#shared/format.js";
import { cellOf } from "#shared/patches.js";
import { nameOf } from "./shown_map.js";

/** @import { themeColours } from "#shared/theme.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { ShownMap } from "./shown_map.js" */

/**
 * @typedef {object} Snapshot
 * @property {ShownMap} map
 * @property {HTMLCanvasElement} picture
 * @property {HTMLCanvasElement} overlay
 * @property {HTMLCanvasElement} outline
 * @property {number} opacity of the overlay
 * @property {{block: NormBlock, canvas: HTMLCanvasElement, outliers: number}[]} tiles
 */

const MARGIN = 24;
const GAP = 12;
const CAPTION = 38;
const TITLE = 40;
const FOOTER = 46;
const BAR = 360; // width of the colour bar

/**
 * @param {Snapshot} shot
 * @param {ReturnType<typeof themeColours>} colours
 * @returns {HTMLCanvasElement}
 */
export function snapshotImage({ map, picture, overlay, outline, opacity, tiles }, colours) {
  const aspect = picture.height / picture.width;
  const left = Math.min(680, Math.round(680 / Math.max(1, aspect)));
  const columns = Math.min(tiles.length, Math.max(4, Math.ceil(Math.sqrt(tiles.length * aspect * 1.4))));
  const wide = Math.floor((920 - GAP * (columns - 1)) / columns);
  const high = Math.round(wide * aspect);
  const body = Math.max(Math.round(left * aspect), Math.ceil(tiles.length / columns) * (high + CAPTION + GAP) - GAP);
  const canvas = element("canvas", {
    width: MARGIN * 3 + left + columns * (wide + GAP) - GAP,
    height: MARGIN * 2 + TITLE + body + FOOTER,
  });
  const pen = penOf(canvas);
  pen.fillStyle = colours.background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.textBaseline = "top";
  /**
   * @param {string} text
   * @param {number} x
   * @param {number} y
   * @param {string} colour
   * @param {string} font
   * @param {CanvasTextAlign} [align]
   */
  const write = (text, x, y, colour, font, align = "left") => {
    [pen.fillStyle, pen.font, pen.textAlign] = [colour, `${font} ${colours.font}`, align];
    pen.fillText(text, x, y);
  };
  const { block } = map;
  const what = map.what === "norm" ? "token norms" : nameOf(map);
  write(`Block ${block.block}: ${what}`, MARGIN, MARGIN, colours.text, "600 20px");

  const top = MARGIN + TITLE;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, MARGIN, top, left, left * aspect);
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = opacity;
  pen.drawImage(overlay, MARGIN, top, left, left * aspect);
  pen.globalAlpha = 1;
  pen.imageSmoothingEnabled = true;
  pen.drawImage(outline, MARGIN, top, left, left * aspect);
  const cell = map.anchor === null ? null : cellOf(block, map.anchor);
  if (cell) {
    const [width, height] = [left / block.cols, (left * aspect) / block.rows];
    for (const { line, colour } of [
      { line: 4, colour: "rgba(0, 0, 0, 0.75)" },
      { line: 2, colour: colours.pin },
    ]) {
      [pen.lineWidth, pen.strokeStyle] = [line, colour];
      pen.strokeRect(MARGIN + cell[1] * width, top + cell[0] * height, width, height);
    }
  }

  pen.imageSmoothingEnabled = false;
  for (const [n, tile] of tiles.entries()) {
    const x = MARGIN * 2 + left + (n % columns) * (wide + GAP);
    const y = top + Math.floor(n / columns) * (high + CAPTION + GAP);
    const { block: number, prefix, values, low, high: largest } = tile.block;
    pen.drawImage(tile.canvas, x, y, wide, high);
    write(`Block ${number}`, x, y + high + 4, colours.text, "500 13px");
    if (prefix) write(`cls ${formatNumber(values[0])}`, x + wide, y + high + 5, colours.muted, "12px", "right");
    write(`${formatNumber(low)} \u2013 ${formatNumber(largest)}`, x, y + high + 21, colours.muted, "12px");
    if (tile.outliers) {
      write(String(tile.outliers), x + wide, y + high + 21, colours.outlier, "600 12px", "right");
    }
  }

  const { scale, table } = map;
  const below = top + body + 14;
  for (let n = 0; n < 256; n++) {
    pen.fillStyle = cssColour(table, n);
    pen.fillRect(MARGIN + (n * BAR) / 256, below, BAR / 256 + 1, 12);
  }
  const range = `${formatNumber(scale.low)} to ${formatNumber(scale.high)}${scale.kind === "log" ? ", log" : ""}`;
  write(`${range}: block ${block.block}`, MARGIN + BAR + 12, below - 1, colours.muted, "13px");
  return canvas;
}

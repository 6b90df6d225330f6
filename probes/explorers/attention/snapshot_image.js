// The view as one image to save: picture with overlay and marks on the left, all tiles on the right, the scale below.

import { PixelCanvas, penOf } from "#shared/canvas.js";
import { cssColour } from "#shared/colours.js";
import { element } from "#shared/elements.js";
import { formatPercent } from "#shared/format.js";
import { cellOf, tileLayout } from "#shared/patches.js";
import { colourise, valueAt } from "#shared/scale.js";
import { maxMagnitude } from "#shared/statistics.js";
import { isLogarithmic } from "./scales.js";
import { snapshotTitle } from "./snapshot.js";

/** @import { Piece } from "#shared/types.js" */
/** @import { Snapshot } from "./snapshot.js" */

/** @typedef {{background: string, text: string, muted: string, font: string}} Colours */
/** @typedef {{x: number, y: number, width: number, height: number}} Box */

const [MARGIN, GAP, CAPTION, TITLE, BAR] = [24, 10, 22, 40, 46]; // heights and distances, in pixels

/**
 * @param {Snapshot} shot
 * @param {Colours} colours of the theme
 * @returns {HTMLCanvasElement}
 */
export function snapshotImage(shot, colours) {
  const { heads, picture } = shot;
  const aspect = picture.height / picture.width;
  const width = Math.min(680, Math.round(680 / Math.max(1, aspect)));
  const height = Math.round(width * aspect);
  const { columns, tile } = tileLayout(heads + 1, 900, Math.max(height, 420), aspect, GAP, CAPTION, 90);
  const tileHeight = Math.round(tile * aspect);
  const tilesWidth = Math.max(620, columns * (tile + GAP) - GAP); // the scale needs some width too
  const lines = Math.ceil((heads + 1) / columns);
  const body = Math.max(height, lines * (tileHeight + CAPTION) + GAP * (lines - 1));
  const canvas = element("canvas", {
    width: MARGIN * 3 + width + tilesWidth,
    height: MARGIN * 2 + TITLE + body + BAR,
  });
  const pen = penOf(canvas);
  pen.fillStyle = colours.background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = colours.text;
  pen.font = `600 20px ${colours.font}`;
  pen.textBaseline = "top";
  pen.fillText(snapshotTitle(shot), MARGIN, MARGIN);

  const top = MARGIN + TITLE;
  const left = MARGIN * 2 + width;
  drawPicture(pen, shot, { x: MARGIN, y: top, width, height });
  const cells = new PixelCanvas();
  for (const [n, index] of [heads, ...shot.order].entries()) {
    const x = left + (n % columns) * (tile + GAP);
    const y = top + Math.floor(n / columns) * (tileHeight + CAPTION + GAP);
    drawTile(pen, shot, cells, index, { x, y, width: tile, height: tileHeight }, colours);
  }
  drawBar(pen, shot, { x: left, y: top + body + 14, width: 360, height: 12 }, colours);
  return canvas;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Snapshot} shot
 * @param {Box} box
 */
function drawPicture(pen, { grid, picture, overlay, opacity, tokens, windows, mode }, { x, y, width, height }) {
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, x, y, width, height);
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = opacity;
  pen.drawImage(overlay, x, y, width, height);
  pen.globalAlpha = 1;
  const colours = mode === "difference" ? ["#ff6b4a", "#4aa3ff"] : ["#ffffff"];
  const [cellWidth, cellHeight] = [width / grid.cols, height / grid.rows];
  /**
   * @param {Piece} piece
   * @param {number} line
   * @param {string} colour
   */
  const outline = (piece, line, colour) => {
    pen.lineWidth = line;
    pen.strokeStyle = colour;
    const [across, down] = [piece.cols * cellWidth, piece.rows * cellHeight];
    pen.strokeRect(x + piece.col * cellWidth, y + piece.row * cellHeight, across, down);
  };
  for (const [n, token] of tokens.entries()) {
    const cell = cellOf(grid, token);
    if (!cell) continue;
    /** @type {[Piece | undefined, number][]} */
    const pieces = [
      [windows[n], 1.5],
      [{ row: cell[0], col: cell[1], rows: 1, cols: 1 }, 2.5],
    ];
    for (const [piece, line] of pieces) {
      if (!piece) continue;
      outline(piece, 2 * line, "rgba(0, 0, 0, 0.6)");
      outline(piece, line, colours[n]);
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Snapshot} shot
 * @param {PixelCanvas} cells to paint on
 * @param {number} index of the map
 * @param {Box} box
 * @param {Colours} colours
 */
function drawTile(pen, { grid, heads, values, scales, table }, cells, index, { x, y, width, height }, colours) {
  const patches = grid.rows * grid.cols;
  const scale = scales[index];
  const from = index * (grid.prefix + patches) + grid.prefix;
  colourise(values, from, patches, scale, table, cells.fit(grid.rows, grid.cols));
  cells.paint();
  pen.drawImage(cells.canvas, x, y, width, height);
  pen.font = `500 13px ${colours.font}`;
  pen.fillStyle = colours.text;
  pen.textAlign = "left";
  pen.fillText(index === heads ? "Mean" : `Head ${index}`, x, y + height + 5);
  pen.fillStyle = colours.muted;
  pen.textAlign = "right";
  pen.fillText(
    `${scale.low < 0 ? "\u00b1" : "max "}${formatPercent(maxMagnitude(values, from, patches))}`,
    x + width,
    y + height + 5,
  );
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Snapshot} shot
 * @param {Box} box
 * @param {Colours} colours
 */
function drawBar(pen, { head, heads, scales, scaleMode, table }, { x, y, width, height }, colours) {
  for (let n = 0; n < 256; n++) {
    pen.fillStyle = cssColour(table, n);
    pen.fillRect(x + (n * width) / 256, y, width / 256 + 1, height);
  }
  const scale = scales[head === null || head < 0 ? heads : head];
  let words = scale.low < 0 ? "\u2212max to max of each head" : "0 to max of each head";
  if (scaleMode !== "head") words = [0, 1].map((t) => formatPercent(valueAt(scale, t))).join(" to ");
  pen.fillStyle = colours.muted;
  pen.textAlign = "left";
  pen.fillText(`${words}${isLogarithmic(scale) ? ", log" : ""}`, x + width + 12, y);
}

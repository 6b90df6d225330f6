// The view as one image to save: picture with overlay and marks on the left, all tiles on the right, the scale below.

import { PixelCanvas } from "#shared/canvas.js";
import { formatPercent } from "#shared/format.js";
import { cellOf, tileLayout } from "#shared/patches.js";
import { colourise, ticksOf } from "#shared/scale.js";
import { BAR_HEIGHT, MARGIN, SnapshotSheet } from "#shared/snapshot_sheet.js";
import { maxMagnitude } from "#shared/statistics.js";
import { isLogarithmic } from "./scales.js";
import { snapshotTitle, WEIGHT_UNIT } from "./snapshot.js";

/** @import { BarContent, Box } from "#shared/snapshot_sheet.js" */
/** @import { themeColours } from "#shared/theme.js" */
/** @import { Piece } from "#shared/types.js" */
/** @import { Snapshot } from "./snapshot.js" */

const [GAP, CAPTION] = [10, 22]; // pixels

/**
 * @param {Snapshot} shot
 * @param {ReturnType<typeof themeColours>} colours of the theme
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
  const sheet = new SnapshotSheet({
    title: snapshotTitle(shot),
    origin: shot.origin,
    width: width + MARGIN + tilesWidth,
    height: body + GAP + BAR_HEIGHT,
    colours,
  });
  const { top } = sheet;
  const left = MARGIN * 2 + width;
  drawPicture(sheet, shot, { x: MARGIN, y: top, width, height });
  const cells = new PixelCanvas();
  for (const [n, index] of [heads, ...shot.order].entries()) {
    const x = left + (n % columns) * (tile + GAP);
    const y = top + Math.floor(n / columns) * (tileHeight + CAPTION + GAP);
    drawTile(sheet, shot, cells, index, { x, y, width: tile, height: tileHeight });
  }
  sheet.drawBar(barOf(shot), { x: left, y: top + body + GAP, width: 480 });
  return sheet.canvas;
}

/**
 * @param {SnapshotSheet} sheet
 * @param {Snapshot} shot
 * @param {Box} box
 */
function drawPicture(sheet, { grid, picture, overlay, opacity, tokens, windows, mode }, box) {
  sheet.drawPanel(picture, box, { smooth: true });
  sheet.drawPanel(overlay, box, { opacity });
  const colours = mode === "difference" ? ["#ff6b4a", "#4aa3ff"] : ["#ffffff"];
  const [cellWidth, cellHeight] = [box.width / grid.cols, box.height / grid.rows];
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
      const [x, y] = [box.x + piece.col * cellWidth, box.y + piece.row * cellHeight];
      sheet.drawFrame({ x, y, width: piece.cols * cellWidth, height: piece.rows * cellHeight }, line, colours[n]);
    }
  }
}

/**
 * @param {SnapshotSheet} sheet
 * @param {Snapshot} shot
 * @param {PixelCanvas} cells to paint on
 * @param {number} index of the map
 * @param {Box} box
 */
function drawTile(sheet, { grid, heads, values, scales, table }, cells, index, box) {
  const patches = grid.rows * grid.cols;
  const from = index * (grid.prefix + patches) + grid.prefix;
  colourise(values, from, patches, scales[index], table, cells.fit(grid.rows, grid.cols));
  cells.paint();
  sheet.drawPanel(cells.canvas, box);
  const below = box.y + box.height + 5;
  sheet.write(index === heads ? "Mean" : `Head ${index}`, box.x, below, { weight: 500, width: box.width / 2 });
  const sign = scales[index].low < 0 ? "\u00b1" : "max ";
  const top = `${sign}${formatPercent(maxMagnitude(values, from, patches))}`;
  const { muted } = sheet.colours;
  sheet.write(top, box.x + box.width, below, { colour: muted, align: "right", width: box.width / 2 });
}

/**
 * @param {Snapshot} shot
 * @returns {BarContent}
 */
function barOf({ head, heads, scales, scaleMode, table }) {
  const scale = scales[head === null || head < 0 ? heads : head];
  const isSigned = scale.low < 0;
  /** @type {[number, string][]} */
  let ticks = isSigned
    ? [
        [0, "\u2212max"],
        [0.5, "0"],
        [1, "max"],
      ]
    : [
        [0, "0"],
        [1, "max"],
      ];
  if (scaleMode !== "head") ticks = ticksOf(scale, isLogarithmic(scale) ? 5 : 3, formatPercent);
  const range = scaleMode === "head" ? "of each tile" : isLogarithmic(scale) ? "one range, logarithmic" : "one range";
  return { table, ticks, note: `${isSigned ? "difference of " : ""}${WEIGHT_UNIT}; ${range}` };
}

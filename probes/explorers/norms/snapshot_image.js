// The view as one image: the picture with the chosen block's map on the left, the maps of all blocks on the right.

import { formatNumber } from "#shared/format.js";
import { cellOf } from "#shared/patches.js";
import { ticksOf } from "#shared/scale.js";
import { BAR_HEIGHT, MARGIN, SnapshotSheet } from "#shared/snapshot_sheet.js";
import { nameOf, unitOf } from "./shown_map.js";

/** @import { Origin } from "#shared/origin.js" */
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
 * @property {boolean} shared whether all norm maps have one range
 * @property {Origin} origin
 */

const [GAP, CAPTION] = [12, 38]; // pixels

/**
 * @param {ShownMap} map
 * @returns {string}
 */
export function snapshotTitle(map) {
  return `Block ${map.block.block}: ${map.what === "norm" ? "token norms" : nameOf(map)}`;
}

/**
 * @param {Snapshot} shot
 * @param {ReturnType<typeof themeColours>} colours
 * @returns {HTMLCanvasElement}
 */
export function snapshotImage({ map, picture, overlay, outline, opacity, tiles, shared, origin }, colours) {
  const aspect = picture.height / picture.width;
  const left = Math.min(680, Math.round(680 / Math.max(1, aspect)));
  const columns = Math.min(tiles.length, Math.max(4, Math.ceil(Math.sqrt(tiles.length * aspect * 1.4))));
  const wide = Math.floor((920 - GAP * (columns - 1)) / columns);
  const high = Math.round(wide * aspect);
  const body = Math.max(Math.round(left * aspect), Math.ceil(tiles.length / columns) * (high + CAPTION + GAP) - GAP);
  const sheet = new SnapshotSheet({
    title: snapshotTitle(map),
    origin,
    width: left + MARGIN + columns * (wide + GAP) - GAP,
    height: body + GAP + BAR_HEIGHT,
    colours,
  });
  const { top } = sheet;
  const { block, scale, table } = map;
  const box = { x: MARGIN, y: top, width: left, height: left * aspect };
  sheet.drawPanel(picture, box, { smooth: true });
  sheet.drawPanel(overlay, box, { opacity });
  sheet.drawPanel(outline, box, { smooth: true });
  const cell = map.anchor === null ? null : cellOf(block, map.anchor);
  if (cell) {
    const [width, height] = [box.width / block.cols, box.height / block.rows];
    sheet.drawFrame({ x: MARGIN + cell[1] * width, y: top + cell[0] * height, width, height }, 2, colours.pin);
  }

  for (const [n, tile] of tiles.entries()) {
    const x = MARGIN * 2 + left + (n % columns) * (wide + GAP);
    const y = top + Math.floor(n / columns) * (high + CAPTION + GAP);
    const { block: number, prefix, values, low, high: largest } = tile.block;
    sheet.drawPanel(tile.canvas, { x, y, width: wide, height: high });
    /** @type {{size: number, align: CanvasTextAlign, width: number}} */
    const right = { size: 12, align: "right", width: wide / 2 };
    sheet.write(`Block ${number}`, x, y + high + 4, { weight: 500, width: wide / 2 });
    if (prefix) {
      sheet.write(`cls ${formatNumber(values[0])}`, x + wide, y + high + 5, { ...right, colour: colours.muted });
    }
    const range = `${formatNumber(low)} \u2013 ${formatNumber(largest)}`;
    sheet.write(range, x, y + high + 21, { size: 12, colour: colours.muted, width: wide * 0.7 });
    if (tile.outliers) {
      sheet.write(String(tile.outliers), x + wide, y + high + 21, { ...right, weight: 600, colour: colours.outlier });
    }
  }
  const kind = scale.kind === "log" ? ", logarithmic" : "";
  const range = shared ? "one range for all blocks" : "each block has its own range";
  const note = map.what === "norm" ? `block ${block.block}; ${range}${kind}` : `block ${block.block}`;
  const bar = { table, ticks: ticksOf(scale, 5, formatNumber), note: `${unitOf(map)}: ${note}` };
  sheet.drawBar(bar, { x: MARGIN, y: top + body + GAP, width: left });
  return sheet.canvas;
}

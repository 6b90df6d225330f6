// What leaves the attention explorer: the numbers of a view, and the Python that computes them. No DOM.

import { csv, npz } from "#shared/files.js";
import { namedAfter, originArrays } from "#shared/origin.js";
import { cellOf, tokenName } from "#shared/patches.js";
import { capturePython, pythonCode } from "#shared/python.js";

/** @import { Facts, Origin } from "#shared/origin.js" */
/** @import { ColourTable, Grid, Piece, PythonCode, Scale } from "#shared/types.js" */
/** @import { Mode } from "./selection.js" */

/**
 * A view at one moment.
 *
 * @typedef {object} Snapshot
 * @property {number} block
 * @property {"row" | "column"} direction
 * @property {Mode} mode
 * @property {number[]} tokens A or B, or both of a difference
 * @property {number | null} head the enlarged one; -1: the mean
 * @property {Grid} grid
 * @property {number} heads
 * @property {Float32Array} values (heads + 1, tokens), the mean last
 * @property {string} call Python that computes the depth
 * @property {string} [opened] Python that opens the stored capture
 * @property {PythonCode} [code] how Python gets the model and the image
 * @property {number[]} order heads as displayed
 * @property {Scale[]} scales of the heads and the mean
 * @property {"head" | "shared" | "log"} scaleMode
 * @property {ColourTable} table
 * @property {(Piece | undefined)[]} windows what each token sees; undefined: everything
 * @property {HTMLCanvasElement} picture
 * @property {HTMLCanvasElement} overlay
 * @property {number} opacity
 * @property {Origin} origin
 */

export const WEIGHT_UNIT = "attention weight, 1 is the sum of a row";

/**
 * @param {Snapshot} shot
 * @returns {string}
 */
export function snapshotTitle(shot) {
  const names = shot.tokens.map((token) => tokenName(shot.grid, token));
  const what = shot.direction === "row" ? "what it looks at" : "who looks at it";
  const whose = shot.mode === "difference" ? `${names[0]} \u2212 ${names[1]}` : names[0];
  const kind = shot.tokens[0] < shot.grid.prefix ? "Token" : "Patch";
  return `${kind} ${whose}: ${what}, block ${shot.block}`;
}

/**
 * A file name without its ending, which differs between the views of one picture.
 *
 * @param {Snapshot} shot
 * @returns {string}
 */
export function snapshotName(shot) {
  const names = shot.tokens.map((token) => tokenName(shot.grid, token).replace(/[() ]/g, "").replace(",", "-"));
  return namedAfter(`attention_block${shot.block}_${shot.direction}_${names.join("_minus_")}`, shot.origin);
}

/**
 * What a file of the view says about itself.
 *
 * @param {Snapshot} shot
 * @returns {Facts & {title: string}}
 */
export function snapshotFacts(shot) {
  const { block, direction, tokens, grid, scaleMode } = shot;
  const names = tokens.map((token) => tokenName(grid, token));
  return { title: snapshotTitle(shot), unit: WEIGHT_UNIT, block, direction, tokens: names, colour_range: scaleMode };
}

/**
 * Arrays for numpy.load(): attention (heads, rows, cols), mean (rows, cols), prefix (heads, prefix tokens), block,
 * tokens, direction, model, image, meta. The weights are those of the view, whatever its colours.
 *
 * @param {Snapshot} shot
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function snapshotNpz(shot) {
  const { heads, values, grid } = shot;
  const { rows, cols, prefix } = grid;
  const tokens = prefix + rows * cols;
  const attention = new Float32Array(heads * rows * cols);
  const extra = new Float32Array(heads * prefix);
  for (let head = 0; head < heads; head++) {
    attention.set(values.subarray(head * tokens + prefix, (head + 1) * tokens), head * rows * cols);
    extra.set(values.subarray(head * tokens, head * tokens + prefix), head * prefix);
  }
  const mean = values.slice(heads * tokens + prefix, (heads + 1) * tokens);
  return npz({
    attention: [attention, [heads, rows, cols]],
    mean: [mean, [rows, cols]],
    prefix: [extra, [heads, prefix]],
    block: [Int32Array.of(shot.block), []],
    tokens: [Int32Array.from(shot.tokens), [shot.tokens.length]],
    direction: [shot.direction],
    ...originArrays(shot.origin, snapshotFacts(shot)),
  });
}

/**
 * One line per head and token. Tokens before the patches have a name instead of a row and a column. The last columns
 * repeat what the whole table is.
 *
 * @param {Snapshot} shot
 * @returns {string}
 */
export function snapshotCsv(shot) {
  const { heads, values, grid, origin, block, direction } = shot;
  const tokens = grid.prefix + grid.rows * grid.cols;
  const whole = [block, direction, shot.tokens.map((token) => tokenName(grid, token)).join(" minus ")];
  const lines = [];
  for (let head = 0; head < heads; head++) {
    for (let token = 0; token < tokens; token++) {
      const cell = cellOf(grid, token);
      const place = cell ? ["patch", ...cell] : [tokenName(grid, token), "", ""];
      lines.push([head, ...place, values[head * tokens + token], ...whole, origin.model, origin.image]);
    }
  }
  return csv(["head", "token", "row", "col", "value", "block", "direction", "of", "model", "image"], lines);
}

/**
 * Python that computes the numbers of the view with the public API.
 *
 * @param {Pick<Snapshot, "block" | "direction" | "mode" | "tokens" | "head" | "grid" | "call" | "opened" | "code">} shot
 * @returns {string}
 */
export function snapshotPython(shot) {
  const { grid, direction, head } = shot;
  const point = `encoder.blocks.${shot.block}.attention`;
  /** @param {number} token */
  const where = (token) => (token < grid.prefix ? `token=${token}` : `patch=${tokenName(grid, token)}`);
  /** @param {number} token */
  const map = (token) => `shown_attention.map(${where(token)}, direction="${direction}")`;
  const lines = [...capturePython(point, shot), `shown_attention = shown_capture["${point}"]`];
  if (shot.mode === "difference")
    lines.push(`shown_maps = ${map(shot.tokens[0])} - ${map(shot.tokens[1])}  # (head, row, col)`);
  else lines.push(`shown_maps = ${map(shot.tokens[0])}  # (head, row, col)`);
  if (head === -1) lines.push(`shown_maps.mean("head")`);
  else if (head !== null) lines.push(`shown_maps.isel(head=${head})`);
  return pythonCode(shot.code, ["import probes"], lines);
}

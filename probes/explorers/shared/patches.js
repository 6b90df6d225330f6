// Tokens over an image: their names, their places, steps between them, and tiles in a given space. No DOM.

/** @import { Grid } from "./types.js" */

/**
 * The name of a token before the patches: the class token, then registers.
 *
 * @param {number} token
 * @returns {string}
 */
export function prefixName(token) {
  return token === 0 ? "cls" : `r${token}`;
}

/**
 * "cls", "r1" or "(row, column)".
 *
 * @param {Grid} grid
 * @param {number} token
 * @returns {string}
 */
export function tokenName(grid, token) {
  if (token < grid.prefix) return prefixName(token);
  const [row, col] = /** @type {[number, number]} */ (cellOf(grid, token));
  return `(${row}, ${col})`;
}

/**
 * Row and column of a token; null for the tokens before the patches.
 *
 * @param {Grid} grid
 * @param {number} token
 * @returns {[row: number, col: number] | null}
 */
export function cellOf(grid, token) {
  const patch = token - grid.prefix;
  return patch < 0 ? null : patchCell(patch, grid.cols);
}

/**
 * Row and column of a patch.
 *
 * @param {number} patch counted row by row, without the tokens before the patches
 * @param {number} cols of the grid
 * @returns {[row: number, col: number]}
 */
export function patchCell(patch, cols) {
  return [Math.floor(patch / cols), patch % cols];
}

/**
 * @param {number} value
 * @param {number} count
 * @returns {number} the whole number from 0 to count - 1 nearest to `value`
 */
function within(value, count) {
  return Math.min(count - 1, Math.max(0, Math.floor(value)));
}

/**
 * The patch at a point. Points outside the image go to the nearest patch.
 *
 * @param {Grid} grid
 * @param {number} x fraction of the image's width
 * @param {number} y fraction of its height
 * @returns {number} token
 */
export function patchAt(grid, x, y) {
  return grid.prefix + within(y * grid.rows, grid.rows) * grid.cols + within(x * grid.cols, grid.cols);
}

/**
 * The token some steps away on the grid. From a prefix token every step leads to the first patch.
 *
 * @param {Grid} grid
 * @param {number} token
 * @param {number} down
 * @param {number} right
 * @returns {number} token
 */
export function stepToken(grid, token, down, right) {
  const cell = cellOf(grid, token);
  if (!cell) return grid.prefix;
  return grid.prefix + within(cell[0] + down, grid.rows) * grid.cols + within(cell[1] + right, grid.cols);
}

/**
 * The token of a grid that covers the centre of a token of another grid over the same image. Prefix tokens stay.
 *
 * @param {Grid} grid
 * @param {Grid} other the grid of `token`
 * @param {number} token
 * @returns {number} token of `grid`
 */
export function sameSpot(grid, other, token) {
  const cell = cellOf(other, token);
  if (!cell) return token;
  // In half patches the centres are whole numbers, which divide without rounding, as in the kernel.
  const row = Math.floor(((2 * cell[0] + 1) * grid.rows) / (2 * other.rows));
  const col = Math.floor(((2 * cell[1] + 1) * grid.cols) / (2 * other.cols));
  return grid.prefix + row * grid.cols + col;
}

/**
 * Makes `count` tiles of one shape, each with a caption, as wide as they can be in a space. If that is narrower than
 * `smallest`, they get that width, and more height.
 *
 * @param {number} count
 * @param {number} width
 * @param {number} height
 * @param {number} aspect height / width of a tile
 * @param {number} gap
 * @param {number} caption its height
 * @param {number} smallest
 * @returns {{columns: number, tile: number}} tile: width
 */
export function tileLayout(count, width, height, aspect, gap, caption, smallest) {
  let best = { columns: 1, tile: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const lines = Math.ceil(count / columns);
    const across = (width - gap * (columns - 1)) / columns;
    const down = ((height - gap * (lines - 1)) / lines - caption) / aspect;
    const tile = Math.floor(Math.min(across, down));
    if (tile > best.tile) best = { columns, tile };
  }
  if (best.tile >= smallest) return best;
  const columns = Math.min(count, Math.max(1, Math.floor((width + gap) / (smallest + gap))));
  return { columns, tile: Math.max(1, Math.floor((width - gap * (columns - 1)) / columns)) };
}

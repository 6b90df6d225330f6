// How tokens lie in windows, by the rules of TokenGrid.windows() in dpt/config.py and the mask of dpt/swinv2.py. No DOM.
//
// Windows tile a grid that is shifted down and to the right. The part of a window beyond one border wraps around to the
// opposite one. Tokens that share a window only because of that do not see each other. With a window and shift of 2 on a
// grid of 4 x 4, tokens lie in these windows; window 3 has four pieces, and each token sees only its own piece:
//
//     shift 0:  0 0 1 1    shift 1:  3 2 2 3
//               0 0 1 1              1 0 0 1
//               2 2 3 3              1 0 0 1
//               2 2 3 3              3 2 2 3

import { patchCell } from "#shared/patches.js";

/** @import { Piece } from "#shared/types.js" */

/**
 * @typedef {object} WindowLayout
 * @property {number} rows of the grid
 * @property {number} cols of the grid
 * @property {[number, number]} window rows and columns of a window
 * @property {[number, number]} shift down and right
 */

/**
 * Tokens window by window, and row by row within each.
 *
 * @param {WindowLayout} layout
 * @returns {Int32Array}
 */
export function windowTokens({ rows, cols, window: [high, wide], shift: [down, right] }) {
  const tokens = new Int32Array(rows * cols);
  let n = 0;
  for (let top = 0; top < rows; top += high) {
    for (let left = 0; left < cols; left += wide) {
      for (let row = top; row < top + high; row++) {
        for (let col = left; col < left + wide; col++) {
          tokens[n++] = ((row + down) % rows) * cols + ((col + right) % cols);
        }
      }
    }
  }
  return tokens;
}

/**
 * The stretches of one axis that a window covers.
 *
 * @param {number} at a place in the window
 * @param {number} side length of the axis
 * @param {number} window
 * @param {number} shift
 * @returns {[start: number, length: number][]} the stretch with `at` first
 */
function stretches(at, side, window, shift) {
  const shifted = (at - shift + side) % side;
  const start = shifted - (shifted % window) + shift;
  const over = start + window - side; // how far the window reaches beyond the border
  if (over <= 0) return [[start, window]];
  /** @type {[number, number][]} */
  const both = [
    [start, side - start],
    [0, over],
  ];
  return at < over ? both.reverse() : both;
}

/**
 * The pieces of a patch's window. The first is the one that the patch sees.
 *
 * @param {WindowLayout} layout
 * @param {number} row of the patch
 * @param {number} col of the patch
 * @returns {Piece[]}
 */
export function windowPieces({ rows, cols, window, shift }, row, col) {
  const down = stretches(row, rows, window[0], shift[0]);
  const right = stretches(col, cols, window[1], shift[1]);
  return down.flatMap(([top, high]) => right.map(([left, wide]) => ({ row: top, col: left, rows: high, cols: wide })));
}

/**
 * The number of each token's piece, in the order of windowTokens(): tokens of a window see each other where these are
 * equal. Null without a shift, where all of a window do.
 *
 * @param {WindowLayout} layout
 * @param {Int32Array} tokens
 * @returns {Uint8Array | null}
 */
export function windowBands(layout, tokens) {
  if (!layout.shift[0] && !layout.shift[1]) return null;
  const { cols } = layout;
  return Uint8Array.from(tokens, (token) => {
    const [seen] = windowPieces(layout, ...patchCell(token, cols));
    // Only some pieces of a window begin at the border where the others were cut.
    return 2 * Number(seen.row === 0) + Number(seen.col === 0);
  });
}

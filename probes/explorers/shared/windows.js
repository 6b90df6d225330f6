// How tokens lie in windows, by the rules of TokenGrid.windows() in dpt/config.py and the mask of dpt/swinv2.py. No DOM.
//
// Windows tile a grid that is shifted down and to the right; what hangs over at one border comes back in at the other.
// Tokens that meet in a window only so do not see each other. With a window and shift of 2 on a grid of 4 x 4, tokens
// carry these windows' numbers; window 3 lies in four pieces, and each of its tokens sees its own piece alone:
//
//     shift 0:  0 0 1 1    shift 1:  3 2 2 3
//               0 0 1 1              1 0 0 1
//               2 2 3 3              1 0 0 1
//               2 2 3 3              3 2 2 3
//
// A layout is {rows, cols, window: [rows, cols], shift: [rows, cols]}.

/** Which token stands where: Int32Array of all tokens, window by window and row by row within each. */
export function windowPlaces({ rows, cols, window: [high, wide], shift: [down, right] }) {
  const places = new Int32Array(rows * cols);
  let n = 0;
  for (let top = 0; top < rows; top += high) {
    for (let left = 0; left < cols; left += wide) {
      for (let row = top; row < top + high; row++) {
        for (let col = left; col < left + wide; col++) {
          places[n++] = ((row + down) % rows) * cols + ((col + right) % cols);
        }
      }
    }
  }
  return places;
}

/** The stretches of one axis that the window of `at` covers, the one with `at` first: [[start, length], ...]. */
function stretches(at, side, window, shift) {
  const shifted = (at - shift + side) % side;
  const start = shifted - (shifted % window) + shift;
  const over = start + window - side; // how far it hangs over the border
  if (over <= 0) return [[start, window]];
  const both = [
    [start, side - start],
    [0, over],
  ];
  return at < over ? both.reverse() : both;
}

/** The pieces of a patch's window as {row, col, rows, cols}, first the one that the patch sees; row, col: the patch's. */
export function windowPieces({ rows, cols, window, shift }, row, col) {
  const down = stretches(row, rows, window[0], shift[0]);
  const right = stretches(col, cols, window[1], shift[1]);
  return down.flatMap(([top, high]) => right.map(([left, wide]) => ({ row: top, col: left, rows: high, cols: wide })));
}

/**
 * For each place of windowPlaces() the number of its token's piece: tokens of a window see each other where these are
 * equal. Null without a shift, where all of a window do.
 */
export function windowBands(layout, places) {
  if (!layout.shift[0] && !layout.shift[1]) return null;
  const { cols } = layout;
  return Uint8Array.from(places, (token) => {
    const [seen] = windowPieces(layout, Math.floor(token / cols), token % cols);
    // Pieces of one window differ in whether they begin at the border that the others were cut at.
    return 2 * (seen.row === 0) + (seen.col === 0);
  });
}

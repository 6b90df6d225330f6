// Places on the image as fractions, and the cells of a grid that they lie in. No DOM.

/** @typedef {[down: number, right: number]} Place fractions of the image's height and width */
/** @typedef {[row: number, col: number]} Cell */
/** @typedef {{rows: number, cols: number}} Cells */

/**
 * @param {number} value
 * @param {number} count
 * @returns {number} the whole number from 0 to count - 1 nearest to `value`
 */
function within(value, count) {
  return Math.min(count - 1, Math.max(0, Math.floor(value)));
}

/**
 * The cell at a place. Places outside the image go to the nearest cell.
 *
 * @param {Cells} cells
 * @param {Readonly<Place>} place
 * @returns {Cell}
 */
export function cellAt({ rows, cols }, [down, right]) {
  return [within(down * rows, rows), within(right * cols, cols)];
}

/**
 * The middle of a cell.
 *
 * @param {Cells} cells
 * @param {Readonly<Cell>} cell
 * @returns {Place}
 */
export function middleOf({ rows, cols }, [row, col]) {
  return [(row + 0.5) / rows, (col + 0.5) / cols];
}

/**
 * The cell some steps away, inside the grid.
 *
 * @param {Cells} cells
 * @param {Readonly<Cell>} cell
 * @param {number} down
 * @param {number} right
 * @returns {Cell}
 */
export function stepCell({ rows, cols }, [row, col], down, right) {
  return [within(row + down, rows), within(col + right, cols)];
}

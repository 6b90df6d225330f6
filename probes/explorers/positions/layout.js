// Where things go in the position explorer, in pixels, from the available width. No DOM.

const GAP = 24; // between the columns
const SPACE = 10; // between images
const CAPTION = 22;
const STAGE = 430; // largest height of the grid
const SMALLEST = 84; // width of an image
const TALLEST = 300; // enlarged image

/**
 * @typedef {object} PositionPlacement
 * @property {boolean} beside images beside the grid, or else below it
 * @property {number} left width of the left column
 * @property {number} stage width of the grid
 * @property {number} columns of images
 * @property {number} tile width of an image
 * @property {number} page images at a time
 * @property {number} big height of the enlarged images; 0 if none is
 */

/**
 * @param {number} width
 * @param {number} aspect height / width of an image
 * @param {number} count of images
 * @param {readonly number[]} panes aspects of the images that are enlarged side by side
 * @param {number} below height of what is below the grid
 * @param {number} [tallest] height that the screen leaves for the grid
 * @returns {PositionPlacement}
 */
export function positionLayout(width, aspect, count, panes, below, tallest = Infinity) {
  const beside = width >= 640;
  const left = beside ? Math.round(Math.min(480, Math.max(300, width * 0.36))) : width;
  const stage = Math.floor(Math.min(left, Math.min(STAGE, tallest) / aspect));
  const room = beside ? width - left - GAP : width;
  const height = Math.max(STAGE, stage * aspect + below); // about where the left column ends
  const across = panes.reduce((sum, one) => sum + 1 / one, 0); // width of all enlarged images at height 1
  const big = panes.length ? Math.floor(Math.min((room - SPACE * (panes.length - 1)) / across, TALLEST)) : 0;
  const rest = panes.length ? Math.max(150, height - big - CAPTION - SPACE) : height;
  // A few images grow until they fill the room. Of many, as many are shown at a time as fit at a readable size.
  let columns = 1;
  let tile = 0;
  for (let n = 1; n <= count; n++) {
    const lines = Math.ceil(count / n);
    const wide = Math.floor((room - SPACE * (n - 1)) / n);
    const down = Math.floor(((rest - SPACE * (lines - 1)) / lines - CAPTION) / aspect);
    if (Math.min(wide, down) > tile) [columns, tile] = [n, Math.min(wide, down)];
  }
  if (tile < SMALLEST) {
    columns = Math.max(1, Math.floor((room + SPACE) / (SMALLEST + SPACE)));
    tile = Math.floor((room - SPACE * (columns - 1)) / columns);
  }
  const lines = Math.max(panes.length ? 1 : 2, Math.floor((rest + SPACE) / (tile * aspect + CAPTION + SPACE)));
  return { beside, left, stage, columns, tile, page: columns * lines, big };
}

// Where things go in the norm explorer, in pixels, from the available width. No DOM.

import { tileLayout } from "#shared/patches.js";

/** @import { Placement } from "#shared/picture_stage.js" */

// Between picture and maps, between maps, a map's two lines of caption: the style sheet has the same numbers.
const GAP = 24;
const SPACE = 10;
const CAPTION = 38;

const CONTROLS = 330; // width that the controls under the picture need
const UNDER = 180; // height of these controls
const SIDE = 210; // width of histogram and facts beside an enlarged map
const SMALLEST = 84; // width of a map
const NARROW = 72; // of a map of a tall picture: more of them stand in a row
const LARGEST = 260;

/**
 * @param {number} width
 * @param {number} aspect height / width of the picture
 * @param {number} blocks
 * @param {boolean} enlarged whether a block is enlarged
 * @param {number} [tallest] height that the screen leaves for the picture
 * @returns {Placement & {under: boolean}} `under`: the histogram is under the enlarged map, not beside it
 */
export function normLayout(width, aspect, blocks, enlarged, tallest = Infinity) {
  const beside = width >= 640;
  const picture = beside
    ? Math.floor(Math.min(width * 0.42, 680, Math.min(560, tallest) / aspect, Math.max(300, width - GAP - 420)))
    : Math.floor(Math.min(width, Math.min(520, tallest) / aspect));
  const left = beside ? Math.max(picture, CONTROLS) : width;
  const room = beside ? width - left - GAP : width;
  const height = Math.max(360, picture * aspect + UNDER);
  const smallest = aspect > 2 ? NARROW : SMALLEST;
  if (!enlarged) {
    const { columns, tile } = tileLayout(blocks, room, height, aspect, SPACE, CAPTION, smallest);
    return { beside, left, picture, columns, tile: Math.min(tile, LARGEST), big: 0, under: false };
  }
  const across = Math.max(2, Math.min(blocks, 8, Math.floor((room + SPACE) / (SMALLEST + SPACE))));
  const columns = Math.ceil(blocks / Math.ceil(blocks / across)); // lines of equal length
  const tile = Math.min(120, Math.floor((room - SPACE * (columns - 1)) / columns));
  const under = room < 300 + SIDE;
  const strip = Math.ceil(blocks / columns) * (tile * aspect + CAPTION + SPACE);
  const most = Math.max(260, height - strip - 30) / aspect;
  return { beside, left, picture, columns, tile, big: Math.floor(Math.min(under ? room : room - SIDE, most)), under };
}

// Where things go in the attention explorer, in pixels, by the width of the widget. No DOM.

import { tileLayout } from "#shared/patches.js";

/** @import { Placement } from "#shared/picture_stage.js" */

// As in the style sheet: between picture and tiles, between tiles, and the two lines of a caption.
const GAP = 24;
const SPACE = 10;
const CAPTION = 38;

const CONTROLS = 300; // width that the controls under the picture need
const OPTIONS = 510; // width that the options above the tiles need for one line
const SMALLEST = 72; // width of a tile

/**
 * @param {number} width of the widget
 * @param {number} aspect height / width of the picture
 * @param {number} heads
 * @param {boolean} enlarged whether a map is enlarged
 * @param {number} [tallest] height that the screen leaves for the picture
 * @returns {Placement}
 */
export function attentionLayout(width, aspect, heads, enlarged, tallest = Infinity) {
  const beside = width >= 600;
  /** @param {number} picture width */
  const tilesFor = (picture) => {
    const left = beside ? Math.max(picture, CONTROLS) : width;
    const room = beside ? width - left - GAP : width;
    const height = Math.max(320, picture * aspect + 20); // the tiles end about where the controls under the picture do
    return { left, room, height, ...tileLayout(heads + 1, room, height * 1.08, aspect, SPACE, CAPTION, SMALLEST) };
  };
  let picture = Math.floor(Math.min(width, Math.min(520, tallest) / aspect));
  if (beside) {
    // Picture and tiles share the width: together they cover the largest possible area.
    const most = Math.min(
      width * 0.5,
      760,
      Math.min(600, tallest) / aspect,
      Math.max(width * 0.42, width - GAP - OPTIONS),
    );
    /** @param {number} candidate width of the picture */
    const area = (candidate) => candidate ** 2 + (heads + 1) * tilesFor(candidate).tile ** 2;
    picture = Math.floor(Math.max(Math.min(250, most), Math.min(width * 0.34, most)));
    for (let wider = picture; wider <= most; wider += 4) if (area(wider) > area(picture)) picture = wider;
  }
  const { left, room, height, columns, tile } = tilesFor(picture);
  if (!enlarged) return { beside, left, picture, columns, tile, big: 0 };
  // A strip of small tiles lies under the enlarged map.
  const across = Math.min(heads, Math.max(4, Math.floor((room + SPACE) / (86 + SPACE))));
  const small = Math.min(130, Math.floor((room - SPACE * (across - 1)) / across));
  const strip = Math.ceil(heads / across) * (small * aspect + CAPTION + SPACE);
  const big = Math.floor(Math.min(room, Math.max(220, height * 1.15 - strip - CAPTION) / aspect));
  return { beside, left, picture, columns: across, tile: small, big };
}

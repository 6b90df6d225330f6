// Where things go in the attention explorer, in pixels, from the width there is. Pure numbers; the view applies them.

import { tileLayout } from "../shared/patches.js";

// Between picture and tiles, between tiles, a tile's two lines of caption: the style sheet has the same.
const GAP = 24;
const SPACE = 10;
const CAPTION = 38;

const CONTROLS = 300; // what the controls under the picture need
const OPTIONS = 510; // what the options above the tiles need to stand in one line
const SMALLEST = 72; // a tile

/**
 * aspect: height / width of the picture. enlarged: whether one map is. Returns {beside: tiles beside the picture or under
 * it, left, picture: widths, columns, tile: of the grid of tiles, big: width of the enlarged map}.
 */
export function attentionLayout(width, aspect, heads, enlarged) {
  const beside = width >= 600;
  const tilesFor = (picture) => {
    const left = beside ? Math.max(picture, CONTROLS) : width;
    const room = beside ? width - left - GAP : width;
    const height = Math.max(320, picture * aspect + 20); // the tiles end about where the controls under the picture do
    return { left, room, height, ...tileLayout(heads + 1, room, height * 1.08, aspect, SPACE, CAPTION, SMALLEST) };
  };
  let picture = Math.floor(Math.min(width, 520 / aspect));
  if (beside) {
    // Picture and tiles share the width so that together they show as much as they can.
    const most = Math.min(width * 0.5, 760, 600 / aspect, Math.max(width * 0.42, width - GAP - OPTIONS));
    const area = (candidate) => candidate ** 2 + (heads + 1) * tilesFor(candidate).tile ** 2;
    picture = Math.floor(Math.max(Math.min(250, most), Math.min(width * 0.34, most)));
    for (let wider = picture; wider <= most; wider += 4) if (area(wider) > area(picture)) picture = wider;
  }
  const { left, room, height, columns, tile } = tilesFor(picture);
  if (!enlarged) return { beside, left, picture, columns, tile, big: 0 };
  // The enlarged map gets what a strip of small tiles under it leaves.
  const across = Math.min(heads, Math.max(4, Math.floor((room + SPACE) / (86 + SPACE))));
  const small = Math.min(130, Math.floor((room - SPACE * (across - 1)) / across));
  const strip = Math.ceil(heads / across) * (small * aspect + CAPTION + SPACE);
  const big = Math.floor(Math.min(room, Math.max(220, height * 1.15 - strip - CAPTION) / aspect));
  return { beside, left, picture, columns: across, tile: small, big };
}

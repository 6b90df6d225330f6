// The picture with the chosen block's map over it, the outline of its outliers, and marks.

import { createMark, putMark, sizeMarks } from "#shared/canvas.js";
import { overlayColours } from "#shared/colours.js";
import { cellOf } from "#shared/patches.js";
import { createPictureStage } from "#shared/picture_stage.js";
import { colourise } from "#shared/scale.js";
import { createOutline, paintOutline } from "./outline.js";

/** @import { PictureStage } from "#shared/picture_stage.js" */
/** @import { Settings } from "#shared/settings.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { NormKeys } from "./keys.js" */
/** @import { Outliers } from "./outliers.js" */
/** @import { ShownMap } from "./shown_map.js" */
/** @import { NormSource, NormTraits } from "./source.js" */

/**
 * @typedef {object} PictureMap
 * @property {PictureStage} stage
 * @property {HTMLCanvasElement} outline
 * @property {(map: ShownMap) => void} paint
 * @property {(block: NormBlock, outliers: Outliers | null) => void} paintOutline null clears the outline
 * @property {(block: NormBlock, token: number, kept: number | null) => void} mark moves the marks to tokens of the block;
 *   `kept`: the pinned token, if it is another one
 */

/**
 * @param {object} options
 * @param {Settings<NormTraits>} options.settings
 * @param {NormSource} options.source
 * @param {NormKeys} options.keys
 * @param {() => void} options.onChange called when another image is displayed
 * @returns {PictureMap}
 */
export function createPictureMap({ settings, source, keys, onChange }) {
  const outline = createOutline();
  const [mark, keptMark] = [createMark("a"), createMark("kept")];
  const stage = createPictureStage({
    settings,
    source,
    keys,
    overlaid: "the chosen block's map",
    over: [outline, keptMark, mark],
    onChange,
  });
  return {
    stage,
    outline,
    paint({ block, patches, scale, table, signed }) {
      const pixels = stage.overlay.fit(block.rows, block.cols);
      colourise(patches, 0, patches.length, scale, overlayColours(table, signed), pixels);
      stage.overlay.paint();
    },
    paintOutline: (block, outliers) => paintOutline(outline, block, outliers),
    mark(block, token, kept) {
      sizeMarks(stage.node, block);
      putMark(mark, cellOf(block, token));
      putMark(keptMark, kept === null ? null : cellOf(block, kept));
    },
  };
}

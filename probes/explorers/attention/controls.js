// The controls of the attention explorer.

import { blockText, colourPicker, field, segmented, stepper } from "#shared/controls.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { AttentionKeys } from "./keys.js" */
/** @import { Mode } from "./selection.js" */
/** @import { AttentionTraits } from "./source.js" */

/**
 * @typedef {object} AttentionControls
 * @property {HTMLElement} block
 * @property {HTMLElement} direction
 * @property {HTMLElement} scale
 * @property {HTMLElement} order
 * @property {HTMLElement} compare
 * @property {HTMLElement} colours
 * @property {(mode: Mode) => void} sync sets the controls by the traits; `mode` is what the tiles show
 * @property {(block: number, blocks: readonly number[], count: number, why: string) => void} showBlock shows the chosen
 *   block among those that can be shown; count: of the model's blocks
 *   among the available blocks; `why`: the reason that the others are not
 */

/**
 * @param {object} options
 * @param {Settings<AttentionTraits>} options.settings
 * @param {AttentionKeys} options.keys
 * @param {(by: number) => void} options.onStepBlock
 * @param {(index: number) => void} options.onSlideBlock index among the blocks that can be shown
 * @returns {AttentionControls}
 */
export function createControls({ settings, keys, onStepBlock, onSlideBlock }) {
  const block = stepper({
    label: "Block",
    unit: "block",
    title: keys.titled("Transformer block", "previousBlock", "nextBlock"),
    previous: keys.titled("Previous block", "previousBlock"),
    next: keys.titled("Next block", "nextBlock"),
    onstep: onStepBlock,
    onslide: onSlideBlock,
  });
  const direction = segmented(
    "Direction",
    [
      [
        "row",
        "What this patch looks at",
        keys.titled("The chosen patch is the query: its softmax row over all keys", "direction"),
      ],
      [
        "column",
        "Who looks at this patch",
        keys.titled("The chosen patch is the key: its softmax column over all queries", "direction"),
      ],
    ],
    (value) => settings.save({ direction: value }),
  );
  const scale = segmented(
    "Scale",
    [
      ["head", "Per head", keys.titled("Each tile from 0 to its own largest patch", "scale")],
      ["shared", "Shared", keys.titled("One range for all tiles: from 0 to the largest patch of any head", "scale")],
      ["log", "Log", keys.titled("One logarithmic range for all tiles: four decades up to the largest patch", "scale")],
    ],
    (value) => settings.save({ scale: value }),
  );
  const order = segmented(
    "Order of heads",
    [
      ["index", "By number", keys.titled("Heads by their number", "order")],
      [
        "entropy",
        "By focus",
        keys.titled("Most focused head first: lowest mean entropy of its rows over the whole picture", "order"),
      ],
    ],
    (value) => settings.save({ order: value }),
  );
  const compare = segmented(
    "Compare",
    [
      ["a", "A", "Show pin A"],
      ["b", "B", "Show B: the second pin, or the patch under the pointer"],
      ["difference", "A \u2212 B", "Red where A is larger, blue where B is larger"],
    ],
    (value) => settings.save({ compare: value }),
  );
  const colours = colourPicker(settings, keys.titled("Colours", "colours"));
  return {
    block: block.node,
    direction: direction.node,
    scale: field("Scale", scale.node),
    order: order.node,
    compare: compare.node,
    colours: colours.node,
    sync(mode) {
      direction.set(settings.get("direction"));
      scale.set(settings.get("scale"));
      order.set(settings.get("order"));
      compare.set(mode);
      const pinned = settings.get("pins").length > 0;
      compare.node.classList.toggle("dptx-idle", !pinned);
      compare.enable(pinned);
      colours.sync();
    },
    showBlock(number, blocks, count, why) {
      block.show(Math.max(0, blocks.indexOf(number)), blocks.length - 1, blockText(number, count));
      block.node.title = why;
    },
  };
}

// The controls of all blocks: which one is chosen, the scale, the colours, and the button that closes attention.

import { blockText, button, colourPicker, field, segmented, stepper } from "#shared/controls.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { NormActions } from "./actions.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { NormKeys } from "./keys.js" */
/** @import { NormSource, NormTraits } from "./source.js" */

/**
 * @typedef {object} NormControls
 * @property {HTMLElement} block
 * @property {HTMLElement} scale
 * @property {HTMLElement} colours
 * @property {HTMLElement} closeAttention
 * @property {() => void} sync sets the controls by the traits
 * @property {(block: NormBlock, blocks: readonly NormBlock[], why: string) => void} showBlock shows the chosen block
 *   among the available blocks; `why`: the reason that the others are not
 */

/**
 * @param {object} options
 * @param {Settings<NormTraits>} options.settings
 * @param {NormSource} options.source
 * @param {NormKeys} options.keys
 * @param {NormActions} options.actions
 * @returns {NormControls}
 */
export function createControls({ settings, source, keys, actions }) {
  const block = stepper({
    label: "Block",
    unit: "block",
    title: keys.titled("Transformer block", "previousBlock", "nextBlock"),
    previous: keys.titled("Previous block", "previousBlock"),
    next: keys.titled("Next block", "nextBlock"),
    onstep: (by) => actions.stepBlock(by),
    onslide: (index) => actions.goToBlock(source.blocks[index]?.block),
  });
  const scale = segmented(
    "Scale",
    [
      ["block", "Per block", keys.titled("Every map from its own smallest to its own largest patch", "scale")],
      [
        "shared",
        "Shared",
        keys.titled("One range for all maps: from the smallest to the largest patch of any block", "scale"),
      ],
      ["log", "Log", keys.titled("One logarithmic range for all maps", "scale")],
    ],
    (value) => settings.save({ scale: value }),
  );
  const colours = colourPicker(settings, keys.titled("Colours", "colours"));
  const closeAttention = button("Close attention", "Close the attention explorer below", () => source.closeAttention());
  return {
    block: block.node,
    scale: field("Scale", scale.node),
    colours: colours.node,
    closeAttention,
    sync() {
      scale.set(settings.get("scale"));
      colours.sync();
      closeAttention.hidden = !settings.get("_attending");
    },
    showBlock(chosen, blocks, why) {
      const count = source.about?.grids.length ?? blocks.length;
      block.show(blocks.indexOf(chosen), blocks.length - 1, blockText(chosen.block, count));
      block.node.title = why;
    },
  };
}

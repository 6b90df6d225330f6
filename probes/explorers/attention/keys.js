// The keys of the attention explorer.

import { COLORMAPS } from "#shared/colours.js";
import { FOCUS_KEYS } from "#shared/focus.js";
import { ARROWS, arrowStep, KeyTable } from "#shared/keys.js";

/** @import { KeyPress } from "#shared/keys.js" */
/** @import { Settings } from "#shared/settings.js" */
/** @import { AttentionTraits } from "./source.js" */

export const KEYS_NOTE =
  "Weights are softmax probabilities. A row sums to 100 % over all tokens, the class token included; a column need not. With windowed attention, weights are zero outside the outline around the patch. Dashed lines show the rest of a shifted window, which the patch cannot see.";

const DIGITS = Array.from({ length: 10 }, (_, digit) => String(digit));

/**
 * What keys do beyond changing a setting. Functions that return false leave the key to the next entry.
 *
 * @typedef {object} Actions
 * @property {(down: number, right: number) => void} move
 * @property {(key: string, target: HTMLElement) => boolean} moveFocus between tiles
 * @property {(target: HTMLElement) => boolean} enlargeTile the tile that has the focus
 * @property {() => void} pin
 * @property {() => boolean} clear
 * @property {(by: number) => void} stepBlock
 * @property {(head: number) => boolean} enlarge a head, or -1: the mean
 * @property {() => void} nextHead
 * @property {() => void} toggleBase
 * @property {() => void} toggleOverlay
 */

/**
 * @param {Settings<AttentionTraits>} settings
 * @param {Actions} actions
 */
export function createKeys(settings, actions) {
  return new KeyTable({
    hover: { label: "move", help: "look at the patch under the pointer" },
    click: { label: "click", help: "pin a patch; click another one to compare; click a pin to release it" },
    tab: {
      keys: FOCUS_KEYS,
      label: "Tab",
      help: "go to a tile; arrow keys lead to the others, Enter enlarges one",
      run: ({ key, target }) => actions.moveFocus(key, target),
    },
    enlargeTile: { keys: ["Enter", " "], run: ({ target }) => actions.enlargeTile(target) },
    arrows: {
      keys: ARROWS,
      help: "move the patch (Shift: five at a time)",
      run: (press) => actions.move(...arrowStep(press)),
    },
    pin: { keys: ["Enter", " "], help: "pin the patch", run: () => actions.pin() },
    clear: { keys: ["Escape"], help: "clear the pins, then the enlarged head", run: () => actions.clear() },
    previousBlock: { keys: ["[", ","], help: "previous block", run: () => actions.stepBlock(-1) },
    nextBlock: { keys: ["]", "."], help: "next block", run: () => actions.stepBlock(1) },
    direction: {
      keys: ["d"],
      help: "what this patch looks at, or who looks at it",
      run: () => settings.cycle("direction", ["row", "column"]),
    },
    head: {
      keys: DIGITS,
      label: "0 \u2013 9",
      help: "enlarge a head",
      run: ({ key }) => actions.enlarge(Number(key)),
    },
    nextHead: { keys: ["h"], help: "enlarge the next head", run: () => actions.nextHead() },
    mean: { keys: ["m"], help: "enlarge the mean", run: () => actions.enlarge(-1) },
    order: {
      keys: ["e"],
      help: "sort heads by number or by focus",
      run: () => settings.cycle("order", ["index", "entropy"]),
    },
    scale: { keys: ["s"], help: "next scale", run: () => settings.cycle("scale", ["head", "shared", "log"]) },
    colours: { keys: ["c"], help: "next colours", run: () => settings.cycle("colormap", COLORMAPS) },
    overlay: { keys: ["o"], help: "overlay on or off", run: () => actions.toggleOverlay() },
    base: { keys: ["p"], help: "picture or depth", run: () => actions.toggleBase() },
  });
}

/** @typedef {ReturnType<typeof createKeys>} AttentionKeys */

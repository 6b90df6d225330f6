// The keys of the norm explorer.

import { COLORMAPS } from "#shared/colours.js";
import { FOCUS_KEYS } from "#shared/focus.js";
import { ARROWS, arrowStep, KeyTable } from "#shared/keys.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { NormActions } from "./actions.js" */
/** @import { NormTraits } from "./source.js" */

export const KEYS_NOTE =
  "A norm is the length of a token's vector. Outliers are patches whose norm exceeds the median of their block's patches by k median absolute deviations (MAD). The class token and registers do not count.";

/**
 * @param {Settings<NormTraits>} settings
 * @param {object} handlers functions that return false did not use the key
 * @param {NormActions} handlers.actions
 * @param {(key: string, target: HTMLElement) => boolean} handlers.moveFocus moves the focus from tile to tile
 * @param {(target: HTMLElement) => boolean} handlers.enlargeTile
 * @param {() => void} handlers.toggleBase
 * @param {() => void} handlers.toggleOverlay
 */
export function createKeys(settings, { actions, moveFocus, enlargeTile, toggleBase, toggleOverlay }) {
  return new KeyTable({
    hover: { label: "move", help: "read the patch under the pointer, on the picture or on any map" },
    click: { label: "click", help: "on the picture: pin the patch; on a map: enlarge that block" },
    tab: {
      keys: FOCUS_KEYS,
      label: "Tab",
      help: "to a map: arrow keys lead to the others, Enter enlarges it",
      run: ({ key, target }) => moveFocus(key, target),
    },
    enlargeTile: { keys: ["Enter", " "], run: ({ target }) => enlargeTile(target) },
    arrows: {
      keys: ARROWS,
      help: "move the patch (Shift: five at a time)",
      run: (press) => actions.move(...arrowStep(press)),
    },
    pin: { keys: ["Enter", " "], help: "pin the patch", run: () => actions.togglePin(actions.source.cursor) },
    clear: { keys: ["Escape"], help: "release the pin, then close the enlarged block", run: () => actions.clear() },
    previousBlock: { keys: ["[", ","], help: "previous block", run: () => actions.stepBlock(-1) },
    nextBlock: { keys: ["]", "."], help: "next block", run: () => actions.stepBlock(1) },
    enlarged: { keys: ["e"], help: "enlarge the block, or close it", run: () => actions.toggleEnlarged() },
    quantity: {
      keys: ["n"],
      help: "its norm, a channel, or similarity with the patch",
      run: () => actions.nextQuantity(),
    },
    centred: {
      keys: ["d"],
      help: "similarity with or without the mean of all patches",
      run: () => actions.toggleCentred(),
    },
    previousChannel: { keys: ["{", "PageUp"], help: "previous channel", run: () => actions.stepChannel(-1) },
    nextChannel: { keys: ["}", "PageDown"], help: "next channel", run: () => actions.stepChannel(1) },
    strongest: { keys: ["m"], help: "the channel that is largest at the patch", run: () => actions.goToStrongest() },
    lower: { keys: ["-"], help: "lower the outlier threshold", run: () => actions.stepThreshold(-0.5) },
    higher: {
      keys: ["+", "="],
      label: "+",
      help: "raise the outlier threshold",
      run: () => actions.stepThreshold(0.5),
    },
    marks: { keys: ["x"], help: "outline of outliers on or off", run: () => settings.toggle("marks") },
    attendColumn: {
      keys: ["w"],
      help: "attention of the next block: who looks at the patch",
      run: () => actions.attend("column"),
    },
    attendRow: {
      keys: ["l"],
      help: "attention of the next block: what the patch looks at",
      run: () => actions.attend("row"),
    },
    scale: { keys: ["s"], help: "next scale", run: () => settings.cycle("scale", ["block", "shared", "log"]) },
    colours: { keys: ["c"], help: "next colours", run: () => settings.cycle("colormap", COLORMAPS) },
    overlay: { keys: ["o"], help: "overlay on or off", run: toggleOverlay },
    base: { keys: ["p"], help: "picture or depth", run: toggleBase },
  });
}

/** @typedef {ReturnType<typeof createKeys>} NormKeys */

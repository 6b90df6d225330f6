// The keys of the depth explorer.

import { ARROWS, arrowStep, KeyTable } from "#shared/keys.js";

/**
 * @typedef {object} DepthActions
 * @property {(target: HTMLElement) => boolean} isPane whether an element is a pane
 * @property {(down: number, right: number) => void} movePixel
 * @property {(name: "far" | "near") => void} focusThreshold
 * @property {() => void} togglePlane
 * @property {() => void} toggleEqualise
 * @property {() => void} toggleShared
 * @property {() => void} nextColours
 * @property {() => void} reset
 */

/** @param {DepthActions} actions */
export function createKeys(actions) {
  return new KeyTable({
    point: { label: "move the pointer", help: "read the depth under it" },
    pixel: {
      keys: ARROWS,
      help: "in a pane: move by one pixel (Shift: ten)",
      run: (press) => actions.isPane(press.target) && actions.movePixel(...arrowStep(press, 10)),
    },
    threshold: { label: "\u2190 \u2192", help: "on a threshold: move it" },
    far: { keys: ["f"], help: "go to the far threshold", run: () => actions.focusThreshold("far") },
    near: { keys: ["n"], help: "go to the near threshold", run: () => actions.focusThreshold("near") },
    plane: { keys: ["l"], help: "subtract the fitted plane, or not", run: actions.togglePlane },
    equalise: { keys: ["e"], help: "even colours on or off", run: actions.toggleEqualise },
    shared: { keys: ["s"], help: "one range for both maps, or one each", run: actions.toggleShared },
    colours: { keys: ["c"], help: "next colours", run: actions.nextColours },
    reset: { keys: ["r"], help: "thresholds back to the ends", run: actions.reset },
    enter: { keys: ["Enter"], run: ({ target }) => actions.isPane(target) }, // in a notebook it would edit the cell
  });
}

// The keys of the fusion explorer.

import { KeyTable } from "#shared/keys.js";

/** @import { End } from "./animation.js" */
/** @import { Show } from "./readout.js" */

/**
 * @typedef {object} FusionActions
 * @property {() => boolean} isPage whether this is a page without a kernel
 * @property {() => boolean} hasSteps whether the sliders move
 * @property {(index: number) => void} focusSlider
 * @property {(target: HTMLElement, scale: number) => boolean} setSlider false if the target is not a slider
 * @property {() => void} reset
 * @property {(show: Show, otherwise: Show) => void} toggleShow shows one display, or the other if it is on display
 * @property {() => void} toggleContrast
 * @property {() => void} toggleReverse
 * @property {() => void} nextColours
 * @property {() => void} nextSpan
 * @property {(end: End) => void} keepEnd
 */

/** @param {FusionActions} actions */
export function createKeys(actions) {
  const { isPage, hasSteps } = actions;
  const inNotebook = () => !isPage();
  const onPage = () => isPage() && hasSteps();
  return new KeyTable({
    focus: {
      keys: ["1", "2", "3", "4"],
      help: "go to a slider, coarse to fine",
      when: hasSteps,
      run: ({ key }) => actions.focusSlider(Number(key) - 1),
    },
    // The sliders handle their arrow keys: handleKey() leaves those of every slider to it.
    step: {
      label: "\u2190 \u2192",
      help: "move the slider by 0.01 (Shift: 0.1; PgUp, PgDn: 1)",
      when: inNotebook,
    },
    stepOnPage: { label: "\u2190 \u2192", help: "go to the next step that this page holds", when: onPage },
    zero: {
      keys: ["0"],
      help: "set the slider to 0",
      when: hasSteps,
      run: ({ target }) => actions.setSlider(target, 0),
    },
    one: {
      keys: ["Backspace", "Delete"],
      label: "Backspace",
      help: "set the slider to 1 (or double-click it)",
      when: hasSteps,
      run: ({ target }) => actions.setSlider(target, 1),
    },
    reset: { keys: ["r"], help: "set every slider to 1", when: inNotebook, run: actions.reset },
    resetPage: {
      keys: ["r"],
      help: "back to the setting that this page was saved with",
      when: onPage,
      run: actions.reset,
    },
    unscaled: {
      keys: ["s"],
      help: "show scaled or unscaled (or hold the map down)",
      run: () => actions.toggleShow("scaled", "unscaled"),
    },
    difference: { keys: ["d"], help: "show the difference", run: () => actions.toggleShow("difference", "scaled") },
    picture: { keys: ["p"], help: "show the picture", run: () => actions.toggleShow("picture", "scaled") },
    contrast: { keys: ["h"], help: "high contrast on or off", run: actions.toggleContrast },
    reverse: { keys: ["v"], help: "reverse the colours", run: actions.toggleReverse },
    colours: { keys: ["c"], help: "next colours", run: actions.nextColours },
    span: { keys: ["e"], help: "next range of the colours", run: actions.nextSpan },
    start: {
      keys: ["["],
      help: "the sliders become the animation's first setting",
      when: inNotebook,
      run: () => actions.keepEnd("start"),
    },
    end: {
      keys: ["]"],
      help: "the sliders become the animation's last setting",
      when: inNotebook,
      run: () => actions.keepEnd("end"),
    },
    enter: { keys: ["Enter"], run: () => true }, // in a notebook it would edit the cell
  });
}

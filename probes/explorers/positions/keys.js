// The keys of the position explorer.

import { COLORMAPS } from "#shared/colours.js";
import { FOCUS_KEYS } from "#shared/focus.js";
import { ARROWS, arrowStep, KeyTable } from "#shared/keys.js";
import { MEAN } from "./data.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { PositionActions } from "./actions.js" */
/** @import { PositionTraits } from "./source.js" */

const TABLE_NOTE =
  "The model adds the table's vector for a position to the token at that position. Cosine similarity is 1 for the same direction and 0 for a right angle. A spectrum shows power by waves across the grid: waves become finer away from the middle, and the powers of a channel sum to its variance. Colours of spectra span four decades.";

const BIAS_NOTE =
  "The model adds a bias to the attention logit of a query and a key. It depends on where the key lies from the query. In offset images the query is in the middle, and the outline encloses the keys that are on the grid. Only differences of logits matter: adding 1 to the logit of one key multiplies its weight by e.";

const DIGITS = Array.from({ length: 10 }, (_, n) => String(n));

/**
 * @param {boolean} biased
 * @returns {string} the paragraph below the keys
 */
export function noteOf(biased) {
  return biased ? BIAS_NOTE : TABLE_NOTE;
}

/**
 * @param {Settings<PositionTraits>} settings
 * @param {object} options handlers that return false did not use the key
 * @param {PositionActions} options.actions
 * @param {boolean} options.biased
 * @param {(key: string, target: HTMLElement) => boolean} options.moveFocus moves the focus from image to image
 * @param {(target: HTMLElement) => boolean} options.enlargeTile
 */
export function createKeys(settings, { actions, biased, moveFocus, enlargeTile }) {
  const position = biased ? "query" : "position";
  const image = biased ? "head" : "channel";
  const forTables = () => !biased;
  const forBiases = () => biased;
  return new KeyTable({
    hover: {
      label: "move",
      help: biased
        ? "over the grid: the bias from the query under the pointer to every key"
        : "over the grid: similarity with the position under the pointer",
    },
    click: {
      label: "click",
      help: biased
        ? "pin the query, again to release it; a head: enlarge it and lay it on the grid"
        : "pin the position, again to release it; a channel: enlarge it with its spectrum",
    },
    tab: {
      keys: FOCUS_KEYS,
      label: "Tab",
      help: `to a ${image}: arrow keys lead to the others, Enter enlarges it`,
      run: ({ key, target }) => moveFocus(key, target),
    },
    enlargeTile: { keys: ["Enter", " "], run: ({ target }) => enlargeTile(target) },
    arrows: {
      keys: ARROWS,
      help: `move the ${position} (Shift: five at a time)`,
      run: (press) => actions.move(...arrowStep(press)),
    },
    pin: { keys: ["Enter", " "], help: `pin the ${position}`, run: () => actions.togglePin() },
    clear: {
      keys: ["Escape"],
      help: `release the pin, then close the enlarged ${image}`,
      run: () => actions.clear(),
    },
    previousBlock: { keys: ["[", ","], help: "previous block", when: forBiases, run: () => actions.stepBlock(-1) },
    nextBlock: { keys: ["]", "."], help: "next block", when: forBiases, run: () => actions.stepBlock(1) },
    previousPage: {
      keys: biased ? ["PageUp"] : ["[", ",", "PageUp"],
      help: `previous page of ${image}s`,
      run: () => actions.turnPage(-1),
    },
    nextPage: {
      keys: biased ? ["PageDown"] : ["]", ".", "PageDown"],
      help: `next page of ${image}s`,
      run: () => actions.turnPage(1),
    },
    head: {
      keys: DIGITS,
      label: "0 \u2013 9",
      help: "enlarge a head",
      when: forBiases,
      run: ({ key }) => actions.enlarge(Number(key)),
    },
    mean: { keys: ["m"], help: "enlarge the mean", when: forBiases, run: () => actions.enlarge(MEAN) },
    nextImage: { keys: ["h"], help: `enlarge the next ${image}`, run: () => actions.enlargeNext(1) },
    previousImage: { keys: ["H"], help: `enlarge the previous ${image}`, run: () => actions.enlargeNext(-1) },
    view: {
      keys: ["v"],
      help: "values or spectra",
      when: forTables,
      run: () => settings.cycle("view", ["values", "spectrum"]),
    },
    centred: {
      keys: ["n"],
      help: "similarity with or without the mean of all positions",
      when: forTables,
      run: () => settings.toggle("centred"),
    },
    nextSize: { keys: ["g"], help: "next input size", run: () => actions.stepSize(1) },
    previousSize: { keys: ["G"], help: "previous input size", run: () => actions.stepSize(-1) },
    order: { keys: ["e"], help: `next order of ${image}s`, run: () => actions.nextOrder() },
    scale: { keys: ["s"], help: "own or shared range", run: () => settings.cycle("scale", ["own", "shared"]) },
    colours: { keys: ["c"], help: "next colours", run: () => settings.cycle("colormap", COLORMAPS) },
  });
}

/** @typedef {ReturnType<typeof createKeys>} PositionKeys */

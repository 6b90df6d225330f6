// The keys of a widget. One table per widget: the handler, the help popover and the tooltips all follow from it.

import { isForApplication } from "./host_keys.js";

/**
 * A key press that reached the widget.
 *
 * @typedef {object} KeyPress
 * @property {string} key as KeyboardEvent.key
 * @property {boolean} shift
 * @property {HTMLElement} target what has the focus
 */

/**
 * @typedef {object} KeyEntry
 * @property {readonly string[]} [keys] values of KeyboardEvent.key; none for a gesture of the pointer
 * @property {string} [label] how the help writes the keys; by default the keys themselves
 * @property {string} [help] what they do; an entry without it is not listed
 * @property {(press: KeyPress) => unknown} [run] returns false if the key means nothing now: the next entry is tried
 * @property {() => boolean} [when] whether the entry applies now; by default always
 */

/** @type {Record<string, string>} */
const SYMBOLS = {
  ArrowLeft: "\u2190",
  ArrowRight: "\u2192",
  ArrowUp: "\u2191",
  ArrowDown: "\u2193",
  Escape: "Esc",
  PageUp: "PgUp",
  PageDown: "PgDn",
  " ": "Space",
};

/** @param {string} key */
const symbolOf = (key) => SYMBOLS[key] ?? key;

export const ARROWS = ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"];

/**
 * The step that an arrow key means.
 *
 * @param {KeyPress} press
 * @param {number} [large] steps with Shift
 * @returns {[down: number, right: number]} [0, 0] for other keys
 */
export function arrowStep({ key, shift }, large = 5) {
  const size = shift ? large : 1;
  const down = Number(key === "ArrowDown") - Number(key === "ArrowUp");
  const right = Number(key === "ArrowRight") - Number(key === "ArrowLeft");
  return [down * size, right * size];
}

/**
 * Named entries, in the order of the help. Of several entries with one key, the first that applies is run.
 *
 * @template {string} Name
 */
export class KeyTable {
  /** @param {Record<Name, KeyEntry>} entries */
  constructor(entries) {
    this.entries = entries;
  }

  /** @returns {KeyEntry[]} */
  current() {
    return Object.values(/** @type {Record<string, KeyEntry>} */ (this.entries)).filter(({ when }) => when?.() ?? true);
  }

  /**
   * A tooltip that ends with the keys of an entry: "Opacity of the overlay (key o)". Of several entries, each adds its
   * first key: "Transformer block (keys [ and ])".
   *
   * @param {string} text
   * @param {...Name} names
   * @returns {string}
   */
  titled(text, ...names) {
    const keys = names.map((name) => (this.entries[name].keys ?? []).map(symbolOf));
    if (keys.length === 1) return `${text} (key ${keys[0].join(" or ")})`;
    return `${text} (keys ${keys.map(([first]) => first).join(" and ")})`;
  }

  /** @returns {[label: string, help: string][]} rows of the help */
  rows() {
    return this.current()
      .filter(({ help }) => help)
      .map(({ keys = [], label, help }) => [
        label ?? keys.map(symbolOf).join(keys.length === 2 ? " or " : " "),
        help ?? "",
      ]);
  }

  /**
   * @param {KeyPress} press
   * @returns {boolean} whether an entry handled it
   */
  run(press) {
    return this.current().some(({ keys, run }) => Boolean(run && keys?.includes(press.key) && run(press) !== false));
  }
}

/**
 * Gives a key press to a handler, unless it belongs to the control that has the focus, or to the application. Only the
 * latter leave the widget: hosts have commands on single letters, arrow keys and Enter.
 *
 * @param {KeyboardEvent} event
 * @param {(press: KeyPress) => boolean} handle returns whether the key meant anything
 */
export function handleKey(event, handle) {
  const { key, target } = event;
  if (isForApplication(event)) return;
  event.stopPropagation();
  if (!(target instanceof HTMLElement) || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = target.matches("input[type=number]") && key !== "Escape";
  const native = target.matches("input, select") && (key.startsWith("Arrow") || target.matches("select"));
  const press = target.matches("button, summary") && (key === "Enter" || key === " ");
  if (typing || native || press) return;
  if (handle({ key, shift: event.shiftKey, target })) event.preventDefault();
}

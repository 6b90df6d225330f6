// Controls. Each function builds one and returns its element, or an object with `node` and methods that update it.

import { COLORMAPS } from "./colours.js";
import { element } from "./elements.js";

/** @import { Settings } from "./settings.js" */

/**
 * @param {string} text
 * @param {string} title
 * @param {((event: MouseEvent) => void) | null} onclick
 * @param {Record<string, any>} [properties]
 * @returns {HTMLButtonElement}
 */
export function button(text, title, onclick, properties = {}) {
  return element("button", { type: "button", className: "dptx-button", title, onclick, ...properties }, text);
}

/**
 * A button with a symbol.
 *
 * @param {string} symbol
 * @param {string} label for screen readers
 * @param {string} title
 * @param {() => void} onclick
 * @returns {HTMLButtonElement}
 */
export function symbolButton(symbol, label, title, onclick) {
  return button(symbol, title, onclick, { className: "dptx-button dptx-square", "aria-label": label });
}

/**
 * A button that is pressed or not.
 *
 * @param {string} text
 * @param {string} title
 * @param {() => void} onclick
 * @param {string} [className]
 * @returns {{node: HTMLButtonElement, set(pressed: boolean): void}}
 */
export function toggleButton(text, title, onclick, className = "dptx-chip") {
  const node = button(text, title, onclick, { className, "aria-pressed": "false" });
  return { node, set: (pressed) => node.setAttribute("aria-pressed", String(pressed)) };
}

/**
 * Exclusive choices side by side.
 *
 * @template {string} Value
 * @typedef {object} Segmented
 * @property {HTMLElement} node
 * @property {(value: Value) => void} set marks a choice
 * @property {(value: Value, reason: string) => void} disable disables a choice and shows why; "" enables it
 * @property {(enabled: boolean) => void} enable enables or disables all choices
 * @property {(why: string) => void} describe replaces the tooltips of all choices; "" restores them
 */

/**
 * @template {string} Value
 * @param {string} label
 * @param {readonly (readonly [value: Value, text: string, title: string])[]} choices
 * @param {(value: Value) => void} onchange
 * @returns {Segmented<Value>}
 */
export function segmented(label, choices, onchange) {
  /** @type {Map<Value, {item: HTMLButtonElement, title: string}>} */
  const items = new Map();
  const node = element("div", { className: "dptx-segments", role: "group", "aria-label": label });
  for (const [value, text, title] of choices) {
    const item = button(text, title, () => onchange(value), {
      className: "dptx-segment",
      "aria-pressed": "false",
      dataset: { value },
    });
    items.set(value, { item, title });
    node.append(item);
  }
  return {
    node,
    set(value) {
      for (const [own, { item }] of items) item.setAttribute("aria-pressed", String(own === value));
    },
    disable(value, reason) {
      const found = items.get(value);
      if (!found) return;
      found.item.disabled = Boolean(reason);
      found.item.title = reason || found.title;
    },
    enable(enabled) {
      for (const { item } of items.values()) item.disabled = !enabled;
    },
    describe(why) {
      for (const { item, title } of items.values()) item.title = why || title;
    },
  };
}

/**
 * A slider in whole steps from 0, unless the properties say otherwise.
 *
 * @param {string} label
 * @param {string} title
 * @param {(value: number) => void} oninput
 * @param {Record<string, any>} [properties]
 * @returns {HTMLInputElement}
 */
export function slider(label, title, oninput, properties = {}) {
  const given = { type: "range", className: "dptx-slider", min: 0, step: 1, "aria-label": label, title, ...properties };
  const node = element("input", { ...given, oninput: () => oninput(Number(node.value)) });
  return node;
}

/**
 * A field for a number, reported when the user leaves it.
 *
 * @param {string} label
 * @param {(text: string) => void} onchange
 * @param {Record<string, any>} [properties]
 * @returns {HTMLInputElement}
 */
export function numberField(label, onchange, properties = {}) {
  const given = { type: "number", className: "dptx-entry", step: 1, "aria-label": label, ...properties };
  const node = element("input", { ...given, onchange: () => onchange(node.value) });
  return node;
}

/**
 * A choice from a list.
 *
 * @param {string} label
 * @param {string} title
 * @param {readonly string[]} names
 * @param {(value: string) => void} onchange
 * @returns {HTMLSelectElement}
 */
export function picker(label, title, names, onchange) {
  const options = names.map((name) => element("option", { value: name }, name));
  const node = element(
    "select",
    { className: "dptx-select", "aria-label": label, title, onchange: () => onchange(node.value) },
    ...options,
  );
  return node;
}

/**
 * The choice of the trait `colormap`.
 *
 * @param {Settings<{colormap: string}>} settings
 * @param {string} title
 * @param {readonly string[]} [names]
 * @returns {{node: HTMLSelectElement, sync(): void}}
 */
export function colourPicker(settings, title, names = COLORMAPS) {
  const node = picker("Colours", title, names, (colormap) => settings.save({ colormap }));
  return {
    node,
    sync() {
      node.value = settings.get("colormap");
    },
  };
}

/**
 * Controls under a label.
 *
 * @param {string} label
 * @param {...Node} children
 * @returns {HTMLElement}
 */
export function field(label, ...children) {
  return element("div", { className: "dptx-field" }, element("span", { className: "dptx-label" }, label), ...children);
}

/**
 * A slider between two buttons, with its number.
 *
 * @typedef {object} Stepper
 * @property {HTMLElement} node
 * @property {HTMLOutputElement} number
 * @property {(value: number, most: number, text: string) => void} show moves the slider to `value` of 0 .. `most`;
 *   `text` is the number beside it
 */

/**
 * @param {object} options
 * @param {string} options.label
 * @param {string} options.unit what one step is: "block"
 * @param {string} options.title of the slider
 * @param {string} options.previous title of the button before
 * @param {string} options.next title of the button after
 * @param {(by: number) => void} options.onstep
 * @param {(value: number) => void} options.onslide
 * @returns {Stepper}
 */
export function stepper({ label, unit, title, previous, next, onstep, onslide }) {
  const range = slider(label, title, onslide);
  const number = element("output", { className: "dptx-number" });
  const before = symbolButton("\u2039", `Previous ${unit}`, previous, () => onstep(-1));
  const after = symbolButton("\u203a", `Next ${unit}`, next, () => onstep(1));
  return {
    node: field(label, before, range, after, number),
    number,
    show(value, most, text) {
      for (const control of [before, range, after]) control.disabled = most < 1;
      range.max = String(most);
      range.value = String(value);
      range.setAttribute("aria-valuetext", `${unit} ${text.replace("/", "of").replace("\u2013", " to ")}`);
      number.textContent = text;
    },
  };
}

/**
 * A block among the model's, e.g. "7 of 0\u201311". Blocks count from 0, so "7 / 11" and "7 of 12" could be misread.
 *
 * @param {number} block
 * @param {number} count of the model's blocks
 * @returns {string}
 */
export const blockText = (block, count) => `${block} of 0\u2013${count - 1}`;

/**
 * Enables or disables a control. If it has the focus when it is disabled, `next` gets it: keys are lost without focus.
 *
 * @param {HTMLButtonElement | HTMLInputElement | HTMLSelectElement} control
 * @param {boolean} enabled
 * @param {HTMLElement} next
 */
export function setEnabled(control, enabled, next) {
  if (!enabled && control.matches(":focus")) next.focus();
  control.disabled = !enabled;
}

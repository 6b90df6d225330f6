// The help popover: a table of keys and gestures.

import { symbolButton } from "./controls.js";
import { element } from "./elements.js";

/** @import { KeyPress, KeyTable } from "./keys.js" */

/**
 * @typedef {object} Help
 * @property {HTMLElement} node the popover
 * @property {HTMLButtonElement} opener the button that opens it
 * @property {(press: KeyPress) => boolean} handle opens or closes it on "?", closes it on Escape
 * @property {() => void} dispose stops listening for clicks outside
 */

/**
 * @param {KeyTable<any>} keys its rows are read when the popover opens
 * @param {string} note a paragraph below them
 * @returns {Help}
 */
export function createHelp(keys, note) {
  const body = element("tbody");
  const node = element(
    "div",
    { className: "dptx-popover", role: "dialog", "aria-label": "Keys and gestures", hidden: true },
    element("table", {}, body),
    element("p", {}, note),
  );
  /** @param {[label: string, help: string]} row */
  const rowOf = ([label, help]) => element("tr", {}, element("th", {}, label), element("td", {}, help));
  const toggle = () => {
    if (node.hidden) body.replaceChildren(...keys.rows().map(rowOf));
    node.hidden = !node.hidden;
    opener.setAttribute("aria-expanded", String(!node.hidden));
    if (node.hidden) document.removeEventListener("pointerdown", closeOutside, true);
    else document.addEventListener("pointerdown", closeOutside, true);
  };
  /** @param {PointerEvent} event */
  const closeOutside = (event) => {
    const path = event.composedPath(); // event.target would end at a shadow root
    if (!path.includes(node) && !path.includes(opener)) toggle();
  };
  const opener = symbolButton("?", "Help", "Keys and gestures (key ?)", toggle);
  opener.setAttribute("aria-expanded", "false");
  return {
    node,
    opener,
    handle({ key }) {
      if (key !== "?" && !(key === "Escape" && !node.hidden)) return false;
      toggle();
      return true;
    },
    dispose() {
      document.removeEventListener("pointerdown", closeOutside, true);
    },
  };
}

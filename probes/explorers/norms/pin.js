// The pinned patch below the picture, with links to its attention.

import { button } from "#shared/controls.js";
import { element } from "#shared/elements.js";

/** @import { NormKeys } from "./keys.js" */

/**
 * @typedef {object} PinState
 * @property {string | null} name of the pinned token, null if none is pinned
 * @property {boolean} linked whether attention is offered at all
 * @property {string} unavailable why attention cannot be opened; "" if it can
 * @property {number | null | undefined} reader the block whose attention opens; null if no block reads the norms
 * @property {string} reads a sentence on what reads the norms
 */

/**
 * @param {object} options
 * @param {NormKeys} options.keys
 * @param {() => void} options.onRelease
 * @param {(direction: "row" | "column") => void} options.onAttend
 * @returns {{node: HTMLElement, show(state: PinState): void}}
 */
export function createPin({ keys, onRelease, onAttend }) {
  const node = element("div", { className: "dptx-pins" });
  /** @type {["row" | "column", string, string][]} */
  const directions = [
    [
      "column",
      "Who looks at it",
      keys.titled("Open the attention explorer of the next block on this patch's column", "attendColumn"),
    ],
    [
      "row",
      "What it looks at",
      keys.titled("Open the attention explorer of the next block on this patch's row", "attendRow"),
    ],
  ];
  return {
    node,
    show({ name, linked, unavailable, reader, reads }) {
      if (name === null) {
        const hint = linked && !unavailable ? "Click to pin a patch, for its attention" : "Click to pin a patch";
        node.replaceChildren(element("span", { className: "dptx-hint" }, hint));
        return;
      }
      const release = button(`${name} \u00d7`, "Release the pin", onRelease, { className: "dptx-chip dptx-pin-a" });
      const links = directions.map(([direction, text, title]) =>
        button(text, unavailable || `${title}; ${reads}`, () => onAttend(direction), {
          disabled: Boolean(unavailable),
        }),
      );
      const where = reader === null ? "no block reads this one" : `in block ${reader}`;
      const hint = element("span", { className: "dptx-hint", title: unavailable || reads }, where);
      node.replaceChildren(release, ...(linked ? [...links, hint] : []));
    },
  };
}

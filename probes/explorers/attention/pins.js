// The pins below the picture, and chips for the tokens that are not patches.

import { button, field } from "#shared/controls.js";
import { element } from "#shared/elements.js";
import { prefixName, tokenName } from "#shared/patches.js";

/** @import { Grid } from "#shared/types.js" */

const HINTS = ["Click to pin a patch, another to compare", "click another to compare"];

/**
 * @typedef {object} Pins
 * @property {HTMLElement} pins
 * @property {HTMLElement} tokens
 * @property {(grid: Grid) => void} showGrid shows a chip per token before the patches
 * @property {(grid: Grid, pinned: readonly number[]) => void} show
 */

/**
 * @param {object} actions
 * @param {(token: number) => void} actions.onPin pins a token, or releases it
 * @param {(token: number) => void} actions.onPoint
 * @returns {Pins}
 */
export function createPins({ onPin, onPoint }) {
  const pins = element("div", { className: "dptx-pins" });
  const label = "Tokens before the patches";
  const chips = element("div", { className: "dptx-chips", role: "group", "aria-label": label });
  const tokens = field("Tokens", chips);

  /** @param {number} token */
  const chipOf = (token) => {
    const what = token === 0 ? "The class token: what it looks at, who looks at it" : `Register token ${token}`;
    const chip = button(prefixName(token), `${what} (click pins it)`, () => onPin(token), { className: "dptx-chip" });
    chip.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && onPoint(token));
    return chip;
  };
  return {
    pins,
    tokens,
    showGrid({ prefix }) {
      tokens.hidden = prefix === 0;
      if (chips.childElementCount === prefix) return;
      chips.replaceChildren(...Array.from({ length: prefix }, (_, token) => chipOf(token)));
    },
    show(grid, pinned) {
      const released = pinned.map((token, n) =>
        button(`${"AB"[n]} ${tokenName(grid, token)} \u00d7`, `Release pin ${"AB"[n]}`, () => onPin(token), {
          className: `dptx-chip dptx-pin-${"ab"[n]}`,
        }),
      );
      const hint = HINTS[pinned.length];
      pins.replaceChildren(...released, ...(hint ? [element("span", { className: "dptx-hint" }, hint)] : []));
      for (const [token, chip] of [...chips.children].entries()) {
        chip.setAttribute("aria-pressed", String(pinned.includes(token)));
      }
    },
  };
}

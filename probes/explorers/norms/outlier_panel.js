// The panel of outliers: their threshold, how many each block has, and the largest of the chosen block.

import { button, field, slider, toggleButton } from "#shared/controls.js";
import { element, row, setText } from "#shared/elements.js";
import { formatFixed, formatNumber } from "#shared/format.js";
import { tokenName } from "#shared/patches.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { NormKeys } from "./keys.js" */
/** @import { Outliers } from "./outliers.js" */
/** @import { NormTraits } from "./source.js" */

const LISTED = 5;
const MANY = 16; // blocks: of more, not every number has room

/**
 * @typedef {object} OutlierPanel
 * @property {HTMLElement} node
 * @property {HTMLElement} listed the largest outliers
 * @property {() => void} sync sets the controls by the traits
 * @property {(blocks: readonly NormBlock[], outliers: readonly Outliers[], chosen: number) => void} showCounts `outliers`
 *   of each block; `chosen`: number of the chosen block
 * @property {(
 *   block: NormBlock, outliers: Outliers, attends: boolean, reader: number | null | undefined,
 * ) => void} showLargest `attends`: whether a click opens attention, not pins; `reader`: the block that reads the norms,
 *   null if none does
 */

/**
 * @param {object} options
 * @param {Settings<NormTraits>} options.settings
 * @param {NormKeys} options.keys
 * @param {(block: number) => void} options.onBlock
 * @param {(block: NormBlock, token: number) => void} options.onToken `token` of the block
 * @returns {OutlierPanel}
 */
export function createOutlierPanel({ settings, keys, onBlock, onToken }) {
  const threshold = slider(
    "Deviations until a token is an outlier",
    keys.titled("How far above the median an outlier is", "lower", "higher"),
    (k) => settings.save({ k }),
    { min: 1, max: 20, step: 0.5 },
  );
  const number = element("output", { className: "dptx-number" });
  const marks = toggleButton(
    "Outline",
    keys.titled("Outline outliers on the picture and the enlarged map", "marks"),
    () => settings.toggle("marks"),
    "dptx-button dptx-chip",
  );
  const counts = element("div", { className: "dptx-counts", role: "group", "aria-label": "Outliers of each block" });
  const listed = element("div", { className: "dptx-chips" });
  /** @type {{item: HTMLButtonElement, count: HTMLElement, bar: HTMLElement}[]} */
  let bars = [];

  /** @param {NormBlock} block */
  const createBar = ({ block }) => {
    const count = element("span", { className: "dptx-count-number" });
    const bar = element("span", { className: "dptx-count-bar" });
    const item = button("", "", () => onBlock(block), { className: "dptx-count", tabIndex: -1 });
    // The hidden words make a sentence of the two numbers, for screen readers.
    const word = element("span", { className: "dptx-offscreen" }, " outliers, block ");
    item.append(count, word, bar, element("span", { className: "dptx-count-block" }, String(block)));
    return { item, count, bar };
  };
  return {
    node: element(
      "div",
      { className: "dptx-outliers" },
      row("", field("Outliers: median +", threshold, number), marks.node),
      counts,
      listed,
    ),
    listed,
    sync() {
      const k = settings.get("k");
      threshold.value = String(k);
      setText(number, `${k} MAD`);
      marks.set(settings.get("marks"));
    },
    showCounts(blocks, outliers, chosen) {
      if (bars.length !== blocks.length) {
        bars = blocks.map(createBar);
        counts.replaceChildren(...bars.map(({ item }) => item));
        counts.classList.toggle("dptx-many", blocks.length > MANY);
      }
      const most = Math.max(1, ...outliers.map(({ tokens }) => tokens.length));
      for (const [n, { item, count, bar }] of bars.entries()) {
        const { block, tokens, prefix } = blocks[n];
        const own = outliers[n].tokens.length;
        const percent = formatFixed((100 * own) / (tokens - prefix), 1);
        item.title = `Block ${block}: ${own} outliers, ${percent} % of its patches`;
        item.setAttribute("aria-pressed", String(block === chosen));
        setText(count, String(own));
        bar.style.height = own ? `max(2px, ${(own / most) * 46}px)` : "0";
      }
    },
    showLargest(block, outliers, attends, reader) {
      const chips = outliers.tokens.slice(0, LISTED).map((token) => {
        const name = tokenName(block, token);
        const action = attends
          ? `Open the attention explorer: who looks at patch ${name} in block ${reader}`
          : `Pin patch ${name}`;
        const title = `${action} (norm ${formatNumber(block.values[token])})`;
        return button(name, title, () => onToken(block, token), { className: "dptx-chip dptx-outlier" });
      });
      const rest = outliers.tokens.length - chips.length;
      const words = chips.length
        ? `Largest in block ${block.block}${attentionWords(attends, reader)}:`
        : `Block ${block.block} has no outliers`;
      listed.replaceChildren(
        element("span", { className: "dptx-hint" }, words),
        ...chips,
        ...(rest > 0 ? [element("span", { className: "dptx-hint" }, `and ${rest} more`)] : []),
      );
    },
  };
}

/**
 * What a click on an outlier opens. The norms are those of the block's output, which the next block reads.
 *
 * @param {boolean} attends
 * @param {number | null | undefined} reader
 * @returns {string}
 */
function attentionWords(attends, reader) {
  if (attends) return `, with their attention in block ${reader}`;
  return reader === null ? " (no block reads its output)" : "";
}

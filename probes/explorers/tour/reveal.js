// Where the explanation of a part stands, so that a choice is never answered off screen. Beside the diagram it moves down
// to what is visible; in narrow widgets it opens under the row of the part.

import { scrolling } from "#shared/theme.js";

/** Space between a row and the explanation under it, and between an explanation and the border of the window. */
const SPACE = 10;

/**
 * The part of the window in which a node can be seen: what all scrolling containers around it leave visible.
 *
 * @param {Element} node
 * @returns {{top: number, bottom: number}} in coordinates of the window
 */
export function visibleSpan(node) {
  let [top, bottom] = [0, innerHeight];
  for (let outer = parentOf(node); outer && outer !== document.body; outer = parentOf(outer)) {
    if (outer === document.documentElement || getComputedStyle(outer).overflowY === "visible") continue;
    const box = outer.getBoundingClientRect();
    [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
  }
  return { top, bottom };
}

/**
 * @param {Element} node
 * @returns {Element} the container that scrolls it
 */
function scrollerOf(node) {
  for (let outer = parentOf(node); outer && outer !== document.body; outer = parentOf(outer)) {
    const { overflowY } = getComputedStyle(outer);
    if ((overflowY === "auto" || overflowY === "scroll") && outer.scrollHeight > outer.clientHeight + 1) return outer;
  }
  return document.scrollingElement ?? document.documentElement;
}

/**
 * @param {Element} node
 * @returns {Element | null} also out of a shadow tree
 */
function parentOf(node) {
  const root = node.parentNode;
  return root instanceof ShadowRoot ? root.host : node.parentElement;
}

/**
 * Changes the layout, and keeps a node where it is in the window: what a user points at must not move away.
 *
 * @param {Element} node
 * @param {() => void} change
 */
export function keepInPlace(node, change) {
  const before = node.getBoundingClientRect().top;
  change();
  const moved = node.getBoundingClientRect().top - before;
  if (Math.abs(moved) >= 1) scrollerOf(node).scrollBy({ top: moved, behavior: "instant" });
}

/**
 * Places the explanation.
 *
 * @param {object} places
 * @param {HTMLElement} places.column the explanation with its controls
 * @param {HTMLElement | null} places.row of the diagram, with the chosen part
 * @param {readonly HTMLElement[]} places.rows of the diagram
 * @returns {boolean} whether it stands under the row
 */
export function placeColumn({ column, row, rows }) {
  const under = getComputedStyle(column).position === "absolute";
  const room = `${column.offsetHeight + SPACE}px`;
  for (const one of rows) one.style.marginBottom = under && one === row ? room : "";
  column.style.top = under && row ? `${row.offsetTop + row.offsetHeight + SPACE}px` : "";
  if (under) column.style.marginTop = "";
  return under;
}

/**
 * Brings the beginning of the explanation, and the chosen part, into view.
 *
 * @param {object} places
 * @param {HTMLElement} places.box the chosen part
 * @param {HTMLElement} places.row its row
 * @param {HTMLElement} places.column
 * @param {HTMLElement} places.lead the beginning of the explanation
 * @param {boolean} places.under whether it stands under the row
 */
export function reveal({ box, row, column, lead, under }) {
  if (under) {
    lead.style.scrollMarginTop = `${lead.getBoundingClientRect().top - row.getBoundingClientRect().top + SPACE}px`;
  } else {
    box.scrollIntoView({ block: "nearest", behavior: "instant" });
    lead.style.scrollMarginTop = `${SPACE}px`;
    column.style.marginTop = `${offsetOf(column)}px`;
  }
  lead.style.scrollMarginBottom = `${SPACE}px`;
  lead.scrollIntoView({ block: "nearest", behavior: scrolling() });
}

/**
 * How far down a column beside the diagram begins: at its top, or where the visible part begins.
 *
 * @param {HTMLElement} column
 * @returns {number} pixels
 */
function offsetOf(column) {
  const main = /** @type {HTMLElement} */ (column.parentElement).getBoundingClientRect();
  return Math.max(0, Math.round(visibleSpan(column).top + SPACE - main.top));
}

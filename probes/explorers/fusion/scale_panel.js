// The sliders of the fusion explorer: what each fusion level receives, and below them the other reassembly maps.

import { button, setEnabled } from "#shared/controls.js";
import { element, row, setText } from "#shared/elements.js";
import { levelColours } from "./depth_map.js";
import { signed } from "./readout.js";
import { createScaleRow } from "./scale_row.js";

/** @import { ColourTable } from "#shared/types.js" */
/** @import { ScaleEvents, ScaleRow } from "./scale_row.js" */
/** @import { Scales } from "./setting.js" */
/** @import { About, Thumbnail } from "./source.js" */

/**
 * @typedef {object} ScalePanel
 * @property {HTMLElement[]} nodes
 * @property {(about: About) => void} build makes the sliders of a model
 * @property {(scales: Scales, home: Scales) => void} show home: the setting that Reset leads to
 * @property {(thumbnails: readonly Thumbnail[], table: ColourTable) => void} showThumbnails
 * @property {(index: number) => void} focus
 * @property {(target: EventTarget | null) => number} indexOf the index of a slider; -1 for another target
 */

/**
 * @param {ScaleEvents & {onReset: () => void}} events
 * @param {{reset: string, resetPage: string}} titles tooltips of Reset, in a notebook and on a page
 * @param {HTMLElement} fallback gets the focus when Reset is disabled
 * @returns {ScalePanel}
 */
export function createScalePanel(events, titles, fallback) {
  const order = element("em", {}, "coarse to fine");
  const reset = button("Reset", titles.reset, events.onReset);
  const note = element("p", { className: "dptx-note", hidden: true });
  const ladder = element("div", { className: "dptx-ladder" });
  const maps = element("div", { className: "dptx-ladder" });
  const folds = element("summary", {}, "Reassembly maps");
  const folded = element(
    "details",
    { className: "dptx-fold" },
    folds,
    element("div", { className: "dptx-fold-body" }, maps),
  );
  const colours = new Uint32Array(65536);
  /** @type {ScaleRow[]} */
  let rows = [];
  return {
    nodes: [
      row("dptx-heading", element("span", {}, "Scale what each level receives, ", order), reset),
      ladder,
      note,
      folded,
    ],
    build(about) {
      rows = about.points.map((point, index) => createScaleRow(point, index, about, events));
      ladder.replaceChildren(...rows.slice(0, about.sliders).map(({ node }) => node));
      maps.replaceChildren(...rows.slice(about.sliders).map(({ node }) => node));
      reset.title = about.steps ? titles.resetPage : titles.reset;
      note.hidden = !about.steps;
      note.textContent = about.steps ? pageWords(about.steps) : "";
    },
    show(scales, home) {
      for (const [n, { show }] of rows.entries()) show(scales[n]);
      setText(folds, foldWords(scales.slice(ladder.children.length)));
      setEnabled(
        reset,
        scales.some((scale, n) => scale !== home[n]),
        fallback,
      );
    },
    showThumbnails(thumbnails, table) {
      for (const [n, thumbnail] of thumbnails.entries()) {
        levelColours(thumbnail.map, { table, flip: false, equalise: false, span: null }, colours);
        rows[n]?.showThumbnail(thumbnail, colours);
      }
    },
    focus(index) {
      rows[index]?.input.focus();
    },
    indexOf(target) {
      return rows.findIndex(({ input }) => input === target);
    },
  };
}

/**
 * The summary of the folded sliders. It names those that are not 1: they change the map while the fold is closed, too.
 *
 * @param {Scales} scales of the folded sliders
 * @returns {string}
 */
export function foldWords(scales) {
  const changed = scales.filter((scale) => scale !== 1).length;
  return changed ? `Reassembly maps (${changed} changed)` : "Reassembly maps";
}

/**
 * What the sliders of a page can do.
 *
 * @param {readonly number[]} steps
 * @returns {string}
 */
function pageWords(steps) {
  if (!steps.length) return "This page holds the setting it was saved with. In a notebook the sliders move.";
  const held = steps.map(signed).join(", ");
  return `This page holds the steps ${held}, for one slider at a time, from the setting it was saved with. In a notebook the sliders move freely.`;
}

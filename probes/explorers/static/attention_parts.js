// What the attention explorer is made of: its elements, their labels and tooltips. Behaviour is in the view's methods.

import { pressed } from "./attention_input.js";
import { copyPython, saveNumbers, savePng } from "./attention_saving.js";
import { COLORMAPS, makeScale, prefixName } from "./core.js";
import { button, element, field, segmented, statusStrip } from "./shell.js";

const DIRECTIONS = [
  ["row", "What this patch looks at", "The chosen patch is the query: its softmax row over all keys (key d)"],
  ["column", "Who looks at this patch", "The chosen patch is the key: its softmax column over all queries (key d)"],
];

const SCALES = [
  ["head", "Per head", "Every tile from 0 to its own largest patch (key s)"],
  ["shared", "Shared", "One range for all tiles: from 0 to the largest patch of any head (key s)"],
  ["log", "Log", "One logarithmic range for all tiles: four decades under the largest patch (key s)"],
];

const KEYS_HELP = [
  ["move", "look at the patch under the pointer"],
  ["click", "pin a patch; click another one to compare; click a pin to release it"],
  ["\u2190 \u2191 \u2192 \u2193", "move the patch (Shift: five at a time)"],
  ["Enter", "pin the patch"],
  ["Esc", "clear the pins, then the enlarged head"],
  ["[ ]  or  , .", "previous, next block"],
  ["d", "what this patch looks at / who looks at it"],
  ["0 \u2013 9, h, m", "enlarge a head, the next head, the mean"],
  ["e", "order heads by entropy"],
  ["s, c", "next scale, next colours"],
  ["o, p", "overlay on or off, picture or depth"],
];

function newMarks() {
  return ["a", "b", "probe"].map((kind) => element("div", { className: `dptx-mark dptx-mark-${kind}` }));
}

/** Outlines of the windows of A and B: what the patch sees, then `rest` more for the other pieces of its window. */
function newOutlines(rest) {
  return ["a", "b"].map((kind) =>
    Array.from({ length: 1 + rest }, (_, n) =>
      element("div", { className: `dptx-window dptx-window-${kind}${n ? " dptx-window-rest" : ""}` }),
    ),
  );
}

/** One painted canvas at grid resolution with its caption and marks. index: head number, or `heads` for the mean. */
export class Tile {
  constructor(index, heads, grid) {
    this.index = index;
    this.isMean = index === heads;
    this.name = this.isMean ? "Mean" : `Head ${index}`;
    this.canvas = element("canvas", { width: grid.cols, height: grid.rows, className: "dptx-cells" });
    this.canvas.dataset.tile = this.isMean ? "mean" : String(index);
    this.pen = this.canvas.getContext("2d");
    this.image = this.pen.createImageData(grid.cols, grid.rows);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.scale = makeScale("head", 0, false);
    this.marks = newMarks();
    this.outlines = newOutlines(0);
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, ...this.outlines.flat(), ...this.marks);
    this.swatches = Array.from({ length: grid.prefix }, (_, n) =>
      element("i", { className: "dptx-swatch", title: `${prefixName(n)} token` }),
    );
    this.value = document.createTextNode("");
    this.detail = document.createTextNode("");
    const value = element(
      "span",
      { className: "dptx-tile-value" },
      ...this.swatches,
      grid.prefix ? element("span", { className: "dptx-word" }, prefixName(0)) : null,
      element("span", {}, this.value),
    );
    const name = element(
      "span",
      { className: "dptx-tile-name" },
      this.isMean ? "Mean" : element("span", { className: "dptx-word" }, "Head "),
      this.isMean ? "" : String(index),
      element("span", { className: "dptx-tile-detail" }, this.detail),
    );
    this.node = element(
      "div",
      {
        className: this.isMean ? "dptx-tile dptx-mean" : "dptx-tile",
        role: "button",
        tabIndex: -1,
        "aria-label": this.isMean ? "Mean over heads: enlarge" : `Head ${index}: enlarge`,
      },
      this.frame,
      element("div", { className: "dptx-caption" }, name, value),
    );
  }

  say(text) {
    if (this.value.data !== text) this.value.data = text;
  }
}

function buildHelp() {
  const rows = KEYS_HELP.map(([keys, meaning]) =>
    element("tr", {}, element("th", {}, keys), element("td", {}, meaning)),
  );
  return element(
    "div",
    { className: "dptx-popover", role: "dialog", "aria-label": "Keys and gestures", hidden: true },
    element("table", {}, element("tbody", {}, ...rows)),
    element(
      "p",
      {},
      "Weights are softmax probabilities. A row sums to 100 % over all tokens, the class token included; a column need not. Where attention is in windows, weights are zero outside the outline around the patch; dashed lines are around the rest of a shifted window, which the patch cannot see.",
    ),
  );
}

export function buildParts(view) {
  view.pictureCanvas = element("canvas", { className: "dptx-picture" });
  view.overlay = element("canvas", { className: "dptx-cells dptx-overlay" });
  view.marks = newMarks();
  view.outlines = newOutlines(3);
  view.stage = element(
    "div",
    {
      className: "dptx-stage dptx-frame",
      tabIndex: 0,
      role: "application",
      "aria-label": "Picture. Arrow keys move the patch, Enter pins it, question mark lists all keys.",
    },
    view.pictureCanvas,
    view.overlay,
    ...view.outlines.flat(),
    ...view.marks,
  );
  view.readout = element("div", { className: "dptx-readout" });
  view.live = element("div", { className: "dptx-offscreen", "aria-live": "polite" });
  view.chips = element("div", {
    className: "dptx-chips",
    role: "group",
    "aria-label": "Tokens that stand for no patch",
  });
  view.tokens = field("Tokens", view.chips);
  view.pins = element("div", { className: "dptx-pins" });
  view.grid = element("div", { className: "dptx-tiles" });
  view.status = statusStrip();
  view.blockNumber = element("output", { className: "dptx-number" });
  view.slider = element("input", {
    type: "range",
    className: "dptx-slider",
    min: 0,
    step: 1,
    "aria-label": "Block",
    title: "Transformer block ([ and ])",
  });
  view.slider.addEventListener("input", () => view.toBlock(view.blocks()[Number(view.slider.value)]));
  view.direction = segmented("Direction", DIRECTIONS, (direction) => view.save({ direction }));
  view.scale = segmented("Scale", SCALES, (scale) => view.save({ scale }));
  view.order = segmented(
    "Order of heads",
    [
      ["index", "By number", "Heads as numbered (key e)"],
      [
        "entropy",
        "By focus",
        "Most focused head first: lowest mean entropy of its rows over the whole picture (key e)",
      ],
    ],
    (order) => view.save({ order }),
  );
  view.base = segmented(
    "Base picture",
    [
      ["picture", "Picture", "The picture under the overlay (key p)"],
      ["depth", "Depth", "The predicted depth under the overlay; nearer is brighter (key p)"],
    ],
    (base) => view.save({ base }),
  );
  view.compare = segmented(
    "Compare",
    [
      ["a", "A", "Show pin A"],
      ["b", "B", "Show B: the second pin, or the patch under the pointer"],
      ["difference", "A \u2212 B", "Red where A is larger, blue where B is larger"],
    ],
    (compare) => view.save({ compare }),
  );
  view.colours = element(
    "select",
    {
      className: "dptx-select",
      "aria-label": "Colours",
      title: "Colours (key c)",
      onchange: () => view.save({ colormap: view.colours.value }),
    },
    ...COLORMAPS.map((name) => element("option", { value: name }, name)),
  );
  view.opacity = element("input", {
    type: "range",
    className: "dptx-slider dptx-opacity",
    min: 0,
    max: 1,
    step: 0.05,
    "aria-label": "Overlay opacity",
    title: "Opacity of the overlay: the mean, or the enlarged head (key o)",
    oninput: () => view.save({ opacity: Number(view.opacity.value) }),
  });
  view.bar = element("canvas", { width: 256, height: 1, className: "dptx-bar-colours" });
  view.barPointer = element("div", { className: "dptx-bar-pointer" });
  view.barTicks = element("div", { className: "dptx-bar-ticks" });
  view.barNote = element("div", { className: "dptx-bar-note" });
  const copy = button("Copy Python", "Copy the code that computes this view", () => copyPython(view, copy));
  const help = button("?", "Keys and gestures (key ?)", () => view.toggleHelp(), {
    className: "dptx-button dptx-square",
    "aria-label": "Help",
    "aria-expanded": "false",
  });
  view.helpButton = help;
  view.help = buildHelp();
  view.root = element(
    "div",
    { className: "dptx dptx-attention", onkeydown: (event) => pressed(view, event) },
    element(
      "div",
      { className: "dptx-toolbar" },
      field(
        "Block",
        button("\u2039", "Previous block ([ or ,)", () => view.stepBlock(-1), {
          className: "dptx-button dptx-square",
          "aria-label": "Previous block",
        }),
        view.slider,
        button("\u203a", "Next block (] or .)", () => view.stepBlock(1), {
          className: "dptx-button dptx-square",
          "aria-label": "Next block",
        }),
        view.blockNumber,
      ),
      view.direction.node,
      element(
        "div",
        { className: "dptx-actions" },
        element(
          "div",
          { className: "dptx-segments", role: "group", "aria-label": "Save" },
          button("PNG", "Save this view as a picture", () => savePng(view), { className: "dptx-segment" }),
          button("NPZ", "Save the maps as NumPy arrays (numpy.load)", () => saveNumbers(view, "npz"), {
            className: "dptx-segment",
          }),
          button("CSV", "Save the maps as a table: head, row, column, value", () => saveNumbers(view, "csv"), {
            className: "dptx-segment",
          }),
        ),
        copy,
        help,
      ),
    ),
    element(
      "div",
      { className: "dptx-main" },
      element(
        "div",
        { className: "dptx-left" },
        view.stage,
        view.readout,
        element("div", { className: "dptx-row dptx-pinrow" }, view.pins, view.compare.node),
        element("div", { className: "dptx-row" }, view.base.node, field("Overlay", view.opacity), view.tokens),
      ),
      element(
        "div",
        { className: "dptx-right" },
        element(
          "div",
          { className: "dptx-row dptx-options" },
          field("Scale", view.scale.node),
          view.colours,
          view.order.node,
        ),
        view.grid,
        element(
          "div",
          { className: "dptx-bar" },
          element("div", { className: "dptx-bar-box" }, view.bar, view.barPointer, view.barTicks),
          view.barNote,
        ),
      ),
    ),
    view.status.node,
    view.live,
    view.help,
  );
  view.el.append(view.root);
}

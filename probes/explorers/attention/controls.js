// What the attention explorer is made of: its elements, their labels and tooltips. Behaviour is in the view's methods.

import { Cells, ColourBar, newMark } from "../shared/cells.js";
import { attentionScale as makeScale } from "./scales.js";
import {
  blockStepper,
  colourPicker,
  columns,
  copyButton,
  helpPopover,
  lineOf,
  newReadout,
  saveButtons,
  toolbar,
} from "../shared/panel.js";
import { prefixName } from "../shared/patches.js";
import { element, field, segmented } from "../shared/shell.js";
import { act } from "./pointer.js";
import { saveNumbers, savePng, viewPython } from "./saving.js";

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
  ["Tab", "to a tile: arrow keys lead to others, Enter enlarges"],
  ["[ ]  or  , .", "previous, next block"],
  ["d", "what this patch looks at / who looks at it"],
  ["0 \u2013 9, h, m", "enlarge a head, the next head, the mean"],
  ["e", "order heads by entropy"],
  ["s, c", "next scale, next colours"],
  ["o, p", "overlay on or off, picture or depth"],
];

const KEYS_NOTE =
  "Weights are softmax probabilities. A row sums to 100 % over all tokens, the class token included; a column need not. Where attention is in windows, weights are zero outside the outline around the patch; dashed lines are around the rest of a shifted window, which the patch cannot see.";

const newMarks = () => ["a", "b", "probe"].map(newMark);

/** Outlines of the windows of A and B: what the patch sees, then `rest` more for the other pieces of its window. */
function newOutlines(rest) {
  return ["a", "b"].map((kind) =>
    Array.from({ length: 1 + rest }, (_, n) =>
      element("div", { className: `dptx-window dptx-window-${kind}${n ? " dptx-window-rest" : ""}` }),
    ),
  );
}

/** One painted canvas at grid resolution with its caption and marks. index: head number, or `heads` for the mean. */
export class Tile extends Cells {
  constructor(index, heads, grid) {
    super();
    this.fit(grid.rows, grid.cols);
    this.index = index;
    this.isMean = index === heads;
    this.head = this.isMean ? -1 : index; // as the trait `head` has it
    this.name = this.isMean ? "Mean" : `Head ${index}`;
    this.canvas.dataset.tile = this.isMean ? "mean" : String(index);
    this.scale = makeScale("head", 0, false);
    this.marks = newMarks();
    this.outlines = newOutlines(0);
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, ...this.outlines.flat(), ...this.marks);
    this.swatches = Array.from({ length: grid.prefix }, (_, n) =>
      element("i", { className: "dptx-swatch", title: `${prefixName(n)} token` }),
    );
    this.value = document.createTextNode("");
    this.word = document.createTextNode("");
    this.top = document.createTextNode("");
    this.detail = document.createTextNode(""); // the sum of a column; else, in order of entropy, the head's
    this.bits = "";
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
    );
    const low = [
      element(
        "span",
        { className: "dptx-tile-top", title: "Largest weight of a patch" },
        element("span", { className: "dptx-tile-max" }, this.word),
        this.top,
      ),
      element(
        "span",
        { title: "\u03a3: sum of the column, 1 on average over tokens; bits: mean entropy of the head's rows" },
        this.detail,
      ),
    ];
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
      element("div", { className: "dptx-caption dptx-caption-low" }, ...low),
    );
  }

  /** node: value, word, top or detail. */
  say(node, text) {
    if (node.data !== text) node.data = text;
  }
}

export function buildParts(view) {
  view.marks = newMarks();
  view.outlines = newOutlines(3);
  view.overlaid = "the mean, or the enlarged head";
  view.buildPicture(...view.outlines.flat(), ...view.marks);
  view.readout = newReadout();
  view.chips = element("div", {
    className: "dptx-chips",
    role: "group",
    "aria-label": "Tokens that stand for no patch",
  });
  view.tokens = field("Tokens", view.chips);
  view.pins = element("div", { className: "dptx-pins" });
  view.grid = element("div", { className: "dptx-tiles" });
  view.stepper = blockStepper(view, (slot) => view.toBlock(view.blocks()[slot]));
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
  view.compare = segmented(
    "Compare",
    [
      ["a", "A", "Show pin A"],
      ["b", "B", "Show B: the second pin, or the patch under the pointer"],
      ["difference", "A \u2212 B", "Red where A is larger, blue where B is larger"],
    ],
    (compare) => view.save({ compare }),
  );
  view.colours = colourPicker(view);
  view.bar = new ColourBar();
  view.help = helpPopover(KEYS_HELP, KEYS_NOTE);
  const files = saveButtons(
    "Save",
    ["PNG", "Save this view as a picture", () => savePng(view)],
    ["NPZ", "Save the maps as NumPy arrays (numpy.load)", () => saveNumbers(view, "npz")],
    ["CSV", "Save the maps as a table: head, row, column, value", () => saveNumbers(view, "csv")],
  );
  const copy = copyButton(() => viewPython(view), view.source.link);
  view.mount(
    "attention",
    act,
    toolbar([view.stepper.node, view.direction.node], files, copy, view.help.opener),
    columns(
      [
        view.stage,
        view.readout,
        lineOf("dptx-pinrow", view.pins, view.compare.node),
        lineOf("", view.base.node, field("Overlay", view.opacity), view.tokens),
      ],
      [
        lineOf("dptx-options", field("Scale", view.scale.node), view.colours, view.order.node),
        view.grid,
        view.bar.node,
      ],
    ),
  );
}

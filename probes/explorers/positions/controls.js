// What the position explorer is made of: its elements, their labels and tooltips. Behaviour is in the view's methods.

import { Cells, ColourBar, newMark, sizeMarks } from "../shared/cells.js";
import {
  blockStepper,
  colourPicker,
  columns,
  copyButton,
  helpPopover,
  lineOf,
  newReadout,
  picker,
  saveButtons,
  stepper,
  toolbar,
} from "../shared/panel.js";
import { element, field, segmented } from "../shared/shell.js";
import { readsCells, watchStage } from "./pointer.js";
import { positionPython, savePositions } from "./saving.js";

const TABLE_KEYS = [
  ["move", "over the map: similarity with the position under the pointer"],
  ["click", "pin the position, again to release it; a channel: enlarge it with its spectrum"],
  ["\u2190 \u2191 \u2192 \u2193", "move the position (Shift: five at a time)"],
  ["Enter", "pin the position"],
  ["Esc", "release the pin, then the enlarged channel"],
  ["Tab", "to a channel: arrow keys lead to others, Enter enlarges"],
  ["[ ]  or  , .", "previous, next page of channels"],
  ["h, H", "enlarge the next channel, the previous one"],
  ["v", "values or spectra"],
  ["n", "similarity with or without what all positions have in common"],
  ["g, G", "next, previous size of input"],
  ["e", "order: by number, by strength, by frequency"],
  ["s, c", "own or shared range, next colours"],
];

const BIAS_KEYS = [
  ["move", "over the grid: the bias from the query under the pointer to every key"],
  ["click", "pin the query, again to release it; a head: enlarge it and lay it on the grid"],
  ["\u2190 \u2191 \u2192 \u2193", "move the query (Shift: five at a time)"],
  ["Enter", "pin the query"],
  ["Esc", "release the pin, then the enlarged head"],
  ["Tab", "to a head: arrow keys lead to others, Enter enlarges"],
  ["[ ]  or  , .", "previous, next block"],
  ["0 \u2013 9, h, H, m", "a head, the next, the previous, the mean"],
  ["g, G", "next, previous size of input"],
  ["e", "order: by number, by strength"],
  ["s, c", "own or shared range, next colours"],
  ["PgUp, PgDn", "previous, next page of heads"],
];

/** A painted image at its own resolution with marks and a caption. */
export class PositionTile extends Cells {
  constructor(big = false) {
    super();
    this.index = -1;
    this.cut = element("div", { className: "dptx-window dptx-cut" });
    this.mark = newMark("a");
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, this.cut, this.mark);
    this.name = document.createTextNode("");
    this.detail = document.createTextNode("");
    const caption = element(
      "div",
      { className: "dptx-caption" },
      element("span", { className: "dptx-tile-name" }, this.name),
      element("span", { className: "dptx-tile-value" }, this.detail),
    );
    this.node = element(
      "div",
      { className: big ? "dptx-tile dptx-big" : "dptx-tile", role: "button", tabIndex: -1 },
      this.frame,
      caption,
    );
  }

  fit(rows, cols) {
    const before = this.pixels;
    const pixels = super.fit(rows, cols);
    if (pixels !== before) {
      this.frame.style.setProperty("--dptx-aspect", `${cols} / ${rows}`);
      sizeMarks(this.frame, rows, cols);
    }
    return pixels;
  }
}

/** Everything, once it is known whether it is a table or biases. */
export function buildPositions(view) {
  const { biased } = view;
  view.stage = new PositionTile();
  view.stage.frame.className = "dptx-stage dptx-frame";
  Object.assign(view.stage.frame, { tabIndex: 0 });
  view.stage.frame.setAttribute("role", "application");
  const what = biased ? "Grid of keys. Arrow keys move the query" : "Grid of positions. Arrow keys move the position";
  view.stage.frame.setAttribute("aria-label", `${what}, Enter pins it, question mark lists all keys.`);
  view.stage.canvas.dataset.tile = "stage";
  view.reading = newMark("probe");
  view.stage.frame.append(view.reading);
  watchStage(view);
  view.readout = newReadout();
  view.stageBar = new ColourBar();
  view.bar = new ColourBar();
  view.grid = element("div", { className: "dptx-tiles" });
  view.bigs = element("div", { className: "dptx-bigs" });
  view.sizes = picker("Input size", "Size of the input in pixels, and its grid (keys g, G)", [], () =>
    view.save({ size: view.sizes.value.split("x").map(Number) }),
  );
  view.colours = colourPicker(view, undefined, "Colours where values have no sign");
  view.scale = segmented(
    "Range",
    [
      ["own", "Own range", "Every image over its own range (key s)"],
      ["shared", "Shared", "One range for all images (key s)"],
    ],
    (scale) => view.save({ scale }),
  );
  const orders = [
    ["index", "By number", "As numbered (key e)"],
    ["strength", "By strength", "Those that vary most first: largest standard deviation (key e)"],
    ["frequency", "By frequency", "Slowest waves first: mean frequency of the spectrum (key e)"],
  ];
  view.order = segmented(
    "Order",
    orders.filter(([name]) => view.orders().includes(name)),
    (order) => view.toOrder(order),
  );
  const pageKeys = biased ? ["PgUp", "PgDn"] : ["[ or ,", "] or ."];
  const label = biased ? "Heads" : "Channels";
  view.pager = stepper(
    label,
    "page",
    "Page of images",
    pageKeys,
    (by) => view.turnPage(by),
    (page) => view.toPage(page),
  );
  view.pager.number.classList.add("dptx-page");
  const leading = [];
  const aside = [];
  const options = [];
  if (biased) {
    view.stepper = blockStepper(view, (block) => view.toBlock(block));
    leading.push(view.stepper.node);
    view.classToken = element("div", { className: "dptx-hint dptx-words" });
    aside.push(view.classToken);
  } else {
    view.similarity = segmented(
      "Similarity",
      [
        ["false", "Cosine", "Cosine of the vectors as they are added to the tokens (key n)"],
        ["true", "Centred", "Cosine after taking off the mean of all positions, which they have in common (key n)"],
      ],
      (value) => view.save({ centred: value === "true" }),
    );
    view.shown = segmented(
      "Images",
      [
        ["values", "Values", "Each channel as an image of the grid (key v)"],
        ["spectrum", "Spectra", "Each channel's power by waves; the middle is no wave (key v)"],
      ],
      (value) => view.save({ view: value }),
    );
    options.push(view.shown.node);
    view.spectrum = new PositionTile();
    view.spectrum.canvas.dataset.tile = "spectrum";
    view.spectrum.node.className = "dptx-tile dptx-plain";
    view.spectrum.node.removeAttribute("role");
    view.spectrum.name.data = "Mean spectrum";
    view.spectrumWords = element("div", { className: "dptx-hint dptx-words" });
    readsCells(view, view.spectrum, "spectrum");
    aside.push(element("div", { className: "dptx-aside" }, view.spectrum.node, view.spectrumWords));
  }
  view.help = helpPopover(
    biased ? BIAS_KEYS : TABLE_KEYS,
    biased
      ? "A bias is added to the attention logit of a query and a key; where the key lies from the query decides. In offset images the query is in the middle, and the outline is around the keys there are on the grid. Logits matter by their differences: adding 1 to one key's multiplies its weight by e."
      : "The table's row for a position is added to the token there. Cosine similarity is 1 for the same direction, 0 for a right angle. A spectrum counts waves across the grid: down and right of the middle are finer ones; the powers of a channel sum to its variance. Colours of spectra span four decades.",
  );
  const files = saveButtons(
    "Save",
    ["PNG", "Save this view as a picture", () => savePositions(view, "png")],
    ["NPZ", "Save the numbers as NumPy arrays (numpy.load)", () => savePositions(view, "npz")],
  );
  const copy = copyButton(() => (view.data ? positionPython(view) : ""), view.source.link);
  view.arrange(
    toolbar([...leading, field("Input", view.sizes), view.pager.node], files, copy, view.help.opener),
    columns(
      [
        view.stage.frame,
        view.readout,
        view.stageBar.node,
        biased ? null : lineOf("", field("Similarity", view.similarity.node), view.colours),
        ...aside,
      ],
      [
        lineOf("dptx-options", ...options, view.order.node, view.scale.node, biased ? view.colours : null),
        view.bigs,
        view.grid,
        view.bar.node,
      ],
    ),
  );
}

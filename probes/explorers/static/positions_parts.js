// The position explorer's elements and controls, and what keys mean. What they do is in positions.js.

import { COLORMAPS } from "./core.js";
import { ColourBar, copyButton, handleKey, helpPopover } from "./panel.js";
import { positionPython, savePositions } from "./positions_saving.js";
import { button, element, field, segmented, statusStrip } from "./shell.js";

const TABLE_KEYS = [
  ["move", "over the map: similarity with the position under the pointer"],
  ["click", "pin the position, again to release it; a channel: enlarge it with its spectrum"],
  ["\u2190 \u2191 \u2192 \u2193", "move the position (Shift: five at a time)"],
  ["Enter", "pin the position"],
  ["Esc", "release the pin, then the enlarged channel"],
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
  ["[ ]  or  , .", "previous, next block"],
  ["0 \u2013 9, h, H, m", "a head, the next, the previous, the mean"],
  ["g, G", "next, previous size of input"],
  ["e", "order: by number, by strength"],
  ["s, c", "own or shared range, next colours"],
  ["PgUp, PgDn", "previous, next page of heads"],
];

/** A painted image at its own resolution with marks and a caption; `show` fits it to images of any form. */
export class PositionTile {
  constructor(big = false) {
    this.index = -1;
    this.canvas = element("canvas", { width: 1, height: 1, className: "dptx-cells" });
    this.pen = this.canvas.getContext("2d");
    this.cut = element("div", { className: "dptx-window dptx-cut" });
    this.mark = element("div", { className: "dptx-mark dptx-mark-a" });
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

  /** Room for an image of so many cells; returns the pixels to paint. */
  fit(high, wide) {
    if (this.canvas.width !== wide || this.canvas.height !== high || !this.pixels) {
      this.canvas.width = wide;
      this.canvas.height = high;
      this.image = this.pen.createImageData(wide, high);
      this.pixels = new Uint32Array(this.image.data.buffer);
      this.frame.style.setProperty("--dptx-aspect", `${wide} / ${high}`);
      this.frame.style.setProperty("--dptx-cell-width", `${100 / wide}%`);
      this.frame.style.setProperty("--dptx-cell-height", `${100 / high}%`);
    }
    return this.pixels;
  }

  painted() {
    this.pen.putImageData(this.image, 0, 0);
  }

  /** Puts the mark on a cell, or takes it away. */
  markAt(cell) {
    this.mark.style.visibility = cell ? "visible" : "";
    if (cell) this.mark.style.transform = `translate(${cell[1] * 100}%, ${cell[0] * 100}%)`;
  }

  /** The cell under a pointer event. */
  cellOf(event) {
    const box = this.frame.getBoundingClientRect();
    const at = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    return [
      at((event.clientY - box.top) / box.height, this.canvas.height),
      at((event.clientX - box.left) / box.width, this.canvas.width),
    ];
  }
}

/** Pointer over a tile: reads its cells. */
export function readsCells(view, tile, part) {
  tile.frame.addEventListener("pointermove", (event) => {
    const cell = tile.cellOf(event);
    view.probe = { part, tile, cell };
    view.schedule();
  });
  tile.frame.addEventListener("pointerleave", () => {
    view.probe = null;
    view.schedule();
  });
}

function watchStage(view) {
  const { frame } = view.stage;
  let touch = null;
  frame.addEventListener("pointermove", (event) => view.pointAt(view.stage.cellOf(event)));
  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    view.pointAt(view.stage.cellOf(event));
    touch = { cell: view.stage.cellOf(event).join(), type: event.pointerType, time: event.timeStamp };
  });
  frame.addEventListener("pointerup", (event) => {
    // A finger that slides explores; only a tap pins.
    const tap = touch?.cell === view.stage.cellOf(event).join();
    if (tap && (touch.type === "mouse" || event.timeStamp - touch.time < 300)) view.togglePin(view.stage.cellOf(event));
    touch = null;
  });
  frame.addEventListener("pointerleave", () => {
    view.probe = null;
    view.schedule();
  });
}

function act(view, key, shift, target) {
  const step = shift ? 5 : 1;
  const tile = key === "Enter" ? view.tiles.find(({ node }) => node === target) : undefined;
  if (tile) view.enlarge(tile.index);
  else if (key === "ArrowLeft") view.move(0, -step);
  else if (key === "ArrowRight") view.move(0, step);
  else if (key === "ArrowUp") view.move(-step, 0);
  else if (key === "ArrowDown") view.move(step, 0);
  else if (key === "[" || key === ",") view.turn(-1);
  else if (key === "]" || key === ".") view.turn(1);
  else if (key === "PageUp") view.turnPage(-1);
  else if (key === "PageDown") view.turnPage(1);
  else if (key === "Enter" || key === " ") view.togglePin();
  else if (key === "Escape") return view.clear();
  else if (key === "h" || key === "H") view.enlargeNext(key === "h" ? 1 : -1);
  else if (key === "m" && view.biased) view.enlarge(-1);
  else if (key === "v" && !view.biased) view.cycle("view", ["values", "spectrum"]);
  else if (key === "n" && !view.biased) view.save({ centred: !view.get("centred") });
  else if (key === "g" || key === "G") view.nextSize(key === "g" ? 1 : -1);
  else if (key === "e") view.cycle("order", view.orders());
  else if (key === "s") view.cycle("scale", ["own", "shared"]);
  else if (key === "c") view.cycle("colormap", COLORMAPS);
  else if (key === "?") view.help.toggle();
  else if (/^[0-9]$/.test(key) && view.biased && Number(key) < (view.data?.count ?? 0)) view.enlarge(Number(key));
  else return false;
  return true;
}

const stepButtons = (what, keys, go) =>
  [
    ["\u2039", `Previous ${what} (${keys[0]})`, -1],
    ["\u203a", `Next ${what} (${keys[1]})`, 1],
  ].map(([text, title, step]) =>
    button(text, title, () => go(step), { className: "dptx-button dptx-square", "aria-label": title }),
  );

const rangeInput = (label, title, oninput) =>
  element("input", { type: "range", className: "dptx-slider", min: 0, step: 1, "aria-label": label, title, oninput });

const chooser = (label, title, options, onchange) =>
  element(
    "select",
    { className: "dptx-select", "aria-label": label, title, onchange },
    ...options.map((name) => element("option", { value: name }, name)),
  );

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
  view.reading = element("div", { className: "dptx-mark dptx-mark-probe" });
  view.stage.frame.append(view.reading);
  watchStage(view);
  view.readout = element("div", { className: "dptx-readout" }, element("strong"), element("span"));
  view.stageBar = new ColourBar();
  view.bar = new ColourBar();
  view.grid = element("div", { className: "dptx-tiles" });
  view.bigs = element("div", { className: "dptx-bigs" });
  view.status = statusStrip();
  view.live = element("div", { className: "dptx-offscreen", "aria-live": "polite" });
  view.sizes = chooser("Input size", "Size of the input in pixels, and its grid (keys g, G)", [], () =>
    view.save({ size: view.sizes.value.split("x").map(Number) }),
  );
  view.colours = chooser("Colours", "Colours where values have no sign (key c)", COLORMAPS, () =>
    view.save({ colormap: view.colours.value }),
  );
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
    (order) => view.save({ order, first: 0 }),
  );
  view.pageNumber = element("output", { className: "dptx-number dptx-page" });
  view.pageSlider = rangeInput("Page", "Page of images", () => view.toPage(Number(view.pageSlider.value)));
  const pageKeys = biased ? ["PgUp", "PgDn"] : ["[ or ,", "] or ."];
  const [before, after] = stepButtons("page", pageKeys, (step) => view.turnPage(step));
  view.pager = field(biased ? "Heads" : "Channels", before, view.pageSlider, after, view.pageNumber);
  const leading = [];
  const aside = [];
  const options = [];
  if (biased) {
    view.blockNumber = element("output", { className: "dptx-number" });
    view.slider = rangeInput("Block", "Transformer block ([ and ])", () => view.toBlock(Number(view.slider.value)));
    const [previous, next] = stepButtons("block", ["[ or ,", "] or ."], (step) => view.toBlock(view.get("block") + step));
    leading.push(field("Block", previous, view.slider, next, view.blockNumber));
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
  const save = (kind, title) =>
    button(kind.toUpperCase(), title, () => savePositions(view, kind), { className: "dptx-segment" });
  const actions = element(
    "div",
    { className: "dptx-actions" },
    element(
      "div",
      { className: "dptx-segments", role: "group", "aria-label": "Save" },
      save("png", "Save this view as a picture"),
      save("npz", "Save the numbers as NumPy arrays (numpy.load)"),
    ),
    copyButton(() => (view.data ? positionPython(view) : ""), view.source.link),
    view.help.opener,
  );
  const left = element(
    "div",
    { className: "dptx-left" },
    view.stage.frame,
    view.readout,
    view.stageBar.node,
    biased ? null : element("div", { className: "dptx-row" }, field("Similarity", view.similarity.node), view.colours),
    ...aside,
  );
  const right = element(
    "div",
    { className: "dptx-right" },
    element(
      "div",
      { className: "dptx-row dptx-options" },
      ...options,
      view.order.node,
      view.scale.node,
      biased ? view.colours : null,
    ),
    view.bigs,
    view.grid,
    view.bar.node,
  );
  view.root.replaceChildren(
    element("div", { className: "dptx-toolbar" }, ...leading, field("Input", view.sizes), view.pager, actions),
    element("div", { className: "dptx-main" }, left, right),
    view.status.node,
    view.live,
    view.help.node,
  );
  view.root.addEventListener("keydown", (event) =>
    handleKey(event, (key, shift, target) => act(view, key, shift, target)),
  );
}

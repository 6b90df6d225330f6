// The depth explorer's view: a picture beside its depth, or two maps, under thresholds that are moved in the browser.
//
// The kernel is asked for the picture and once for every map on display. From then on thresholds, plane and contrast are
// computed here (depth_numbers.js) and painted in the next animation frame; traits are saved when a slider rests.
//
// For tests, on the root element: data-far, data-near, data-count (pixels inside), data-state of the last paint; a pane's
// canvas (a pixel a pixel of the map) carries data-pane: "left" or "right".

import { Cells, placeIn } from "../shared/cells.js";
import { colourIndex, cssColour, lookup } from "../shared/core.js";
import { npy } from "../shared/files.js";
import {
  colourPicker,
  copyButton,
  enable,
  helpPopover,
  picker,
  saveButtons,
  saveBytes,
  savePicture,
  sharpPen,
  slider,
  themeColours,
  toolbar,
} from "../shared/panel.js";
import { button, element, field } from "../shared/shell.js";
import { defineWidget, View } from "../shared/view.js";
import { histogramOf, metresAt, nearnessOf, processed } from "./numbers.js";
import { depthPython } from "./python.js";
import { DepthSource, SIDES } from "./source.js";

const COLOURS = ["magma", "viridis", "cividis", "grey"];
const BINS = 128;
const OUTSIDE = 26; // of 255: how much of the picture shines through where the thresholds cut it away

const WRONG_DISTANCES = "Distances are in metres, 0 < nearest < farthest.";

const KEYS_HELP = [
  ["move", "read the depth under the pointer"],
  ["\u2190 \u2191 \u2192 \u2193", "on a picture: move by one pixel (Shift: ten)"],
  ["\u2190 \u2192", "on a threshold: move it"],
  ["f, n", "go to the far, the near threshold"],
  ["l", "take the plane away, or put it back"],
  ["e", "even colours on or off"],
  ["c", "next colours"],
  ["r", "thresholds back to the ends"],
];

const KEYS_NOTE =
  "Thresholds are shares of the map's range: 0 its farthest pixel, 1 its nearest. Plane and colours are worked out from what they leave. Metres hold if the nearest and the farthest thing are as far as the two numbers say.";

/** A pane: which map, and a canvas of the map's own pixels with a cross on it. */
class DepthPane extends Cells {
  constructor(view, side) {
    super({ className: "" });
    this.side = side;
    this.canvas.dataset.pane = side;
    this.cross = element("div", { className: "dptx-depth-cross" });
    this.choice = picker(`${side} pane`, `What the ${side} pane shows`, [], () =>
      view.save({ [side]: this.choice.value }),
    );
    this.range = element("span", { className: "dptx-hint" });
    this.frame = element(
      "div",
      {
        className: "dptx-frame dptx-depth-frame",
        tabIndex: 0,
        role: "application",
        "aria-label": `The ${side} pane. Arrow keys read the depth pixel by pixel.`,
        onpointermove: (event) => view.pointed(event),
        onpointerdown: (event) => view.pointed(event),
      },
      this.canvas,
      this.cross,
    );
    this.node = element(
      "div",
      { className: "dptx-depth-pane" },
      element("div", { className: "dptx-depth-head" }, this.choice, this.range),
      this.frame,
    );
  }
}

class DepthView extends View {
  constructor(model, el, source) {
    super(model, el, source);
    this.at = null; // [column, row] of the picture's own pixel that is read off
    this.met = null; // where both thresholds stood when a pointer took hold of one
    this.results = new Map(); // map -> {key, result}
    this.panes = SIDES.map((side) => new DepthPane(this, side));
    this.help = helpPopover(KEYS_HELP, KEYS_NOTE);
    this.build();
  }

  build() {
    const toggle = (name, text, title) => button(text, title, () => this.toggle(name), { "aria-pressed": "false" });
    this.planeButton = toggle(
      "plane",
      "Without plane",
      "Take away the plane that fits what the thresholds leave best (key l)",
    );
    this.equaliseButton = toggle(
      "equalise",
      "Even colours",
      "Spread the colours evenly over the pixels: histogram equalisation (key e)",
    );
    this.colours = colourPicker(this, COLOURS);
    const look = (name) => ({
      className: `dptx-depth-${name}`,
      max: 1,
      step: 0.01,
      onpointerdown: () => (this.met = this.get("far") === this.get("near") ? this.get("far") : null),
      onkeydown: () => (this.met = null),
    });
    this.sliders = {
      far: slider("Far threshold (key f)", "Far threshold (key f)", () => this.slide("far"), look("far")),
      near: slider("Near threshold (key n)", "Near threshold (key n)", () => this.slide("near"), look("near")),
    };
    this.histogram = element("canvas", { className: "dptx-depth-histogram" });
    this.words = element("span");
    this.resetButton = button("Reset", "Both thresholds back to the ends (key r)", () => this.reset());
    const metres = (name, label) =>
      element("input", {
        type: "number",
        className: "dptx-entry",
        min: 0.01,
        step: "any",
        "aria-label": label,
        title: label,
        onchange: () => this.distance(name),
      });
    this.distances = {
      nearest: metres("nearest", "Metres to the nearest pixel"),
      farthest: metres("farthest", "Metres to the farthest pixel"),
    };
    this.metres = field(
      "Nearest",
      this.distances.nearest,
      element("span", { className: "dptx-label" }, "m, farthest"),
      this.distances.farthest,
      element("span", { className: "dptx-label" }, "m"),
    );
    this.readout = element("div", { className: "dptx-depth-readout", "aria-live": "polite" });
    const files = saveButtons(
      "Save",
      ["PNG", "Save both panes as a picture", () => this.savePng()],
      ["NPY", "", () => this.saveNumbers()],
    );
    this.npyButton = files.lastChild;
    this.mount(
      "depth",
      act,
      toolbar(
        [this.planeButton, this.equaliseButton, this.colours, this.metres],
        files,
        copyButton(() => this.python(), this.source.link),
        this.help.opener,
      ),
      element("div", { className: "dptx-depth-panes" }, ...this.panes.map((pane) => pane.node)),
      this.readout,
      element(
        "div",
        { className: "dptx-depth-range" },
        this.histogram,
        element("div", { className: "dptx-depth-track" }, this.sliders.far, this.sliders.near),
        element(
          "div",
          { className: "dptx-depth-ends" },
          element("span", {}, "far"),
          element("div", { className: "dptx-depth-words" }, this.words, this.resetButton),
          element("span", {}, "near"),
        ),
      ),
    );
  }

  begin() {
    const settings = ["far", "near", "plane", "equalise", "colormap", "nearest", "farthest", ...SIDES];
    this.watch(settings, () => this.settle());
    this.watchSize(this.root, () => this.schedule());
    this.watchTheme(() => this.schedule());
    this.settle();
    this.focusOnPage(this.panes[1].frame);
  }

  dispose() {
    clearTimeout(this.saving);
    super.dispose();
  }

  heard(event) {
    if (super.heard(event)) return true;
    this.settle();
    return false;
  }

  // ------------------------------------------------------------------------------------------------------- controls

  settle() {
    for (const name of ["far", "near"]) {
      this.sliders[name].value = this.get(name);
      this.sliders[name].setAttribute("aria-valuetext", this.get(name).toFixed(2));
    }
    enable(this.resetButton, this.get("far") > 0 || this.get("near") < 1, this.sliders.far);
    this.planeButton.setAttribute("aria-pressed", String(this.get("plane")));
    this.equaliseButton.setAttribute("aria-pressed", String(this.get("equalise")));
    this.colours.value = this.get("colormap");
    for (const [name, input] of Object.entries(this.distances)) input.value = this.get(name);
    const choices = ["picture", ...this.source.names];
    for (const pane of this.panes) {
      if (pane.choice.childElementCount !== choices.length) {
        pane.choice.replaceChildren(...choices.map((name) => element("option", { value: name }, name)));
      }
      pane.choice.value = this.get(pane.side);
    }
    this.schedule();
  }

  /**
   * A threshold while it is dragged: it stops at the other one, and the kernel hears of it once it rests. Where the two
   * meet, one handle lies on the other: the way of the drag says which of them is meant.
   */
  slide(name) {
    const value = Number(this.sliders[name].value);
    const { met } = this;
    if (met !== null || name === "far") this.model.set("far", Math.min(value, met ?? this.get("near")));
    if (met !== null || name === "near") this.model.set("near", Math.max(value, met ?? this.get("far")));
    this.settle();
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.model.save_changes(), 200);
  }

  reset() {
    this.save({ far: 0, near: 1 });
  }

  distance(name) {
    const value = Number(this.distances[name].value);
    const other = this.get(name === "nearest" ? "farthest" : "nearest");
    const fits = value > 0 && (name === "nearest" ? value < other : value > other);
    const { link } = this.source;
    if (!fits) link.say(WRONG_DISTANCES, { failed: true });
    else {
      this.save({ [name]: value });
      if (link.status.text === WRONG_DISTANCES) this.source.ready();
    }
    this.settle();
  }

  // ------------------------------------------------------------------------------------------------------- painting

  /** The map of a pane; of a picture that of the other pane, else the model's. */
  mapOf(side) {
    const { maps } = this.source;
    const names = [this.get(side), ...SIDES.map((other) => this.get(other)), "depth"];
    return maps.get(names.find((name) => name !== "picture"));
  }

  resultOf(map) {
    const settings = Object.fromEntries(["far", "near", "plane", "equalise"].map((name) => [name, this.get(name)]));
    const key = JSON.stringify(settings);
    if (this.results.get(map)?.key !== key) this.results.set(map, { key, result: processed(map, settings) });
    return this.results.get(map).result;
  }

  paint() {
    const { image } = this.source;
    const map = this.mapOf("right");
    if (!image || !map || !this.mapOf("left")) return;
    this.root.style.setProperty("--dptx-aspect", `${map.width} / ${map.height}`);
    this.metres.hidden = map.metric;
    const sent = this.reduced(map) ? `, as sent here: ${this.sizes(map)}` : "";
    this.npyButton.title = `Save the map of the right pane as numbers (numpy.load)${sent}; NaN outside the thresholds`;
    for (const pane of this.panes) this.paintPane(pane, this.mapOf(pane.side));
    this.paintHistogram(map);
    this.paintReadout();
    const { count } = this.resultOf(map);
    const share = ((100 * count) / map.values.length).toFixed(0);
    this.words.textContent = `${this.get("far").toFixed(2)} to ${this.get("near").toFixed(2)}: ${share} % of the pixels`;
    const lacking = this.get("plane") && !this.resultOf(map).plane;
    if (lacking) this.words.textContent += "; too few for a plane";
    Object.assign(this.root.dataset, { far: this.get("far"), near: this.get("near"), count, state: "ready" });
  }

  paintPane(pane, map) {
    const pixels = pane.fit(map.height, map.width);
    const { mask, shown, low, high } = this.resultOf(map);
    if (this.get(pane.side) === "picture") {
      const picture = this.pictureOf(map);
      for (let n = 0; n < pixels.length; n++) {
        pixels[n] = mask[n] ? picture[n] : ((picture[n] & 0xffffff) | (OUTSIDE << 24)) >>> 0;
      }
      pane.range.textContent = "";
    } else {
      const table = lookup(this.get("colormap"));
      const flip = map.metric;
      const gain = high > low ? 1 / (high - low) : 0;
      for (let n = 0; n < pixels.length; n++) {
        const unit = (shown[n] - low) * gain;
        pixels[n] = mask[n] ? table[colourIndex(flip ? 1 - unit : unit)] : 0;
      }
      const what = this.get("equalise") ? "share of pixels below, " : this.get("plane") ? "above the plane, " : "";
      pane.range.textContent = `${what}${low.toPrecision(3)} to ${high.toPrecision(3)}`;
    }
    pane.paint();
  }

  pictureOf(map) {
    if (this.picturePixels?.length !== map.values.length) {
      const canvas = element("canvas", { width: map.width, height: map.height });
      const pen = canvas.getContext("2d");
      pen.drawImage(this.source.image, 0, 0, map.width, map.height);
      this.picturePixels = new Uint32Array(pen.getImageData(0, 0, map.width, map.height).data.buffer);
    }
    return this.picturePixels;
  }

  paintHistogram(map) {
    const { clientWidth: width, clientHeight: height } = this.histogram;
    if (!width) return;
    if (this.countsOf !== map) {
      this.countsOf = map;
      this.counts = histogramOf(map, BINS);
    }
    const pen = sharpPen(this.histogram, width, height);
    const table = lookup(this.get("colormap"));
    const muted = themeColours(this.root).muted;
    const sorted = [...this.counts].sort((one, other) => other - one);
    const top = Math.max(1, Math.min(sorted[0], 3 * sorted[Math.floor(BINS / 8)] || sorted[0])); // a sky must not flatten the rest
    const [far, near] = [this.get("far"), this.get("near")];
    for (let bin = 0; bin < BINS; bin++) {
      const unit = (bin + 0.5) / BINS;
      const inside = unit >= far && unit <= near;
      const bar = Math.min(1, this.counts[bin] / top) * (height - 2);
      pen.globalAlpha = inside ? 1 : 0.22;
      pen.fillStyle = inside ? cssColour(table, colourIndex(unit)) : muted;
      pen.fillRect((bin * width) / BINS, height - bar, width / BINS - 0.5, bar);
    }
    pen.globalAlpha = 1;
    pen.fillStyle = muted;
    pen.fillRect(0, height - 1, width, 1);
  }

  /** Large maps come as means over the picture's pixels. */
  reduced(map) {
    const { width, height } = this.source.about;
    return map.values.length !== width * height;
  }

  sizes(map) {
    const { about } = this.source;
    return `${map.width} \u00d7 ${map.height} means of ${about.width} \u00d7 ${about.height} pixels`;
  }

  /** What is under the cross, in every map on display. */
  paintReadout() {
    const maps = [...new Set(SIDES.map((side) => this.mapOf(side)))];
    const { at } = this;
    const { about } = this.source;
    for (const pane of this.panes) {
      pane.cross.style.visibility = at ? "visible" : "hidden";
      if (!at) continue;
      pane.cross.style.left = `${(100 * (at[0] + 0.5)) / about.width}%`;
      pane.cross.style.top = `${(100 * (at[1] + 0.5)) / about.height}%`;
    }
    if (!at) {
      this.readout.textContent = "Move the pointer over a picture to read its depth";
      return;
    }
    // The pixel of a map that holds the middle of the picture's.
    const placeOf = ({ width, height }) => {
      const [column, row] = [((at[0] + 0.5) * width) / about.width, ((at[1] + 0.5) * height) / about.height];
      return Math.floor(row) * width + Math.floor(column);
    };
    const said = maps.map((map) => {
      const value = map.values[placeOf(map)];
      const near = nearnessOf(map, value);
      const name = maps.length > 1 ? `${map.name}: ` : "";
      if (map.metric) return `${name}${value.toPrecision(3)} m`;
      const metres = metresAt(near, this.get("nearest"), this.get("farthest"));
      return `${name}depth ${value.toPrecision(4)}, nearness ${near.toFixed(3)}, ${metres.toPrecision(3)} m`;
    });
    const [first] = maps;
    const outside = this.resultOf(first).mask[placeOf(first)] ? "" : " (cut away)";
    this.readout.textContent = `Pixel (${at[1]}, ${at[0]})${outside}   ${said.join("   ")}`;
  }

  // -------------------------------------------------------------------------------------------------------- actions

  pointed(event) {
    const { about } = this.source;
    if (!about) return;
    const [across, down] = placeIn(event.currentTarget, event);
    const place = (share, side) => Math.min(side - 1, Math.max(0, Math.floor(share * side)));
    this.at = [place(across, about.width), place(down, about.height)];
    if (event.type === "pointerdown") event.currentTarget.focus();
    this.schedule();
  }

  move(right, down) {
    const { about } = this.source;
    if (!about) return;
    const [x, y] = this.at ?? [Math.floor(about.width / 2), Math.floor(about.height / 2)];
    this.at = [Math.min(about.width - 1, Math.max(0, x + right)), Math.min(about.height - 1, Math.max(0, y + down))];
    this.schedule();
  }

  python() {
    const map = this.mapOf("right");
    if (!map || !this.source.about) return "";
    const names = ["far", "near", "plane", "equalise", "nearest", "farthest"];
    const settings = Object.fromEntries(names.map((name) => [name, this.get(name)]));
    return depthPython(settings, map.metric, this.callOf(map));
  }

  /** Python that gives a map, all pixels of it. */
  callOf(map) {
    return map.name === "depth" ? this.source.about.call : `others["${map.name}"]`;
  }

  saveNumbers() {
    const map = this.mapOf("right");
    if (!map || !this.source.about) return;
    const { mask, shown } = this.resultOf(map);
    const kept = shown.map((value, n) => (mask[n] ? value : NaN));
    saveBytes(npy(kept, [map.height, map.width]), "depth.npy");
    const means = `${this.sizes(map)}; ${this.callOf(map)} gives them all`;
    this.source.link.say(`Saved depth.npy: ${this.reduced(map) ? means : `${map.width} \u00d7 ${map.height} pixels`}`);
  }

  savePng() {
    const map = this.mapOf("right");
    if (!map) return;
    const gap = Math.round(map.width / 40);
    const canvas = element("canvas", { width: 2 * map.width + gap, height: map.height });
    const pen = canvas.getContext("2d");
    pen.fillStyle = themeColours(this.root).background;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    this.panes.forEach((pane, n) => pen.drawImage(pane.canvas, n * (map.width + gap), 0));
    savePicture(canvas, "depth");
  }
}

/** What a key does; false for keys that mean nothing here. */
function act(view, key, shift, target) {
  const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const inside = target.matches(".dptx-depth-frame");
  if (key in arrows && inside) view.move(...arrows[key].map((step) => step * (shift ? 10 : 1)));
  else if (key === "f") view.sliders.far.focus();
  else if (key === "n") view.sliders.near.focus();
  else if (key === "l") view.toggle("plane");
  else if (key === "e") view.toggle("equalise");
  else if (key === "c") view.cycle("colormap", COLOURS);
  else if (key === "r") view.reset();
  else return key === "Enter" && inside; // no cell is to be edited
  return true;
}

export default defineWidget(DepthSource, DepthView);

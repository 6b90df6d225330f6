// The fusion explorer's view: sliders on what each fusion block receives, and the depth that follows them.
//
// The kernel sends a map's levels; colours, contrast, comparing and the difference are made here, so they cost nothing.
// FusionSource belongs to the widget model and is shared by all its views on the page; FusionView is one display.
//
// For tests, on the root element: data-state (ready when the full map of the setting is on display), data-scales of the
// last paint, data-view, data-shrink; thumbnails' canvases carry data-block.

import { lookup } from "../shared/colours.js";
import { formatNumber } from "../shared/format.js";
import { colourise } from "../shared/scale.js";
import { maxMagnitude } from "../shared/statistics.js";
import { signedScale } from "../shared/scale.js";
import { drawWhole, enable, isDark, noteTimes, sayIn, signedColours } from "../shared/panel.js";
import { element, Timings } from "../shared/shell.js";
import { defineWidget, View } from "../shared/view.js";
import { buildParts, buildRows, describePage } from "./controls.js";
import { levelColours, paintLevels, valuesAt, valueUnder } from "./depth_map.js";
import { watchStage } from "./pointer.js";
import { FusionSource } from "./source.js";

const NAMES = { scaled: "Scaled", unscaled: "Unscaled", difference: "Scaled \u2212 unscaled", picture: "Picture" };
const SETTINGS = [
  "show",
  "span",
  "colormap",
  "reverse",
  "high_contrast",
  "start",
  "end",
  "frames",
  "size",
  "keep_aspect",
];

class FusionView extends View {
  constructor(model, el, source) {
    super(model, el, source);
    this.rows = [];
    this.timings = new Timings(); // from a slider's move to its picture
    this.dirty = true;
    this.held = false; // the picture is held down: unscaled, for as long
    this.pointer = null; // fractions of the picture
    this.playing = 0;
    this.painted = null; // the map whose levels are on the canvas
    this.table = null;
    this.colourTable = new Uint32Array(65536);
    buildParts(this);
  }

  begin() {
    this.watch(SETTINGS, () => this.settle());
    this.watchTheme(() => this.schedule());
    watchStage(this);
    if (this.source.about) this.heard("about");
    if (this.source.picture) this.heard("picture");
    this.settle();
    this.focusOnPage(this.stage);
  }

  dispose() {
    this.playing = 0;
    super.dispose();
  }

  heard(event) {
    if (event === "error") this.playing = 0;
    if (super.heard(event)) return true;
    if (event === "about") this.showAbout();
    else if (event === "picture") drawWhole(this.pictureCanvas, this.source.picture);
    else if (event === "scales") this.showScales();
    else if (event === "map") this.schedule();
    if (event === "map" || event === "wanted") this.showState();
    return false;
  }

  // ------------------------------------------------------------------------------------------------ what is displayed

  showAbout() {
    const { about, page } = this.source;
    buildRows(this, about);
    this.root.style.setProperty("--dptx-aspect", `${about.width} / ${about.height}`);
    this.root.style.setProperty("--dptx-ratio", String(about.width / about.height));
    const own = element("option", { value: "" }, `${about.base} (the model's own)`);
    const others = about.sizes.filter((size) => size !== about.base);
    this.sizes.replaceChildren(own, ...others.map((size) => element("option", { value: String(size) }, String(size))));
    for (const control of [this.sizes, ...this.aspect.buttons.values()]) {
      control.disabled = page;
      if (page) control.title = "This page has no kernel: the maps are of this size.";
    }
    if (about.stretches) {
      for (const control of this.aspect.buttons.values()) {
        control.disabled = true;
        control.title = "This model takes square pictures only";
      }
    }
    this.animation.hidden = page;
    this.pageNote.hidden = !page;
    if (page) {
      const some = about.steps.length > 0;
      describePage(this, some);
      this.pageNote.textContent = some
        ? `This page holds steps: ${about.steps.map((step) => String(step).replace("-", "\u2212")).join(", ")}, one ` +
          "slider at a time, from the setting it was saved with. In a notebook the sliders move freely."
        : "This page holds the setting it was saved with. In a notebook the sliders move.";
      for (const row of this.rows) {
        row.number.disabled = true;
        row.slider.disabled = !some || row.index >= about.sliders;
      }
    }
    this.showScales();
    this.settle();
  }

  /** Where Reset leads: the model as it is; on a page the setting it was saved with, as it may not hold that. */
  get home() {
    const { page, about } = this.source;
    return page ? [...about.from] : about.points.map(() => 1);
  }

  showScales() {
    const { scales } = this.source;
    for (const row of this.rows) row.show(scales[row.index]);
    enable(
      this.resetButton,
      scales.some((scale, n) => scale !== this.home[n]),
      this.stage,
    );
    this.showEnds();
    this.showState();
  }

  showEnds() {
    const { about } = this.source;
    for (const end of ["start", "end"]) {
      const setting = this.get(end) ?? {};
      const changed = about.points.filter((point) => (setting[point] ?? 1) !== 1);
      const words = changed.map((point) => `${point} \u00d7 ${String(setting[point]).replace("-", "\u2212")}`);
      this.endNotes[end].textContent = words.length ? words.join(", ") : "unscaled";
    }
  }

  showState() {
    const { source } = this;
    this.root.dataset.state = source.settled ? "ready" : "waiting";
  }

  /** After a change of any setting: controls say what holds, and everything is painted again. */
  settle() {
    const show = this.get("show");
    this.show.set(show);
    this.span.set(this.get("span"));
    for (const [control, name] of [
      [this.contrast, "high_contrast"],
      [this.reverse, "reverse"],
    ]) {
      control.setAttribute("aria-pressed", String(this.get(name)));
    }
    // Controls that do nothing for what is on display are not offered.
    const plain = show === "scaled" || show === "unscaled";
    for (const control of [this.contrast, this.reverse, this.colours]) control.disabled = !plain;
    for (const item of this.span.buttons.values()) item.disabled = !plain || this.get("high_contrast");
    this.colours.value = this.get("colormap");
    const stretched = this.source.about?.stretches || !this.get("keep_aspect");
    this.aspect.set(stretched ? "stretch" : "keep");
    const size = this.get("size");
    const wanted = size === null || size === this.source.about?.base ? "" : JSON.stringify(size);
    if (![...this.sizes.options].some((option) => option.value === wanted)) {
      this.sizes.append(element("option", { value: wanted }, wanted.replace(/[[\]]/g, "").replace(",", " \u00d7 ")));
    }
    this.sizes.value = wanted;
    this.frames.value = this.get("frames");
    if (this.source.about) this.showEnds();
    this.schedule();
  }

  // --------------------------------------------------------------------------------------------------------- painting

  schedule(repaint = true) {
    this.dirty ||= repaint;
    super.schedule();
  }

  view() {
    return this.held && this.get("show") !== "picture" ? "unscaled" : this.get("show");
  }

  paint() {
    const { map, baseline } = this.source;
    if (!map || !baseline) return;
    if (this.dirty) {
      this.dirty = false;
      this.dark = isDark(this.root);
      const show = this.view();
      this.cells.canvas.hidden = show === "picture";
      this.pictureCanvas.hidden = show !== "picture";
      this.bar.node.style.visibility = show === "picture" ? "hidden" : ""; // its place is kept: nothing below jumps
      this.badge.hidden = !this.held || this.get("show") === "unscaled";
      this.badge.textContent = "Unscaled";
      if (show === "difference") this.paintDifference(map, baseline);
      else this.paintDepth(show === "unscaled" ? baseline : map, baseline);
      this.paintThumbs(show === "unscaled" ? baseline : map);
      const { dataset } = this.root;
      dataset.view = show;
      dataset.scales = String(map.about.scales);
      dataset.shrink = String(map.about.shrink);
      this.measure(map);
    }
    this.showWords();
  }

  paintDepth(map, baseline) {
    this.table = lookup(this.get("colormap"));
    this.flip = this.source.about.metric !== this.get("reverse");
    const shared = this.get("span") === "unscaled";
    const equalise = this.get("high_contrast");
    const span = shared && !equalise ? [baseline.low, baseline.high] : null;
    levelColours(map, { table: this.table, flip: this.flip, equalise, span }, this.colourTable);
    paintLevels(map, this.colourTable, this.cells.fit(map.height, map.width));
    this.cells.paint();
    this.painted = map;
    const [low, high] = span ?? [map.low, map.high];
    const note = equalise
      ? "every colour covers as much of the picture"
      : map.low === map.high
        ? "flat: one value everywhere"
        : shared
          ? "the range of the unscaled map"
          : "the map's own range";
    this.paintBar(
      equalise ? ["lowest", "highest"] : [low, (low + high) / 2, high].map((value) => formatNumber(value)),
      note,
      this.flip,
    );
  }

  paintDifference(map, baseline) {
    const { width, height } = map;
    if (this.baselineValues?.of !== baseline || this.baselineValues.width !== width) {
      this.baselineValues = { of: baseline, width, values: valuesAt(baseline, width, height) };
    }
    const values = valuesAt(map, width, height);
    const before = this.baselineValues.values;
    for (let n = 0; n < values.length; n++) values[n] -= before[n];
    const top = maxMagnitude(values, 0, values.length);
    this.table = lookup(signedColours(this.dark));
    colourise(values, 0, values.length, signedScale(top), this.table, this.cells.fit(height, width));
    this.cells.paint();
    this.painted = map;
    this.paintBar(
      [-top, 0, top].map((value) => formatNumber(value)),
      top ? "scaled minus unscaled" : "no difference: the maps are equal",
      false,
    );
  }

  paintBar(texts, note, flip) {
    const table = flip ? [...this.table].reverse() : this.table;
    this.bar.show(
      table,
      texts.map((text, n) => [n / (texts.length - 1), text]),
      null,
      note,
    );
  }

  paintThumbs(map) {
    const table = lookup(this.get("colormap"));
    map.thumbs.forEach((thumb, n) => {
      const row = this.rows[n];
      if (!row) return;
      levelColours(
        thumb,
        { table, flip: false, equalise: false, span: null },
        (this.thumbTable ??= new Uint32Array(65536)),
      );
      paintLevels(thumb, this.thumbTable, row.cells.fit(thumb.height, thumb.width));
      row.cells.paint();
      row.norm.textContent = `norm ${formatNumber(map.about.thumbs[n].mean)}`;
    });
  }

  /** From the move of a slider that a map answers to the map on the canvas; once a map. */
  measure(map) {
    if (map.stamp === null || map.measured?.has(this)) return;
    (map.measured ??= new Set()).add(this);
    // The first ones compile, the full maps come after a rest that is not theirs.
    if (map.about.preview) this.timings.add(performance.now() - map.stamp);
    if (this.timings.count >= 4)
      noteTimes(this.status, this.timings, "slider to picture", 0, "From the slider to its picture");
  }

  showWords() {
    const { map, baseline } = this.source;
    const show = this.view();
    const unit = this.source.about.metric ? " m" : "";
    let [name, rest] = [NAMES[show], ""];
    if (this.pointer) {
      const [now, before] = [map, baseline].map((one) => valueUnder(one, ...this.pointer));
      const { width, height } = this.source.about;
      const place = (part, side) => Math.min(side - 1, Math.max(0, Math.floor(part * side)));
      name = `Row ${place(this.pointer[1], height)}, column ${place(this.pointer[0], width)}`;
      rest = `scaled ${formatNumber(now)}${unit} \u00b7 unscaled ${formatNumber(before)}${unit} \u00b7 change ${formatNumber(now - before)}${unit}`;
    } else if (show !== "picture") {
      const of = show === "unscaled" ? baseline : map;
      const what = this.source.about.metric ? "depth" : "inverse depth";
      rest = `${what} ${formatNumber(of.low)} to ${formatNumber(of.high)}${unit}`;
      if (of.low === of.high)
        rest = `${what} ${formatNumber(of.low)}${unit} everywhere: nothing passes the head's last rectifier`;
      if (show === "difference") rest = "red: larger under the scales, blue: smaller";
    }
    sayIn(this.readout, name, rest);
  }

  announceScales() {
    this.announce(() => {
      const { about, scales } = this.source;
      const changed = about.points.flatMap((point, n) => (scales[n] === 1 ? [] : [`${point} ${scales[n]}`]));
      return `${changed.length ? changed.join(", ") : "Unscaled"}. ${this.readout.textContent}`;
    }, 600);
  }

  // ------------------------------------------------------------------------------------------------------- actions

  slide(index, value) {
    const { source } = this;
    const { reach, steps, from } = source.about;
    this.playing = 0;
    let wanted = Math.min(reach, Math.max(-reach, Math.round(value * 100) / 100)) + 0;
    let scales = [...source.scales];
    if (source.page) {
      // One slider at a time, in steps: the others go back to where the page began.
      const held = [...new Set([...steps, from[index]])];
      wanted = held.reduce((best, step) => (Math.abs(step - value) < Math.abs(best - value) ? step : best));
      scales = [...from];
    }
    scales[index] = wanted;
    source.move(scales);
    this.rows[index].show(wanted); // also where it was pulled back to a step
    this.announceScales();
  }

  stepOnPage(index, step) {
    const { steps, from } = this.source.about;
    const held = [...new Set([...steps, from[index]])].sort((a, b) => a - b);
    const next = held[held.indexOf(this.source.scales[index]) + step];
    if (next !== undefined) this.slide(index, next);
  }

  enter(index, text) {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value)) this.showScales();
    else this.slide(index, value);
  }

  reset() {
    this.playing = 0;
    if (!this.source.about) return;
    this.source.move(this.home);
    this.announceScales();
  }

  /** The sliders as they are become an end of the animation. */
  keep(end) {
    const { about, scales } = this.source;
    this.save({ [end]: Object.fromEntries(about.points.map((point, n) => [point, scales[n]])) });
  }

  toPart(part) {
    const { source } = this;
    const [first, last] = ["start", "end"].map((end) => source.about.points.map((point) => this.get(end)[point] ?? 1));
    this.between.value = part;
    source.move(first.map((from, n) => Math.round(((1 - part) * from + part * last[n]) * 1e4) / 1e4 + 0));
  }

  enterFrames() {
    const frames = Math.round(Number(this.frames.value));
    if (frames >= 2 && frames <= 500) this.save({ frames });
    else this.frames.value = this.get("frames");
  }

  /** There and back in the time that the file takes, at whatever rate maps come. */
  togglePlay() {
    const token = Math.random();
    this.playing = this.playing ? 0 : token;
    const began = performance.now();
    const length = this.get("frames") * 50;
    const tick = () => {
      this.play.textContent = this.playing === token ? "Stop" : "Play";
      if (this.playing !== token) return;
      const phase = ((performance.now() - began) / length) % 2;
      this.toPart(Math.round(100 * (phase < 1 ? phase : 2 - phase)) / 100);
      requestAnimationFrame(tick);
    };
    tick();
  }
}

export default defineWidget(FusionSource, FusionView);

// The fusion explorer's view: sliders on what each fusion block receives, and the depth that follows them.
//
// The kernel sends a map's levels; colours, contrast, comparing and the difference are made here, so they cost nothing.
// FusionSource belongs to the widget model and is shared by all its views on the page; FusionView is one display.
//
// For tests, on the root element: data-state (ready when the full map of the setting is on display), data-scales of the
// last paint, data-view, data-shrink; thumbnails' canvases carry data-block.

import { colourise, lookup, makeScale, maxMagnitude } from "./core.js";
import { brief, levelColours, paintLevels, valueUnder, valuesAt } from "./depth_map.js";
import { watchStage } from "./fusion_input.js";
import { buildParts, buildRows } from "./fusion_parts.js";
import { FusionSource } from "./fusion_source.js";
import { Timings, element } from "./shell.js";

const NAMES = { scaled: "Scaled", unscaled: "Unscaled", difference: "Scaled \u2212 unscaled", picture: "Picture" };
const SETTINGS = ["show", "span", "colormap", "reverse", "high_contrast", "start", "end", "frames", "size", "keep_aspect"];

class FusionView {
  constructor(model, el, source) {
    this.model = model;
    this.source = source;
    this.el = el;
    this.undo = [];
    this.rows = [];
    this.timings = new Timings(); // from a slider's move to its picture
    this.frame = 0;
    this.dirty = true;
    this.held = false; // the picture is held down: unscaled, for as long
    this.pointer = null; // fractions of the picture
    this.playing = 0;
    this.painted = null; // the map whose levels are on the canvas
    this.table = null;
    this.colourTable = new Uint32Array(65536);
    buildParts(this);
  }

  get(name) {
    return this.model.get(name);
  }

  save(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.model.save_changes();
  }

  start() {
    const { source, model } = this;
    this.undo.push(source.listen((event) => this.heard(event)));
    const settle = () => this.settle();
    for (const name of SETTINGS) {
      model.on(`change:${name}`, settle);
      this.undo.push(() => model.off(`change:${name}`, settle));
    }
    watchStage(this);
    this.status.show(source.link.status);
    if (source.about) this.heard("about");
    if (source.picture) this.heard("picture");
    this.settle();
    source.open();
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.announcing);
    this.playing = 0;
    for (const undo of this.undo) undo();
    this.root.remove();
  }

  heard(event) {
    if (event === "status" || event === "error") this.status.show(this.source.link.status);
    else if (event === "about") this.showAbout();
    else if (event === "picture") this.showPicture();
    else if (event === "scales") this.showScales();
    else if (event === "map") this.schedule();
    if (event === "map" || event === "wanted") this.showState();
    if (event === "error") this.playing = 0;
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
    const fixed = "This page has no kernel: the maps are of this size.";
    for (const control of [this.sizes, ...this.aspect.buttons.values(), ...this.files]) {
      control.disabled = page;
      if (page) control.title = control.matches("select, [data-value]") ? fixed : "Only with a kernel, in a notebook";
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

  showPicture() {
    const { picture } = this.source;
    this.pictureCanvas.width = picture.width;
    this.pictureCanvas.height = picture.height;
    this.pictureCanvas.getContext("2d").drawImage(picture, 0, 0);
  }

  showScales() {
    const { scales } = this.source;
    for (const row of this.rows) row.show(scales[row.index]);
    this.resetButton.disabled = scales.every((scale) => scale === 1);
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
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paint());
  }

  view() {
    return this.held && this.get("show") !== "picture" ? "unscaled" : this.get("show");
  }

  paint() {
    this.frame = 0;
    const { map, baseline } = this.source;
    if (!map || !baseline) return;
    if (this.dirty) {
      this.dirty = false;
      this.lookAtTheme();
      const show = this.view();
      this.canvas.hidden = show === "picture";
      this.pictureCanvas.hidden = show !== "picture";
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

  lookAtTheme() {
    const [red, green, blue] = getComputedStyle(this.root).backgroundColor.match(/[\d.]+/g).map(Number);
    this.dark = 0.3 * red + 0.6 * green + 0.1 * blue < 128;
  }

  sized(width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height || !this.image) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.pen = this.canvas.getContext("2d");
      this.image = this.pen.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    return this.pixels;
  }

  paintDepth(map, baseline) {
    this.table = lookup(this.get("colormap"));
    this.flip = this.source.about.metric !== this.get("reverse");
    const shared = this.get("span") === "unscaled";
    const equalise = this.get("high_contrast");
    const span = shared && !equalise ? [baseline.low, baseline.high] : null;
    levelColours(map, { table: this.table, flip: this.flip, equalise, span }, this.colourTable);
    paintLevels(map, this.colourTable, this.sized(map.width, map.height));
    this.pen.putImageData(this.image, 0, 0);
    this.painted = map;
    const [low, high] = span ?? [map.low, map.high];
    const note = equalise
      ? "every colour covers as much of the picture"
      : map.low === map.high
        ? "flat: one value everywhere"
        : shared
          ? "the range of the unscaled map"
          : "the map's own range";
    this.paintBar(equalise ? ["lowest", "highest"] : [low, (low + high) / 2, high].map(brief), note, this.flip);
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
    this.table = lookup(this.dark ? "difference-dark" : "difference");
    colourise(values, 0, values.length, makeScale("shared", top, true), this.table, this.sized(width, height));
    this.pen.putImageData(this.image, 0, 0);
    this.painted = map;
    this.paintBar([-top, 0, top].map(brief), top ? "scaled minus unscaled" : "no difference: the maps are equal", false);
  }

  paintBar(texts, note, flip) {
    const pen = this.bar.getContext("2d");
    const image = pen.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(flip ? [...this.table].reverse() : this.table);
    pen.putImageData(image, 0, 0);
    while (this.barTicks.childElementCount > texts.length) this.barTicks.lastChild.remove();
    while (this.barTicks.childElementCount < texts.length) this.barTicks.append(element("span"));
    texts.forEach((text, n) => {
      this.barTicks.children[n].textContent = text;
      this.barTicks.children[n].style.left = `${(100 * n) / (texts.length - 1)}%`;
    });
    this.barNote.textContent = note;
  }

  paintThumbs(map) {
    const table = lookup(this.get("colormap"));
    map.thumbs.forEach((thumb, n) => {
      const row = this.rows[n];
      if (!row) return;
      levelColours(thumb, { table, flip: false, equalise: false, span: null }, this.thumbTable ??= new Uint32Array(65536));
      row.canvas.width = thumb.width;
      row.canvas.height = thumb.height;
      const pen = row.canvas.getContext("2d");
      const image = pen.createImageData(thumb.width, thumb.height);
      paintLevels(thumb, this.thumbTable, new Uint32Array(image.data.buffer));
      pen.putImageData(image, 0, 0);
      row.norm.textContent = `norm ${brief(map.about.thumbs[n].mean)}`;
    });
  }

  /** From the move of a slider that a map answers to the map on the canvas; once a map. */
  measure(map) {
    if (map.stamp === null || map.measured?.has(this)) return;
    (map.measured ??= new Set()).add(this);
    // The first ones compile, the full maps come after a rest that is not theirs.
    if (map.about.preview) this.timings.add(performance.now() - map.stamp);
    const { count } = this.timings;
    if (count < 4) return;
    const { note } = this.status;
    const [median, high] = [this.timings.quantile(0.5), this.timings.quantile(0.95)];
    note.textContent = `slider to picture ${median.toFixed(0)} ms`;
    note.title = `Median ${median.toFixed(1)} ms, 95 % under ${high.toFixed(1)} ms (latest ${Math.min(256, count)})`;
    Object.assign(note.dataset, { count, median, high });
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
      rest = `scaled ${brief(now)}${unit} \u00b7 unscaled ${brief(before)}${unit} \u00b7 change ${brief(now - before)}${unit}`;
    } else if (show !== "picture") {
      const of = show === "unscaled" ? baseline : map;
      const what = this.source.about.metric ? "depth" : "inverse depth";
      rest = `${what} ${brief(of.low)} to ${brief(of.high)}${unit}`;
      if (of.low === of.high) rest = `${what} ${brief(of.low)}${unit} everywhere: nothing passes the head's last rectifier`;
      if (show === "difference") rest = "red: larger under the scales, blue: smaller";
    }
    if (this.readout.firstChild.textContent !== name) this.readout.firstChild.textContent = name;
    if (this.readout.lastChild.textContent !== rest) this.readout.lastChild.textContent = rest;
  }

  announce() {
    clearTimeout(this.announcing);
    this.announcing = setTimeout(() => {
      const { about, scales } = this.source;
      const changed = about.points.flatMap((point, n) => (scales[n] === 1 ? [] : [`${point} ${scales[n]}`]));
      this.live.textContent = `${changed.length ? changed.join(", ") : "Unscaled"}. ${this.readout.textContent}`;
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
    this.announce();
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
    const { page, about } = this.source;
    this.source.move(page ? [...about.from] : about.points.map(() => 1));
    this.announce();
  }

  cycle(name, values) {
    this.save({ [name]: values[(values.indexOf(this.get(name)) + 1) % values.length] });
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

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
    this.helpButton.setAttribute("aria-expanded", String(!this.help.hidden));
  }
}

export default () => {
  let source = null; // one for each widget model: this function runs once a model
  return {
    initialize({ model }) {
      source = new FusionSource(model);
    },
    render({ model, el }) {
      const view = new FusionView(model, el, source);
      view.start();
      return () => view.dispose();
    },
  };
};

// The norm explorer's view: every block's token norms side by side, one of them over the picture and, enlarged, beside it.
//
// All norms are in the browser from the start; ranges, outliers and histograms are worked out here. NormSource belongs to
// the widget model and is shared by all its views on the page, so they also share the pointer; NormView is one display.
//
// For tests, on the root element: data-state, data-block, data-token (of the picture's grid), data-outliers (of the chosen
// block), data-what of the last paint; a map's canvas (one pixel a patch) carries data-tile: the block, or "large".

import { colourIndex, cssColour, lookup, stepToken } from "./core.js";
import { watchMap, watchPicture } from "./norms_input.js";
import { normLayout } from "./norms_layout.js";
import {
  centreAndSpread,
  colourRange,
  extent,
  makeRange,
  outlineOf,
  placeOn,
  short,
  strongestChannel,
  tokensAbove,
} from "./norms_numbers.js";
import { BlockTile, LargeMap, buildParts } from "./norms_parts.js";
import {
  announce,
  paintHistogram,
  showBar,
  showCounts,
  showFacts,
  showPin,
  showStrongest,
  showWords,
} from "./norms_readout.js";
import { NormSource } from "./norms_source.js";
import { isDark, sharpPen } from "./panel.js";

class NormView {
  constructor(model, el, source) {
    this.model = model;
    this.source = source;
    this.el = el;
    this.undo = [];
    this.tiles = [];
    this.map = null; // LargeMap
    this.hovering = false; // the pointer is on the picture or a map
    this.readBlock = null; // the block whose map it is on
    this.frame = 0;
    this.stale = true; // more than the patch has changed since the last paint
    this.shownMap = null; // {values, from, range, table, signed}: what is enlarged and laid over the picture
    buildParts(this);
  }

  get(name) {
    return this.model.get(name);
  }

  save(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.model.save_changes();
    announce(this);
  }

  /** Listeners last: rendering shows what is there already, data comes afterwards. */
  start() {
    const { source, model } = this;
    this.undo.push(source.listen((event) => this.heard(event)));
    const settings = ["block", "enlarged", "what", "channel", "k", "marks", "pin", "scale", "colormap", "opacity"];
    for (const name of [...settings, "base", "_attending"]) {
      const action = () => this.settle();
      model.on(`change:${name}`, action);
      this.undo.push(() => model.off(`change:${name}`, action));
    }
    const sizes = new ResizeObserver(() => this.layout());
    sizes.observe(this.root);
    this.undo.push(() => sizes.disconnect());
    watchPicture(this);
    this.status.show(source.link.status);
    if (source.grid) this.heard("picture");
    this.settle();
    source.open();
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.announcing);
    for (const undo of this.undo) undo();
    this.root.remove();
  }

  heard(event) {
    if (event === "status" || event === "error") this.status.show(this.source.link.status);
    else if (event === "cursor") this.schedule(false);
    else if (event === "attention") this.showAttention();
    else {
      if (event === "picture" || event === "depth") this.showPicture();
      this.settle();
    }
  }

  // ------------------------------------------------------------------------------------------------ what is displayed

  block() {
    return this.source.blocks[this.get("block")];
  }

  channel() {
    return Math.min(this.get("channel"), (this.block()?.channels ?? 1) - 1);
  }

  /** The token that is read off, on the picture's grid: under the pointer, else the pinned one. */
  current() {
    return this.hovering ? this.source.cursor : this.chosen();
  }

  /** The token that keys and buttons act on. */
  chosen() {
    return this.get("pin") ?? this.source.cursor;
  }

  showPicture() {
    const { images, about } = this.source;
    const image = images[this.get("base")] ?? images.picture;
    if (image) {
      this.pictureCanvas.width = image.width;
      this.pictureCanvas.height = image.height;
      this.pictureCanvas.getContext("2d").drawImage(image, 0, 0);
    }
    this.root.style.setProperty("--dptx-aspect", `${about.width} / ${about.height}`);
    this.layout();
  }

  /** After a change of any setting or the arrival of data: controls say what holds, everything is painted again. */
  settle() {
    const { source } = this;
    const block = this.block();
    for (const name of ["scale", "base", "what"]) this[name].set(this.get(name));
    this.colours.value = this.get("colormap");
    this.opacity.value = this.get("opacity");
    this.overlay.style.opacity = this.get("opacity");
    this.k.value = this.get("k");
    this.kNumber.textContent = `${this.get("k")} MAD`;
    this.marksButton.setAttribute("aria-pressed", String(this.get("marks")));
    this.closeAttention.hidden = !this.get("_attending");
    if (this.get("base") !== this.baseShown && source.about) {
      this.baseShown = this.get("base");
      if (this.baseShown === "depth") source.wantDepth();
      this.showPicture();
    }
    if (!source.grid || !block) {
      this.root.dataset.state = "waiting";
      return;
    }
    this.slider.max = source.blocks.length - 1;
    this.slider.value = block.block;
    this.slider.setAttribute("aria-valuetext", `block ${block.block}`);
    this.blockNumber.textContent = `${block.block} / ${source.blocks.length - 1}`;
    const channels = this.get("what") === "channel";
    const held = source.hasChannels(block.block);
    this.channelRow.classList.toggle("dptx-idle", !channels);
    for (const control of [this.channelSlider, this.channelNumber]) {
      control.max = block.channels - 1;
      control.value = this.channel();
      control.disabled = !held;
    }
    this.strongest.disabled = !held;
    this.missing.hidden = held;
    const button = this.what.buttons.get("channel");
    button.disabled = !held && !channels;
    button.title = held ? "One channel of each token (key n)" : "This page does not hold the channels of this block";
    if (this.tiles.length !== source.blocks.length) this.makeTiles();
    this.judge();
    this.large.hidden = !this.get("enlarged");
    if (this.map?.block !== block) {
      this.map = new LargeMap(block);
      watchMap(this, this.map, () => this.save({ enlarged: false }));
      this.largeHost.replaceChildren(this.map.frame);
    }
    for (const { node, block: own } of this.tiles) node.classList.toggle("dptx-chosen", own === block);
    const shape = channels ? `channel ${this.channel()}` : "norm";
    this.largeTitle.textContent = `Block ${block.block}`;
    this.map.canvas.setAttribute("aria-label", `Block ${block.block}, ${shape}`);
    showPin(this);
    this.layout();
    this.schedule();
  }

  makeTiles() {
    this.tiles = this.source.blocks.map((block) => {
      const tile = new BlockTile(block);
      watchMap(this, tile, () => this.enlarge(block.block));
      return tile;
    });
    this.grid.replaceChildren(...this.tiles.map(({ node }) => node));
  }

  /** Outliers of all blocks by the rule as it stands. */
  judge() {
    const k = this.get("k");
    const { blocks } = this.source;
    if (this.judged === blocks && this.judgedBy === k && this.listed === this.get("block")) return;
    if (this.judged !== blocks) for (const block of blocks) Object.assign(block, centreAndSpread(block.values, block.prefix));
    for (const block of blocks) {
      block.threshold = block.median + k * block.spread;
      block.outliers = tokensAbove(block.values, block.prefix, block.threshold);
    }
    [this.judged, this.judgedBy, this.listed] = [blocks, k, this.get("block")];
    showCounts(this);
    showStrongest(this);
  }

  // ---------------------------------------------------------------------------------------------------------- layout

  layout() {
    const { about, blocks } = this.source;
    const style = getComputedStyle(this.root);
    const width = this.root.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (!about || !(width > 0)) return;
    const place = normLayout(width, about.height / about.width, blocks.length || 12, this.get("enlarged"));
    this.root.classList.toggle("dptx-stacked", !place.beside);
    const set = (name, value) => this.root.style.setProperty(`--dptx-${name}`, value);
    set("left", `${place.left}px`);
    set("picture", `${place.picture}px`);
    set("columns", `repeat(${place.columns}, ${place.tile}px)`);
    set("big", `${place.big}px`);
    this.large.classList.toggle("dptx-under", place.under);
    const form = `${Object.values(place)}|${isDark(this.root)}`;
    if (form !== this.form) this.schedule();
    this.form = form;
  }

  // --------------------------------------------------------------------------------------------------------- painting

  schedule(stale = true) {
    this.stale ||= stale;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = 0;
    const { source } = this;
    const block = this.block();
    if (!block || !source.grid || !this.map) return;
    if (this.stale) this.paintMaps();
    this.stale = false;
    this.paintMarks();
    showWords(this);
    showBar(this);
    if (this.get("enlarged")) paintHistogram(this);
    const { dataset } = this.root;
    const waits = this.get("what") === "channel" && source.hasChannels(block.block) && !source.channels;
    dataset.state = waits ? "waiting" : "ready";
    dataset.block = String(block.block);
    dataset.token = String(this.current());
    dataset.outliers = String(block.outliers.length);
    dataset.what = this.shownMap.signed ? "channel" : "norm";
    dataset.channel = String(this.channel());
  }

  paintMaps() {
    const { blocks } = this.source;
    const scale = this.get("scale");
    const low = Math.min(...blocks.map((block) => block.low));
    const high = Math.max(...blocks.map((block) => block.high));
    this.table = lookup(this.get("colormap"));
    this.ranges = blocks.map((own) =>
      scale === "block" ? makeRange(own.low, own.high) : makeRange(low, high, scale === "log"),
    );
    for (const [n, tile] of this.tiles.entries()) {
      const { values, prefix, outliers } = tile.block;
      colourRange(values, prefix, this.ranges[n], this.table, tile.pixels);
      tile.paint();
      for (const [t, swatch] of tile.swatches.entries()) {
        swatch.style.backgroundColor = cssColour(this.table, colourIndex(placeOn(this.ranges[n], values[t])));
      }
      tile.ofClass.textContent = prefix ? short(values[0]) : "";
      tile.extent.textContent = `${short(tile.block.low)} \u2013 ${short(tile.block.high)}`;
      tile.count.textContent = outliers.length ? `${outliers.length}` : "";
    }
    this.shownMap = this.chooseMap();
    const { values, from, range, table } = this.shownMap;
    const { rows, cols } = this.block();
    const patches = values.subarray(from, from + rows * cols);
    colourRange(patches, 0, range, table, this.map.pixels);
    this.map.paint();
    this.paintOverlay(patches);
    for (const canvas of [this.outline, this.map.outline]) this.paintOutline(canvas);
    showFacts(this);
  }

  /** The chosen block's norm, or its channel once that is here. */
  chooseMap() {
    const block = this.block();
    const { channels } = this.source;
    if (!channels) {
      return { values: block.values, from: block.prefix, range: this.ranges[block.block], table: this.table, signed: false };
    }
    const from = this.channel() * channels.tokens + block.prefix;
    const { low, high } = extent(channels.values, from, from + block.rows * block.cols);
    const top = Math.max(Math.abs(low), Math.abs(high)) || 1;
    const table = lookup(isDark(this.root) ? "difference-dark" : "difference");
    return { values: channels.values, from, range: makeRange(-top, top), table, signed: true };
  }

  /** The overlay lets the picture through where the map is low (a channel: near 0). */
  paintOverlay(patches) {
    const { range, table, signed } = this.shownMap;
    const { rows, cols } = this.block();
    if (this.overlay.width !== cols || this.overlay.height !== rows || !this.overlayImage) {
      this.overlay.width = cols;
      this.overlay.height = rows;
      this.overlayImage = this.overlay.getContext("2d").createImageData(cols, rows);
    }
    const seen = table.map((colour, n) => {
      const strength = signed ? 1.2 * Math.abs(n / 127.5 - 1) : 0.3 + (0.9 * n) / 255;
      return ((colour & 0xffffff) | (Math.round(255 * Math.min(1, strength)) << 24)) >>> 0;
    });
    colourRange(patches, 0, range, seen, new Uint32Array(this.overlayImage.data.buffer));
    this.overlay.getContext("2d").putImageData(this.overlayImage, 0, 0);
  }

  /** A line around the outliers of the chosen block. */
  paintOutline(canvas) {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const pen = sharpPen(canvas, width, height);
    if (!this.get("marks")) return;
    const { outliers, prefix, rows, cols } = this.block();
    const lines = outlineOf(outliers.map((token) => token - prefix), rows, cols);
    pen.lineCap = "square";
    for (const [line, colour] of [
      [3.5, "rgba(0, 0, 0, 0.65)"],
      [1.75, getComputedStyle(this.root).getPropertyValue("--dptx-a")],
    ]) {
      pen.lineWidth = line;
      pen.strokeStyle = colour;
      pen.beginPath();
      for (const [x0, y0, x1, y1] of lines) {
        pen.moveTo((x0 * width) / cols, (y0 * height) / rows);
        pen.lineTo((x1 * width) / cols, (y1 * height) / rows);
      }
      pen.stroke();
    }
  }

  /** Moves the marks of the picture and of all maps, by transforms alone: a frame must not cost a layout. */
  paintMarks() {
    const { source } = this;
    const token = this.current();
    const put = (mark, block) => {
      const patch = source.place(block, token) - block.prefix;
      mark.style.visibility = patch < 0 ? "" : "visible";
      // A percentage in translate() is of the mark's own size, which is a patch's.
      if (patch >= 0) {
        mark.style.transform = `translate(${(patch % block.cols) * 100}%, ${Math.floor(patch / block.cols) * 100}%)`;
      }
    };
    for (const tile of this.tiles) put(tile.mark, tile.block);
    put(this.map.mark, this.map.block);
    put(this.mark, this.block());
    const { rows, cols } = this.block();
    this.stage.style.setProperty("--dptx-cell-width", `${100 / cols}%`);
    this.stage.style.setProperty("--dptx-cell-height", `${100 / rows}%`);
    this.root.classList.toggle("dptx-pinned", this.get("pin") !== null && token === this.get("pin"));
  }

  // ---------------------------------------------------------------------------------------------------- actions

  /** The pointer is at a token of the picture's grid; block: whose map it is on, null for the picture. */
  hover(token, block) {
    this.onTile = block !== null && this.map?.frame.matches(":hover") !== true;
    if (!this.hovering || this.readBlock !== block) this.schedule(false);
    this.hovering = true;
    this.readBlock = block;
    this.source.moveTo(token);
  }

  leave() {
    this.hovering = false;
    this.readBlock = null;
    this.onTile = false;
    this.schedule(false);
  }

  enlarge(block) {
    const same = this.get("enlarged") && this.get("block") === block;
    this.save({ block, enlarged: !same });
  }

  toBlock(block) {
    if (this.source.blocks[block] && block !== this.get("block")) this.save({ block });
  }

  stepBlock(step) {
    this.toBlock(this.get("block") + step);
  }

  toggleWhat() {
    if (this.get("what") === "channel") this.save({ what: "norm" });
    else if (this.source.hasChannels(this.get("block"))) this.save({ what: "channel" });
  }

  /** Showing a channel enlarges its block: that is where its number and its histogram are. */
  toChannel(channel) {
    const block = this.block();
    if (!block || !this.source.hasChannels(block.block) || !Number.isInteger(channel)) return;
    this.save({ what: "channel", enlarged: true, channel: Math.max(0, Math.min(block.channels - 1, channel)) });
  }

  toStrongest() {
    const { channels } = this.source;
    if (channels) this.toChannel(strongestChannel(channels, this.source.place(this.block(), this.chosen())));
    else this.toChannel(this.channel());
  }

  stepK(step) {
    this.save({ k: Math.max(1, Math.min(20, this.get("k") + step)) });
  }

  togglePin(token) {
    this.save({ pin: this.get("pin") === token ? null : token });
  }

  /** Enter on a map enlarges it; anywhere else it pins. */
  press(target) {
    const tile = this.tiles.find(({ node }) => node === target);
    if (tile) this.enlarge(tile.block.block);
    else this.togglePin(this.source.cursor);
  }

  move(down, right) {
    const { source } = this;
    const block = this.block();
    if (!block) return;
    source.moveTo(source.back(block, stepToken(block, source.place(block, source.cursor), down, right)));
    if (this.get("pin") !== null) this.save({ pin: null });
    source.saveCursor();
    announce(this);
  }

  /** Opens the attention explorer on a token of the picture's grid; the kernel does. */
  attend(token, direction) {
    if (this.source.about?.page) return;
    this.attending = true;
    this.source.link.ask("attention", { token, direction, block: this.get("block") });
  }

  /** Brings the attention explorer into view, in the view that asked for it, once the box has had time to show it. */
  showAttention() {
    if (!this.attending) return;
    this.attending = false;
    const last = () => this.el.closest(".widget-vbox")?.lastElementChild;
    setTimeout(() => last()?.scrollIntoView({ behavior: "smooth", block: "nearest" }), 400);
  }

  cycle(name, values) {
    this.save({ [name]: values[(values.indexOf(this.get(name)) + 1) % values.length] });
  }

  clear() {
    if (!this.help.hidden) this.toggleHelp();
    else if (this.get("pin") !== null) this.save({ pin: null });
    else if (this.get("enlarged")) this.save({ enlarged: false });
    else return false;
    return true;
  }

  toggleOverlay() {
    const now = this.get("opacity");
    if (now > 0) this.lastOpacity = now;
    this.save({ opacity: now > 0 ? 0 : (this.lastOpacity ?? 0.6) });
  }
}

export default () => {
  let source = null; // one for each widget model: this function runs once a model
  return {
    initialize({ model }) {
      source = new NormSource(model);
    },
    render({ model, el }) {
      const view = new NormView(model, el, source);
      view.start();
      return () => view.dispose();
    },
  };
};

// The norm explorer's view: every block's token norms side by side, one of them over the picture and, enlarged, beside it.
//
// All norms are in the browser from the start; ranges, outliers and histograms are worked out here. NormSource belongs to
// the widget model and is shared by all its views on the page, so they also share the pointer; NormView is one display.
//
// For tests, on the root element: data-state, data-block, data-token (of the picture's grid), data-outliers (of the chosen
// block), data-what of the last paint, data-channel, data-centred and data-with (the token that similarity is with); a
// map's canvas (one pixel a patch) carries data-tile: the block, or "large".

import { cellOf, putMark, reachOne, sizeMarks } from "../shared/cells.js";
import { cssColour, lookup } from "../shared/colours.js";
import { colourIndex } from "../shared/scale.js";
import { sharpPen, signedColours } from "../shared/panel.js";
import { stepToken } from "../shared/patches.js";
import { PictureView } from "../shared/picture.js";
import { defineWidget } from "../shared/view.js";
import { BlockTile, buildParts, LargeMap } from "./controls.js";
import { normLayout } from "./layout.js";
import {
  centreAndSpread,
  colourRange,
  extent,
  makeRange,
  outlineOf,
  placeOn,
  short,
  similarityWith,
  strongestChannel,
  tokensAbove,
} from "./numbers.js";
import { watchMap, watchPicture } from "./pointer.js";
import { paintHistogram, showBar, showCounts, showFacts, showPin, showStrongest, showWords } from "./readout.js";
import { NormSource } from "./source.js";

const FORMS = ["norm", "channel", "similarity"];

class NormView extends PictureView {
  constructor(model, el, source) {
    super(model, el, source);
    this.settings = ["block", "enlarged", "what", "channel", "centred", "k", "marks", "pin", "scale", "_attending"];
    this.tiles = [];
    this.map = null; // LargeMap
    this.hovering = false; // the pointer is on the picture or a map
    this.readBlock = null; // the block whose map it is on
    this.stale = true; // more than the patch has changed since the last paint
    this.shownMap = null; // {what, block, values, from, range, table, signed, token}: what is enlarged and laid over the picture
    buildParts(this);
  }

  save(changes) {
    super.save(changes);
    const { busy, failed } = this.source.link.status;
    if (!busy && !failed) this.source.ready(); // why something could not be had is no longer asked
    this.announce();
  }

  catchUp() {
    watchPicture(this);
    this.watchSize(this.histogram, () => this.schedule());
    if (this.source.grid) this.heard("picture");
  }

  heard(event) {
    if (super.heard(event)) return true;
    if (event === "cursor") this.schedule(false);
    else if (event === "attention") this.showAttention();
    else {
      if (event === "picture" || event === "depth") this.showPicture();
      this.settle();
    }
    return false;
  }

  // ------------------------------------------------------------------------------------------------ what is displayed

  block() {
    return this.source.blockOf(this.get("block"));
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

  /** The token of the chosen block that similarity is with: the pinned one, or the one under the pointer. */
  anchor() {
    return this.source.place(this.block(), this.chosen());
  }

  /** After a change of any setting or the arrival of data: controls say what holds, everything is painted again. */
  settle() {
    const { source } = this;
    const block = this.block();
    this.scale.set(this.get("scale"));
    this.k.value = this.get("k");
    this.kNumber.textContent = `${this.get("k")} MAD`;
    this.marksButton.setAttribute("aria-pressed", String(this.get("marks")));
    this.keepFocus(this.closeAttention, () => (this.closeAttention.hidden = !this.get("_attending")));
    this.settlePicture();
    if (!source.grid || !block) {
      this.root.dataset.state = "waiting";
      return;
    }
    const last = source.blocks.length - 1;
    this.stepper.show(source.blocks.indexOf(block), last, `${block.block} / ${source.blocks[last].block}`);
    this.stepper.node.title = source.absent("norms");
    const held = source.hasChannels(block.block);
    const what = held ? this.get("what") : "norm";
    this.what.set(what);
    this.keepFocus(this.channelRow, () => this.channelRow.classList.toggle("dptx-idle", what !== "channel"));
    this.keepFocus(this.centred, () => (this.centred.hidden = what !== "similarity"));
    this.centred.setAttribute("aria-pressed", String(this.get("centred")));
    for (const control of [this.channelSlider, this.channelNumber]) {
      control.max = block.channels - 1;
      control.value = this.channel();
      control.disabled = !held;
    }
    this.strongest.disabled = !held;
    this.missing.hidden = held;
    this.missing.textContent = source.absent("tokens") ? "Its channels were not captured" : source.whyNoChannels;
    this.missing.title = source.whyNoChannels;
    this.keepFocus(this.what.node, () => {
      for (const form of ["channel", "similarity"]) this.what.shut(form, held ? "" : source.whyNoChannels);
    });
    if (this.tiles.length !== source.blocks.length) this.makeTiles();
    this.judge();
    this.keepFocus(this.large, () => (this.large.hidden = !this.get("enlarged")));
    if (this.map?.block !== block) {
      this.map = new LargeMap(block);
      watchMap(this, this.map, () => this.save({ enlarged: false }));
      this.largeHost.replaceChildren(this.map.frame);
    }
    for (const { node, block: own } of this.tiles) node.classList.toggle("dptx-chosen", own === block);
    reachOne(
      this.tiles.map(({ node }) => node),
      this.tiles[source.blocks.indexOf(block)].node,
    );
    const shape = what === "channel" ? `channel ${this.channel()}` : what;
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
    if (this.judged !== blocks)
      for (const block of blocks) Object.assign(block, centreAndSpread(block.values, block.prefix));
    for (const block of blocks) {
      block.threshold = block.median + k * block.spread;
      block.outliers = tokensAbove(block.values, block.prefix, block.threshold);
    }
    [this.judged, this.judgedBy, this.listed] = [blocks, k, this.get("block")];
    showCounts(this);
    showStrongest(this);
  }

  // ---------------------------------------------------------------------------------------------------------- layout

  placing(width, aspect) {
    const place = normLayout(width, aspect, this.source.blocks.length || 12, this.get("enlarged"));
    this.large.classList.toggle("dptx-under", place.under);
    const form = `${width}|${Object.values(place)}|${this.dark}`;
    if (form !== this.form) this.schedule();
    this.form = form;
    return place;
  }

  // --------------------------------------------------------------------------------------------------------- painting

  schedule(stale = true) {
    this.stale ||= stale;
    super.schedule();
  }

  paint() {
    const { source } = this;
    const block = this.block();
    if (!block || !source.grid || !this.map) return;
    if (this.stale) this.paintMaps();
    else if (this.shownMap.what === "similarity" && this.shownMap.token !== this.anchor()) this.paintChosen();
    this.stale = false;
    this.paintMarks();
    showWords(this);
    showBar(this);
    if (this.get("enlarged")) paintHistogram(this);
    const { dataset } = this.root;
    const waits = source.wantsChannels && source.hasChannels(block.block) && !source.channels;
    dataset.state = waits ? "waiting" : "ready";
    dataset.block = String(block.block);
    dataset.token = String(this.current());
    dataset.outliers = String(block.outliers.length);
    dataset.what = this.shownMap.what;
    dataset.channel = String(this.channel());
    dataset.with = String(this.shownMap.token ?? "");
    dataset.centred = String(this.get("centred"));
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
      tile.extent.title = `Smallest and largest norm of a patch: ${tile.extent.textContent}`;
      tile.count.textContent = outliers.length ? `${outliers.length}` : "";
    }
    this.paintChosen();
    for (const canvas of [this.outline, this.map.outline]) this.paintOutline(canvas);
  }

  /** The enlarged map and the one over the picture. */
  paintChosen() {
    this.shownMap = this.chooseMap();
    const { values, from, range, table } = this.shownMap;
    const { rows, cols } = this.block();
    const patches = values.subarray(from, from + rows * cols);
    colourRange(patches, 0, range, table, this.map.pixels);
    this.map.paint();
    this.paintOverlay(patches);
    showFacts(this);
  }

  rangeOf(block) {
    return this.ranges[this.source.blocks.indexOf(block)];
  }

  /** The chosen block's norm; or, once its channels are here, one of them or the similarity with a token. */
  chooseMap() {
    const block = this.block();
    const { prefix, rows, cols } = block;
    const { channels } = this.source;
    const what = channels ? this.get("what") : "norm";
    if (what === "norm") {
      const range = this.rangeOf(block);
      return { what, block, values: block.values, from: prefix, range, table: this.table, signed: false };
    }
    const diverging = () => lookup(signedColours(this.dark));
    if (what === "channel") {
      const from = this.channel() * channels.tokens + prefix;
      const { low, high } = extent(channels.values, from, from + rows * cols);
      const top = Math.max(Math.abs(low), Math.abs(high)) || 1;
      const range = makeRange(-top, top);
      return { what, block, values: channels.values, from, range, table: diverging(), signed: true };
    }
    const token = this.anchor();
    const signed = this.get("centred");
    const values = similarityWith(channels, prefix, token, signed);
    // Less the mean, 0 is a place to be told from; with it, all cosines are large and their differences are what counts.
    const { low, high } = signed ? { low: -1, high: 1 } : extent(values, prefix, channels.tokens);
    const table = signed ? diverging() : this.table;
    return { what, block, values, from: prefix, range: makeRange(low, high), table, signed, token };
  }

  paintOverlay(patches) {
    const { range, table, signed } = this.shownMap;
    const { rows, cols } = this.block();
    colourRange(patches, 0, range, this.seenThrough(table, signed), this.overlay.fit(rows, cols));
    this.overlay.paint();
  }

  /** A line around the outliers of the chosen block: dashed, unlike a mark. */
  paintOutline(canvas) {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const pen = sharpPen(canvas, width, height);
    if (!this.get("marks")) return;
    const { outliers, prefix, rows, cols } = this.block();
    const lines = outlineOf(
      outliers.map((token) => token - prefix),
      rows,
      cols,
    );
    pen.lineCap = "square";
    for (const [line, colour, dashes] of [
      [3.5, "rgba(0, 0, 0, 0.65)", []],
      [1.75, "#ffffff", [4, 5]],
    ]) {
      pen.setLineDash(dashes);
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

  /** Moves the marks of the picture and of all maps. */
  paintMarks() {
    const { source } = this;
    const token = this.current();
    const put = (mark, block) => putMark(mark, cellOf(source.place(block, token) - block.prefix, block.cols));
    for (const tile of this.tiles) put(tile.mark, tile.block);
    put(this.map.mark, this.map.block);
    put(this.mark, this.block());
    const pin = this.get("pin");
    const away = pin !== null && pin !== token;
    for (const mark of [this.kept, this.map.kept]) {
      putMark(mark, away ? cellOf(source.place(this.block(), pin) - this.block().prefix, this.block().cols) : null);
    }
    const { rows, cols } = this.block();
    sizeMarks(this.stage, rows, cols);
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
    if (this.source.blockOf(block) && block !== this.get("block")) this.save({ block });
  }

  stepBlock(step) {
    const { blocks } = this.source;
    this.toBlock(blocks[blocks.indexOf(this.block()) + step]?.block);
  }

  toggleWhat() {
    if (!this.source.hasChannels(this.get("block"))) this.source.link.say(this.source.whyNoChannels);
    else this.cycle("what", FORMS);
  }

  /** Where no similarity is on display yet, it comes first, as it was left. */
  toggleCentred() {
    if (!this.source.hasChannels(this.get("block"))) this.source.link.say(this.source.whyNoChannels);
    else if (this.get("what") === "similarity") this.toggle("centred");
    else this.save({ what: "similarity", enlarged: true });
  }

  /** Showing a channel enlarges its block: that is where its number and its histogram are. */
  toChannel(channel) {
    const block = this.block();
    if (!block || !Number.isInteger(channel)) return;
    if (!this.source.hasChannels(block.block)) return this.source.link.say(this.source.whyNoChannels);
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
    this.announce();
  }

  /** Opens the attention explorer on a token of the picture's grid; the kernel does. */
  attend(token, direction) {
    if (!this.source.attends(this.get("block"))) return this.source.link.say(this.source.whyNoAttention);
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

  clear() {
    if (this.get("pin") !== null) this.save({ pin: null });
    else if (this.get("enlarged")) this.save({ enlarged: false });
    else return false;
    return true;
  }
}

export default defineWidget(NormSource, NormView);

// Everything in the position explorer, once the first reply says whether the model has a table or biases.

import { createColourBar } from "#shared/colour_bar.js";
import { createReadout, element, setText } from "#shared/elements.js";
import { moveFocus, setTabStop } from "#shared/focus.js";
import { isDark, tallestPicture, widthInside } from "#shared/theme.js";
import { Pages, PositionActions } from "./actions.js";
import { createControls } from "./controls.js";
import { imageName, MEAN } from "./data.js";
import { createGrid } from "./grid.js";
import { createKeys } from "./keys.js";
import { positionLayout } from "./layout.js";
import { gridLook, imageLook, meanSpectrumLook, spectrumLook } from "./looks.js";
import { biasText, detailOf, gridBar, imageBar, readoutOf, spectrumText } from "./readout.js";
import { PositionTile, TileGroup } from "./tiles.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { PositionData } from "./data.js" */
/** @import { Look, Style } from "./looks.js" */
/** @import { Cell } from "./places.js" */
/** @import { PositionAbout, PositionSource, PositionTraits } from "./source.js" */
/** @import { Probe } from "./tiles.js" */

const FEW = 34; // heads, the mean included, that are shown without pages
const BELOW = { table: 300, bias: 130 }; // height of what is below the grid

/** An enlarged image. `tile`: as in data-tile. */
/** @typedef {{tile: string, caption: string, data: PositionData, spectral: boolean}} Pane */

export class Board {
  /**
   * @param {object} options
   * @param {Settings<PositionTraits>} options.settings
   * @param {PositionSource} options.source
   * @param {PositionAbout} options.about
   * @param {HTMLElement} options.root of the widget
   * @param {() => void} options.schedule requests a call of paint()
   * @param {() => void} options.announce
   */
  constructor({ settings, source, about, root, schedule, announce }) {
    this.settings = settings;
    this.source = source;
    this.about = about;
    this.root = root;
    this.schedule = schedule;
    this.dark = false;
    /** @type {Probe | null} the cell of an image that the pointer reads off */
    this.probe = null;
    /** @type {Readonly<Cell> | null} the cell of the grid that the pointer reads off while the position is pinned */
    this.read = null;
    /** @type {Look | null} what the grid shows */
    this.gridLook = null;
    this.values = new Float32Array(0); // of the grid

    const biased = about.encoding === "bias";
    this.pages = new Pages(settings, source);
    this.actions = new PositionActions({
      settings,
      source,
      pages: this.pages,
      onStep: () => {
        this.stopReading();
        announce();
      },
    });
    const { actions } = this;
    this.keys = createKeys(settings, {
      actions,
      biased,
      moveFocus: (key, target) => moveFocus(key, target, this.visibleNodes),
      enlargeTile: (target) => this.enlargeTile(target),
    });
    this.controls = createControls({ settings, source, about, keys: this.keys, actions, pages: this.pages });
    this.grid = createGrid({
      biased,
      onPoint: (cell) => this.pointAt(cell),
      onTap: (cell) => actions.togglePin(cell),
      onLeave: () => this.stopReading(),
    });
    const onProbe = (/** @type {Probe | null} */ probe) => {
      this.probe = probe;
      schedule();
    };
    const onEnlarge = (/** @type {number} */ index) => {
      this.grid.node.focus({ preventScroll: true }); // arrow keys keep moving the position
      actions.enlarge(index);
    };
    this.tiles = new TileGroup("dptx-tiles", "dptx-tile", { onProbe, onEnlarge });
    this.enlarged = new TileGroup("dptx-bigs", "dptx-tile dptx-big", { onProbe, onEnlarge });
    this.spectrum = biased
      ? null
      : new PositionTile("dptx-tile dptx-plain", onProbe, { role: "group", "aria-label": "All channels" });
    this.words = element("div", { className: "dptx-hint dptx-words" });
    this.readout = createReadout();
    this.gridBar = createColourBar();
    this.imageBar = createColourBar();
  }

  /** @returns {Node[]} below the grid */
  get aside() {
    if (!this.spectrum) return [this.words];
    return [element("div", { className: "dptx-aside" }, this.spectrum.node, this.words)];
  }

  /** Tiles that show an image. */
  get visibleNodes() {
    return this.tiles.nodes.filter(({ hidden }) => !hidden);
  }

  // ---------------------------------------------------------------------------------------------------------- pointer

  /**
   * The pointer is over a cell of the grid: moves the position there or, while it is pinned, reads the cell.
   *
   * @param {Cell} cell
   */
  pointAt(cell) {
    this.probe = null;
    this.read = this.settings.get("pinned") ? cell : null;
    if (this.read) this.schedule();
    else this.actions.moveTo(cell);
  }

  stopReading() {
    this.probe = null;
    this.read = null;
    this.schedule();
  }

  /**
   * @param {HTMLElement} target
   * @returns {boolean} false if it is not a tile
   */
  enlargeTile(target) {
    const index = this.tiles.indexAt(target);
    return index !== null && this.actions.enlarge(index);
  }

  // ------------------------------------------------------------------------------------------------ layout and images

  /** Other data is on display. */
  showData() {
    this.probe = null;
    this.read = null;
    this.sync();
  }

  /** Shows which size and block are chosen, before their data arrives. */
  showRequested() {
    this.controls.sync();
    this.root.dataset.state = this.source.isCurrent ? "ready" : "waiting";
  }

  /** After a change of data, a setting, the width or the theme: sets the controls, lays out and paints the images. */
  sync() {
    const { data } = this.source;
    const width = widthInside(this.root);
    if (!data || !(width > 0)) return;
    this.dark = isDark(this.root);
    const image = this.actions.image;
    const panes = image === null ? [] : this.panesOf(data, image);
    const aspects = panes.map((pane) => pane.data.high / pane.data.wide);
    const count = this.pages.order.length;
    const place = positionLayout(width, data.high / data.wide, count, aspects, BELOW[data.kind], tallestPicture());
    this.pages.size = Math.min(count, data.kind === "bias" ? Math.max(place.page, FEW) : place.page);
    this.root.classList.toggle("dptx-stacked", !place.beside);
    this.root.style.setProperty("--dptx-left", `${place.left}px`);
    this.root.style.setProperty("--dptx-picture", `${place.stage}px`);
    this.root.style.setProperty("--dptx-columns", `repeat(${place.columns}, ${place.tile}px)`);
    this.showRequested();
    this.paintTiles(data, image);
    this.paintEnlarged(image ?? MEAN, panes, place.big);
    if (this.spectrum && data.kind === "table") {
      this.spectrum.paint(meanSpectrumLook(data, this.style));
      this.spectrum.describe("spectrum", "Mean spectrum", "");
    }
    this.root.classList.toggle("dptx-pinned", this.settings.get("pinned"));
    this.schedule();
  }

  /** @returns {Style} */
  get style() {
    const { settings, dark } = this;
    return { shared: settings.get("scale") === "shared", colormap: settings.get("colormap"), dark };
  }

  /**
   * @param {PositionData} data
   * @param {number} index
   * @param {boolean} spectral
   * @returns {Look}
   */
  lookOf(data, index, spectral) {
    return spectral && data.kind === "table" && index !== MEAN
      ? spectrumLook(data, index, this.style)
      : imageLook(data, index, this.style);
  }

  /**
   * @param {PositionData} data
   * @param {number | null} chosen the enlarged image
   */
  paintTiles(data, chosen) {
    const { settings, pages, tiles } = this;
    const spectral = settings.get("view") === "spectrum";
    const byFrequency = settings.get("order") === "frequency";
    const { images } = pages;
    tiles.resize(pages.size);
    for (const [n, tile] of tiles.list.entries()) {
      const index = images[n];
      tile.node.hidden = index === undefined;
      if (index === undefined) continue;
      const look = this.lookOf(data, index, spectral);
      tile.paint(look);
      const name = index === MEAN ? "Mean" : data.kind === "bias" ? `Head ${index}` : String(index);
      const id = index === MEAN ? "mean" : String(index);
      tile.describe(id, name, detailOf(look, byFrequency), "Enlarge", data.kind === "bias" ? "" : "Channel ");
      tile.node.classList.toggle("dptx-chosen", index === chosen);
      tile.node.classList.toggle("dptx-mean", index === MEAN);
    }
    const visible = this.visibleNodes;
    setTabStop(visible, visible.find((node) => node.classList.contains("dptx-chosen")) ?? visible[0]);
  }

  /**
   * The enlarged image, the same of the native size, and its spectrum.
   *
   * @param {PositionData} data
   * @param {number} image
   * @returns {Pane[]}
   */
  panesOf(data, image) {
    const native = this.source.requestNative();
    /** @param {PositionData} one */
    const grid = ({ rows, cols }) => `${rows} \u00d7 ${cols}`;
    /** @type {Pane[]} */
    const panes = [{ tile: "big", caption: `${imageName(data, image)}: ${grid(data)}`, data, spectral: false }];
    if (native) {
      const caption = `${data.kind === "bias" ? "native" : "as stored"}: ${grid(native)}`;
      panes.push({ tile: "big-native", caption, data: native, spectral: false });
    }
    if (data.kind === "table") panes.push({ tile: "big-spectrum", caption: "its spectrum", data, spectral: true });
    return panes;
  }

  /**
   * @param {number} image
   * @param {Pane[]} panes
   * @param {number} height
   */
  paintEnlarged(image, panes, height) {
    this.enlarged.resize(panes.length);
    for (const [n, { tile, caption, data, spectral }] of panes.entries()) {
      const own = this.enlarged.list[n];
      const look = this.lookOf(data, image, spectral);
      own.node.style.width = `${Math.floor((height * data.wide) / data.high)}px`;
      own.paint(look);
      own.describe(tile, caption, detailOf(look, spectral), "Back to all images");
    }
  }

  // --------------------------------------------------------------------------------------------------------- painting

  /** Paints the grid, the marks and the words: what follows the pointer. */
  paint() {
    const { source, settings, root, read } = this;
    const { data, cell, place } = source;
    if (!data) return;
    if (this.values.length !== data.rows * data.cols + 1) this.values = new Float32Array(data.rows * data.cols + 1);
    const style = { ...this.style, centred: settings.get("centred"), head: this.actions.head };
    const look = gridLook(data, cell, style, this.values);
    this.gridLook = look;
    this.grid.paint(look, cell, read);
    for (const tile of [...this.enlarged.list, ...this.tiles.list]) tile.follow(place);
    this.readout.show(...readoutOf(look, cell, read, this.values[this.values.length - 1]));
    const bar = gridBar(look, read, settings.get("pinned"));
    this.gridBar.show(look.table, bar.ticks, bar.at, bar.note);
    this.paintImageBar();
    this.paintAside(data);
    Object.assign(root.dataset, {
      place: cell.join(),
      size: `${data.height}x${data.width}`,
      image: this.actions.image,
      ...(data.kind === "bias" ? { block: data.block } : {}),
    });
  }

  /** The image whose colour bar is shown: under the pointer, else the enlarged or the first one. */
  get barTile() {
    const probed = this.probe && this.probe.tile !== this.spectrum ? this.probe.tile : null;
    return probed ?? this.enlarged.list[0] ?? this.tiles.list[0];
  }

  paintImageBar() {
    const tile = this.barTile;
    if (!tile?.look) return;
    const cell = this.probe?.tile === tile ? this.probe.cell : null;
    const { ticks, at, note } = imageBar(tile.look, cell, this.style.shared);
    this.imageBar.show(tile.look.table, ticks, at, note);
  }

  /** @param {PositionData} data */
  paintAside(data) {
    if (data.kind === "bias") setText(this.words, biasText(data, this.actions.head));
    else if (this.spectrum?.look) {
      const cell = this.probe?.tile === this.spectrum ? this.probe.cell : null;
      setText(this.words, spectrumText(this.spectrum.look, cell));
    }
  }
}

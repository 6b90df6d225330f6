// The position explorer's view: the grid with the position (or query) under the pointer, and beside it the channels of the
// table, or the offset images of a block's heads.
//
// Images are painted when data or a setting changes; a pointer move paints the grid and moves the marks, and nothing
// travels. PositionSource belongs to the widget model and is shared by its views; PositionView is one display.
//
// For tests, on the root element: data-state, data-place ("row,col"), data-size, data-block, data-image of the last paint;
// canvases carry data-tile: "stage", "spectrum", an image's number or "mean"; enlarged "big", "big-native", "big-spectrum".

import { putMark, reachOne } from "../shared/cells.js";
import { lookup } from "../shared/colours.js";
import { isDark, signedColours, widthInside } from "../shared/panel.js";
import { element } from "../shared/shell.js";
import { defineWidget, View } from "../shared/view.js";
import { buildPositions, PositionTile } from "./controls.js";
import {
  cellAt,
  cutOf,
  extent,
  figure,
  imageOrder,
  logarithms,
  MEAN,
  middleOf,
  NONE,
  paintRange,
  positionLayout,
  similarityTo,
  symmetric,
} from "./numbers.js";
import { act, readsCells } from "./pointer.js";
import { positionWords } from "./readout.js";
import { PositionSource } from "./source.js";

const SETTINGS = ["pinned", "order", "scale", "colormap", "first", "channel", "view", "centred", "head"];
const FEW = 34; // heads with their mean that are shown without paging

class PositionView extends View {
  constructor(model, el, source) {
    super(model, el, source);
    this.tiles = [];
    this.bigTiles = [];
    this.probe = null; // {part: "stage" | "spectrum" | "tile", tile, cell}: what the pointer reads, rather than moves
    this.data = null;
    this.page = 1;
    this.built = false;
    this.mount("positions", act);
    this.root.dataset.state = "waiting";
  }

  begin() {
    this.watch(SETTINGS, () => this.settle());
    this.watchSize(this.root, () => this.settle());
    this.watchTheme(() => this.settle());
    if (this.source.about) this.heard("about");
    if (this.source.data) this.heard("data");
  }

  heard(event) {
    if (super.heard(event)) return true;
    if (event === "about") this.build();
    else if (event === "wanted") this.showWanted();
    else if (event === "place") this.schedule();
    else if (event === "native") this.settle();
    else if (event === "data") {
      this.data = this.source.data;
      this.stageValues = new Float32Array(this.data.rows * this.data.cols + 1);
      this.probe = null;
      this.showWanted();
      this.settle();
    }
    return false;
  }

  build() {
    if (this.built) return;
    this.built = true;
    this.biased = this.source.biased;
    buildPositions(this);
    this.showWanted();
    this.focusOnPage(this.stage.frame);
  }

  // ------------------------------------------------------------------------------------------------ what is displayed

  orders() {
    return this.biased ? ["index", "strength"] : ["index", "strength", "frequency"];
  }

  /** The enlarged channel or head: a number, MEAN, or null; a head that this block does not have is the mean. */
  image() {
    const image = this.get(this.biased ? "head" : "channel");
    return image !== null && this.data && image >= this.data.count ? MEAN : image;
  }

  /** The position, or query, on display. */
  cell() {
    return cellAt(this.data, this.source.place);
  }

  /** The image that is laid on the grid: biases only. */
  laid() {
    const image = this.image();
    return image === null || image === MEAN ? this.data.count : image;
  }

  nameOf(index) {
    if (index === MEAN || index === this.data.count) return this.biased ? "Mean of heads" : "Mean";
    return `${this.biased ? "Head" : "Channel"} ${index}`;
  }

  title() {
    const { about } = this.source;
    const { height, width, block } = this.data;
    const place = `(${this.cell().join(", ")})`;
    const what = this.biased
      ? `Relative bias of block ${block}, query ${place}, ${this.nameOf(this.laid()).toLowerCase()}`
      : `Position table, similarity with ${place}`;
    return `${what}: ${about.family} ${about.variant}, input ${height} \u00d7 ${width}`;
  }

  offered() {
    const { sizes } = this.source.about;
    const own = this.get("size");
    return sizes.some((size) => size.join() === own.join()) ? sizes : [...sizes, own];
  }

  showWanted() {
    if (!this.built) return;
    const { about, data } = this.source;
    const own = this.get("size").join("x");
    const key = this.offered().join(" ");
    if (this.sizesShown !== key) {
      this.sizesShown = key;
      const options = this.offered().map(([height, width]) => {
        const native = [height, width].join() === about.native.join();
        const grid = `${height / about.patch} \u00d7 ${width / about.patch} patches`;
        return element(
          "option",
          { value: `${height}x${width}` },
          `${height} \u00d7 ${width}: ${grid}${native ? " (native)" : ""}`,
        );
      });
      this.sizes.replaceChildren(...options);
    }
    this.sizes.value = own;
    const block = this.get("block");
    if (this.biased) {
      this.stepper.show(block, about.blocks - 1, `${block} / ${about.blocks - 1}`);
    }
    const current = data && [data.height, data.width].join("x") === own && (!this.biased || data.block === block);
    this.root.dataset.state = current ? "ready" : "waiting";
  }

  // -------------------------------------------------------------------------------------------- layout and settings

  /** After a change of data, of a setting or of the width: controls say what holds, images are painted anew. */
  settle() {
    if (!this.data || !this.built) return;
    const { data } = this;
    const width = widthInside(this.root);
    if (!(width > 0)) return;
    this.dark = isDark(this.root);
    const image = this.image();
    const panes = this.panesOf(image);
    const count = data.count + (this.biased ? 1 : 0);
    const place = positionLayout(width, data.high / data.wide, count, panes.map(aspectOf), this.biased ? 130 : 300);
    this.page = Math.min(count, this.biased ? Math.max(place.page, FEW) : place.page);
    this.root.classList.toggle("dptx-stacked", !place.beside);
    this.root.style.setProperty("--dptx-left", `${place.left}px`);
    this.root.style.setProperty("--dptx-picture", `${place.stage}px`);
    this.root.style.setProperty("--dptx-columns", `repeat(${place.columns}, ${place.tile}px)`);
    this.order.set(this.get("order"));
    this.scale.set(this.get("scale"));
    this.colours.value = this.get("colormap");
    this.similarity?.set(String(this.get("centred")));
    this.shown?.set(this.get("view"));
    this.showPage();
    this.paintTiles();
    this.paintBigs(image, panes, place.big);
    if (!this.biased) this.paintSpectrum(this.spectrum, this.data.meanPower.slice());
    this.root.classList.toggle("dptx-pinned", this.get("pinned"));
    this.schedule();
  }

  pages() {
    return Math.ceil((this.data.count + (this.biased ? 1 : 0)) / this.page);
  }

  pageShown() {
    return Math.min(this.pages() - 1, Math.floor(this.get("first") / this.page));
  }

  showPage() {
    const [page, pages] = [this.pageShown() + 1, this.pages()];
    this.pager.node.hidden = pages < 2;
    this.pager.show(page - 1, pages - 1, `page ${page} / ${pages}`);
  }

  // --------------------------------------------------------------------------------------------------------- painting

  /** Values with a sign are painted around 0, others over the chosen colours. */
  colourTable(signed) {
    return lookup(signed ? signedColours(this.dark) : this.get("colormap"));
  }

  /** Paints image `index` of the table or of the biases, or its spectrum, and keeps what was painted for reading. */
  paintImage(tile, index, spectrum, data = this.data) {
    const { high, wide } = data;
    const area = high * wide;
    const from = (index === MEAN ? data.count : index) * area;
    const pixels = tile.fit(high, wide);
    tile.index = index;
    tile.spectral = spectrum;
    tile.data = data;
    if (spectrum) {
      tile.values = data.power.slice(from, from + area);
      tile.total = tile.values.reduce((sum, power) => sum + power, 0);
      const own = extent(tile.values, 0, area).high;
      tile.range = logarithms(tile.values, this.get("scale") === "shared" ? this.strongestWave() : own);
    } else {
      tile.values = data.values.subarray(from, from + area);
      const signed = !this.biased || data.signed;
      tile.range = this.get("scale") === "shared" ? data.range : (signed ? symmetric : extent)(data.values, from, area);
    }
    tile.table = this.colourTable(!spectrum && (!this.biased || data.signed));
    paintRange(tile.values, 0, area, tile.range, tile.table, pixels);
    tile.paint();
    // Biases: the query stands in the middle. A table's marks move with the pointer.
    putMark(tile.mark, this.biased ? [data.rows - 1, data.cols - 1] : null);
    tile.cut.style.visibility = this.biased ? "visible" : "";
    tile.cut.style.width = `${(100 * data.cols) / wide}%`;
    tile.cut.style.height = `${(100 * data.rows) / high}%`;
  }

  /** Largest power of any channel: computed once, when a shared range of spectra is asked for. */
  strongestWave() {
    const { data } = this;
    data.strongest ??= extent(data.power, 0, data.power.length).high;
    return data.strongest;
  }

  /** So many tiles in a place, no more than needed made anew. */
  tilesFor(tiles, place, count, big = false) {
    while (tiles.length > count) tiles.pop().node.remove();
    while (tiles.length < count) {
      const tile = new PositionTile(big);
      readsCells(this, tile, "tile");
      tile.node.addEventListener("click", () => {
        this.stage.frame.focus({ preventScroll: true }); // arrow keys go on moving the position
        this.enlarge(tile.index);
      });
      tiles.push(tile);
      place.append(tile.node);
    }
  }

  shownNodes() {
    return this.tiles.filter(({ index }) => index !== NONE).map(({ node }) => node);
  }

  paintTiles() {
    const { data, page } = this;
    this.tilesFor(this.tiles, this.grid, page);
    const order = imageOrder(data, this.get("order"));
    if (this.biased) order.unshift(MEAN);
    const first = this.pageShown() * page;
    const chosen = this.image();
    this.tiles.forEach((tile, n) => {
      const index = order[first + n];
      tile.node.hidden = index === undefined;
      if (index === undefined) {
        tile.index = NONE;
        return;
      }
      this.paintImage(tile, index, !this.biased && this.get("view") === "spectrum");
      tile.canvas.dataset.tile = index === MEAN ? "mean" : String(index);
      tile.name.data = index === MEAN ? "Mean" : this.biased ? `Head ${index}` : String(index);
      const frequent = this.get("order") === "frequency";
      const detail = index === MEAN ? null : frequent ? data.frequency[index] : data.strength[index];
      tile.detail.data = detail === null ? "" : frequent ? `${detail.toFixed(1)} waves` : `sd ${figure(detail)}`;
      tile.node.classList.toggle("dptx-chosen", index === chosen);
      tile.node.classList.toggle("dptx-mean", index === MEAN);
      tile.node.setAttribute("aria-label", `${this.nameOf(index)}: enlarge`);
    });
    const shown = this.shownNodes();
    reachOne(shown, shown.find((node) => node.classList.contains("dptx-chosen")) ?? shown[0]);
  }

  /** What is enlarged: [kind, caption, data] of each map. Beside another size stands the native one. */
  panesOf(image) {
    if (image === null) return [];
    const { data, source } = this;
    const native = [data.height, data.width].join() === source.about.native.join() ? undefined : source.native();
    const sized = ({ rows, cols }) => `${rows} \u00d7 ${cols}`;
    const panes = [["big", `${this.nameOf(image)}: ${sized(data)}`, data]];
    if (native) panes.push(["big-native", `${this.biased ? "native" : "as stored"}: ${sized(native)}`, native]);
    if (!this.biased) panes.push(["big-spectrum", "its spectrum", data]);
    return panes;
  }

  paintBigs(image, panes, height) {
    this.tilesFor(this.bigTiles, this.bigs, panes.length, true);
    panes.forEach((pane, n) => {
      const tile = this.bigTiles[n];
      const [kind, caption, data] = pane;
      tile.node.style.width = `${Math.floor(height / aspectOf(pane))}px`;
      const spectral = kind === "big-spectrum";
      this.paintImage(tile, image, spectral, data);
      tile.canvas.dataset.tile = kind;
      tile.name.data = caption;
      const shown = spectral ? `${data.frequency[image].toFixed(1)} waves` : `sd ${figure(data.strength[image] ?? 0)}`;
      tile.detail.data = image === MEAN ? "" : shown;
      tile.node.setAttribute("aria-label", `${caption}, enlarged: back`);
    });
  }

  paintSpectrum(tile, power) {
    const { high, wide } = this.data;
    tile.total = power.reduce((sum, value) => sum + value, 0);
    tile.range = logarithms(power, extent(power, 0, power.length).high);
    tile.values = power;
    tile.spectral = true;
    tile.table = this.colourTable(false);
    paintRange(power, 0, power.length, tile.range, tile.table, tile.fit(high, wide));
    tile.paint();
  }

  /** The grid, the marks and the words: what follows the pointer. */
  paint() {
    if (!this.data || !this.built) return;
    const { data, stage, stageValues } = this;
    const { rows, cols, high } = data;
    const [row, col] = this.cell();
    const area = rows * cols;
    if (this.biased) {
      const index = this.laid();
      cutOf(data, index, row, col, stageValues);
      const from = index * high * data.wide;
      const whole = data.signed ? symmetric : extent;
      stage.range = this.get("scale") === "shared" ? data.range : whole(data.values, from, high * data.wide);
    } else {
      similarityTo(data, row * cols + col, this.get("centred"), stageValues);
      stage.range = extent(stageValues, 0, area);
    }
    stage.values = stageValues;
    stage.table = this.colourTable(this.biased && data.signed);
    paintRange(stageValues, 0, area, stage.range, stage.table, stage.fit(rows, cols));
    stage.paint();
    putMark(stage.mark, [row, col]);
    putMark(this.reading, this.probe?.part === "stage" ? this.probe.cell : null);
    for (const tile of [...this.bigTiles, ...this.tiles]) {
      if (tile.index === NONE) continue;
      const own = tile.data === data ? [row, col] : cellAt(tile.data, this.source.place);
      if (this.biased) {
        const [down, right] = [1 - (own[0] + 1) / tile.data.rows, 1 - (own[1] + 1) / tile.data.cols];
        tile.cut.style.transform = `translate(${right * 100}%, ${down * 100}%)`;
      } else putMark(tile.mark, tile.spectral ? null : own);
    }
    positionWords(this, row, col);
    const { dataset } = this.root;
    dataset.place = `${row},${col}`;
    dataset.size = `${data.height}x${data.width}`;
    dataset.image = String(this.image());
    if (this.biased) dataset.block = String(data.block);
  }

  // ---------------------------------------------------------------------------------------------------- actions

  /** The pointer is over a cell of the grid: moves the position there or, while it is pinned, reads the cell. */
  pointAt(cell) {
    if (!this.data) return;
    if (this.get("pinned")) {
      this.probe = { part: "stage", tile: this.stage, cell };
      this.schedule();
    } else {
      this.probe = null;
      this.source.moveTo(middleOf(this.data, ...cell));
    }
  }

  /** Pins the position, or another cell; a click on the pin releases it. */
  togglePin(cell) {
    if (!this.data) return;
    const at = this.cell();
    if (cell && this.get("pinned") && cell.join() !== at.join()) this.source.moveTo(middleOf(this.data, ...cell));
    else this.save({ pinned: !this.get("pinned") });
    this.probe = null;
    this.source.savePlace();
    this.schedule();
    this.announce();
  }

  move(down, right) {
    if (!this.data) return;
    const [row, col] = this.cell();
    const within = (value, count) => Math.min(count - 1, Math.max(0, value));
    this.probe = null;
    this.source.moveTo(middleOf(this.data, within(row + down, this.data.rows), within(col + right, this.data.cols)));
    this.source.savePlace();
    this.announce();
  }

  enlarge(image) {
    if (image === NONE) return;
    const name = this.biased ? "head" : "channel";
    this.probe = null;
    this.save({ [name]: image === this.image() ? null : image });
    this.announce();
  }

  /** In the order of display; turns to the page that holds it. */
  enlargeNext(step) {
    if (!this.data) return;
    const order = imageOrder(this.data, this.get("order"));
    if (this.biased) order.unshift(MEAN);
    const now = order.indexOf(this.image());
    const next = now < 0 ? this.pageShown() * this.page : (now + step + order.length) % order.length;
    this.save({ [this.biased ? "head" : "channel"]: order[next], first: next });
    this.announce();
  }

  toBlock(block) {
    if (block < 0 || block >= this.source.about.blocks || block === this.get("block")) return;
    this.save({ block });
    this.announce();
  }

  stepBlock(step) {
    this.toBlock(this.get("block") + step);
  }

  turn(step) {
    if (this.biased) this.stepBlock(step);
    else this.turnPage(step);
  }

  turnPage(step) {
    if (this.data) this.toPage(this.pageShown() + step);
  }

  toPage(page) {
    if (page >= 0 && page < this.pages()) this.save({ first: page * this.page });
  }

  nextSize(step) {
    const sizes = this.offered();
    const now = sizes.findIndex((size) => size.join() === this.get("size").join());
    this.save({ size: sizes[(now + step + sizes.length) % sizes.length] });
  }

  nextOrder() {
    const orders = this.orders();
    this.toOrder(orders[(orders.indexOf(this.get("order")) + 1) % orders.length]);
  }

  /** Another order begins at its first page. */
  toOrder(order) {
    this.save({ order, first: 0 });
  }

  clear() {
    if (this.get("pinned")) this.togglePin();
    else if (this.image() !== null) this.save({ [this.biased ? "head" : "channel"]: null });
    else return false;
    return true;
  }
}

function aspectOf([, , data]) {
  return data.high / data.wide;
}

export default defineWidget(PositionSource, PositionView);

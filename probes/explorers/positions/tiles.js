// Images with captions and marks.

import { createMark, PixelCanvas, putMark, sizeMarks } from "#shared/canvas.js";
import { element, setText } from "#shared/elements.js";
import { placeIn } from "#shared/pointer.js";
import { colourise } from "#shared/scale.js";
import { cellAt } from "./places.js";

/** @import { Look } from "./looks.js" */
/** @import { Cell, Place } from "./places.js" */

/** A cell of an image that the pointer reads off. */
/** @typedef {{tile: PositionTile, cell: Cell}} Probe */

/** An image at its own resolution. */
export class PositionTile {
  /**
   * @param {string} className
   * @param {(probe: Probe | null) => void} onProbe
   * @param {Record<string, any>} [properties] of the node
   */
  constructor(className, onProbe, properties = {}) {
    this.cells = new PixelCanvas();
    this.canvas = this.cells.canvas;
    this.mark = createMark("a");
    this.cut = element("div", { className: "dptx-window dptx-cut" });
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, this.cut, this.mark);
    this.word = element("span", { className: "dptx-offscreen" });
    this.name = element("span", { className: "dptx-tile-name" });
    this.detail = element("span", { className: "dptx-tile-value" });
    this.node = element(
      "div",
      { className, ...properties },
      this.frame,
      element("div", { className: "dptx-caption" }, this.word, this.name, this.detail),
    );
    /** @type {Look | null} what is painted */
    this.look = null;
    this.frame.addEventListener("pointermove", (event) => onProbe({ tile: this, cell: this.cellUnder(event) }));
    this.frame.addEventListener("pointerleave", () => onProbe(null));
  }

  /**
   * @param {MouseEvent} event
   * @returns {Cell}
   */
  cellUnder(event) {
    const [right, down] = placeIn(this.frame, event);
    return cellAt({ rows: this.canvas.height, cols: this.canvas.width }, [down, right]);
  }

  /** @param {Look} look */
  paint(look) {
    const { high, wide, values, scale, table, data } = look;
    if (!this.look || this.look.high !== high || this.look.wide !== wide) {
      this.frame.style.setProperty("--dptx-aspect", `${wide} / ${high}`);
      sizeMarks(this.frame, { rows: high, cols: wide });
    }
    this.look = look;
    const pixels = this.cells.fit(high, wide);
    colourise(values, 0, high * wide, scale, table, pixels);
    this.cells.paint();
    if (data.kind === "bias") {
      putMark(this.mark, [data.rows - 1, data.cols - 1]); // the query, in the middle
      this.cut.style.visibility = "visible";
      this.cut.style.width = `${(100 * data.cols) / wide}%`;
      this.cut.style.height = `${(100 * data.rows) / high}%`;
    }
  }

  /**
   * Follows the position on display: with the mark on an image of a table, with the outline of the query's keys on an
   * image of offsets.
   *
   * @param {Readonly<Place>} place
   */
  follow(place) {
    if (!this.look) return;
    const { data, power } = this.look;
    const cell = cellAt(data, place);
    if (data.kind === "bias") {
      const [down, right] = [1 - (cell[0] + 1) / data.rows, 1 - (cell[1] + 1) / data.cols];
      this.cut.style.transform = `translate(${right * 100}%, ${down * 100}%)`;
    } else putMark(this.mark, power === null ? cell : null);
  }

  /**
   * @param {string} tile for tests: data-tile of the canvas
   * @param {string} name
   * @param {string} detail
   * @param {string} title what a click does; "" for nothing
   * @param {string} word before the name, for screen readers
   */
  describe(tile, name, detail, title = "", word = "") {
    this.canvas.dataset.tile = tile;
    setText(this.word, word);
    setText(this.name, name);
    setText(this.detail, detail);
    this.node.title = title;
  }
}

/** Tiles that are buttons. */
export class TileGroup {
  /**
   * @param {string} className of the group
   * @param {string} tileClassName
   * @param {object} actions
   * @param {(probe: Probe | null) => void} actions.onProbe
   * @param {(index: number) => void} actions.onEnlarge
   */
  constructor(className, tileClassName, { onProbe, onEnlarge }) {
    this.node = element("div", { className, role: "group", "aria-label": "Images" });
    this.tileClassName = tileClassName;
    this.onProbe = onProbe;
    this.onEnlarge = onEnlarge;
    /** @type {PositionTile[]} */
    this.list = [];
  }

  get nodes() {
    return this.list.map(({ node }) => node);
  }

  /**
   * Adds or removes tiles.
   *
   * @param {number} count
   */
  resize(count) {
    while (this.list.length > count) this.list.pop()?.node.remove();
    while (this.list.length < count) {
      const tile = new PositionTile(this.tileClassName, this.onProbe, { role: "button", tabIndex: -1 });
      tile.node.addEventListener("click", () => tile.look && this.onEnlarge(tile.look.index));
      this.list.push(tile);
      this.node.append(tile.node);
    }
  }

  /**
   * @param {HTMLElement} node
   * @returns {number | null} the index of the image whose tile it is
   */
  indexAt(node) {
    return this.list.find((tile) => tile.node === node)?.look?.index ?? null;
  }
}

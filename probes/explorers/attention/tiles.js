// The tiles: one map per head, and their mean.

import { PixelCanvas } from "#shared/canvas.js";
import { cssColour } from "#shared/colours.js";
import { element } from "#shared/elements.js";
import { setTabStop } from "#shared/focus.js";
import { formatFixed, formatShortPercent } from "#shared/format.js";
import { patchAt, prefixName } from "#shared/patches.js";
import { placeIn } from "#shared/pointer.js";
import { colourIndex, colourise, positionOn } from "#shared/scale.js";
import { maxMagnitude, sumOf } from "#shared/statistics.js";
import { headOrder } from "./block.js";
import { createPatchMarks } from "./marks.js";
import { formatSum } from "./readout.js";
import { attentionScale } from "./scales.js";

/** @import { ColourTable } from "#shared/types.js" */
/** @import { Block } from "./block.js" */

const DETAIL_TITLE = "\u03a3: sum of the column, 1 on average over tokens; nats: mean entropy of the head's rows";

/** A text node that changes only where it must. */
class Label {
  constructor() {
    this.node = document.createTextNode("");
  }

  /** @param {string} text */
  set(text) {
    if (this.node.data !== text) this.node.data = text;
  }
}

/** A map at the resolution of the grid, with its caption and marks. */
export class Tile extends PixelCanvas {
  /**
   * @param {number} index the head; the number of heads for the mean
   * @param {Block} block
   */
  constructor(index, { heads, rows, cols, prefix }) {
    super();
    this.fit(rows, cols);
    this.index = index;
    const isMean = index === heads;
    /** As in the trait `head`. */
    this.head = isMean ? -1 : index;
    this.name = isMean ? "Mean" : `Head ${index}`;
    this.canvas.dataset.tile = isMean ? "mean" : String(index);
    this.scale = attentionScale("head", 0, false);
    this.marks = createPatchMarks(1);
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, ...this.marks.nodes);
    this.swatches = Array.from({ length: prefix }, (_, n) =>
      element("i", { className: "dptx-swatch", title: `${prefixName(n)} token` }),
    );
    this.value = new Label(); // of the class token
    this.word = new Label();
    this.top = new Label();
    this.detail = new Label(); // the sum of a column, or else the head's entropy
    this.entropy = "";
    const name = element(
      "span",
      { className: "dptx-tile-name" },
      isMean ? "Mean" : element("span", { className: "dptx-word" }, "Head "),
      isMean ? "" : String(index),
    );
    const value = element(
      "span",
      { className: "dptx-tile-value" },
      ...this.swatches,
      prefix ? element("span", { className: "dptx-word" }, prefixName(0)) : null,
      element("span", {}, this.value.node),
    );
    const top = element(
      "span",
      { className: "dptx-tile-top", title: "Largest weight of a patch" },
      element("span", { className: "dptx-tile-max" }, this.word.node),
      this.top.node,
    );
    this.node = element(
      "div",
      {
        className: isMean ? "dptx-tile dptx-mean" : "dptx-tile",
        role: "button",
        tabIndex: -1,
        title: "Enlarge",
      },
      this.frame,
      element("div", { className: "dptx-caption" }, name, value),
      element(
        "div",
        { className: "dptx-caption dptx-caption-low" },
        top,
        element("span", { title: DETAIL_TITLE }, this.detail.node),
      ),
    );
  }
}

/** @typedef {{token: number, tile: Tile}} Probe a patch of a tile that the pointer reads off */

/** The tiles of a block. */
export class Tiles {
  /**
   * @param {object} actions
   * @param {(head: number) => void} actions.onEnlarge enlarges a head, or goes back to all of them; -1: the mean
   * @param {() => void} actions.onClick
   * @param {(probe: Probe | null) => void} actions.onProbe
   */
  constructor({ onEnlarge, onClick, onProbe }) {
    this.onEnlarge = onEnlarge;
    this.onClick = onClick;
    this.onProbe = onProbe;
    this.node = element("div", { className: "dptx-tiles", role: "group", "aria-label": "Heads of the block" });
    /** @type {Tile[]} heads in order, the mean last; none before the first block */
    this.list = [];
  }

  get nodes() {
    return this.list.map(({ node }) => node);
  }

  /**
   * Makes new tiles for a block with other heads or another grid.
   *
   * @param {Block} block
   */
  rebuild(block) {
    this.list = Array.from({ length: block.heads + 1 }, (_, index) => new Tile(index, block));
    for (const tile of this.list) {
      tile.frame.addEventListener("pointermove", (event) =>
        this.onProbe({ token: patchAt(block, ...placeIn(tile.frame, event)), tile }),
      );
      tile.frame.addEventListener("pointerleave", () => this.onProbe(null));
      tile.node.addEventListener("click", () => {
        this.onClick();
        this.onEnlarge(tile.head);
      });
    }
    this.node.replaceChildren(...this.nodes);
  }

  /**
   * Enlarges the tile that has the focus.
   *
   * @param {HTMLElement} target what has the focus
   * @returns {boolean} false if that is not a tile
   */
  enlarge(target) {
    const tile = this.list.find(({ node }) => node === target);
    if (tile) this.onEnlarge(tile.head);
    return Boolean(tile);
  }

  /**
   * The tile of a head; the mean for -1 and null.
   *
   * @param {number | null} head
   * @returns {Tile}
   */
  of(head) {
    const last = this.list.length - 1;
    return this.list[head === null || head < 0 ? last : Math.min(head, last - 1)];
  }

  /**
   * Puts the tiles in order: the enlarged one, the mean, the heads.
   *
   * @param {Block} block
   * @param {"index" | "entropy"} order
   * @param {number | null} head the enlarged one
   */
  arrange({ heads, entropy }, order, head) {
    const enlarged = head === null ? null : this.of(head);
    for (const [place, index] of [heads, ...headOrder(heads, order, entropy)].entries()) {
      const tile = this.list[index];
      tile.node.style.order = String(tile === enlarged ? -1 : place);
      tile.node.classList.toggle("dptx-enlarged", tile === enlarged);
      tile.entropy = order === "entropy" && index < entropy.length ? `${formatFixed(entropy[index], 2)} nats` : "";
    }
    setTabStop(this.nodes, this.of(head).node);
  }

  /**
   * @param {Block} block
   * @param {Float32Array} values (heads + 1, tokens)
   * @param {object} look
   * @param {ColourTable} look.table
   * @param {"head" | "shared" | "log"} look.mode of the scale
   * @param {boolean} look.signed whether the values are differences
   * @param {boolean} look.summed whether captions show the sum
   */
  paint({ heads, tokens, prefix }, values, { table, mode, signed, summed }) {
    const patches = tokens - prefix;
    const tops = this.list.map(({ index }) => maxMagnitude(values, index * tokens + prefix, patches));
    const shared = Math.max(...tops.slice(0, heads));
    for (const tile of this.list) {
      const from = tile.index * tokens;
      const top = tops[tile.index];
      tile.scale = attentionScale(mode, mode === "head" ? top : shared, signed);
      colourise(values, from + prefix, patches, tile.scale, table, tile.pixels);
      tile.paint();
      for (const [n, swatch] of tile.swatches.entries()) {
        swatch.style.backgroundColor = cssColour(table, colourIndex(positionOn(tile.scale, values[from + n])));
      }
      tile.value.set(prefix ? formatShortPercent(values[from]) : "");
      tile.word.set(signed ? "" : "max ");
      tile.top.set(`${signed ? "\u00b1" : ""}${formatShortPercent(top)}`);
      tile.detail.set(summed ? formatSum(sumOf(values, from, tokens)) : tile.entropy);
    }
  }
}

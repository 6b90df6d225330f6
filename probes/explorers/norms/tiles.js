// Maps at the resolution of a block's grid: one tile per block.

import { createMark, PixelCanvas, putMark, sizeMarks } from "#shared/canvas.js";
import { cssColour } from "#shared/colours.js";
import { element, setText } from "#shared/elements.js";
import { setTabStop } from "#shared/focus.js";
import { formatNumber } from "#shared/format.js";
import { cellOf, patchAt, prefixName } from "#shared/patches.js";
import { placeIn } from "#shared/pointer.js";
import { colourIndex, colourise, positionOn } from "#shared/scale.js";

/** @import { ColourTable, Scale } from "#shared/types.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { Outliers } from "./outliers.js" */

/**
 * The pointer over a map.
 *
 * @typedef {object} MapPointer
 * @property {(block: NormBlock, token: number) => void} onPoint `token` of the block
 * @property {() => void} onLeave
 */

/** A map with a mark at the pointer's patch. */
export class MapCanvas extends PixelCanvas {
  /**
   * @param {NormBlock} block
   * @param {string} name for tests: data-tile of the canvas
   * @param {MapPointer} pointer
   * @param {...Node} over what lies over the map, below the mark
   */
  constructor(block, name, { onPoint, onLeave }, ...over) {
    super();
    this.block = block;
    this.fit(block.rows, block.cols);
    this.canvas.dataset.tile = name;
    this.mark = createMark("a");
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, ...over, this.mark);
    sizeMarks(this.frame, block);
    this.frame.addEventListener("pointermove", (event) =>
      onPoint(block, patchAt(block, ...placeIn(this.frame, event))),
    );
    this.frame.addEventListener("pointerleave", onLeave);
  }

  /**
   * @param {Float32Array} patches
   * @param {Scale} scale
   * @param {ColourTable} table
   */
  paintPatches(patches, scale, table) {
    colourise(patches, 0, patches.length, scale, table, this.pixels);
    this.paint();
  }

  /** @param {number} token of the block */
  markToken(token) {
    putMark(this.mark, cellOf(this.block, token));
  }
}

/** The norms of a block with a caption: its number, the class token, the range of the patches, and its outliers. */
class Tile extends MapCanvas {
  /**
   * @param {NormBlock} block
   * @param {MapPointer} pointer
   */
  constructor(block, pointer) {
    super(block, String(block.block), pointer);
    this.swatches = Array.from({ length: block.prefix }, (_, n) =>
      element("i", { className: "dptx-swatch", title: `Norm of the ${prefixName(n)} token` }),
    );
    const range = `${formatNumber(block.low)} \u2013 ${formatNumber(block.high)}`;
    const title = `Smallest and largest norm of a patch: ${range}`;
    this.count = element("span", { className: "dptx-outlier-count", title: "Outliers" });
    const name = element(
      "span",
      { className: "dptx-tile-name" },
      element("span", { className: "dptx-word" }, "Block "),
      String(block.block),
    );
    const prefix = element(
      "span",
      { className: "dptx-tile-value" },
      ...this.swatches,
      block.prefix ? element("span", { className: "dptx-word" }, prefixName(0)) : null,
      element("span", {}, block.prefix ? formatNumber(block.values[0]) : ""),
    );
    this.node = element(
      "div",
      { className: "dptx-tile", role: "button", tabIndex: -1, title: "Enlarge" },
      this.frame,
      element("div", { className: "dptx-caption" }, name, prefix),
      element(
        "div",
        { className: "dptx-caption dptx-caption-low" },
        element("span", { className: "dptx-extent", title }, range),
        this.count,
      ),
    );
  }

  /**
   * @param {Scale} scale
   * @param {ColourTable} table
   * @param {number} outliers how many
   */
  show(scale, table, outliers) {
    const { values, prefix } = this.block;
    this.paintPatches(values.subarray(prefix), scale, table);
    for (const [n, swatch] of this.swatches.entries()) {
      swatch.style.backgroundColor = cssColour(table, colourIndex(positionOn(scale, values[n])));
    }
    setText(this.count, outliers ? String(outliers) : "");
  }
}

/** The tiles of all blocks. */
export class Tiles {
  /**
   * @param {MapPointer & {onEnlarge: (block: number) => void}} actions
   */
  constructor({ onEnlarge, ...pointer }) {
    this.onEnlarge = onEnlarge;
    this.pointer = pointer;
    this.node = element("div", { className: "dptx-tiles", role: "group", "aria-label": "Blocks" });
    /** @type {Tile[]} */
    this.list = [];
    /** @type {readonly NormBlock[]} */
    this.blocks = [];
  }

  get nodes() {
    return this.list.map(({ node }) => node);
  }

  /**
   * Makes tiles for these blocks, unless they are on display, and marks the chosen one.
   *
   * @param {readonly NormBlock[]} blocks
   * @param {NormBlock} chosen
   */
  arrange(blocks, chosen) {
    if (this.blocks !== blocks) {
      this.blocks = blocks;
      this.list = blocks.map((block) => {
        const tile = new Tile(block, this.pointer);
        tile.node.addEventListener("click", () => this.onEnlarge(block.block));
        return tile;
      });
      this.node.replaceChildren(...this.nodes);
    }
    for (const { node, block } of this.list) node.classList.toggle("dptx-chosen", block === chosen);
    setTabStop(this.nodes, this.nodes[blocks.indexOf(chosen)]);
  }

  /**
   * @param {readonly Scale[]} scales of each block
   * @param {ColourTable} table
   * @param {readonly Outliers[]} outliers of each block
   */
  paint(scales, table, outliers) {
    for (const [n, tile] of this.list.entries()) tile.show(scales[n], table, outliers[n].tokens.length);
  }

  /**
   * Moves the marks.
   *
   * @param {(block: NormBlock) => number} tokenOf
   */
  mark(tokenOf) {
    for (const tile of this.list) tile.markToken(tokenOf(tile.block));
  }

  /**
   * @param {HTMLElement} node
   * @returns {number | null} the number of the block whose tile it is
   */
  blockAt(node) {
    return this.list.find((tile) => tile.node === node)?.block.block ?? null;
  }
}

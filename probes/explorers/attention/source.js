// The attention explorer's data: the blocks, the grid that tokens refer to, and the token under the pointer.
//
// Tokens (the cursor, the traits `token` and `pins`) refer to the grid of the block in the trait `_placed`. A change of
// the block moves them to its grid and sets `_placed` at once: goToBlock() for blocks chosen on this page, the kernel for
// blocks set in Python. Until the new block arrives, the block on display may have another grid; it is not painted then.

import { ByteCache } from "#shared/cache.js";
import { sameSpot } from "#shared/patches.js";
import { PictureSource } from "#shared/picture_source.js";
import { blockBytes, decodeBlock } from "./block.js";

/** @import { PictureTraits } from "#shared/picture_source.js" */
/** @import { AnyModel, Grid, ImageMessage, Part, PictureMessage } from "#shared/types.js" */
/** @import { Block, BlockMessage } from "./block.js" */
/** @import { Mode } from "./selection.js" */

/**
 * @typedef {PictureTraits & {
 *   block: number, direction: "row" | "column", pins: number[], compare: Mode, head: number | null,
 *   order: "index" | "entropy", scale: "head" | "shared" | "log", _placed: number,
 * }} AttentionTraits `head`: -1 is the mean, null enlarges none
 */

/**
 * The first reply. `shapes`: heads, rows and columns of each block; `blocks`: those that can be shown.
 *
 * @typedef {PictureMessage & {
 *   prefix: number, shapes: [heads: number, rows: number, cols: number][], blocks: number[],
 * }} AttentionAbout
 */

/** Bytes of decoded blocks that are kept: ViT-L at 518 px takes 11 MB per block. */
const CACHE_BYTES = 384 * 2 ** 20;

/**
 * @param {{rows: number, cols: number}} one
 * @param {{rows: number, cols: number}} other
 * @returns {boolean}
 */
const sameGrid = (one, other) => one.rows === other.rows && one.cols === other.cols;

/**
 * Events: "picture", "depth", "cursor"; "block" when another block is on display, "block-requested", and "placed" when
 * tokens refer to another grid.
 *
 * @extends {PictureSource<AttentionTraits, AttentionAbout>}
 */
export class AttentionSource extends PictureSource {
  /** @param {AnyModel<AttentionTraits>} model */
  constructor(model) {
    super(model);
    /** @type {ByteCache<Block>} */
    this.cache = new ByteCache(CACHE_BYTES);
    /** @type {(Grid & {heads: number})[]} of each block of the model */
    this.grids = [];
    /** @type {Block | null} on display */
    this.block = null;
    /** @type {Map<number, {grid: Grid, token: number}>} where tokens were before the grid changed */
    this.origins = new Map();
    this.cleanup.push(() => {
      this.cache.clear();
      this.block = null;
    });
    this.follow("block", () => this.requestBlock());
    this.follow("_placed", () => this.place());
  }

  /** The block on display if tokens refer to its grid, else null. */
  get current() {
    const { block, grid } = this;
    return block && grid && sameGrid(block, grid) ? block : null;
  }

  /** Heads of the block that tokens refer to; 0 until it is known. */
  get heads() {
    return this.grids[this.model.get("_placed")]?.heads ?? 0;
  }

  /** The blocks that can be shown: all blocks of the model, or those in an exported page. */
  get blocks() {
    return this.about?.blocks ?? [this.model.get("block")];
  }

  /** Makes tokens refer to the grid of `_placed`. The trait `token` is on it already; a cursor from before is not. */
  place() {
    const { grid } = this;
    this.grid = this.grids[this.model.get("_placed")] ?? null;
    if (grid && this.grid && !sameGrid(grid, this.grid)) {
      this.origins = new Map();
      this.moveTo(this.model.get("token"));
    }
    this.emit("placed");
  }

  /**
   * Goes to another block. Cursor and pins keep their place in the image, as far as the new grid allows. Back from a
   * coarser grid, they return to where they were.
   *
   * @param {number} block
   */
  goToBlock(block) {
    const { model, grid } = this;
    const next = this.grids[block];
    const head = model.get("head");
    /** @type {Partial<AttentionTraits>} */
    const changes = {};
    let { origins } = this;
    if (head !== null && head >= next.heads) changes.head = -1;
    if (grid && !sameGrid(grid, next)) {
      origins = new Map();
      /** @param {number} token */
      const moved = (token) => {
        const origin = this.origins.get(token) ?? { grid, token };
        const spot = sameSpot(next, origin.grid, origin.token);
        origins.set(spot, origin);
        return spot;
      };
      const pins = model.get("pins").map(moved);
      changes.pins = [...new Set(pins)];
      if (changes.pins.length < pins.length) changes.compare = "a";
      changes.token = moved(this.cursor);
    }
    // The block last: its listeners find the other traits changed.
    for (const [name, value] of Object.entries({ ...changes, _placed: block, block })) {
      model.set(/** @type {keyof AttentionTraits} */ (name), value);
    }
    model.save_changes();
    this.origins = origins;
  }

  /** @override */
  requestMaps() {
    this.requestBlock();
  }

  /** Shows the block of the trait, from the cache or from the kernel. */
  requestBlock() {
    const block = this.model.get("block");
    const known = this.cache.get(block);
    if (known) this.show(known);
    else if (this.opened) {
      this.link.report(`Requesting block ${block}`, { busy: true });
      this.link.request("block", { block });
    }
    this.emit("block-requested");
  }

  /** @param {Block} block */
  show(block) {
    this.block = block;
    this.reportReady();
    this.emit("block");
  }

  /**
   * @override
   * @param {BlockMessage | (AttentionAbout | ImageMessage & {kind: "picture" | "depth"})} message
   * @param {Part[]} parts
   */
  receive(message, parts) {
    if (message.kind === "block") {
      const header = /** @type {BlockMessage} */ (message);
      const block = this.decode(() => decodeBlock(header, parts));
      if (!block) return;
      this.cache.put(header.block, block, blockBytes(block));
      if (header.block === this.model.get("block")) this.show(block); // or else the slider has moved on
      return;
    }
    if (message.kind === "picture") {
      const about = /** @type {AttentionAbout} */ (message);
      this.about = about;
      this.grids = about.shapes.map(([heads, rows, cols]) => ({ heads, rows, cols, prefix: about.prefix }));
      this.place();
      this.emit("picture"); // the layout is known before the browser has decoded the picture
    }
    this.receiveImage(/** @type {ImageMessage & {kind: "picture" | "depth"}} */ (message), parts[0]);
  }

  /** @override */
  reportReady() {
    if (!this.grid || this.block?.block !== this.model.get("block")) return;
    const { block, heads, tokens, rows, cols, windows } = this.block;
    const count = `${heads} ${heads === 1 ? "head" : "heads"}`;
    let text = `Block ${block}: ${count}, ${tokens} tokens, ${rows} \u00d7 ${cols} patches`;
    if (windows && windows.inside < tokens) {
      text += `, windows of ${windows.window.join(" \u00d7 ")}`;
      if (windows.bands) text += `, shifted by ${windows.shift.join(" and ")}`;
    }
    this.link.report(text);
  }
}

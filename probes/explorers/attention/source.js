// The attention explorer's data: what the kernel was asked, what came, and where the pointer is. One for each widget model,
// shared by its views on the page, which so share the pointer, too.
//
// Tokens (cursor, trait `token`, `pins`) count on the grid of the block in the trait `_placed`. Whoever changes the block
// moves them to its grid and sets `_placed` in the same breath: here `toBlock()`, for blocks set in Python the kernel. What
// is on display may be a block of another grid for the moment until the new one comes; it is then not painted.

import { blockBytes, decodeBlock } from "./block.js";
import { sameSpot } from "../shared/patches.js";
import { PictureSource } from "../shared/picture.js";
import { ByteCache } from "../shared/shell.js";

const sameGrid = (one, other) => one.rows === other.rows && one.cols === other.cols;

const CACHE_BYTES = 384 * 2 ** 20; // decoded blocks: ViT-L at 518 px takes 11 MB a block

export class AttentionSource extends PictureSource {
  constructor(model) {
    super(model);
    this.cache = new ByteCache(CACHE_BYTES);
    this.grids = []; // {heads, rows, cols, prefix} of each block
    this.block = null; // the decoded block on display
    this.origins = new Map(); // token -> where it was before the block changed: {grid, token}, the earliest that is known
    model.on("change:block", () => this.wantBlock());
    model.on("change:_placed", () => this.place());
  }

  /** Whether the block on display is of the grid that tokens count on. */
  get current() {
    const { block, grid } = this;
    return block !== null && grid !== null && sameGrid(block, grid);
  }

  /** Tokens count on another grid now: the trait `token` is on it, a cursor from before is not. */
  place() {
    const { grid } = this;
    this.grid = this.grids[this.model.get("_placed")] ?? null;
    if (grid && !sameGrid(grid, this.grid)) {
      this.origins = new Map();
      this.moveTo(this.model.get("token"));
    }
    this.tell("placed");
  }

  /**
   * Goes to another block. Cursor and pins stay where they are on the picture, as far as the new grid allows; a way to a
   * coarser grid and back ends where it began.
   */
  toBlock(block) {
    const { model, grid } = this;
    const next = this.grids[block];
    const head = model.get("head");
    const changes = {};
    let { origins } = this;
    if (head !== null && head >= next.heads) changes.head = -1;
    if (!sameGrid(grid, next)) {
      origins = new Map();
      const moved = (token) => {
        const origin = this.origins.get(token) ?? { grid, token };
        const there = sameSpot(next, origin.grid, origin.token);
        origins.set(there, origin);
        return there;
      };
      const pins = model.get("pins").map(moved);
      changes.pins = [...new Set(pins)];
      if (changes.pins.length < pins.length) changes.compare = "a";
      changes.token = moved(this.cursor);
    }
    // The block last: its listeners find everything else in place.
    for (const [name, value] of Object.entries({ ...changes, _placed: block, block })) model.set(name, value);
    model.save_changes();
    this.origins = origins;
  }

  wantMaps() {
    this.wantBlock();
  }

  wantBlock() {
    const block = this.model.get("block");
    const known = this.cache.get(block);
    if (known) {
      this.block = known;
      this.ready();
      this.tell("block");
    } else if (this.opened) {
      this.link.say(`Asking for block ${block}`, { busy: true });
      this.link.ask("block", { block });
    }
    this.tell("wanted");
  }

  receive(message, buffers) {
    if (message.kind === "block") {
      const block = this.decoded(() => decodeBlock(message, buffers));
      if (!block) return;
      this.cache.put(message.block, block, blockBytes(block));
      if (message.block !== this.model.get("block")) return; // the slider has moved on
      this.block = block;
      this.ready();
      this.tell("block");
    } else {
      if (message.kind === "picture") {
        this.about = message;
        const { prefix } = message;
        this.grids = message.shapes.map(([heads, rows, cols]) => ({ heads, rows, cols, prefix }));
        this.place();
        this.tell("picture"); // the layout is known before the picture is decoded
      }
      this.receiveImage(message, buffers[0]);
    }
  }

  /** The strip goes quiet once what is on display is what was asked for. */
  ready() {
    if (!this.grid || this.block?.block !== this.model.get("block")) return;
    const { block, heads, tokens, rows, cols, windows } = this.block;
    let text = `Block ${block}: ${heads} ${heads === 1 ? "head" : "heads"}, ${tokens} tokens, ${rows} \u00d7 ${cols} patches`;
    if (windows && windows.inside < tokens) {
      text += `, windows of ${windows.window.join(" \u00d7 ")}`;
      if (windows.bands) text += `, shifted by ${windows.shift.join(" and ")}`;
    }
    this.link.say(text);
  }
}

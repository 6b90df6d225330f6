// The attention explorer's view: a picture, the patch under the pointer, and what every head does there, at once.
//
// The kernel is asked once for a block's queries and keys. From then on each pointer move computes the softmax rows (or
// columns) of all heads and paints them in the same animation frame; nothing travels. AttentionSource belongs to the
// widget model and is shared by all its views on the page, so they also share the pointer; AttentionView is one display.
// Heads and grid are those of the block: tiles, marks and overlay are made anew for a block of another form.
//
// For tests, on the root element: data-block, data-token (A), data-direction, data-mode of the last paint; a tile's
// canvas (grid resolution, one pixel a patch) carries data-tile: the head's number, or "mean".

import { cellOf, putMark, reachOne, sizeMarks } from "../shared/cells.js";
import { cssColour, lookup } from "../shared/colours.js";
import { formatShortPercent as percentShort } from "../shared/format.js";
import { colourise, positionOn } from "../shared/scale.js";
import { maxMagnitude, sumOf } from "../shared/statistics.js";
import { headOrder } from "./block.js";
import { attentionOf, meanOverHeads } from "./weights.js";
import { attentionScale as makeScale } from "./scales.js";
import { signedColours } from "../shared/panel.js";
import { prefixName, stepToken, tokenName } from "../shared/patches.js";
import { PictureView } from "../shared/picture.js";
import { button, element, Timings } from "../shared/shell.js";
import { defineWidget } from "../shared/view.js";
import { windowPieces } from "./windows.js";
import { buildParts, Tile } from "./controls.js";
import { attentionLayout } from "./layout.js";
import { watchPointer, watchTile } from "./pointer.js";
import { announce, paintBar, showTimes, showWords, sumWords } from "./readout.js";
import { AttentionSource } from "./source.js";

class AttentionView extends PictureView {
  constructor(model, el, source) {
    super(model, el, source);
    this.settings = ["direction", "pins", "compare", "scale", "order", "head"];
    this.timings = new Timings();
    this.tiles = [];
    this.probe = null; // {token, tile | null}: a patch whose value is read off, not one that is shown
    this.fresh = false; // the paint under way computed attention, rather than only moved marks
    this.slots = [0, 1].map(() => ({ block: null, token: -1, direction: "", values: null }));
    this.shown = null; // (heads + 1, tokens): the mean last
    this.noted = 0;
    this.marked = []; // the patches that marks A, B and probe are on
    this.allMarks = []; // [A, B, probe] of the picture and of every tile
    this.outlined = []; // what the outlines A and B are around
    this.allOutlines = []; // [A, B] of the picture and of every tile
    buildParts(this);
  }

  catchUp() {
    watchPointer(this);
    if (this.source.grid) this.heard("picture");
    if (this.source.block) this.heard("block");
  }

  heard(event) {
    if (super.heard(event)) return true;
    if (event === "picture" || event === "depth") this.showPicture();
    else if (event === "block") this.showBlock();
    else if (event === "placed") this.settle();
    else if (event === "wanted") this.showWanted();
    else if (event === "cursor") this.schedule();
    return false;
  }

  // ------------------------------------------------------------------------------------------------ what is displayed

  /** Blocks that can be had: all of the model's, or those that an exported page holds. */
  blocks() {
    return this.source.about?.blocks ?? [this.get("block")];
  }

  /** Slots on display: A is the first pin or the patch under the pointer; B likewise. */
  tokenOf(slot) {
    return this.get("pins")[slot] ?? this.source.cursor;
  }

  mode() {
    return this.get("pins").length ? this.get("compare") : "a";
  }

  /** True when the tiles do not follow the pointer; it then reads values instead. */
  frozen() {
    const count = this.get("pins").length;
    return count === 2 || (count === 1 && this.mode() === "a");
  }

  showPicture() {
    const { grid } = this.source;
    if (!grid) return;
    super.showPicture();
    if (this.chips.childElementCount !== grid.prefix) {
      this.chips.replaceChildren(...Array.from({ length: grid.prefix }, (_, token) => this.newChip(token)));
    }
    this.tokens.hidden = grid.prefix === 0;
    this.showWanted();
    this.showPins();
    this.schedule();
  }

  newChip(token) {
    const what = token === 0 ? "The class token: what it looks at, who looks at it" : `Register token ${token}`;
    const pin = () => this.togglePin(token);
    const chip = button(prefixName(token), `${what} (click pins it)`, pin, { className: "dptx-chip" });
    chip.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.source.moveTo(token));
    return chip;
  }

  showBlock() {
    const { block } = this.source;
    const form = [block.heads, block.rows, block.cols, block.prefix].join();
    if (this.form !== form) {
      this.form = form;
      this.tiles = Array.from({ length: block.heads + 1 }, (_, index) => new Tile(index, block.heads, block));
      for (const tile of this.tiles) watchTile(this, tile);
      this.keepFocus(this.grid, () => this.grid.replaceChildren(...this.tiles.map((tile) => tile.node)));
      this.allMarks = [this.marks, ...this.tiles.map((tile) => tile.marks)];
      this.allOutlines = [this.outlines, ...this.tiles.map((tile) => tile.outlines)];
      this.marked = [];
      this.outlined = [];
      this.probe = null; // it was on a tile that is gone
      sizeMarks(this.root, block.rows, block.cols);
      this.overlay.fit(block.rows, block.cols);
      const room = (block.heads + 1) * block.tokens;
      for (const slot of this.slots) Object.assign(slot, { values: new Float32Array(room), block: null });
      this.difference = new Float32Array(room);
      this.layout();
    }
    this.showWanted();
    this.settle();
  }

  showWanted() {
    const block = this.get("block");
    const blocks = this.blocks();
    const last = blocks[blocks.length - 1];
    this.stepper.show(Math.max(0, blocks.indexOf(block)), blocks.length - 1, `${block} / ${last}`);
    this.stepper.node.title = this.source.absent("attention");
    this.root.dataset.state = this.source.block?.block === block ? "ready" : "waiting";
  }

  /** After a change of any setting: controls say what holds, tiles are in order, everything is painted again. */
  settle() {
    const pins = this.get("pins");
    const head = this.get("head");
    this.direction.set(this.get("direction"));
    this.scale.set(this.get("scale"));
    this.order.set(this.get("order"));
    this.compare.set(this.mode());
    this.keepFocus(this.compare.node, () => this.compare.node.classList.toggle("dptx-idle", pins.length === 0));
    for (const item of this.compare.buttons.values()) item.disabled = pins.length === 0;
    this.settlePicture();
    const { block } = this.source;
    if (block && this.tiles.length) {
      const order = [block.heads, ...headOrder(block.heads, this.get("order"), block.entropy)];
      const enlarged = head === null ? null : head < 0 ? block.heads : head;
      for (const [place, index] of order.entries()) {
        const tile = this.tiles[index];
        tile.node.style.order = index === enlarged ? -1 : place;
        tile.node.classList.toggle("dptx-enlarged", index === enlarged);
        const told = this.get("order") === "entropy" && index < block.entropy.length;
        tile.bits = told ? `${block.entropy[index].toFixed(1)} bits` : "";
      }
      reachOne(
        this.tiles.map(({ node }) => node),
        this.focusTile().node,
      );
      this.root.classList.toggle("dptx-has-enlarged", enlarged !== null);
      this.layout();
    }
    this.showPins();
    this.schedule();
  }

  showPins() {
    const pins = this.get("pins");
    const { grid } = this.source;
    if (!grid) return;
    const hint = ["Click to pin a patch, another to compare", "click another to compare"][pins.length];
    const chips = pins.map((token, n) =>
      button(`${"AB"[n]} ${tokenName(grid, token)} \u00d7`, `Release pin ${"AB"[n]}`, () => this.togglePin(token), {
        className: `dptx-chip dptx-pin-${"ab"[n]}`,
      }),
    );
    if (hint) chips.push(element("span", { className: "dptx-hint" }, hint));
    this.keepFocus(this.pins, () => this.pins.replaceChildren(...chips));
    for (const [token, chip] of [...this.chips.children].entries()) {
      chip.setAttribute("aria-pressed", String(pins.includes(token)));
    }
  }

  // ---------------------------------------------------------------------------------------------------------- layout

  placing(width, aspect) {
    const { block, grid } = this.source;
    return attentionLayout(width, aspect, block?.heads ?? grid.heads, this.get("head") !== null);
  }

  // --------------------------------------------------------------------------------------------------------- painting

  /** Values of slot A or B, computed only when block, direction or token changed. */
  fill(slot, token) {
    const { block } = this.source;
    const direction = this.get("direction");
    if (slot.block !== block || slot.token !== token || slot.direction !== direction) {
      attentionOf(block, token, direction, slot.values);
      meanOverHeads(slot.values, block.heads, block.tokens, slot.values, block.heads * block.tokens);
      this.fresh = true;
      slot.block = block;
      slot.token = token;
      slot.direction = direction;
    }
    return slot.values;
  }

  /** What the tiles show: A, B or A - B, for all heads and the mean. */
  compute(mode) {
    if (mode === "a") return this.fill(this.slots[0], this.tokenOf(0));
    if (mode === "b") return this.fill(this.slots[1], this.tokenOf(1));
    const a = this.fill(this.slots[0], this.tokenOf(0));
    const b = this.fill(this.slots[1], this.tokenOf(1));
    for (let n = 0; n < a.length; n++) this.difference[n] = a[n] - b[n];
    return this.difference;
  }

  paint() {
    const { block } = this.source;
    if (!this.source.current || !this.tiles.length) return;
    const last = block.tokens - 1;
    if (this.tokenOf(0) > last || this.tokenOf(1) > last) return; // a token of another picture, about to be replaced
    const started = performance.now();
    const mode = this.mode();
    const signed = mode === "difference";
    const { heads, tokens, prefix } = block;
    const patches = tokens - prefix;
    const scaleMode = this.get("scale");
    const values = this.compute(mode);
    const table = lookup(this.tableName(signed));
    const summed = this.get("direction") === "column" && !signed;
    const tops = this.tiles.map((tile) => maxMagnitude(values, tile.index * tokens + prefix, patches));
    const shared = Math.max(...tops.slice(0, heads));
    for (const tile of this.tiles) {
      const from = tile.index * tokens;
      const top = tops[tile.index];
      tile.scale = makeScale(scaleMode, scaleMode === "head" ? top : shared, signed);
      colourise(values, from + prefix, patches, tile.scale, table, tile.pixels);
      tile.paint();
      for (let n = 0; n < prefix; n++) {
        tile.swatches[n].style.backgroundColor = cssColour(
          table,
          (positionOn(tile.scale, values[from + n]) * 255.999) | 0,
        );
      }
      tile.say(tile.value, prefix ? percentShort(values[from]) : "");
      tile.say(tile.word, signed ? "" : "max ");
      tile.say(tile.top, `${signed ? "\u00b1" : ""}${percentShort(top)}`);
      tile.say(tile.detail, summed ? sumWords(sumOf(values, from, tokens)) : tile.bits);
    }
    this.shown = values;
    this.paintOverlay(table, signed);
    this.paintMarks(mode);
    this.paintOutlines(mode);
    paintBar(this, table);
    showWords(this, mode);
    if (this.fresh) this.timings.add(performance.now() - started);
    this.fresh = false;
    showTimes(this, started);
  }

  tableName(signed) {
    return signed ? signedColours(this.dark) : this.get("colormap");
  }

  focusTile() {
    const head = this.get("head");
    return this.tiles[head === null || head < 0 ? this.tiles.length - 1 : Math.min(head, this.tiles.length - 2)];
  }

  paintOverlay(table, signed) {
    const tile = this.focusTile();
    const { tokens, prefix, rows, cols, windows } = this.source.block;
    const pixels = this.overlay.fit(rows, cols);
    const from = tile.index * tokens;
    colourise(this.shown, from + prefix, tokens - prefix, tile.scale, this.seenThrough(table, signed), pixels);
    // Nothing is painted where the patch cannot look: outside its window weights are exactly zero.
    if (windows) for (let n = 0; n < tokens; n++) if (this.shown[from + n] === 0) pixels[n] = 0;
    this.overlay.paint();
  }

  /** Moves the marks of the picture and of all tiles. */
  paintMarks(mode) {
    const { grid, cursor } = this.source;
    const pins = this.get("pins");
    const a = this.tokenOf(0);
    const b = pins.length === 2 || (pins.length === 1 && mode !== "a") ? this.tokenOf(1) : -1;
    let read = this.probe?.token ?? (this.frozen() ? cursor : -1);
    if (!this.probe && (read === a || read === b)) read = -1; // the pins' own marks say it
    for (const [kind, token] of [a, b, read].entries()) {
      const patch = Math.max(-1, token - grid.prefix);
      if (this.marked[kind] === patch) continue;
      this.marked[kind] = patch;
      for (const marks of this.allMarks) putMark(marks[kind], cellOf(patch, grid.cols));
    }
    const pinned = pins.length > 0;
    if (this.pinnedShown !== pinned) this.root.classList.toggle("dptx-pinned", (this.pinnedShown = pinned));
    const { dataset } = this.root;
    dataset.mode = mode;
    dataset.token = String(this.tokenOf(mode === "b" ? 1 : 0));
    dataset.block = String(this.source.block.block);
    dataset.direction = this.get("direction");
  }

  /** Pieces of the window of the patch in a slot, the one that it sees first; none where there are no windows. */
  piecesOf(slot) {
    const { windows, tokens, cols } = this.source.block;
    const token = this.tokenOf(slot);
    if (!windows || windows.inside === tokens) return [];
    return windowPieces(windows, Math.floor(token / cols), token % cols);
  }

  /** Around what the patch on display can see, both patches of a difference; on the picture around the rest, too. */
  paintOutlines(mode) {
    const { rows, cols } = this.source.block;
    for (const slot of [0, 1]) {
      const pieces = mode === "difference" || mode === "ab"[slot] ? this.piecesOf(slot) : [];
      const key = pieces.map((piece) => Object.values(piece).join()).join(" ");
      if (this.outlined[slot] === key) continue;
      this.outlined[slot] = key;
      for (const outlines of this.allOutlines) {
        outlines[slot].forEach((node, n) => {
          const piece = pieces[n];
          node.style.visibility = piece ? "visible" : "";
          if (!piece) return;
          node.style.left = `${(100 * piece.col) / cols}%`;
          node.style.top = `${(100 * piece.row) / rows}%`;
          node.style.width = `${(100 * piece.cols) / cols}%`;
          node.style.height = `${(100 * piece.rows) / rows}%`;
        });
      }
    }
  }

  // ---------------------------------------------------------------------------------------------------- actions

  enlarge(head) {
    if (head >= this.source.grid.heads) return; // a tile of the block before, of more heads
    this.save({ head: head === this.get("head") ? null : head });
    announce(this);
  }

  /** First pin A, then B; a third click moves B; a click on a pin releases it. */
  togglePin(token) {
    const pins = this.get("pins");
    const next = pins.includes(token) ? pins.filter((pin) => pin !== token) : pins.length ? [pins[0], token] : [token];
    let compare = this.get("compare");
    if (next.length < 2) compare = "a";
    else if (pins.length < 2) compare = "difference";
    this.save({ pins: next, compare });
    announce(this);
  }

  toBlock(block) {
    if (block === undefined || block === this.get("block")) return;
    this.source.toBlock(block);
    announce(this);
  }

  stepBlock(step) {
    const blocks = this.blocks();
    this.toBlock(blocks[blocks.indexOf(this.get("block")) + step]);
  }

  move(down, right) {
    if (!this.source.grid) return;
    this.source.moveTo(stepToken(this.source.grid, this.source.cursor, down, right));
    this.source.saveCursor();
    announce(this);
  }

  clear() {
    if (this.get("pins").length) this.save({ pins: [], compare: "a" });
    else if (this.get("head") !== null) this.save({ head: null });
    else return false;
    return true;
  }
}

export default defineWidget(AttentionSource, AttentionView);

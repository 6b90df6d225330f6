// The attention explorer's view: a picture, the patch under the pointer, and what every head does there.
//
// The kernel sends the queries and keys of a block once. Each pointer move then computes the softmax rows (or columns)
// of all heads and paints them in the same animation frame; nothing travels. Heads and grid are those of the block:
// tiles, marks and overlay are rebuilt for a block with other heads or another grid.
//
// For tests, on the root element: data-block, data-token, data-direction and data-mode of the last paint, data-state;
// a tile's canvas (one pixel per patch) carries data-tile: the head's number, or "mean".

import { sizeMarks } from "../shared/canvas.js";
import { createColourBar } from "../shared/colour_bar.js";
import { lookup, overlayColours, signedColours } from "../shared/colours.js";
import { field, saveButtons } from "../shared/controls.js";
import { copyButton, download, downloadCanvas } from "../shared/download.js";
import { columns, createReadout, row, toolbar } from "../shared/elements.js";
import { moveFocus } from "../shared/focus.js";
import { createHelp } from "../shared/help.js";
import { cellOf, patchAt, stepToken } from "../shared/patches.js";
import { applyPlacement, createPictureStage } from "../shared/picture_stage.js";
import { placeIn, watchSpots } from "../shared/pointer.js";
import { colourise } from "../shared/scale.js";
import { Timings } from "../shared/status.js";
import { isDark, themeColours, widthInside } from "../shared/theme.js";
import { defineWidget, View } from "../shared/widget.js";
import { headOrder } from "./block.js";
import { createControls } from "./controls.js";
import { createKeys, KEYS_NOTE } from "./keys.js";
import { attentionLayout } from "./layout.js";
import { createPatchMarks, MarkGroup } from "./marks.js";
import { createPins } from "./pins.js";
import { barOf, readoutOf } from "./readout.js";
import { isFrozen, modeOf, tokensOf, withToggledPin } from "./selection.js";
import { snapshotCsv, snapshotName, snapshotNpz, snapshotPython } from "./snapshot.js";
import { snapshotImage } from "./snapshot_image.js";
import { AttentionSource } from "./source.js";
import { Tiles } from "./tiles.js";
import { MapValues } from "./values.js";
import { windowPieces } from "./windows.js";

/** @import { AnyModel, ColourTable, Piece } from "../shared/types.js" */
/** @import { Block } from "./block.js" */
/** @import { Mode, Selection } from "./selection.js" */
/** @import { Snapshot } from "./snapshot.js" */
/** @import { AttentionTraits } from "./source.js" */
/** @import { Probe } from "./tiles.js" */

/** @type {(keyof AttentionTraits)[]} */
const WATCHED = ["direction", "pins", "compare", "scale", "order", "head", "colormap", "opacity", "base"];

/** @extends {View<AttentionTraits, AttentionSource>} */
class AttentionView extends View {
  /**
   * @param {AnyModel<AttentionTraits>} model
   * @param {HTMLElement} el
   * @param {AttentionSource} source
   */
  constructor(model, el, source) {
    super(model, el, source, "attention");
    this.values = new MapValues();
    this.timings = new Timings();
    this.timed = 0; // when the strip last showed them
    this.dark = false;
    this.form = ""; // heads and grid of the tiles
    /** @type {Float32Array | null} (heads + 1, tokens), the mean last */
    this.shown = null;
    /** @type {Probe | null} */
    this.probe = null;

    const { settings } = this;
    this.keys = createKeys(settings, {
      move: (down, right) => this.move(down, right),
      moveFocus: (key, target) => moveFocus(key, target, this.tiles.nodes),
      enlargeTile: (target) => this.enlargeTile(target),
      pin: () => this.togglePin(source.cursor),
      clear: () => this.clear(),
      stepBlock: (by) => this.stepBlock(by),
      enlarge: (head) => this.enlarge(head),
      nextHead: () => this.enlargeNext(),
      toggleBase: () => this.stage.toggleBase(),
      toggleOverlay: () => this.stage.toggleOverlay(),
    });
    this.controls = createControls({
      settings,
      keys: this.keys,
      onStepBlock: (by) => this.stepBlock(by),
      onSlideBlock: (index) => this.goToBlock(source.blocks[index]),
    });
    this.pins = createPins({
      onPin: (token) => this.togglePin(token),
      onPoint: (token) => source.moveTo(token),
    });
    this.tiles = new Tiles({
      onEnlarge: (head) => {
        this.stage.node.focus({ preventScroll: true }); // arrow keys keep moving the patch
        this.enlarge(head);
      },
      onProbe: (probe) => this.read(probe),
    });
    this.marks = createPatchMarks(4);
    this.markGroup = new MarkGroup();
    this.stage = createPictureStage({
      settings,
      source,
      keys: this.keys,
      overlaid: "the mean, or the enlarged head",
      over: this.marks.nodes,
      onChange: () => this.layout(),
    });
    this.readout = createReadout();
    this.bar = createColourBar();
    const help = createHelp(this.keys, KEYS_NOTE);
    const files = saveButtons(
      "Save",
      ["PNG", "Save this view as an image", () => this.saveImage()],
      ["NPZ", "Save the maps as NumPy arrays (numpy.load)", () => this.saveArrays()],
      ["CSV", "Save the maps as a table: head, row, column, value", () => this.saveTable()],
    );
    const copy = copyButton(() => this.python(), source.link);
    const { controls, stage, pins } = this;
    this.mount(
      this.keys,
      help,
      toolbar([controls.block, controls.direction], files, copy, help.opener),
      columns(
        [
          stage.node,
          this.readout.node,
          row("dptx-pinrow", pins.pins, controls.compare),
          row("", stage.base, field("Overlay", stage.opacity), pins.tokens),
        ],
        [row("dptx-options", controls.scale, controls.colours, controls.order), this.tiles.node, this.bar.node],
      ),
    );
  }

  /** @override */
  connect() {
    const { source, stage } = this;
    watchSpots(stage.node, {
      spotOf: (event) => (source.grid ? patchAt(source.grid, ...placeIn(stage.node, event)) : null),
      onPoint: (token) => source.moveTo(token),
      onTap: (token) => this.togglePin(token),
      onLeave: () => isFrozen(this.selection) && this.schedule(),
    });
    this.watch(WATCHED, () => this.syncControls());
    this.watchSize(this.root, () => this.layout());
    this.watchTheme(() => {
      this.layout();
      this.schedule();
    });
    if (source.grid) this.showPicture();
    if (source.block) this.showBlock();
    this.syncControls();
    this.focusOnPage(stage.node);
  }

  /**
   * @override
   * @param {string} event
   */
  onEvent(event) {
    if (event === "picture" || event === "depth") this.showPicture();
    else if (event === "block") this.showBlock();
    else if (event === "placed") this.syncControls();
    else if (event === "block-requested") this.showBlockNumber();
    else if (event === "cursor") this.schedule();
  }

  // ------------------------------------------------------------------------------------------------- what is displayed

  /** @returns {Selection} */
  get selection() {
    return { pins: this.settings.get("pins"), compare: this.settings.get("compare"), cursor: this.source.cursor };
  }

  showPicture() {
    const { grid } = this.source;
    if (!grid) return;
    this.pins.showGrid(grid);
    this.stage.draw();
    this.showBlockNumber();
    this.showPins();
    this.schedule();
  }

  showBlock() {
    const { block } = this.source;
    if (!block) return;
    const form = [block.heads, block.rows, block.cols, block.prefix].join();
    if (this.form !== form) {
      this.form = form;
      this.stage.keepFocus(this.tiles.node, () => this.tiles.rebuild(block));
      this.markGroup.reset([this.marks, ...this.tiles.list.map(({ marks }) => marks)]);
      this.probe = null; // its tile was removed
      this.shown = null;
      sizeMarks(this.root, block);
    }
    this.showBlockNumber();
    this.syncControls();
  }

  showBlockNumber() {
    const { source } = this;
    const block = this.settings.get("block");
    this.controls.showBlock(block, source.blocks, source.absent("attention"));
    this.root.dataset.state = source.block?.block === block ? "ready" : "waiting";
  }

  /** Sets the controls by the traits, puts the tiles in order, and paints. */
  syncControls() {
    const { settings, stage, controls, source, tiles } = this;
    stage.keepFocus(controls.compare, () => controls.sync(modeOf(this.selection)));
    stage.sync();
    if (source.block && tiles.list.length) {
      const head = settings.get("head");
      tiles.arrange(source.block, settings.get("order"), head);
      this.root.classList.toggle("dptx-has-enlarged", head !== null);
      this.layout();
    }
    this.showPins();
    this.schedule();
  }

  showPins() {
    const { grid } = this.source;
    if (grid) this.stage.keepFocus(this.pins.pins, () => this.pins.show(grid, this.settings.get("pins")));
  }

  layout() {
    const { about, block, grid } = this.source;
    const width = widthInside(this.root);
    if (!about || !grid || !(width > 0)) return;
    this.dark = isDark(this.root);
    this.root.style.setProperty("--dptx-aspect", `${about.width} / ${about.height}`);
    const heads = block?.heads ?? this.source.heads;
    applyPlacement(
      this.root,
      attentionLayout(width, about.height / about.width, heads, this.settings.get("head") !== null),
    );
  }

  // --------------------------------------------------------------------------------------------------------- painting

  /** @override */
  paint() {
    const { settings, source, tiles } = this;
    const block = source.current;
    if (!block || !tiles.list.length) return;
    const tokens = tokensOf(this.selection);
    if (Math.max(...tokens) >= block.tokens) return; // of another picture, and about to be replaced
    const started = performance.now();
    const mode = modeOf(this.selection);
    const direction = settings.get("direction");
    const signed = mode === "difference";
    const table = this.table(mode);
    const values = this.values.of(block, direction, tokens, mode);
    this.shown = values;
    tiles.paint(block, values, {
      table,
      mode: settings.get("scale"),
      signed,
      summed: direction === "column" && !signed,
    });
    this.paintOverlay(block, values, table, signed);
    this.paintMarks(block, mode, tokens);
    this.paintWords(block, values, table, mode, tokens);
    Object.assign(this.root.dataset, { mode, direction, block: block.block, token: tokens[mode === "b" ? 1 : 0] });
    this.showTimes(started);
  }

  /**
   * @param {Mode} mode
   * @returns {ColourTable}
   */
  table(mode) {
    return lookup(mode === "difference" ? signedColours(this.dark) : this.settings.get("colormap"));
  }

  /** The enlarged tile, or the mean. */
  get mainTile() {
    return this.tiles.of(this.settings.get("head"));
  }

  /**
   * @param {Block} block
   * @param {Float32Array} values
   * @param {ColourTable} table
   * @param {boolean} signed
   */
  paintOverlay({ tokens, prefix, rows, cols, windows }, values, table, signed) {
    const { index, scale } = this.mainTile;
    const { overlay } = this.stage;
    const pixels = overlay.fit(rows, cols);
    const from = index * tokens;
    colourise(values, from + prefix, tokens - prefix, scale, overlayColours(table, signed), pixels);
    // The patch does not see the rest of the image: weights outside its window are exactly zero.
    if (windows) for (let n = 0; n < tokens; n++) if (values[from + n] === 0) pixels[n] = 0;
    overlay.paint();
  }

  /**
   * Moves the marks and outlines of the picture and of all tiles.
   *
   * @param {Block} block
   * @param {Mode} mode
   * @param {[a: number, b: number]} tokens
   */
  paintMarks(block, mode, [a, b]) {
    const { pins, cursor } = this.selection;
    const hasB = pins.length === 2 || (pins.length === 1 && mode !== "a");
    const frozen = isFrozen(this.selection) && cursor !== a && !(hasB && cursor === b);
    const read = this.probe?.token ?? (frozen ? cursor : null);
    this.markGroup.moveTo([
      cellOf(block, a),
      hasB ? cellOf(block, b) : null,
      read === null ? null : cellOf(block, read),
    ]);
    this.markGroup.outline(
      [
        mode === "b" ? [] : this.piecesOf(block, a), //
        mode === "a" ? [] : this.piecesOf(block, b),
      ],
      block,
    );
    this.root.classList.toggle("dptx-pinned", pins.length > 0);
  }

  /**
   * The pieces of a token's window, the one that it sees first; none without windows.
   *
   * @param {Block} block
   * @param {number} token
   * @returns {Piece[]}
   */
  piecesOf({ windows, tokens, cols }, token) {
    if (!windows || windows.inside === tokens) return [];
    return windowPieces(windows, Math.floor(token / cols), token % cols);
  }

  /**
   * The line under the picture, and the colour bar.
   *
   * @param {Block} block
   * @param {Float32Array} values
   * @param {ColourTable} table
   * @param {Mode} mode
   * @param {[a: number, b: number]} tokens
   */
  paintWords(block, values, table, mode, tokens) {
    const { settings, probe } = this;
    const direction = settings.get("direction");
    this.readout.show(...readoutOf(this.mainTile, { block, values, mode, tokens, direction }));
    const token = probe?.token ?? (isFrozen(this.selection) ? this.source.cursor : -1);
    const shared = settings.get("scale") !== "head";
    const { ticks, at, note } = barOf(probe?.tile ?? this.mainTile, { values, grid: block, token, shared });
    this.bar.show(table, ticks, at, note);
  }

  /**
   * Shows how long a pointer move takes. The first ones do not count: they include compilation.
   *
   * @param {number} started
   */
  showTimes(started) {
    if (this.values.takeComputed()) this.timings.add(performance.now() - started);
    if (started - this.timed < 500 || this.timings.count < 8) return;
    this.timed = started;
    this.status.showTimings("hover", this.timings, 1, "Computing and painting one pointer move in the browser");
  }

  announceReadout() {
    this.announce(() => `Block ${this.settings.get("block")}. ${this.readout.text}`);
  }

  // ---------------------------------------------------------------------------------------------------------- actions

  /**
   * Reads off a patch of a tile.
   *
   * @param {Probe | null} probe
   */
  read(probe) {
    if (probe && this.probe?.token === probe.token && this.probe.tile === probe.tile) return;
    this.probe = probe;
    this.schedule();
  }

  /**
   * Enlarges a head, or goes back to all of them.
   *
   * @param {number} head -1: the mean
   * @returns {boolean} false if the block does not have the head
   */
  enlarge(head) {
    if (head >= this.source.heads) return false;
    this.settings.save({ head: head === this.settings.get("head") ? null : head });
    this.announceReadout();
    return true;
  }

  /**
   * @param {HTMLElement} target
   * @returns {boolean} false if it is not a tile
   */
  enlargeTile(target) {
    const tile = this.tiles.list.find(({ node }) => node === target);
    return tile ? this.enlarge(tile.head) || true : false;
  }

  /** The next head, and after the last one none. */
  enlargeNext() {
    const head = this.settings.get("head");
    const next = head === null ? 0 : head + 1;
    this.settings.save({ head: next < this.source.heads ? next : null });
  }

  /** @param {number} token */
  togglePin(token) {
    this.settings.save(withToggledPin(this.selection, token));
    this.announceReadout();
  }

  /** @param {number | undefined} block */
  goToBlock(block) {
    if (block === undefined || block === this.settings.get("block")) return;
    this.source.goToBlock(block);
    this.announceReadout();
  }

  /** @param {number} by */
  stepBlock(by) {
    const { blocks } = this.source;
    this.goToBlock(blocks[blocks.indexOf(this.settings.get("block")) + by]);
  }

  /**
   * @param {number} down
   * @param {number} right
   */
  move(down, right) {
    const { source } = this;
    if (!source.grid) return;
    source.moveTo(stepToken(source.grid, source.cursor, down, right));
    source.saveCursor();
    this.announceReadout();
  }

  /**
   * Releases the pins, or else closes the enlarged head.
   *
   * @returns {boolean} false if there was neither
   */
  clear() {
    if (this.settings.get("pins").length) this.settings.save({ pins: [], compare: "a" });
    else if (this.settings.get("head") !== null) this.settings.save({ head: null });
    else return false;
    return true;
  }

  // ------------------------------------------------------------------------------------------------ files and code

  /** @returns {Snapshot | null} null while another block is on its way */
  snapshot() {
    const { settings, source, stage } = this;
    const { current: block, about } = source;
    if (!block || !about || !this.shown) return null;
    const [a, b] = tokensOf(this.selection);
    const mode = modeOf(this.selection);
    const tokens = mode === "difference" ? [a, b] : [mode === "b" ? b : a];
    const direction = settings.get("direction");
    return {
      block: block.block,
      direction,
      mode,
      tokens,
      windows: tokens.map((token) => this.piecesOf(block, token)[0]),
      head: settings.get("head"),
      grid: { rows: block.rows, cols: block.cols, prefix: block.prefix },
      heads: block.heads,
      values: this.values.of(block, direction, [a, b], mode),
      order: headOrder(block.heads, settings.get("order"), block.entropy),
      scales: this.tiles.list.map(({ scale }) => scale),
      scaleMode: settings.get("scale"),
      table: this.table(mode),
      picture: stage.canvas,
      overlay: stage.overlay.canvas,
      opacity: settings.get("opacity"),
      call: about.call,
      opened: about.opened,
    };
  }

  saveImage() {
    const shot = this.snapshot();
    if (shot) downloadCanvas(snapshotImage(shot, themeColours(this.root)), snapshotName(shot));
  }

  saveArrays() {
    const shot = this.snapshot();
    if (shot) download(`${snapshotName(shot)}.npz`, [snapshotNpz(shot)]);
  }

  saveTable() {
    const shot = this.snapshot();
    if (shot) download(`${snapshotName(shot)}.csv`, [snapshotCsv(shot)], "text/csv");
  }

  /** @returns {string} */
  python() {
    const shot = this.snapshot();
    return shot ? snapshotPython(shot) : "";
  }
}

export default defineWidget(AttentionSource, AttentionView);

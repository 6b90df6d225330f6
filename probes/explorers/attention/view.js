// The attention explorer's view: a picture, the patch under the pointer, and what every head does there.
//
// The kernel sends the queries and keys of a block once. Each pointer move then computes the softmax rows (or columns)
// of all heads and paints them in the same animation frame; nothing travels. Heads and grid are those of the block:
// tiles, marks and overlay are rebuilt for a block with other heads or another grid.
//
// For tests, on the root element: data-block, data-token, data-direction and data-mode of the last paint, data-state;
// a tile's canvas (one pixel per patch) carries data-tile: the head's number, or "mean".

import { sizeMarks } from "#shared/canvas.js";
import { createColourBar } from "#shared/colour_bar.js";
import { lookup, overlayColours, signedColours } from "#shared/colours.js";
import { field } from "#shared/controls.js";
import { copyButton, download, downloadCanvas, saveButtons } from "#shared/download.js";
import { columns, createReadout, row, toolbar } from "#shared/elements.js";
import { moveFocus } from "#shared/focus.js";
import { createHelp } from "#shared/help.js";
import { originTexts } from "#shared/origin.js";
import { cellOf, patchAt } from "#shared/patches.js";
import { applyPlacement, createPictureStage } from "#shared/picture_stage.js";
import { placeIn, watchSpots } from "#shared/pointer.js";
import { pageChoice } from "#shared/save_page.js";
import { colourise } from "#shared/scale.js";
import { Timings } from "#shared/status.js";
import { tallestPicture, themeColours, widthInside } from "#shared/theme.js";
import { defineWidget, View } from "#shared/widget.js";
import { AttentionActions, selectionOf } from "./actions.js";
import { headOrder, windowOf } from "./block.js";
import { createControls } from "./controls.js";
import { createKeys, KEYS_NOTE } from "./keys.js";
import { attentionLayout } from "./layout.js";
import { createPatchMarks, MarkGroup } from "./marks.js";
import { createPins } from "./pins.js";
import { barOf, readoutOf } from "./readout.js";
import { isFrozen, modeOf, tokensOf } from "./selection.js";
import { snapshotCsv, snapshotFacts, snapshotName, snapshotNpz, snapshotPython } from "./snapshot.js";
import { snapshotImage } from "./snapshot_image.js";
import { AttentionSource } from "./source.js";
import { Tiles } from "./tiles.js";
import { MapValues } from "./values.js";

/** @import { AnyModel, ColourTable } from "#shared/types.js" */
/** @import { Block } from "./block.js" */
/** @import { Mode } from "./selection.js" */
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
    this.form = ""; // heads and grid of the tiles
    /** @type {Float32Array | null} (heads + 1, tokens), the mean last */
    this.shown = null;
    /** @type {Probe | null} */
    this.probe = null;

    const { settings } = this;
    this.actions = new AttentionActions(settings, source, () =>
      this.announce(() => `Block ${settings.get("block")}. ${this.readout.text}`),
    );
    const { actions } = this;
    this.keys = createKeys(settings, {
      move: (down, right) => actions.move(down, right),
      moveFocus: (key, target) => moveFocus(key, target, this.tiles.nodes),
      enlargeTile: (target) => this.tiles.enlarge(target),
      pin: () => actions.togglePin(source.cursor),
      clear: () => actions.clear(),
      stepBlock: (by) => actions.stepBlock(by),
      enlarge: (head) => actions.enlarge(head),
      nextHead: () => actions.enlargeNext(),
      toggleBase: () => this.stage.toggleBase(),
      toggleOverlay: () => this.stage.toggleOverlay(),
    });
    this.controls = createControls({
      settings,
      keys: this.keys,
      onStepBlock: (by) => actions.stepBlock(by),
      onSlideBlock: (index) => actions.goToBlock(source.blocks[index]),
    });
    this.pins = createPins({
      onPin: (token) => actions.togglePin(token),
      onPoint: (token) => source.moveTo(token),
    });
    this.tiles = new Tiles({
      onEnlarge: (head) => actions.enlarge(head),
      onClick: () => this.stage.node.focus({ preventScroll: true }), // arrow keys keep moving the patch
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
      source.link,
      "Save",
      ["PNG", "Save this view as an image", () => this.saveImage()],
      ["NPZ", "Save the maps as NumPy arrays (numpy.load)", () => this.saveArrays()],
      ["CSV", "Save the maps as a table: head, row, column, value", () => this.saveTable()],
      pageChoice(source, () => this.fileName()),
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
      onTap: (token) => this.actions.togglePin(token),
      onLeave: () => isFrozen(this.selection) && this.schedule(),
    });
    this.watch(WATCHED, () => this.syncControls());
    this.watchSize(this.root, () => this.layout());
    this.watchTheme(() => this.schedule());
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

  get selection() {
    return selectionOf(this.settings, this.source);
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
    const count = source.about?.shapes.length ?? source.blocks.length;
    this.controls.showBlock(block, source.blocks, count, source.absent("attention"));
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
    this.root.style.setProperty("--dptx-aspect", `${about.width} / ${about.height}`);
    const heads = block?.heads ?? this.source.heads;
    applyPlacement(
      this.root,
      attentionLayout(width, about.height / about.width, heads, this.settings.get("head") !== null, tallestPicture()),
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
    const windowA = mode === "b" ? [] : windowOf(block, a);
    const windowB = mode === "a" ? [] : windowOf(block, b);
    this.markGroup.outline([windowA, windowB], block);
    this.root.classList.toggle("dptx-pinned", pins.length > 0);
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
   * Shows how long a pointer move takes, twice per second at most, and not before the browser has compiled the code.
   *
   * @param {number} started
   */
  showTimes(started) {
    if (this.values.takeComputed()) this.timings.add(performance.now() - started);
    if (started - this.timed < 500 || this.timings.count < 8) return;
    this.timed = started;
    this.status.showTimings("hover", this.timings, 1, "Computing and painting one pointer move in the browser");
  }

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
      windows: tokens.map((token) => windowOf(block, token)[0]),
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
      code: about.code,
      origin: about.origin,
    };
  }

  /** @returns {string} without an ending; "" while nothing can be saved */
  fileName() {
    const shot = this.snapshot();
    return shot ? snapshotName(shot) : "";
  }

  saveImage() {
    const shot = this.snapshot();
    if (!shot) return null;
    const texts = originTexts(shot.origin, snapshotFacts(shot));
    return downloadCanvas(this.source.link, snapshotImage(shot, themeColours(this.root)), snapshotName(shot), {
      texts,
    });
  }

  saveArrays() {
    const shot = this.snapshot();
    if (shot) download(this.source.link, `${snapshotName(shot)}.npz`, [snapshotNpz(shot)]);
  }

  saveTable() {
    const shot = this.snapshot();
    if (shot) download(this.source.link, `${snapshotName(shot)}.csv`, [snapshotCsv(shot)], "text/csv");
  }

  /** @returns {string} */
  python() {
    const shot = this.snapshot();
    return shot ? snapshotPython(shot) : "";
  }
}

export default defineWidget(AttentionSource, AttentionView);

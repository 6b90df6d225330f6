// The norm explorer's view: the token norms of every block side by side, one of them over the picture and, enlarged,
// beside it.
//
// The kernel sends all norms once; the view computes ranges, outliers and histograms. NormSource belongs to the widget
// model and is shared by all its views on the page, so they share the pointer; NormView is one display.
//
// For tests, on the root element: data-state, data-block, data-token (of the picture's grid), data-outliers (of the chosen
// block), data-what of the last paint, data-channel, data-centred and data-with (the token that similarity is with); a
// map's canvas (one pixel per patch) carries data-tile: the block, or "large".

import { createColourBar } from "#shared/colour_bar.js";
import { signedColours } from "#shared/colours.js";
import { field } from "#shared/controls.js";
import { columns, createReadout, row, toolbar } from "#shared/elements.js";
import { moveFocus } from "#shared/focus.js";
import { createHelp } from "#shared/help.js";
import { patchAt, tokenName } from "#shared/patches.js";
import { applyPlacement } from "#shared/picture_stage.js";
import { placeIn, watchSpots } from "#shared/pointer.js";
import { scrolling, tallestPicture, themeColours, widthInside } from "#shared/theme.js";
import { defineWidget, View } from "#shared/widget.js";
import { NormActions } from "./actions.js";
import { createControls } from "./controls.js";
import { Display } from "./display.js";
import { EnlargedBlock } from "./enlarged.js";
import { createKeys, KEYS_NOTE } from "./keys.js";
import { normLayout } from "./layout.js";
import { createOutlierPanel } from "./outlier_panel.js";
import { createPictureMap } from "./picture_map.js";
import { createPin } from "./pin.js";
import { barOf, readoutOf } from "./readout.js";
import { createSaving } from "./saving.js";
import { NormSource } from "./source.js";
import { Tiles } from "./tiles.js";

/** @import { AnyModel } from "#shared/types.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { Reading } from "./readout.js" */
/** @import { NormTraits } from "./source.js" */

/** @type {(keyof NormTraits)[]} */
// biome-ignore format: a list of names
const WATCHED = [
  "block", "enlarged", "what", "channel", "centred", "k", "marks", "pin", "scale", "_attending", "colormap", "opacity",
  "base",
];

/** @extends {View<NormTraits, NormSource>} */
class NormView extends View {
  /**
   * @param {AnyModel<NormTraits>} model
   * @param {HTMLElement} el
   * @param {NormSource} source
   */
  constructor(model, el, source) {
    super(model, el, source, "norms");
    this.form = ""; // the layout, as last applied
    this.attending = false; // this view asked for the attention explorer
    /** @type {{block: NormBlock | null} | null} what the pointer is on: the map of a block, or the picture */
    this.hovered = null;
    this.stale = true; // more than the patch has changed since the last paint

    const { settings } = this;
    this.actions = new NormActions(settings, source, {
      onMove: () => this.announceReadout(),
      onAttend: () => {
        this.attending = true;
      },
    });
    const { actions } = this;
    this.display = new Display(settings, source, actions);
    const keys = createKeys(settings, {
      actions,
      moveFocus: (key, target) => moveFocus(key, target, this.tiles.nodes),
      enlargeTile: (target) => this.enlargeTile(target),
      toggleBase: () => this.stage.toggleBase(),
      toggleOverlay: () => this.stage.toggleOverlay(),
    });
    const pointer = {
      onPoint: (/** @type {NormBlock} */ block, /** @type {number} */ token) =>
        this.hover(source.fromBlock(block, token), block),
      onLeave: () => this.leave(),
    };
    this.picture = createPictureMap({ settings, source, keys, onChange: () => this.layout() });
    this.stage = this.picture.stage;
    this.controls = createControls({ settings, source, keys, actions });
    this.tiles = new Tiles({
      ...pointer,
      onEnlarge: (block) => {
        this.stage.node.focus({ preventScroll: true }); // arrow keys keep moving the patch
        actions.enlarge(block);
      },
    });
    this.enlarged = new EnlargedBlock({
      settings,
      keys,
      actions,
      pointer,
      onClose: () => {
        this.stage.node.focus({ preventScroll: true });
        actions.close();
      },
    });
    this.outliers = createOutlierPanel({
      settings,
      keys,
      onBlock: (block) => actions.goToBlock(block),
      onToken: (block, token) => actions.openToken(source.fromBlock(block, token)),
    });
    this.pin = createPin({
      keys,
      onRelease: () => settings.save({ pin: null }),
      onAttend: (direction) => actions.attend(direction),
    });
    this.readout = createReadout();
    this.bar = createColourBar();
    const help = createHelp(keys, KEYS_NOTE);
    const { controls, stage } = this;
    const { files, copy } = createSaving({
      settings,
      source,
      display: this.display,
      stage,
      tiles: this.tiles,
      outline: this.picture.outline,
      colours: () => themeColours(this.root),
    });
    this.mount(
      keys,
      help,
      toolbar([controls.block], controls.closeAttention, files, copy, help.opener),
      columns(
        [
          stage.node,
          this.readout.node,
          row("dptx-pinrow", this.pin.node),
          row("", stage.base, field("Overlay", stage.opacity)),
          this.outliers.node,
        ],
        [row("dptx-options", controls.scale, controls.colours), this.enlarged.node, this.tiles.node, this.bar.node],
      ),
    );
  }

  /** @override */
  connect() {
    const { source, stage } = this;
    watchSpots(stage.node, {
      spotOf: (event) => (source.grid ? patchAt(source.grid, ...placeIn(stage.node, event)) : null),
      onPoint: (token) => this.hover(token, null),
      onTap: (token) => this.actions.togglePin(token),
      onLeave: () => this.leave(),
    });
    this.watch(WATCHED, () => this.syncControls());
    this.watchSize(this.root, () => this.layout());
    this.watchSize(this.enlarged.histogram.node, () => this.schedule());
    this.watchTheme(() => this.schedule());
    if (source.grid) stage.draw();
    this.syncControls();
    this.focusOnPage(stage.node);
  }

  /**
   * @override
   * @param {string} event
   */
  onEvent(event) {
    if (event === "cursor") this.schedule(false);
    else if (event === "attention") this.showAttention();
    else if (event === "picture" || event === "depth") {
      this.stage.draw();
      this.syncControls();
    } else if (event === "norms" || event === "tokens") this.syncControls();
  }

  /** @override */
  onSave() {
    const { busy, failed } = this.source.link.status;
    if (!busy && !failed) this.source.reportReady(); // clears a notice that no longer applies
    this.announceReadout();
  }

  // ------------------------------------------------------------------------------------------------- what is displayed

  /** The token that is read: under the pointer, else the chosen one. */
  get current() {
    return this.hovered ? this.source.cursor : this.actions.chosen;
  }

  /** Sets the controls by the traits and the data, and paints. */
  syncControls() {
    const { settings, source, stage, controls, display } = this;
    const { block, blocks } = source;
    const { keepFocus } = stage;
    keepFocus(controls.closeAttention, () => controls.sync());
    this.outliers.sync();
    stage.sync();
    if (!source.grid || !block) {
      this.root.dataset.state = "waiting";
      return;
    }
    controls.showBlock(block, blocks, source.absent("norms"));
    const missing = source.hasChannels(block.block) ? "" : source.whyNoChannels;
    this.enlarged.sync({
      block,
      what: missing ? "norm" : source.what,
      missing: missing && source.absent("tokens") ? "Its channels were not captured" : missing,
      why: missing,
      keepFocus,
    });
    this.tiles.arrange(blocks, block);
    display.findOutliers();
    const attends = source.hasAttention(block.block);
    const reader = source.about?.page ? undefined : source.readerOf(block.block);
    this.outliers.showCounts(blocks, display.outliers, block.block);
    keepFocus(this.outliers.listed, () => this.outliers.showLargest(block, display.outliersIn(block), attends, reader));
    const pin = settings.get("pin");
    keepFocus(this.pin.node, () =>
      this.pin.show({
        name: pin === null ? null : tokenName(block, source.toBlock(block, pin)),
        linked: !source.about?.page,
        unavailable: attends ? "" : source.whyNoAttention(block.block),
        reader,
        reads: source.readWords(block.block),
      }),
    );
    this.layout();
    this.schedule();
  }

  layout() {
    const { about, blocks } = this.source;
    const width = widthInside(this.root);
    if (!about || !(width > 0)) return;
    this.root.style.setProperty("--dptx-aspect", `${about.width} / ${about.height}`);
    const enlarged = this.settings.get("enlarged");
    const placement = normLayout(width, about.height / about.width, blocks.length || 12, enlarged, tallestPicture());
    this.enlarged.node.classList.toggle("dptx-under", placement.under);
    applyPlacement(this.root, placement);
    const form = `${width}|${Object.values(placement)}`;
    if (form !== this.form) this.schedule();
    this.form = form;
  }

  // --------------------------------------------------------------------------------------------------------- painting

  /**
   * @override
   * @param {boolean} [stale] whether more than the patch has changed
   */
  schedule(stale = true) {
    this.stale ||= stale;
    super.schedule();
  }

  /** @override */
  paint() {
    const { source, display } = this;
    const { block } = source;
    if (!block || !source.grid || display.blocks !== source.blocks) return;
    if (this.stale) this.paintMaps(block);
    else if (display.followsPointer(block)) this.paintShown(block);
    this.stale = false;
    this.paintPointer(block);
    this.paintWords(block);
    Object.assign(this.root.dataset, {
      state: source.waits ? "waiting" : "ready",
      block: block.block,
      token: this.current,
      outliers: display.outliersIn(block).tokens.length,
      what: display.map?.what,
      channel: this.actions.channel,
      with: display.map?.anchor ?? "",
      centred: this.settings.get("centred"),
    });
  }

  /**
   * Paints the maps of all blocks.
   *
   * @param {NormBlock} block the chosen one
   */
  paintMaps(block) {
    const { display } = this;
    display.computeScales();
    this.tiles.paint(display.scales, display.table, display.outliers);
    this.paintShown(block);
    const outliers = this.settings.get("marks") ? display.outliersIn(block) : null;
    this.picture.paintOutline(block, outliers);
    this.enlarged.paintOutline(block, outliers);
  }

  /**
   * Paints the enlarged map and the one over the picture.
   *
   * @param {NormBlock} block
   */
  paintShown(block) {
    const map = this.display.computeMap(block, signedColours(this.dark));
    this.enlarged.paint(map, this.display.outliersIn(block));
    this.picture.paint(map);
  }

  /**
   * Moves the marks of the picture and of all maps.
   *
   * @param {NormBlock} block
   */
  paintPointer(block) {
    const { source, display, current } = this;
    if (!display.map) return;
    const pin = this.settings.get("pin");
    const token = source.toBlock(block, current);
    const kept = pin !== null && pin !== current ? source.toBlock(block, pin) : null;
    this.tiles.mark((own) => source.toBlock(own, current));
    this.enlarged.paintPointer(display.map, display.outliersIn(block), token, kept);
    this.picture.mark(block, token, kept);
    this.root.classList.toggle("dptx-pinned", pin !== null && pin === current);
  }

  /**
   * The line under the picture, and the colour bar: of the map under the pointer, else of the chosen block.
   *
   * @param {NormBlock} chosen
   */
  paintWords(chosen) {
    const { display, hovered } = this;
    const block = hovered?.block ?? chosen;
    const onTile = hovered?.block && !this.enlarged.hovered;
    const map = block === chosen && !onTile ? display.map : null;
    /** @type {Reading} */
    const reading = {
      block,
      outliers: display.outliersIn(block),
      token: this.source.toBlock(block, this.current),
      map,
    };
    this.readout.show(...readoutOf(reading));
    const shared = this.settings.get("scale") !== "block";
    const { table, ticks, at, note } = barOf(reading, { scale: display.scaleOf(block), table: display.table, shared });
    this.bar.show(table, ticks, at, note);
  }

  announceReadout() {
    this.announce(() => `Block ${this.settings.get("block")}. ${this.readout.text}`);
  }

  // ---------------------------------------------------------------------------------------------------------- pointer

  /**
   * @param {number} token of the picture's grid
   * @param {NormBlock | null} block whose map the pointer is on; null for the picture
   */
  hover(token, block) {
    if (this.hovered?.block !== block) {
      this.hovered = { block };
      this.schedule(false);
    }
    this.source.moveTo(token);
  }

  leave() {
    this.hovered = null;
    this.schedule(false);
  }

  /**
   * @param {HTMLElement} target
   * @returns {boolean} false if it is not a tile
   */
  enlargeTile(target) {
    const block = this.tiles.blockAt(target);
    if (block === null) return false;
    this.actions.enlarge(block);
    return true;
  }

  /** Scrolls to the attention explorer in the view that asked for it, once the box has had time to show it. */
  showAttention() {
    if (!this.attending) return;
    this.attending = false;
    const last = () => this.root.closest(".widget-vbox")?.lastElementChild;
    setTimeout(() => last()?.scrollIntoView({ behavior: scrolling(), block: "nearest" }), 400);
  }
}

export default defineWidget(NormSource, NormView);

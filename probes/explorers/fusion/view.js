// The fusion explorer's view: sliders on what each fusion level receives, and the depth that follows them.
//
// The kernel sends the levels of a map. Colours, contrast and differences are computed in the browser.
//
// For tests, on the root element: data-scales, data-shrink and data-view of the last paint, and data-state:
// "ready" when it shows the full map of the setting, and the setting is saved. The canvases of thumbnails carry data-level.

import { lookup, signedColours } from "#shared/colours.js";
import { copyButton, saveButtons } from "#shared/download.js";
import { columns, createReadout, toolbar } from "#shared/elements.js";
import { createHelp } from "#shared/help.js";
import { namedAfter } from "#shared/origin.js";
import { pageChoice } from "#shared/save_page.js";
import { Timings } from "#shared/status.js";
import { themeColours } from "#shared/theme.js";
import { defineWidget, View } from "#shared/widget.js";
import { createAnimation } from "./animation.js";
import { createColouring } from "./colouring.js";
import { createDisplay } from "./display.js";
import { createKeys } from "./keys.js";
import { createProcessing } from "./processing.js";
import { readoutWords, settingWords } from "./readout.js";
import { saveLevels, savePlain, savePng } from "./saving.js";
import { createScalePanel } from "./scale_panel.js";
import { between, byName, inOrder, moved, settingName, settingPython, stepped } from "./setting.js";
import { FusionSource } from "./source.js";

/** @import { AnyModel } from "#shared/types.js" */
/** @import { End } from "./animation.js" */
/** @import { Show } from "./readout.js" */
/** @import { Shown } from "./saving.js" */
/** @import { About, FusionTraits, ScaledMap } from "./source.js" */

const HELP_NOTE =
  "Each fusion level adds its own reassembly map to the output of the coarser level, from level 3 (coarsest) to level 0 (finest). Each slider scales one probe point, which is what a level receives: reassembly.3 goes into level 3, fusion.3 (the output of level 3) into level 2, and so on. At 1 the model is unchanged; at 0 nothing passes.";

/** @extends {View<FusionTraits, FusionSource>} */
class FusionView extends View {
  /**
   * @param {AnyModel<FusionTraits>} model
   * @param {HTMLElement} el
   * @param {FusionSource} source
   */
  constructor(model, el, source) {
    super(model, el, source, "fusion");
    const { settings } = this;
    this.dirty = true; // whether the next paint repaints the map, or only the readout
    this.held = false; // the map is held down: it shows the unscaled one
    /** @type {[x: number, y: number] | null} fractions of the picture */
    this.pointer = null;
    this.timings = new Timings(); // from the move of a slider to its picture
    /** @type {WeakSet<ScaledMap>} maps that were timed */
    this.timed = new WeakSet();

    const keys = createKeys({
      isPage: () => source.isPage,
      hasSteps: () => source.about?.steps?.length !== 0,
      focusSlider: (index) => this.sliders.focus(index),
      setSlider: (target, scale) => this.setSlider(this.sliders.indexOf(target), scale),
      reset: () => this.reset(),
      toggleShow: (show, otherwise) => this.colouring.toggleShow(show, otherwise),
      toggleContrast: () => this.colouring.toggleContrast(),
      toggleReverse: () => this.colouring.toggleReverse(),
      nextColours: () => this.colouring.nextColours(),
      nextSpan: () => this.colouring.nextSpan(),
      keepEnd: (end) => this.keepEnd(end),
    });
    this.display = createDisplay({
      onPoint: (place) => {
        this.pointer = place;
        this.schedule(false);
      },
      onHold: (held) => {
        this.held = held;
        this.schedule();
      },
    });
    this.readout = createReadout();
    this.colouring = createColouring(settings, keys);
    this.sliders = createScalePanel(
      {
        onSlide: (index, value) => this.setSlider(index, value),
        onStep: (index, by) => this.stepSlider(index, by),
        onReset: () => this.reset(),
      },
      {
        reset: keys.titled("Set every slider to 1", "reset"),
        resetPage: keys.titled("Back to the setting that this page was saved with", "resetPage"),
      },
      this.display.node,
    );
    this.processing = createProcessing(settings);
    this.animation = createAnimation(
      source.link,
      {
        onKeep: (end) => this.keepEnd(end),
        onFrames: (frames) => settings.save({ frames }),
        onMove: (share) => this.moveAlong(share),
        onSave: (format) => source.requestAnimation(format),
      },
      {
        start: keys.titled("Start the animation with the sliders as they are", "start"),
        end: keys.titled("End the animation with the sliders as they are", "end"),
      },
    );
    const files = saveButtons(
      source.link,
      "Save",
      ["PNG", "Save what is on display as an image with its title and colour bar", () => this.savePng()],
      ["Plain", "Save what is on display alone, at the picture's size", () => this.savePlain()],
      ["PNG 16", "Save the scaled depth as 16-bit grey; the file contains its range", () => this.saveDepth("png16")],
      ["NPY", "Save the scaled depth as float32 numbers (numpy.load)", () => this.saveDepth("npy")],
      pageChoice(source, () => this.fileName()),
    );
    const help = createHelp(keys, HELP_NOTE);
    this.mount(
      keys,
      help,
      toolbar(
        [this.colouring.show],
        files,
        copyButton(() => this.python(), source.link),
        help.opener,
      ),
      columns(
        [this.display.node, this.readout.node, this.display.bar, this.colouring.colours],
        [...this.sliders.nodes, this.animation.node, this.processing.node],
      ),
    );
  }

  /** @override */
  get dataArea() {
    return this.root.querySelector(".dptx-left");
  }

  /** @override */
  connect() {
    this.watch(
      ["show", "span", "colormap", "reverse", "high_contrast", "start", "end", "frames", "size", "keep_aspect"],
      () => this.syncControls(),
    );
    this.watchTheme(() => this.schedule());
    if (this.source.about) this.showAbout(this.source.about);
    if (this.source.picture) this.display.setPicture(this.source.picture);
    this.syncControls();
    this.focusOnPage(this.display.node);
  }

  /**
   * @override
   * @param {string} event
   */
  onEvent(event) {
    const { about, picture } = this.source;
    if (event === "error") this.animation.stop();
    else if (event === "about" && about) this.showAbout(about);
    else if (event === "picture" && picture) this.display.setPicture(picture);
    else if (event === "scales") this.showScales();
    else if (event === "map") this.schedule();
    this.markWaiting();
  }

  /** @override */
  dispose() {
    this.animation.stop();
    super.dispose();
  }

  // ------------------------------------------------------------------------------------------------------- controls

  /** @param {About} about of another model or picture */
  showAbout(about) {
    const { isPage } = this.source;
    this.root.style.setProperty("--dptx-aspect", `${about.width} / ${about.height}`);
    this.root.style.setProperty("--dptx-ratio", String(about.width / about.height));
    this.sliders.build(about);
    this.processing.build(about, isPage);
    this.animation.node.hidden = isPage;
    this.showScales();
    this.syncControls();
  }

  /** The setting that Reset leads to: the unchanged model; on a page the setting it was saved with. */
  get home() {
    const { about } = this.source;
    return about?.from ?? about?.points.map(() => 1) ?? [];
  }

  showScales() {
    this.sliders.show(this.source.scales, this.home);
    this.markWaiting();
  }

  /** Whether what is here is the full map of the setting, and the setting is saved. */
  get isReady() {
    return this.source.settled && !this.source.moving;
  }

  markWaiting() {
    if (!this.isReady) this.root.dataset.state = "waiting";
  }

  /** Sets the controls by the traits, and paints. */
  syncControls() {
    const { settings } = this;
    const { about } = this.source;
    this.colouring.sync();
    this.processing.sync(about);
    if (about) {
      const ends = { start: settings.get("start"), end: settings.get("end") };
      this.animation.show(about.points, ends, settings.get("frames"));
    }
    this.schedule();
  }

  // --------------------------------------------------------------------------------------------------------- painting

  /**
   * @override
   * @param {boolean} [repaint] false: only the readout
   */
  schedule(repaint = true) {
    this.dirty ||= repaint;
    super.schedule();
  }

  /** @override */
  paint() {
    const { map, baseline, about } = this.source;
    if (!map || !baseline || !about) return;
    const chosen = this.settings.get("show");
    const show = this.held && chosen !== "picture" ? "unscaled" : chosen;
    if (this.dirty) {
      this.dirty = false;
      this.paintMap(map, baseline, show);
      this.display.showBadge(this.held && chosen !== "unscaled" ? "Unscaled" : "");
      const { scales, shrink } = map.about;
      Object.assign(this.root.dataset, { view: show, scales, shrink, state: this.isReady ? "ready" : "waiting" });
      this.timeMap(map);
    }
    const words = readoutWords({ show, scaled: map, unscaled: baseline, about, pointer: this.pointer });
    this.readout.show(...words);
  }

  /**
   * @param {ScaledMap} map
   * @param {ScaledMap} baseline
   * @param {Show} show
   */
  paintMap(map, baseline, show) {
    const shown = show === "unscaled" ? baseline : map;
    const colouring = this.colouring.colouring(baseline, this.source.about?.metric ?? false);
    if (show === "picture") this.display.showPicture();
    else if (show === "difference") {
      this.display.showDifference(map, baseline, lookup(signedColours(this.dark)));
    } else this.display.showDepth(shown, colouring, this.source.about?.metric ?? false);
    this.sliders.showThumbnails(shown.thumbnails, colouring.table);
  }

  /**
   * Times the way from the move of a slider to the map on the canvas, once per preview. Full maps do not count: they
   * follow a rest.
   *
   * @param {ScaledMap} map
   */
  timeMap(map) {
    const { stamp, preview } = map.about;
    if (!stamp || !preview || this.timed.has(map)) return;
    this.timed.add(map);
    this.timings.add(performance.now() - stamp);
    if (this.timings.count < 4) return; // the first ones compile
    this.status.showTimings("slider to picture", this.timings, 0, "From the slider to its picture");
  }

  // ---------------------------------------------------------------------------------------------------------- sliders

  /**
   * @param {number} index
   * @param {number} value
   * @returns {boolean} false if there is no such slider
   */
  setSlider(index, value) {
    const { about, scales } = this.source;
    if (!about || index < 0) return false;
    this.animation.stop();
    this.source.move(moved(about, scales, index, value));
    this.sliders.show(this.source.scales, this.home); // a slider between two steps of a page goes to the nearest one
    this.announceSetting();
    return true;
  }

  /**
   * @param {number} index
   * @param {number} by
   */
  stepSlider(index, by) {
    const { about, scales } = this.source;
    if (!about) return;
    const value = stepped(about, scales, index, by);
    if (value !== scales[index]) this.setSlider(index, value);
  }

  reset() {
    this.animation.stop();
    this.source.move([...this.home]);
    this.announceSetting();
  }

  announceSetting() {
    this.announce(() => {
      const { about, scales } = this.source;
      return `${about ? settingWords(about.points, scales) : ""}. ${this.readout.text}`;
    }, 600);
  }

  /**
   * Makes the sliders as they are an end of the animation.
   *
   * @param {End} end
   */
  keepEnd(end) {
    const { about, scales } = this.source;
    if (about) this.settings.save({ [end]: byName(about.points, scales) });
  }

  /** @param {number} share of the way of the animation */
  moveAlong(share) {
    const { about } = this.source;
    if (!about) return;
    const first = inOrder(about.points, this.settings.get("start"));
    const last = inOrder(about.points, this.settings.get("end"));
    this.source.move(between(first, last, share));
  }

  // ----------------------------------------------------------------------------------------------------------- saving

  /**
   * What is on display, for files.
   *
   * @returns {[Shown, About] | null} null before the first map
   */
  shown() {
    const { about, picture, map } = this.source;
    const show = this.settings.get("show");
    const canvas = this.display.canvas();
    const image = show === "picture" ? picture : canvas;
    if (!about || !map || !canvas || !image) return null;
    const bar = show === "picture" ? null : this.display.barContent();
    return [{ show, image, bar, scales: map.about.scales }, about];
  }

  savePng() {
    const shown = this.shown();
    return shown && savePng(this.source.link, ...shown, themeColours(this.root));
  }

  savePlain() {
    const shown = this.shown();
    return shown && savePlain(this.source.link, ...shown);
  }

  /** @param {"npy" | "png16"} format */
  async saveDepth(format) {
    const { source } = this;
    const { about, map } = source;
    if (!source.isPage) source.requestFile(format);
    else if (about && map && source.settled) await saveLevels(source.link, map, about, format);
  }

  /** @returns {string} without an ending; "" while nothing can be saved */
  fileName() {
    const { about, scales } = this.source;
    return about ? namedAfter(settingName(about.points, scales), about.origin) : "";
  }

  python() {
    const { about, map, scales } = this.source;
    return about && map ? settingPython(about.points, scales, { call: map.about.call, code: about.code }) : "";
  }
}

export default defineWidget(FusionSource, FusionView);

// The depth explorer's view: a picture beside its depth, or two maps, under common thresholds.
//
// The kernel is asked for the picture, and once for each map on display. Thresholds, plane and equalisation are computed
// in the browser (numbers.js); traits are saved when a slider rests.
//
// For tests, on the root element: data-far, data-near, data-count (pixels inside) and data-state of the last paint:
// "ready", or "moving" until moved thresholds are saved. The canvas of a pane, with one pixel per pixel of the map,
// carries data-pane: "left" or "right".

import { COLORMAPS, lookup } from "#shared/colours.js";
import { colourPicker, toggleButton } from "#shared/controls.js";
import { copyButton, saveButtons } from "#shared/download.js";
import { element, setText, toolbar } from "#shared/elements.js";
import { createHelp } from "#shared/help.js";
import { namedAfter } from "#shared/origin.js";
import { placeIn } from "#shared/pointer.js";
import { pageChoice } from "#shared/save_page.js";
import { themeColours } from "#shared/theme.js";
import { defineWidget, View } from "#shared/widget.js";
import { areValid, createDistances } from "./distances.js";
import { createKeys } from "./keys.js";
import { looksOf } from "./looks.js";
import { createPane } from "./pane.js";
import { depthPython } from "./python.js";
import { isWhole, pixelWords, rangeWords, sizeWords, thresholdWords } from "./readout.js";
import { savedTitle, saveNumbers, savePanes, savePlain, stateName } from "./saving.js";
import { DepthSource, SIDES } from "./source.js";
import { createThresholds } from "./thresholds.js";

/** @import { AnyModel } from "#shared/types.js" */
/** @import { Distances } from "./distances.js" */
/** @import { Look } from "./looks.js" */
/** @import { DepthMap } from "./numbers.js" */
/** @import { Pixel } from "./readout.js" */
/** @import { DepthTraits } from "./source.js" */

const HELP_NOTE =
  "Thresholds are shares of the map's range: 0 is its farthest pixel, 1 its nearest. Plane and even colours are computed from the pixels between them. Metres are correct if the distances to the nearest and the farthest pixel are.";

const INVALID_DISTANCES = "Distances are in metres and must satisfy 0 < nearest < farthest.";

const SAVE_DELAY = 200; // milliseconds that a threshold must rest

/** @extends {View<DepthTraits, DepthSource>} */
class DepthView extends View {
  /**
   * @param {AnyModel<DepthTraits>} model
   * @param {HTMLElement} el
   * @param {DepthSource} source
   */
  constructor(model, el, source) {
    super(model, el, source, "depth");
    const { settings } = this;
    /** @type {Pixel | null} the pixel of the picture that is read */
    this.pixel = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.savingThresholds = undefined;
    /** @type {(Look | null)[]} of the panes; null: the picture */
    this.looks = [];

    const keys = createKeys({
      isPane: (target) => this.panes.some(({ frame }) => frame === target),
      movePixel: (down, right) => this.movePixel(down, right),
      focusThreshold: (name) => this.thresholds.focus(name),
      togglePlane: () => settings.toggle("plane"),
      toggleEqualise: () => settings.toggle("equalise"),
      toggleShared: () => settings.cycle("span", ["shared", "own"]),
      nextColours: () => settings.cycle("colormap", COLORMAPS),
      reset: () => settings.save({ far: 0, near: 1 }),
    });
    this.panes = SIDES.map((side) =>
      createPane(side, {
        onChoose: (name) => settings.save({ [side]: name }),
        onPoint: (event) => this.pointAt(placeIn(/** @type {Element} */ (event.currentTarget), event)),
      }),
    );
    this.thresholds = createThresholds(
      {
        onMove: (thresholds) => this.moveThresholds(thresholds),
        onReset: () => settings.save({ far: 0, near: 1 }),
      },
      {
        far: keys.titled("Far threshold", "far"),
        near: keys.titled("Near threshold", "near"),
        reset: keys.titled("Move both thresholds back to the ends", "reset"),
      },
    );
    this.plane = toggleButton(
      "Without plane",
      keys.titled("Subtract the plane that best fits the pixels between the thresholds", "plane"),
      () => settings.toggle("plane"),
      "dptx-button",
    );
    this.equalise = toggleButton(
      "Even colours",
      keys.titled("Spread the colours evenly over the pixels: histogram equalisation", "equalise"),
      () => settings.toggle("equalise"),
      "dptx-button",
    );
    this.shared = toggleButton(
      "One range",
      keys.titled("Two maps side by side cover one range of values, or one each", "shared"),
      () => settings.cycle("span", ["shared", "own"]),
      "dptx-button",
    );
    this.colours = colourPicker(settings, keys.titled("Colours", "colours"));
    this.distances = createDistances((name, metres) => this.setDistance(name, metres));
    this.readout = element("div", { className: "dptx-depth-readout", "aria-live": "polite" });
    this.files = saveButtons(
      source.link,
      "Save",
      ["PNG", "Save both panes as a picture with names and colour bars", () => this.savePng()],
      ["Plain", "Save the right pane alone, without a colour bar, one pixel per pixel", () => this.savePlain()],
      ["NPY", "", () => this.saveNumbers()],
      pageChoice(source, () => (source.about ? namedAfter("depth", source.about.origin) : "")),
    );
    const help = createHelp(keys, HELP_NOTE);
    this.mount(
      keys,
      help,
      toolbar(
        [this.plane.node, this.equalise.node, this.shared.node, this.colours.node, this.distances.node],
        this.files,
        copyButton(() => this.python(), source.link),
        help.opener,
      ),
      element("div", { className: "dptx-depth-panes" }, ...this.panes.map(({ node }) => node)),
      this.readout,
      this.thresholds.node,
    );
  }

  /** @override */
  get dataArea() {
    return this.root.querySelector(".dptx-depth-panes");
  }

  /** @override */
  connect() {
    this.watch(["far", "near", "plane", "equalise", "span", "colormap", "nearest", "farthest", ...SIDES], () =>
      this.syncControls(),
    );
    this.watchSize(this.root, () => this.schedule());
    this.watchTheme(() => this.schedule());
    this.syncControls();
    this.focusOnPage(this.panes[1].frame);
  }

  /**
   * @override
   * @param {string} event
   */
  onEvent(event) {
    if (event === "change") this.syncControls(); // an error must not reset a field while someone types
  }

  /** @override */
  dispose() {
    clearTimeout(this.savingThresholds);
    super.dispose();
  }

  // ------------------------------------------------------------------------------------------------------- controls

  /** @returns {Distances} */
  get metres() {
    return { nearest: this.settings.get("nearest"), farthest: this.settings.get("farthest") };
  }

  /** Sets the controls by the traits, and paints. */
  syncControls() {
    const { far, near, plane, equalise } = this.source.processing;
    this.thresholds.show({ far, near });
    this.plane.set(plane);
    this.equalise.set(equalise);
    this.shared.set(this.settings.get("span") === "shared");
    this.colours.sync();
    this.distances.show(this.metres);
    for (const pane of this.panes) {
      pane.showChoices(["picture", ...this.source.names], this.settings.get(pane.side));
    }
    this.schedule();
  }

  /** @param {{far: number, near: number}} thresholds */
  moveThresholds({ far, near }) {
    this.model.set("far", far);
    this.model.set("near", near);
    this.syncControls();
    clearTimeout(this.savingThresholds);
    this.savingThresholds = setTimeout(() => {
      this.savingThresholds = undefined;
      this.model.save_changes();
      this.schedule();
    }, SAVE_DELAY);
  }

  /**
   * @param {keyof Distances} name
   * @param {number} metres
   */
  setDistance(name, metres) {
    const { link } = this.source;
    if (!areValid({ ...this.metres, [name]: metres })) {
      link.report(INVALID_DISTANCES, { failed: true });
    } else {
      this.settings.save({ [name]: metres });
      if (link.status.text === INVALID_DISTANCES) this.source.reportReady();
    }
    this.syncControls();
  }

  // ------------------------------------------------------------------------------------------------------- painting

  /** @override */
  paint() {
    const { image, about } = this.source;
    const maps = SIDES.map((side) => this.source.mapOf(side));
    const [left, right] = maps;
    if (!image || !about || !left || !right) return;
    const { processing } = this.source;
    this.root.style.setProperty("--dptx-aspect", `${right.width} / ${right.height}`);
    this.root.style.setProperty("--dptx-ratio", String(right.width / right.height));
    this.distances.node.hidden = right.metric;
    this.describeNumbers(right, about);
    const isMap = SIDES.map((side) => this.settings.get(side) !== "picture");
    const style = { shared: this.settings.get("span") === "shared", colormap: this.settings.get("colormap") };
    const pairs = [left, right].map((map) => /** @type {const} */ ([map, this.source.resultOf(map)]));
    const looks = looksOf(
      pairs.filter((_, n) => isMap[n]),
      processing,
      { ...style, dark: this.dark },
    );
    this.looks = isMap.map((shown) => (shown ? (looks.shift() ?? null) : null));
    this.shared.node.hidden = !isMap.every(Boolean);
    for (const [n, [map, result]] of pairs.entries()) {
      const look = this.looks[n];
      if (look) this.panes[n].showMap(map, result, look, rangeWords(result, processing));
      else this.panes[n].showPicture(map, result, this.source.picturePixels(image, map));
    }
    this.thresholds.showHistogram(right, lookup(this.settings.get("colormap")), themeColours(this.root).muted);
    this.thresholds.showWords(thresholdWords(right, this.source.resultOf(right), processing));
    this.paintPixel([...new Set([left, right])], about);
    const { far, near } = processing;
    const state = this.savingThresholds === undefined ? "ready" : "moving";
    Object.assign(this.root.dataset, { far, near, count: this.source.resultOf(right).count, state });
  }

  /**
   * The cross, and the values under it.
   *
   * @param {DepthMap[]} maps
   * @param {{width: number, height: number}} about
   */
  paintPixel(maps, about) {
    const { pixel } = this;
    const place = pixel && [(pixel[0] + 0.5) / about.width, (pixel[1] + 0.5) / about.height];
    for (const pane of this.panes) pane.moveCross(/** @type {[number, number] | null} */ (place));
    setText(this.readout, pixelWords(pixel, about, maps, this.source.resultOf(maps[0]), this.metres));
  }

  // -------------------------------------------------------------------------------------------------------- pointing

  /** @param {[across: number, down: number]} place fractions of a pane */
  pointAt([across, down]) {
    const { about } = this.source;
    if (about) this.readPixel(Math.floor(across * about.width), Math.floor(down * about.height));
  }

  /**
   * @param {number} down pixels
   * @param {number} right pixels
   */
  movePixel(down, right) {
    const { about } = this.source;
    if (!about) return;
    const [x, y] = this.pixel ?? [Math.floor(about.width / 2), Math.floor(about.height / 2)];
    this.readPixel(x + right, y + down);
  }

  /**
   * Reads a pixel of the picture, or the nearest one to a place outside it.
   *
   * @param {number} x
   * @param {number} y
   */
  readPixel(x, y) {
    const { about } = this.source;
    if (!about) return;
    this.pixel = [Math.min(about.width - 1, Math.max(0, x)), Math.min(about.height - 1, Math.max(0, y))];
    this.schedule();
  }

  // ---------------------------------------------------------------------------------------------------------- saving

  python() {
    const map = this.source.mapOf("right");
    if (!map || !this.source.about) return "";
    return depthPython({ ...this.source.processing, ...this.metres }, map.metric, this.source.pythonOf(map));
  }

  /**
   * The tooltip of the button that saves numbers.
   *
   * @param {DepthMap} map
   * @param {{width: number, height: number}} about
   */
  describeNumbers(map, about) {
    const size = isWhole(map, about) ? "" : `, as sent to the browser: ${sizeWords(map, about)}`;
    const saveNpy = [...this.files.children].find(({ textContent }) => textContent === "NPY");
    /** @type {HTMLButtonElement} */ (saveNpy).title =
      `Save the map of the right pane as numbers (numpy.load)${size}; NaN outside the thresholds`;
  }

  saveNumbers() {
    const map = this.source.mapOf("right");
    const { about, link } = this.source;
    if (!map || !about) return;
    const { call } = this.source.pythonOf(map);
    const all = isWhole(map, about) ? "" : `; ${map.name === "depth" ? "explorer.depth" : call} has all pixels`;
    const result = this.source.resultOf(map);
    saveNumbers(link, `${sizeWords(map, about)}${all}`, map, result, this.source.processing, about.origin);
  }

  /** What saved images have in common; null before there is a map. */
  saved() {
    const map = this.source.mapOf("right");
    const { about, link, processing } = this.source;
    if (!map || !about) return null;
    const result = this.source.resultOf(map);
    const colours = processing.equalise ? "_even-colours" : "";
    return { link, result, processing, name: stateName(map, result, processing) + colours, origin: about.origin };
  }

  savePng() {
    const saved = this.saved();
    if (!saved) return null;
    const { link, result, processing, name, origin } = saved;
    const names = SIDES.map((side) => this.settings.get(side));
    const panes = this.panes.map(({ canvas }, n) => ({ name: names[n], canvas, look: this.looks[n] }));
    return savePanes(link, panes, savedTitle(names, result, processing), name, origin, themeColours(this.root));
  }

  savePlain() {
    const saved = this.saved();
    if (!saved) return null;
    const { link, result, processing, name, origin } = saved;
    const title = savedTitle([this.settings.get("right")], result, processing);
    return savePlain(link, this.panes[1].canvas, title, name, origin);
  }
}

export default defineWidget(DepthSource, DepthView);

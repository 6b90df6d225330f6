// The data of the depth explorer: the picture, the maps on display, and what the traits make of them.

import { penOf } from "#shared/canvas.js";
import { element } from "#shared/elements.js";
import { pythonString } from "#shared/python.js";
import { Source } from "#shared/source.js";
import { decodeDepth, processed } from "./numbers.js";

/** @import { AnyModel, Message, Part, PictureMessage, PythonCode } from "#shared/types.js" */
/** @import { DepthMap, MapHeader, Processed, Processing } from "./numbers.js" */
/** @import { Side } from "./pane.js" */

/**
 * @typedef {object} DepthTraits
 * @property {number} far the lower threshold of nearness
 * @property {number} near the upper threshold
 * @property {boolean} plane
 * @property {boolean} equalise
 * @property {string} left what the left pane shows: "picture", or the name of a map
 * @property {string} right
 * @property {"shared" | "own"} span the range of two maps side by side
 * @property {string} colormap
 * @property {number} nearest metres at nearness 1
 * @property {number} farthest metres at nearness 0
 */

/** @typedef {Message & MapHeader & {kind: "map", names: string[]}} MapMessage names: of all maps */

/** @type {Side[]} */
export const SIDES = ["left", "right"];

/**
 * Events: "change" when what is on display, or the data for it, has changed.
 *
 * @extends {Source<DepthTraits>}
 */
export class DepthSource extends Source {
  /** @param {AnyModel<DepthTraits>} model */
  constructor(model) {
    super(model);
    /** @type {PictureMessage | null} */
    this.about = null;
    /** @type {ImageBitmap | null} */
    this.image = null;
    /** @type {Map<string, DepthMap>} */
    this.maps = new Map();
    /** @type {string[]} */
    this.names = ["depth"];
    /** @type {Map<DepthMap, {key: string, result: Processed}>} the latest result for each map */
    this.results = new Map();
    /** @type {Uint32Array | null} the picture at the size of the maps */
    this.pixels = null;
    this.cleanup.push(() => {
      this.image?.close();
      this.image = this.pixels = null;
      this.maps.clear();
      this.results.clear();
    });
    for (const side of SIDES) this.follow(side, () => this.requestMissing());
  }

  /** @override */
  requestFirst() {
    this.link.report("Requesting the picture", { busy: true });
    this.link.request("picture");
    this.requestMissing();
  }

  /** Requests the next map that a pane needs. If both panes show the picture, the thresholds are those of "depth". */
  requestMissing() {
    const shown = SIDES.map((side) => this.model.get(side)).filter((name) => name !== "picture");
    const missing = (shown.length ? shown : ["depth"]).find((name) => !this.maps.has(name));
    if (missing && this.opened) this.link.request("map", { name: missing });
    this.emit("change");
  }

  /**
   * The map of a pane. The picture is shown with the map of the other pane, or with "depth".
   *
   * @param {Side} side
   * @returns {DepthMap | null}
   */
  mapOf(side) {
    const names = [this.model.get(side), ...SIDES.map((other) => this.model.get(other)), "depth"];
    return this.maps.get(names.find((name) => name !== "picture") ?? "depth") ?? null;
  }

  /** @returns {Processing} the traits that shape a map */
  get processing() {
    const { model } = this;
    return {
      far: model.get("far"),
      near: model.get("near"),
      plane: model.get("plane"),
      equalise: model.get("equalise"),
    };
  }

  /**
   * @param {DepthMap} map
   * @returns {Processed}
   */
  resultOf(map) {
    const { processing } = this;
    const key = JSON.stringify(processing);
    const known = this.results.get(map);
    if (known?.key === key) return known.result;
    const result = processed(map, processing);
    this.results.set(map, { key, result });
    return result;
  }

  /**
   * The pixels of the picture at the size of the maps, which have one size.
   *
   * @param {ImageBitmap} image
   * @param {DepthMap} map
   * @returns {Uint32Array}
   */
  picturePixels(image, { width, height }) {
    if (this.pixels?.length !== width * height) {
      const pen = penOf(element("canvas", { width, height }));
      pen.drawImage(image, 0, 0, width, height);
      this.pixels = new Uint32Array(pen.getImageData(0, 0, width, height).data.buffer);
    }
    return this.pixels;
  }

  /**
   * How Python gets a map, before the settings are applied.
   *
   * @param {DepthMap} map
   * @returns {{call: string, code?: PythonCode}}
   */
  pythonOf(map) {
    if (map.name === "depth") return { call: this.about?.call ?? "", code: this.about?.code };
    const setup = ["# others: the maps that the explorer was given, by name"];
    return { call: `others[${pythonString(map.name)}]`, code: { setup, model: "model", image: "image" } };
  }

  /**
   * @override
   * @param {MapMessage | PictureMessage} message
   * @param {Part[]} parts
   */
  receive(message, parts) {
    if (message.kind === "map") {
      const map = this.decode(() => decodeDepth(message, parts[0]));
      if (!map) return;
      this.maps.set(map.name, map);
      this.names = message.names;
      this.requestMissing();
      this.reportReady();
    } else {
      this.about = message;
      this.readImage(message, parts[0], (image) => {
        this.image = image;
        this.emit("change");
        this.reportReady();
      });
    }
  }

  reportReady() {
    const [map] = this.maps.values();
    if (!this.image || !this.about || !map) return;
    const unit = map.metric ? "metres" : "inverse depth, larger is nearer";
    this.link.report(`${this.about.width} \u00d7 ${this.about.height} pixels; ${unit}`);
  }
}

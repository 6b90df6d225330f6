// The data of the depth explorer: the picture, and the maps on display.

import { Source } from "../shared/source.js";
import { decodeDepth } from "./numbers.js";

/** @import { AnyModel, Message, Part, PictureMessage } from "../shared/types.js" */
/** @import { DepthMap, MapHeader } from "./numbers.js" */
/** @import { Side } from "./pane.js" */

/**
 * @typedef {object} DepthTraits
 * @property {number} far the lower threshold of nearness
 * @property {number} near the upper threshold
 * @property {boolean} plane
 * @property {boolean} equalise
 * @property {string} left what the left pane shows: "picture", or the name of a map
 * @property {string} right
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
    for (const side of SIDES) model.on(`change:${side}`, () => this.requestMissing());
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

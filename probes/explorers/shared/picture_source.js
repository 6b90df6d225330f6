// The data of explorers of one image's tokens: the picture, the predicted depth, and the token under the pointer.

import { Source } from "./source.js";

/** @import { AnyModel, Grid, ImageMessage, Part, PictureMessage } from "./types.js" */

/**
 * Traits of these explorers.
 *
 * @typedef {object} PictureTraits
 * @property {number} token the token of the last deliberate move
 * @property {"picture" | "depth"} base what lies under the overlay
 * @property {string} colormap
 * @property {number} opacity of the overlay
 */

/**
 * Events: "picture" and "depth" when an image can be drawn, "cursor" when the pointer is at another token.
 *
 * @template {PictureTraits} Traits
 * @template {PictureMessage} [About=PictureMessage]
 * @extends {Source<Traits>}
 */
export class PictureSource extends Source {
  /** @param {AnyModel<Traits>} model */
  constructor(model) {
    super(model);
    /** @type {About | null} the "picture" message */
    this.about = null;
    /** @type {Grid | null} the grid that tokens refer to */
    this.grid = null;
    /** @type {Record<"picture" | "depth", ImageBitmap | null>} */
    this.images = { picture: null, depth: null };
    /** @type {number} the token under the pointer */
    this.cursor = model.get("token");
    this.cleanup.push(() => {
      for (const image of Object.values(this.images)) image?.close();
      this.images = { picture: null, depth: null };
    });
    this.follow("token", () => this.moveTo(model.get("token")));
  }

  /** @override */
  requestFirst() {
    this.link.report("Requesting the picture", { busy: true });
    this.link.request("picture");
    this.requestMaps();
    if (this.model.get("base") === "depth") this.requestDepth();
  }

  /** Requests the data of the explorer itself. */
  requestMaps() {}

  requestDepth() {
    if (!this.images.depth) this.link.request("depth");
  }

  /**
   * Why something was not captured and cannot be shown; "" if it can.
   *
   * @param {string} group "depth", "attention", "tokens" or "norms"
   * @returns {string}
   */
  absent(group) {
    return this.about?.absent[group] ?? "";
  }

  /** @override */
  get present() {
    return /** @type {Partial<Traits>} */ ({ token: this.cursor });
  }

  /** Reports what is displayed, once that is what was requested. */
  reportReady() {}

  /**
   * Takes the picture or the depth.
   *
   * @param {ImageMessage & {kind: "picture" | "depth"}} message
   * @param {Part} part
   */
  receiveImage(message, part) {
    this.readImage(message, part, (image) => {
      this.images[message.kind] = image;
      this.reportReady();
      this.emit(message.kind);
    });
  }

  /** @param {number} token */
  moveTo(token) {
    if (token === this.cursor) return;
    this.cursor = token;
    this.emit("cursor");
  }

  saveCursor() {
    this.saveSoon("token", () => this.cursor);
  }
}

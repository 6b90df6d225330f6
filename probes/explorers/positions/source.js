// The position explorer's data: the table, or the biases of a block, for an input size; and the place under the pointer.
//
// A place is a fraction of the image, so it stays where it is when the grid, or a block's window, changes.

import { ByteCache } from "#shared/cache.js";
import { Source } from "#shared/source.js";
import { decodeBias, decodeTable, describe, positionBytes } from "./data.js";
import { cellAt } from "./places.js";

/** @import { Origin } from "#shared/origin.js" */
/** @import { AnyModel, Message, Part, PythonCode } from "#shared/types.js" */
/** @import { BiasMessage, PositionData, TableMessage } from "./data.js" */
/** @import { Cell, Place } from "./places.js" */

/** @typedef {[height: number, width: number]} InputSize pixels */

/**
 * @typedef {object} PositionTraits
 * @property {InputSize} size
 * @property {Place} place of the last deliberate move
 * @property {boolean} pinned whether the pointer leaves the place as it is
 * @property {"index" | "strength" | "frequency"} order of the images
 * @property {"own" | "shared"} scale
 * @property {string} colormap
 * @property {number} first index, in this order, of the first image shown
 * @property {number | null} channel tables: the enlarged channel
 * @property {"values" | "spectrum"} view tables: what the images show
 * @property {boolean} centred tables: similarity without the mean of all positions
 * @property {number} block biases
 * @property {number | null} head biases: the enlarged head, MEAN for the mean
 */

/**
 * The first reply.
 *
 * @typedef {Message & {
 *   encoding: "table" | "bias", code?: PythonCode, family: string, variant: string, sizes: InputSize[], native: InputSize, patch: number,
 *   blocks: number, origin: Origin,
 * }} PositionAbout sizes: on offer; patch: its side in pixels; blocks: 0 for tables
 */

const CACHE_BYTES = 256 * 2 ** 20;

/**
 * Events: "about" with the first reply; "requested" when size or block have changed; "data" when other data is on display,
 * "native" when data of another size has arrived; "place".
 *
 * @extends {Source<PositionTraits>}
 */
export class PositionSource extends Source {
  /** @param {AnyModel<PositionTraits>} model */
  constructor(model) {
    super(model);
    /** @type {PositionAbout | null} */
    this.about = null;
    /** @type {ByteCache<PositionData>} */
    this.cache = new ByteCache(CACHE_BYTES);
    /** @type {PositionData | null} on display */
    this.data = null;
    /** @type {Place} under the pointer */
    this.place = model.get("place");
    this.cleanup.push(() => {
      this.cache.clear();
      this.data = null;
    });
    this.follow("size", () => this.requestData());
    this.follow("block", () => this.requestData());
    this.follow("place", () => this.moveTo(model.get("place")));
  }

  /** @override */
  requestFirst() {
    this.link.report("Requesting the model's positions", { busy: true });
    this.link.request("about");
  }

  /** @override */
  get present() {
    return { place: this.place };
  }

  get biased() {
    return this.about?.encoding === "bias";
  }

  /** The cell of the data on display that the place lies in. */
  get cell() {
    return this.data ? cellAt(this.data, this.place) : /** @type {Cell} */ ([0, 0]);
  }

  /** Sizes on offer, with the chosen one. */
  get sizes() {
    const sizes = this.about?.sizes ?? [];
    const own = this.model.get("size");
    return sizes.some((size) => size.join() === own.join()) ? sizes : [...sizes, own];
  }

  /** Whether the data on display is that of the chosen size and block. */
  get isCurrent() {
    return this.data !== null && this.keyOf(this.data) === this.keyOf(this.payloadOf(this.model.get("size")));
  }

  /**
   * The fields of a request.
   *
   * @param {InputSize} size
   * @returns {{height: number, width: number, block?: number}}
   */
  payloadOf([height, width]) {
    return this.biased ? { height, width, block: this.model.get("block") } : { height, width };
  }

  /**
   * @param {{height: number, width: number, block?: number}} payload or its reply
   * @returns {string} key of the cache
   */
  keyOf({ height, width, block }) {
    return (this.biased ? [height, width, block] : [height, width]).join();
  }

  /** Shows the data of the chosen size and block, or requests it. */
  requestData() {
    if (!this.about) return;
    const payload = this.payloadOf(this.model.get("size"));
    const known = this.cache.get(this.keyOf(payload));
    if (known) this.show(known);
    else {
      this.link.report("Requesting positions", { busy: true });
      this.link.request(this.about.encoding, payload);
    }
    this.emit("requested");
  }

  /**
   * The data of the native size, to compare with the chosen one.
   *
   * @returns {PositionData | null} null for the native size itself, and before the data has arrived
   */
  requestNative() {
    if (!this.about) return null;
    const payload = this.payloadOf(this.about.native);
    const key = this.keyOf(payload);
    if (key === this.keyOf(this.payloadOf(this.model.get("size")))) return null;
    const known = this.cache.get(key);
    if (!known) this.link.request(this.about.encoding, payload);
    return known ?? null;
  }

  /**
   * @override
   * @param {Message} message
   * @param {Part[]} parts
   */
  receive(message, parts) {
    if (message.kind === "about") {
      this.about = /** @type {PositionAbout} */ (message);
      this.emit("about");
      this.requestData();
      return;
    }
    const data = this.decode(() =>
      message.kind === "table"
        ? decodeTable(/** @type {TableMessage} */ (message), parts)
        : decodeBias(/** @type {BiasMessage} */ (message), parts),
    );
    if (!data) return;
    this.cache.put(this.keyOf(data), data, positionBytes(data));
    if (this.keyOf(data) === this.keyOf(this.payloadOf(this.model.get("size")))) this.show(data);
    else if (this.data) {
      if (this.isCurrent) this.reportReady(); // else the controls have moved on, and their data is on its way
      this.emit("native");
    }
  }

  /** @param {PositionData} data */
  show(data) {
    this.data = data;
    this.reportReady();
    this.emit("data");
  }

  reportReady() {
    if (this.data) this.link.report(describe(this.data));
  }

  /** @param {Place} place */
  moveTo(place) {
    if (place[0] === this.place[0] && place[1] === this.place[1]) return;
    this.place = place;
    this.emit("place");
  }

  savePlace() {
    this.saveSoon("place", () => this.place);
  }
}

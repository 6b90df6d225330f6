// The data of the fusion explorer: the setting that the sliders show, and the maps that the kernel computed for it.
//
// While a slider moves, `scales` runs ahead of the trait of that name, and previews are requested. REST milliseconds
// after the last move the trait is saved and the full map requested.

import { ByteCache } from "#shared/cache.js";
import { download } from "#shared/download.js";
import { namedAfter, UNKNOWN_ORIGIN } from "#shared/origin.js";
import { Source } from "#shared/source.js";
import { decodeMap } from "./depth_map.js";
import { byName, inOrder, sameScales } from "./setting.js";

/** @import { Origin } from "#shared/origin.js" */
/** @import { AnyModel, ImageMessage, Message, Part, PythonCode } from "#shared/types.js" */
/** @import { DepthMap, MapHeader } from "./depth_map.js" */
/** @import { Show } from "./readout.js" */
/** @import { NamedScales } from "./setting.js" */

const CACHE_BYTES = 128 * 2 ** 20; // of full maps: returning to a setting requests nothing
const REST = 180;
const PATIENCE = 8000; // an encoder on a CPU may take some seconds

/**
 * @typedef {object} FusionTraits
 * @property {NamedScales} scales
 * @property {Show} show
 * @property {"own" | "unscaled"} span
 * @property {string} colormap
 * @property {boolean} reverse
 * @property {boolean} high_contrast
 * @property {number | [number, number] | null} size
 * @property {boolean} keep_aspect
 * @property {NamedScales} start of the animation
 * @property {NamedScales} end
 * @property {number} frames
 */

/**
 * The reply to a request for the picture.
 *
 * @typedef {object} AboutFields
 * @property {number} width of the picture
 * @property {number} height
 * @property {string[]} points that are scaled; the first `sliders` of them are the inputs of the fusion levels
 * @property {number} sliders
 * @property {number} reach scales run from -reach to reach
 * @property {number} base the model's own processing size
 * @property {number[]} sizes to offer
 * @property {boolean} stretches the model takes square pictures only
 * @property {boolean} metric
 * @property {string} name of the model
 * @property {Origin} origin for saved files
 * @property {PythonCode} [code] how Python gets the model and the image
 * @property {number[]} [steps] on a page: the steps of each slider
 * @property {number[]} [from] on a page: the setting it was saved with
 */

/** @typedef {ImageMessage & AboutFields} About */

/**
 * @typedef {object} MapFields
 * @property {number[]} scales in the order of the points
 * @property {number} shrink 1: the full map; else a preview, smaller by this factor
 * @property {[height: number, width: number]} input size of the model's input
 * @property {number} [round] as requested
 * @property {boolean} preview as requested
 * @property {number | null} stamp as requested
 * @property {string} call the Python of an unscaled pass
 * @property {(Omit<MapHeader, "bits"> & {mean: number})[]} thumbs of the fusion levels, coarse to fine
 * @property {number} ms that the kernel took
 */

/** @typedef {Message & MapHeader & MapFields} MapMessage */

/** @typedef {{map: DepthMap, mean: number}} Thumbnail norm over channels of a level's output; mean: of the whole level */

/** @typedef {DepthMap & {about: MapMessage, thumbnails: Thumbnail[]}} ScaledMap */

/**
 * Events: "about" for the facts of model and image, "picture" when it is decoded, "scales" when the setting changes, "wanted"
 * when a map is requested, "map" when one is here.
 *
 * @extends {Source<FusionTraits>}
 */
export class FusionSource extends Source {
  /** @param {AnyModel<FusionTraits>} model */
  constructor(model) {
    super(model, PATIENCE);
    /** @type {About | null} */
    this.about = null;
    /** @type {ImageBitmap | null} */
    this.picture = null;
    /** @type {ScaledMap | null} the map of the unscaled model */
    this.baseline = null;
    /** @type {ScaledMap | null} the latest map */
    this.map = null;
    /** @type {number[]} one per point */
    this.scales = [];
    /** @type {ByteCache<ScaledMap>} */
    this.cache = new ByteCache(CACHE_BYTES);
    this.round = 0; // replies to requests made before another size are dropped
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.resting = undefined;
    this.cleanup.push(() => {
      this.picture?.close();
      this.picture = this.baseline = this.map = null;
      this.cache.clear();
    });
    this.follow("scales", () => this.followTrait());
    this.follow("size", () => this.restart());
    this.follow("keep_aspect", () => this.restart());
  }

  /** @returns {boolean} whether this is a page without a kernel, which holds some settings only */
  get isPage() {
    return Boolean(this.about?.steps);
  }

  /** @returns {boolean} whether the latest map is the full map of the setting */
  get settled() {
    const { map, baseline, scales } = this;
    return Boolean(map && baseline && map.about.shrink === 1 && sameScales(map.about.scales, scales));
  }

  /** @returns {boolean} whether the setting changed less than REST milliseconds ago, and is not saved yet */
  get moving() {
    return this.resting !== undefined;
  }

  // ------------------------------------------------------------------------------------------------------- requests

  /** @override */
  requestFirst() {
    this.link.report("Requesting the picture", { busy: true });
    this.link.request("picture");
  }

  /** Requests the maps of another input size. */
  restart() {
    if (!this.opened) return;
    this.round += 1;
    this.cache = new ByteCache(CACHE_BYTES);
    if (this.about) this.requestMaps();
    else this.link.request("picture");
  }

  /** @override */
  close() {
    clearTimeout(this.resting);
    super.close();
  }

  requestMaps() {
    this.baseline = null;
    this.emit("wanted");
    this.link.report("Requesting the maps", { busy: true });
    this.link.request("baseline", this.commonRequest());
    this.requestMap(false);
  }

  /** What every request for a map or a file says. */
  commonRequest() {
    return { size: this.model.get("size"), keep_aspect: this.model.get("keep_aspect"), round: this.round };
  }

  /**
   * Shows the map of the setting from the cache, or requests it.
   *
   * @param {boolean} preview whether a smaller map will do
   */
  requestMap(preview) {
    const known = this.cache.get(String(this.scales));
    if (known) {
      this.map = known;
      this.reportReady();
      this.emit("map");
      return;
    }
    const { about, scales } = this;
    if (!this.opened || !about) return;
    const saved = !about.from || sameScales(scales, about.from); // a page holds its own setting in 16 bits
    const bits = saved ? 16 : 8;
    this.link.request("map", { ...this.commonRequest(), scales, preview, bits, stamp: performance.now() });
    this.emit("wanted");
  }

  /** @override */
  get present() {
    return this.about ? { scales: byName(this.about.points, this.scales) } : {};
  }

  /**
   * Requests the exact map of the setting at the picture's size, as a file.
   *
   * @param {"npy" | "png16"} format
   */
  requestFile(format) {
    this.link.report("Requesting the file", { busy: true });
    this.link.request("file", { ...this.commonRequest(), scales: this.scales, format });
  }

  /** @param {"gif" | "mp4"} format */
  requestAnimation(format) {
    const { about, model } = this;
    if (!about) return;
    this.link.report("Requesting the animation", { busy: true });
    const start = inOrder(about.points, model.get("start"));
    const end = inOrder(about.points, model.get("end"));
    this.link.request("animation", { ...this.commonRequest(), start, end, frames: model.get("frames"), format });
  }

  // -------------------------------------------------------------------------------------------------------- setting

  /** Follows the trait after a change by Python, another page, or this one. */
  followTrait() {
    if (!this.about) return;
    const scales = inOrder(this.about.points, this.model.get("scales"));
    if (sameScales(scales, this.scales)) return;
    this.scales = scales;
    this.emit("scales");
    this.requestMap(false);
  }

  /**
   * Changes the setting: previews follow at once, the trait and the full map when the sliders rest.
   *
   * @param {number[]} scales
   */
  move(scales) {
    const { about } = this;
    if (!about || sameScales(scales, this.scales)) return;
    this.scales = scales;
    this.emit("scales");
    this.requestMap(true);
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      this.resting = undefined;
      this.model.set("scales", byName(about.points, this.scales));
      this.model.save_changes();
      this.requestMap(false);
    }, REST);
  }

  // -------------------------------------------------------------------------------------------------------- replies

  /**
   * @override
   * @param {any} message
   * @param {Part[]} parts
   */
  receive(message, parts) {
    if (message.kind === "picture") this.receivePicture(message, parts[0]);
    else if (message.kind === "map" || message.kind === "baseline") this.receiveMap(message, parts);
    else {
      const name = `${namedAfter(message.stem, this.about?.origin ?? UNKNOWN_ORIGIN)}${message.ending}`;
      download(this.link, name, /** @type {BlobPart[]} */ ([parts[0]]), message.type);
    }
  }

  /**
   * @param {About} about
   * @param {Part} part
   */
  receivePicture(about, part) {
    this.about = about;
    this.scales = inOrder(about.points, this.model.get("scales"));
    this.emit("about");
    this.requestMaps();
    this.readImage(about, part, (picture) => {
      this.picture = picture;
      this.emit("picture");
    });
  }

  /**
   * @param {MapMessage} message
   * @param {Part[]} parts the map, then the thumbnails
   */
  receiveMap(message, parts) {
    if ((message.round ?? this.round) !== this.round) return;
    const map = this.decode(() => {
      const thumbnails = message.thumbs.map((thumb, n) => ({
        map: decodeMap({ ...thumb, bits: 8 }, parts[n + 1]),
        mean: thumb.mean,
      }));
      return { ...decodeMap(message, parts[0]), thumbnails, about: message };
    });
    if (!map) return;
    if (message.shrink === 1) this.cache.put(String(message.scales), map, map.levels.byteLength);
    if (message.kind === "baseline") this.baseline = map;
    else this.map = map;
    this.reportReady();
    this.emit("map");
  }

  reportReady() {
    const { map, about } = this;
    if (!map || !about) return;
    const { input, shrink, width, height, ms } = map.about;
    if (shrink > 1) {
      this.link.report(`Preview of ${height} \u00d7 ${width} pixels`, { busy: true });
    } else if (this.settled) {
      const time = this.isPage ? "" : `: ${Math.round(ms)} ms`;
      this.link.report(`${about.name} at ${input[0]} \u00d7 ${input[1]} pixels${time}`);
    }
  }
}

// The fusion explorer's data: the setting under the hand, what the kernel was asked, what came. One for each widget
// model, shared by its views on the page, which so move together.
//
// While a slider moves, `scales` runs ahead of the trait of that name: the trait is set when the hand rests. Previews
// are asked for on the way, and the full map after REST ms without a move.

import { ByteCache, download } from "../shared/shell.js";
import { Source } from "../shared/view.js";
import { decodeMap } from "./depth_map.js";

const CACHE_BYTES = 128 * 2 ** 20; // full maps that were seen: going back to them asks nobody
const REST = 180;

export class FusionSource extends Source {
  constructor(model) {
    super(model, 8000); // an encoder on a CPU may take some seconds
    this.cache = new ByteCache(CACHE_BYTES);
    this.picture = null; // ImageBitmap
    this.baseline = null; // the map without scales
    this.map = null; // the newest map that came
    this.round = 0; // what was asked before another model, picture or size does not count
    this.resting = 0;
    this.scales = null; // one number for each of about.points
    model.on("change:scales", () => this.follow());
    for (const name of ["size", "keep_aspect"]) model.on(`change:${name}`, () => this.restart(false));
    model.on("change:_round", () => this.restart(true));
  }

  begin() {
    this.link.say("Asking for the picture", { busy: true });
    this.link.ask("picture");
  }

  /** Without a kernel: only some settings are there. */
  get page() {
    return Boolean(this.about?.steps);
  }

  get preset() {
    return this.about.points.map((point) => this.model.get("scales")[point] ?? 1);
  }

  /** The trait changed: by Python, another page, or ourselves. */
  follow() {
    if (!this.about) return;
    const wanted = this.preset;
    if (same(wanted, this.scales)) return;
    this.scales = wanted;
    this.tell("scales");
    this.want(false);
  }

  restart(everything) {
    if (!this.opened) return;
    this.round += 1;
    this.cache = new ByteCache(CACHE_BYTES);
    if (everything || !this.about) {
      this.link.ask("picture");
    } else {
      this.wantAll();
    }
  }

  wantAll() {
    this.baseline = null;
    this.tell("wanted");
    this.link.say("Asking for the maps", { busy: true });
    this.link.ask("baseline", this.request());
    this.want(false);
  }

  request() {
    return { size: this.model.get("size"), keep_aspect: this.model.get("keep_aspect"), round: this.round };
  }

  /** Other scales, by hand: shown as soon as they can be, kept when the hand rests. */
  move(scales) {
    if (same(scales, this.scales)) return;
    this.scales = scales;
    this.tell("scales");
    this.want(true);
    this.rest();
  }

  rest() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      const { points } = this.about;
      this.model.set("scales", Object.fromEntries(points.map((point, n) => [point, this.scales[n]])));
      this.model.save_changes();
      this.want(false);
    }, REST);
  }

  want(preview) {
    const known = this.cache.get(String(this.scales));
    if (known) {
      this.map = known;
      this.ready();
      this.tell("map");
      return;
    }
    if (!this.opened || !this.about) return;
    const request = { ...this.request(), scales: this.scales, preview, stamp: performance.now() };
    request.bits = this.page && !same(this.scales, this.about.from) ? 8 : 16;
    this.link.ask("map", request);
    this.tell("wanted");
  }

  /** A file from the kernel; what: "npy", "png16", "gif" or "mp4". */
  save(what) {
    const { start, end, frames } = Object.fromEntries(
      ["start", "end", "frames"].map((name) => [name, this.model.get(name)]),
    );
    this.link.say("Asking the kernel for the file", { busy: true });
    const inOrder = (setting) => this.about.points.map((point) => setting[point] ?? 1);
    if (what === "npy" || what === "png16") {
      this.link.ask("file", { ...this.request(), scales: this.scales, format: what });
    } else {
      const ends = { start: inOrder(start), end: inOrder(end) };
      this.link.ask("animation", { ...this.request(), ...ends, frames, format: what });
    }
  }

  receive(message, buffers) {
    if (message.kind === "picture") this.receivePicture(message, buffers);
    else if (message.kind === "map" || message.kind === "baseline") this.receiveMap(message, buffers);
    else {
      download(message.name, [buffers[0]], message.type ?? "application/octet-stream");
      this.link.say(`Saved ${message.name}`);
    }
  }

  receivePicture(message, buffers) {
    this.about = message;
    this.scales = this.preset;
    this.tell("about");
    this.wantAll();
    this.readPicture(message, buffers[0], (picture) => {
      this.picture = picture;
      this.tell("picture");
    });
  }

  receiveMap(message, buffers) {
    if ((message.round ?? this.round) !== this.round) return; // of another size, model or picture
    const map = this.decoded(() => {
      const thumbs = message.thumbs.map((thumb, n) => decodeMap({ ...thumb, bits: 8 }, buffers[n + 1]));
      return Object.assign(decodeMap(message, buffers[0]), { thumbs });
    });
    if (!map) return;
    map.about = message;
    map.stamp = message.stamp ?? null;
    if (message.shrink === 1) this.cache.put(String(message.scales), map, 2 * map.levels.length);
    if (message.kind === "baseline") this.baseline = map;
    else this.map = map;
    this.ready();
    this.tell("map");
  }

  /** What is shown is what was asked for, in full. */
  get settled() {
    const { map } = this;
    return Boolean(map && this.baseline && map.about.shrink === 1 && same(map.about.scales, this.scales));
  }

  ready() {
    const { map, about } = this;
    if (!map) return;
    const { input, shrink, width, height, ms } = map.about;
    const size = `${input[0]} \u00d7 ${input[1]} pixels`;
    if (shrink > 1) this.link.say(`Preview of ${height} \u00d7 ${width} pixels`, { busy: true });
    else if (this.settled) this.link.say(`${about.name} at ${size}${this.page ? "" : `: ${Math.round(ms)} ms`}`);
  }
}

function same(a, b) {
  return a !== null && b !== null && a.length === b.length && a.every((value, n) => value === b[n]);
}

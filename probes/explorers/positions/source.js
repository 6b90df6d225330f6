// The position explorer's data: what the kernel was asked, what came, and the place under the pointer. One for each widget
// model, shared by its views on the page, which so share the pointer, too.
//
// A place is kept as fractions of the picture, so that it stays where it is when the grid, or a block's window, changes.

import { ByteCache } from "../shared/shell.js";
import { Source } from "../shared/view.js";
import { decodeBias, decodeTable, positionBytes } from "./numbers.js";

const CACHE_BYTES = 256 * 2 ** 20;

export class PositionSource extends Source {
  constructor(model) {
    super(model);
    this.cache = new ByteCache(CACHE_BYTES);
    this.data = null; // the decoded table, or the bias of a block, on display
    this.place = model.get("place"); // (down, right), as fractions
    model.on("change:size", () => this.want());
    model.on("change:block", () => this.want());
    model.on("change:place", () => this.moveTo(model.get("place")));
  }

  begin() {
    this.link.say("Asking for the model's positions", { busy: true });
    this.link.ask("about");
  }

  get biased() {
    return this.about?.encoding === "bias";
  }

  wanted(size = this.model.get("size")) {
    const [height, width] = size;
    return this.biased ? { height, width, block: this.model.get("block") } : { height, width };
  }

  want() {
    if (!this.about) return;
    const wanted = this.wanted();
    const known = this.cache.get(Object.values(wanted).join());
    if (known) this.show(known);
    else {
      this.link.say("Asking for positions", { busy: true });
      this.link.ask(this.about.encoding, wanted);
    }
    this.tell("wanted");
  }

  /** The same for the native size, to compare with: null until it is there, which is told as "data", or if it is shown. */
  native() {
    const wanted = this.wanted(this.about.native);
    const key = Object.values(wanted).join();
    if (key === Object.values(this.wanted()).join()) return null;
    const known = this.cache.get(key);
    if (!known) this.link.ask(this.about.encoding, wanted);
    return known ?? null;
  }

  receive(message, buffers) {
    if (message.kind === "about") {
      this.about = message;
      this.tell("about");
      this.want();
      return;
    }
    const decode = message.kind === "table" ? decodeTable : decodeBias;
    const data = this.decoded(() => decode(message, buffers));
    if (!data) return;
    const keyOf = ({ height, width, block }) => (this.biased ? [height, width, block] : [height, width]).join();
    this.cache.put(keyOf(message), data, positionBytes(data));
    const wanted = Object.values(this.wanted()).join();
    if (keyOf(message) === wanted) this.show(data);
    else if (this.data) {
      if (keyOf(this.data) === wanted) this.ready(); // else the controls have moved on, and that is on its way
      this.tell("native");
    }
  }

  show(data) {
    this.data = data;
    this.ready();
    this.tell("data");
  }

  /** The strip goes quiet: what is on display is what was asked for. */
  ready() {
    const { data } = this;
    const { height, width, rows, cols, count, block } = data;
    const what = this.biased
      ? `Block ${block}: relative biases of ${count} ${count === 1 ? "head" : "heads"}, ${data.windowed ? "windows" : "grid"} of ${rows} \u00d7 ${cols} tokens`
      : `Table of ${count} channels, ${rows} \u00d7 ${cols} positions, ${data.stored ? "as stored" : "resized from 37 \u00d7 37"}`;
    this.link.say(`${what} (input of ${height} \u00d7 ${width} pixels)`);
  }

  moveTo(place) {
    if (place[0] === this.place[0] && place[1] === this.place[1]) return;
    this.place = place;
    this.tell("place");
  }

  savePlace() {
    this.saveSoon("place", () => this.place);
  }
}

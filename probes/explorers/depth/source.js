// The depth explorer's data: the picture and the maps that are on display. One for each widget model, shared by its views.

import { Source } from "../shared/view.js";
import { decodeDepth } from "./numbers.js";

export const SIDES = ["left", "right"];

export class DepthSource extends Source {
  constructor(model) {
    super(model);
    this.image = null; // ImageBitmap
    this.maps = new Map();
    this.names = ["depth"];
    for (const side of SIDES) model.on(`change:${side}`, () => this.want());
  }

  begin() {
    this.link.say("Asking for the picture", { busy: true });
    this.link.ask("picture");
    this.want();
  }

  /** The next map that is on display and not here yet; thresholds of the picture are those of a map, "depth" if need be. */
  want() {
    const shown = SIDES.map((side) => this.model.get(side)).filter((name) => name !== "picture");
    const missing = (shown.length ? shown : ["depth"]).find((name) => !this.maps.has(name));
    if (missing && this.opened) this.link.ask("map", { name: missing });
    this.tell("change");
  }

  receive(message, buffers) {
    if (message.kind === "map") {
      const map = this.decoded(() => decodeDepth(message, buffers[0]));
      if (!map) return;
      this.maps.set(message.name, map);
      this.names = message.names;
      this.want();
      this.ready();
    } else {
      this.about = message;
      this.readPicture(message, buffers[0], (image) => {
        this.image = image;
        this.tell("picture");
        this.ready();
      });
    }
  }

  ready() {
    if (!this.image || !this.maps.size) return;
    const map = this.maps.values().next().value;
    const unit = map.metric ? "metres" : "inverse depth, larger is nearer";
    this.link.say(`${this.about.width} \u00d7 ${this.about.height} pixels; ${unit}`);
  }
}

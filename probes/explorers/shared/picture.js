// What explorers of the patches of one picture share: the picture and the model's depth, a cursor that all views of the
// widget have in common, the overlay of a map, and the controls of these.

import { Cells } from "./cells.js";
import { drawWhole, isDark, slider, widthInside } from "./panel.js";
import { element, segmented } from "./shell.js";
import { Source, View } from "./view.js";

/** Subclasses have wantMaps(), which asks for the data of this explorer. */
export class PictureSource extends Source {
  constructor(model) {
    super(model);
    this.grid = null; // {rows, cols, prefix}: the one that tokens count on
    this.images = { picture: null, depth: null }; // ImageBitmap
    this.cursor = model.get("token");
    model.on("change:token", () => this.moveTo(model.get("token")));
  }

  begin() {
    this.link.say("Asking for the picture", { busy: true });
    this.link.ask("picture");
    this.wantMaps();
    if (this.model.get("base") === "depth") this.wantDepth();
  }

  /** Why something was not captured and cannot be shown; "" where it can. */
  absent(what) {
    return this.about?.absent[what] ?? "";
  }

  wantDepth() {
    if (!this.images.depth) this.link.ask("depth");
  }

  /** The picture or the depth; told once the browser has read it. */
  receiveImage(message, part) {
    this.readPicture(message, part, (image) => {
      this.images[message.kind] = image;
      this.ready();
      this.tell(message.kind);
    });
  }

  moveTo(token) {
    if (token === this.cursor) return;
    this.cursor = token;
    this.tell("cursor");
  }

  saveCursor() {
    this.saveSoon("token", () => this.cursor);
  }
}

/** Subclasses have settle(), after a change of any setting, and placing(width, aspect): the layout for a width. */
export class PictureView extends View {
  /** The picture with a map over it and marks; what is below it. */
  buildPicture(...over) {
    this.pictureCanvas = element("canvas", { className: "dptx-picture" });
    this.overlay = new Cells({ className: "dptx-cells dptx-overlay" });
    this.stage = element(
      "div",
      {
        className: "dptx-stage dptx-frame",
        tabIndex: 0,
        role: "application",
        "aria-label": "Picture. Arrow keys move the patch, Enter pins it, question mark lists all keys.",
      },
      this.pictureCanvas,
      this.overlay.canvas,
      ...over,
    );
    this.base = segmented(
      "Base picture",
      [
        ["picture", "Picture", "The picture under the overlay (key p)"],
        ["depth", "Depth", "The predicted depth under the overlay; nearer is brighter (key p)"],
      ],
      (base) => this.save({ base }),
    );
    const opacity = () => this.save({ opacity: Number(this.opacity.value) });
    const look = { className: "dptx-slider dptx-opacity", max: 1, step: 0.05 };
    this.opacity = slider("Overlay opacity", `Opacity of the overlay: ${this.overlaid} (key o)`, opacity, look);
  }

  begin() {
    this.watch([...this.settings, "colormap", "opacity", "base"], () => this.settle());
    this.watchSize(this.root, () => this.layout());
    this.watchTheme(() => {
      this.layout();
      this.schedule();
    });
    this.catchUp();
    this.settle();
    this.focusOnPage(this.stage);
  }

  /** A change that may take away what has the focus: that then goes to the picture, as keys are lost without any. */
  keepFocus(place, change) {
    const lost = () => !place.checkVisibility() || place.querySelector(":focus:disabled");
    const inside = () => place.matches(":focus-within") && !lost();
    const before = inside();
    change();
    if (before && !inside()) this.stage.focus({ preventScroll: true });
  }

  /** Controls of the picture say what holds. */
  settlePicture() {
    const base = this.get("base");
    this.base.set(base);
    this.base.shut("depth", this.source.absent("depth"));
    this.colours.value = this.get("colormap");
    this.opacity.value = this.get("opacity");
    this.overlay.canvas.style.opacity = this.get("opacity");
    if (base === this.baseShown) return;
    this.baseShown = base;
    if (base === "depth" && this.source.opened) this.source.wantDepth();
    this.showPicture();
  }

  showPicture() {
    const { images, about } = this.source;
    if (!about) return;
    const image = images[this.get("base")] ?? images.picture;
    if (image) drawWhole(this.pictureCanvas, image);
    this.root.style.setProperty("--dptx-aspect", `${about.width} / ${about.height}`);
    this.layout();
  }

  layout() {
    const { about } = this.source;
    const width = widthInside(this.root);
    if (!about || !(width > 0)) return;
    this.dark = isDark(this.root);
    const place = this.placing(width, about.height / about.width);
    this.root.classList.toggle("dptx-stacked", !place.beside);
    const { left, picture, columns, tile, big } = place;
    const sizes = {
      left: `${left}px`,
      picture: `${picture}px`,
      columns: `repeat(${columns}, ${tile}px)`,
      big: `${big}px`,
    };
    for (const [name, value] of Object.entries(sizes)) this.root.style.setProperty(`--dptx-${name}`, value);
  }

  /** A map's colours for the overlay: the picture shows through where values are low, or near 0 if they have a sign. */
  seenThrough(table, signed) {
    if (this.seenOf !== table) {
      this.seenOf = table;
      this.seen = table.map((colour, n) => {
        const strength = signed ? 1.2 * Math.abs(n / 127.5 - 1) : 0.3 + (0.9 * n) / 255;
        return ((colour & 0xffffff) | (Math.round(255 * Math.min(1, strength)) << 24)) >>> 0;
      });
    }
    return this.seen;
  }

  toggleBase() {
    const why = this.source.absent("depth");
    if (why) this.source.link.say(why);
    else this.cycle("base", ["picture", "depth"]);
  }

  toggleOverlay() {
    const now = this.get("opacity");
    if (now > 0) this.lastOpacity = now;
    this.save({ opacity: now > 0 ? 0 : (this.lastOpacity ?? 0.6) });
  }
}

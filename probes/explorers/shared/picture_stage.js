// The picture of an explorer, with a map over it, and the controls of these.

import { drawWhole, PixelCanvas } from "./canvas.js";
import { segmented, slider } from "./controls.js";
import { element } from "./elements.js";
import { keepFocus } from "./focus.js";

/** @import { KeyTable } from "./keys.js" */
/** @import { PictureSource, PictureTraits } from "./picture_source.js" */
/** @import { Settings } from "./settings.js" */

/**
 * @typedef {object} PictureStage
 * @property {HTMLElement} node the picture; it has the focus and takes the keys
 * @property {HTMLCanvasElement} canvas the picture or the depth at its own size
 * @property {PixelCanvas} overlay
 * @property {HTMLElement} base the choice of picture or depth
 * @property {HTMLElement} opacity the slider of the overlay
 * @property {() => void} sync sets the controls by the traits, and requests the depth if it is wanted
 * @property {() => void} draw draws the chosen image
 * @property {() => void} toggleBase
 * @property {() => void} toggleOverlay
 * @property {(region: HTMLElement, change: () => void) => void} keepFocus makes a change that may take the focus away,
 *   which then goes to the picture
 */

/**
 * @param {object} options
 * @param {Settings<PictureTraits>} options.settings
 * @param {PictureSource<any, any>} options.source
 * @param {KeyTable<any>} options.keys with entries `base` and `overlay`
 * @param {string} options.overlaid what the overlay shows
 * @param {Node[]} options.over marks on the picture
 * @param {() => void} options.onChange called when another image is displayed
 * @returns {PictureStage}
 */
export function createPictureStage({ settings, source, keys, overlaid, over, onChange }) {
  const canvas = element("canvas", { className: "dptx-picture" });
  const overlay = new PixelCanvas({ className: "dptx-cells dptx-overlay" });
  const node = element(
    "div",
    {
      className: "dptx-stage dptx-frame",
      tabIndex: 0,
      role: "application",
      "aria-label": "Picture. Arrow keys move the patch, Enter pins it, question mark lists all keys.",
    },
    canvas,
    overlay.canvas,
    ...over,
  );
  const base = segmented(
    "Base picture",
    [
      ["picture", "Picture", keys.titled("The picture under the overlay", "base")],
      ["depth", "Depth", keys.titled("The predicted depth under the overlay; nearer is brighter", "base")],
    ],
    (value) => settings.save({ base: value }),
  );
  const opacity = slider(
    "Overlay opacity",
    keys.titled(`Opacity of the overlay: ${overlaid}`, "overlay"),
    (value) => settings.save({ opacity: value }),
    { className: "dptx-slider dptx-opacity", max: 1, step: 0.05 },
  );
  let lastOpacity = 0.6;
  /** @type {PictureTraits["base"] | null} */
  let shownBase = null;

  const draw = () => {
    const image = source.images[settings.get("base")] ?? source.images.picture;
    if (image) drawWhole(canvas, image);
    onChange();
  };
  return {
    node,
    canvas,
    overlay,
    base: base.node,
    opacity,
    draw,
    sync() {
      const wanted = settings.get("base");
      base.set(wanted);
      base.disable("depth", source.absent("depth"));
      opacity.value = String(settings.get("opacity"));
      overlay.canvas.style.opacity = String(settings.get("opacity"));
      if (wanted === shownBase) return;
      shownBase = wanted;
      if (wanted === "depth" && source.opened) source.requestDepth();
      draw();
    },
    toggleBase() {
      const reason = source.absent("depth");
      if (reason) source.link.report(reason);
      else settings.cycle("base", ["picture", "depth"]);
    },
    toggleOverlay() {
      const now = settings.get("opacity");
      if (now > 0) lastOpacity = now;
      settings.save({ opacity: now > 0 ? 0 : lastOpacity });
    },
    keepFocus: (region, change) => keepFocus(region, change, node),
  };
}

/**
 * Where things go, in pixels.
 *
 * @typedef {object} Placement
 * @property {boolean} beside tiles beside the picture, or else below it
 * @property {number} left width of the left column
 * @property {number} picture width
 * @property {number} columns of tiles
 * @property {number} tile width
 * @property {number} big width of the enlarged map; 0 if none is
 */

/**
 * Applies a placement to the root element of a widget.
 *
 * @param {HTMLElement} root
 * @param {Placement} placement
 */
export function applyPlacement(root, { beside, left, picture, columns, tile, big }) {
  root.classList.toggle("dptx-stacked", !beside);
  root.style.setProperty("--dptx-left", `${left}px`);
  root.style.setProperty("--dptx-picture", `${picture}px`);
  root.style.setProperty("--dptx-columns", `repeat(${columns}, ${tile}px)`);
  root.style.setProperty("--dptx-big", `${big}px`);
}

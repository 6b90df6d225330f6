// Controls for what the map shows and for its colours.

import { COLORMAPS, lookup } from "#shared/colours.js";
import { colourPicker, segmented, toggleButton } from "#shared/controls.js";
import { row } from "#shared/elements.js";

/** @import { KeyTable } from "#shared/keys.js" */
/** @import { Settings } from "#shared/settings.js" */
/** @import { Colouring, DepthMap } from "./depth_map.js" */
/** @import { Show } from "./readout.js" */
/** @import { FusionTraits } from "./source.js" */

/**
 * @typedef {object} ColouringControls
 * @property {HTMLElement} show the choice of what is displayed
 * @property {HTMLElement} colours the controls of its colours
 * @property {() => void} sync sets the controls by the traits
 * @property {(show: Show, otherwise: Show) => void} toggleShow shows one display, or the other if it is on display
 * @property {() => void} toggleContrast
 * @property {() => void} toggleReverse
 * @property {() => void} nextColours
 * @property {() => void} nextSpan
 * @property {(unscaled: DepthMap, metric: boolean) => Colouring} colouring of a depth map, by the traits
 */

/**
 * Colour controls are inactive where they would have no effect.
 *
 * @param {Settings<FusionTraits>} settings
 * @param {KeyTable<any>} keys
 * @returns {ColouringControls}
 */
export function createColouring(settings, keys) {
  const show = segmented(
    "Show",
    [
      ["scaled", "Scaled", keys.titled("The depth under the scales", "unscaled")],
      ["unscaled", "Unscaled", keys.titled("The depth of the unchanged model; also while the map is held", "unscaled")],
      ["difference", "Difference", keys.titled("Scaled minus unscaled: red where scaled is larger", "difference")],
      ["picture", "Picture", keys.titled("The picture itself", "picture")],
    ],
    (value) => settings.save({ show: /** @type {Show} */ (value) }),
  );
  const span = segmented(
    "Range of the colours",
    [
      ["own", "Own range", keys.titled("Colours cover the range of the map on display", "span")],
      [
        "unscaled",
        "Range of unscaled",
        keys.titled("Colours cover the range of the unscaled map, to compare maps", "span"),
      ],
    ],
    (value) => settings.save({ span: /** @type {"own" | "unscaled"} */ (value) }),
  );
  const contrast = toggleButton(
    "High contrast",
    keys.titled("Histogram equalisation: every colour covers the same number of pixels", "contrast"),
    () => settings.toggle("high_contrast"),
  );
  const reverse = toggleButton("Reversed", keys.titled("Reverse the colours", "reverse"), () =>
    settings.toggle("reverse"),
  );
  const colours = colourPicker(settings, keys.titled("Colours", "colours"));
  const isColoured = () => ["scaled", "unscaled"].includes(settings.get("show"));
  const isSpanned = () => isColoured() && !settings.get("high_contrast");

  return {
    show: show.node,
    colours: row("", colours.node, reverse.node, contrast.node, span.node),
    sync() {
      show.set(settings.get("show"));
      span.set(settings.get("span"));
      span.enable(isSpanned());
      contrast.set(settings.get("high_contrast"));
      reverse.set(settings.get("reverse"));
      colours.sync();
      for (const { node } of [contrast, reverse, colours]) node.disabled = !isColoured();
    },
    toggleShow(value, otherwise) {
      settings.save({ show: settings.get("show") === value ? otherwise : value });
    },
    toggleContrast() {
      if (isColoured()) settings.toggle("high_contrast");
    },
    toggleReverse() {
      if (isColoured()) settings.toggle("reverse");
    },
    nextColours() {
      if (isColoured()) settings.cycle("colormap", COLORMAPS);
    },
    nextSpan() {
      if (isSpanned()) settings.cycle("span", ["own", "unscaled"]);
    },
    colouring(unscaled, metric) {
      const equalise = settings.get("high_contrast");
      const shared = settings.get("span") === "unscaled" && !equalise;
      return {
        table: lookup(settings.get("colormap")),
        flip: metric !== settings.get("reverse"), // near is bright; in metres near is small
        equalise,
        span: shared ? [unscaled.low, unscaled.high] : null,
      };
    },
  };
}

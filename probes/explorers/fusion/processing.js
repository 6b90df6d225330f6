// The processing controls of the fusion explorer: at which size and aspect the model sees the picture.

import { field, picker, segmented } from "#shared/controls.js";
import { element, row } from "#shared/elements.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { About, FusionTraits } from "./source.js" */

const SIZE_TITLE = "The size at which the model processes the picture, roughly its shorter side in pixels";
const NO_KERNEL = "This page has no kernel, so the size of its maps is fixed.";
const SQUARE_ONLY = "This model takes square pictures only.";

/**
 * @typedef {object} Processing
 * @property {HTMLElement} node
 * @property {(about: About, isPage: boolean) => void} build offers the sizes of a model
 * @property {(about: About | null) => void} sync sets the controls by the traits
 */

/**
 * @param {Settings<FusionTraits>} settings
 * @returns {Processing}
 */
export function createProcessing(settings) {
  const sizes = picker("Processing size", SIZE_TITLE, [], (value) =>
    settings.save({ size: value === "" ? null : JSON.parse(value) }),
  );
  const aspect = segmented(
    "Aspect",
    [
      ["keep", "Keep aspect", "Resize the picture without distortion"],
      ["stretch", "Square", "Stretch the picture to a square"],
    ],
    (value) => settings.save({ keep_aspect: value === "keep" }),
  );
  return {
    node: row("", field("Processing", sizes), aspect.node),
    build(about, isPage) {
      const own = element("option", { value: "" }, `${about.base} (the model's own)`);
      const others = about.sizes.filter((size) => size !== about.base);
      sizes.replaceChildren(own, ...others.map((size) => element("option", { value: String(size) }, String(size))));
      sizes.disabled = isPage;
      aspect.enable(!isPage && !about.stretches);
      if (isPage) sizes.title = NO_KERNEL;
      aspect.describe(about.stretches ? SQUARE_ONLY : isPage ? NO_KERNEL : "");
    },
    sync(about) {
      aspect.set(about?.stretches || !settings.get("keep_aspect") ? "stretch" : "keep");
      const size = settings.get("size");
      const wanted = size === null || size === about?.base ? "" : JSON.stringify(size);
      if (![...sizes.options].some(({ value }) => value === wanted)) {
        const words = wanted.replace(/[[\]]/g, "").replace(",", " \u00d7 ");
        sizes.append(element("option", { value: wanted }, words));
      }
      sizes.value = wanted;
    },
  };
}

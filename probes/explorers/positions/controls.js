// The controls of the position explorer: of tables, or of biases.

import { blockText, colourPicker, field, picker, segmented, stepper } from "#shared/controls.js";
import { element } from "#shared/elements.js";
import { ordersOf } from "./actions.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { Pages, PositionActions } from "./actions.js" */
/** @import { PositionKeys } from "./keys.js" */
/** @import { InputSize, PositionAbout, PositionSource, PositionTraits } from "./source.js" */

/**
 * @typedef {object} PositionControls
 * @property {HTMLElement[]} toolbar
 * @property {HTMLElement[]} options of the images
 * @property {HTMLElement | null} similarity tables
 * @property {() => void} sync sets the controls by the traits
 */

/**
 * @param {object} options
 * @param {Settings<PositionTraits>} options.settings
 * @param {PositionSource} options.source
 * @param {PositionAbout} options.about
 * @param {PositionKeys} options.keys
 * @param {PositionActions} options.actions
 * @param {Pages} options.pages
 * @returns {PositionControls}
 */
export function createControls({ settings, source, about, keys, actions, pages }) {
  const biased = about.encoding === "bias";
  const size = createSizePicker(settings, source, about, keys);
  const block = stepper({
    label: "Block",
    unit: "block",
    title: keys.titled("Transformer block", "previousBlock", "nextBlock"),
    previous: keys.titled("Previous block", "previousBlock"),
    next: keys.titled("Next block", "nextBlock"),
    onstep: (by) => actions.stepBlock(by),
    onslide: (number) => actions.goToBlock(number),
  });
  const pager = stepper({
    label: biased ? "Heads" : "Channels",
    unit: "page",
    title: "Page of images",
    previous: keys.titled("Previous page", "previousPage"),
    next: keys.titled("Next page", "nextPage"),
    onstep: (by) => actions.turnPage(by),
    onslide: (page) => actions.goToPage(page),
  });
  pager.number.classList.add("dptx-page");
  /** @type {[PositionTraits["order"], string, string][]} */
  const orders = [
    ["index", "By number", keys.titled("In the order of their numbers", "order")],
    ["strength", "By strength", keys.titled("Largest variation first: standard deviation of the image", "order")],
    ["frequency", "By frequency", keys.titled("Slowest waves first: mean frequency of the spectrum", "order")],
  ];
  const order = segmented(
    "Order",
    orders.filter(([value]) => ordersOf(biased).includes(value)),
    (value) => actions.sortBy(value),
  );
  const scale = segmented(
    "Range",
    [
      ["own", "Own range", keys.titled("Every image spans its own range", "scale")],
      ["shared", "Shared", keys.titled("One range for all images", "scale")],
    ],
    (value) => settings.save({ scale: value }),
  );
  const view = segmented(
    "Images",
    [
      ["values", "Values", keys.titled("Each channel as an image of the grid", "view")],
      ["spectrum", "Spectra", keys.titled("Each channel's power by waves, the constant in the middle", "view")],
    ],
    (value) => settings.save({ view: value }),
  );
  const similarity = segmented(
    "Similarity",
    [
      ["false", "Cosine", keys.titled("Cosine of the vectors that are added to the tokens", "centred")],
      ["true", "Centred", keys.titled("Cosine after subtracting the mean of all positions", "centred")],
    ],
    (value) => settings.save({ centred: value === "true" }),
  );
  const colours = colourPicker(settings, keys.titled("Colours of values without a sign", "colours"));
  const sized = field("Input", size.node);
  return {
    toolbar: biased ? [block.node, sized, pager.node] : [sized, pager.node],
    options: biased ? [order.node, scale.node, colours.node] : [view.node, order.node, scale.node],
    similarity: biased
      ? null
      : element("div", { className: "dptx-row" }, field("Similarity", similarity.node), colours.node),
    sync() {
      size.sync();
      const number = settings.get("block");
      block.show(number, about.blocks - 1, blockText(number, about.blocks));
      const { current, count } = pages;
      pager.node.hidden = count < 2;
      pager.show(current, count - 1, `page ${current + 1} / ${count}`);
      order.set(settings.get("order"));
      scale.set(settings.get("scale"));
      view.set(settings.get("view"));
      similarity.set(settings.get("centred") ? "true" : "false");
      colours.sync();
    },
  };
}

/**
 * The choice of the input size.
 *
 * @param {Settings<PositionTraits>} settings
 * @param {PositionSource} source
 * @param {PositionAbout} about
 * @param {PositionKeys} keys
 * @returns {{node: HTMLSelectElement, sync(): void}}
 */
function createSizePicker(settings, source, { native, patch }, keys) {
  const title = keys.titled("Size of the input in pixels, and its grid", "nextSize", "previousSize");
  const node = picker("Input size", title, [], (value) =>
    settings.save({ size: /** @type {InputSize} */ (value.split("x").map(Number)) }),
  );
  /** @param {InputSize} size */
  const optionOf = ([height, width]) => {
    const grid = `${height / patch} \u00d7 ${width / patch} patches`;
    const note = [height, width].join() === native.join() ? " (native)" : "";
    return element("option", { value: `${height}x${width}` }, `${height} \u00d7 ${width}: ${grid}${note}`);
  };
  let shown = "";
  return {
    node,
    sync() {
      const key = source.sizes.join(" ");
      if (key !== shown) node.replaceChildren(...source.sizes.map(optionOf));
      shown = key;
      node.value = settings.get("size").join("x");
    },
  };
}

// What the norm explorer is made of: its elements, their labels and tooltips. Behaviour is in the view's methods.

import { COLORMAPS, prefixName } from "./core.js";
import { pressed } from "./norms_input.js";
import { saveNumbers, savePng, viewPython } from "./norms_saving.js";
import { ColourBar, copyButton, helpPopover } from "./panel.js";
import { button, element, field, segmented, statusStrip } from "./shell.js";

const KEYS_HELP = [
  ["move", "read the patch under the pointer, on the picture or on any map"],
  ["click", "on the picture: pin the patch; on a map: enlarge that block"],
  ["\u2190 \u2191 \u2192 \u2193", "move the patch (Shift: five at a time)"],
  ["Enter", "pin the patch"],
  ["Esc", "let go of the pin, then of the enlarged block"],
  ["[ ]  or  , .", "previous, next block"],
  ["e", "enlarge the block"],
  ["n", "its norm, or one channel"],
  ["{ }  or  PgUp PgDn", "previous, next channel"],
  ["m", "the channel that is largest at the patch"],
  ["- +", "fewer, more deviations until a token is an outlier"],
  ["x", "outline outliers or not"],
  ["w, l", "attention: who looks at the patch, what it looks at"],
  ["s, c", "next scale, next colours"],
  ["o, p", "overlay on or off, picture or depth"],
];

const KEYS_NOTE =
  "A norm is the length of a token's vector. Outliers are patches above the median of their block's patches by k median absolute deviations (MAD); class token and registers take no part.";

const mark = (kind) => element("div", { className: `dptx-mark dptx-mark-${kind}` });

function slider(label, title, oninput, properties = {}) {
  return element("input", { type: "range", className: "dptx-slider", "aria-label": label, title, oninput, ...properties });
}

function square(text, label, title, onclick) {
  return button(text, title, onclick, { className: "dptx-button dptx-square", "aria-label": label });
}

/** A map painted at grid resolution, with a mark. */
class MapCanvas {
  constructor({ rows, cols }, name) {
    this.canvas = element("canvas", { width: cols, height: rows, className: "dptx-cells" });
    this.canvas.dataset.tile = name;
    this.pen = this.canvas.getContext("2d");
    this.image = this.pen.createImageData(cols, rows);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.mark = mark("a");
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, this.mark);
    this.frame.style.setProperty("--dptx-cell-width", `${100 / cols}%`);
    this.frame.style.setProperty("--dptx-cell-height", `${100 / rows}%`);
  }

  paint() {
    this.pen.putImageData(this.image, 0, 0);
  }
}

/** A block's norms with its caption: number and class token, smallest and largest patch. */
export class BlockTile extends MapCanvas {
  constructor(block) {
    super(block, String(block.block));
    this.block = block;
    this.swatches = Array.from({ length: block.prefix }, (_, n) =>
      element("i", { className: "dptx-swatch", title: `Norm of the ${prefixName(n)} token` }),
    );
    this.ofClass = element("span");
    this.extent = element("span", { className: "dptx-extent", title: "Smallest and largest norm of a patch" });
    this.count = element("span", { className: "dptx-outlier-count", title: "Outliers" });
    const beside = element(
      "span",
      { className: "dptx-tile-value" },
      ...this.swatches,
      block.prefix ? element("span", { className: "dptx-word" }, prefixName(0)) : null,
      this.ofClass,
    );
    const name = element("span", { className: "dptx-tile-name" }, element("span", { className: "dptx-word" }, "Block "));
    name.append(String(block.block));
    this.node = element(
      "div",
      { className: "dptx-tile", role: "button", tabIndex: -1, "aria-label": `Block ${block.block}: enlarge` },
      this.frame,
      element("div", { className: "dptx-caption" }, name, beside),
      element("div", { className: "dptx-caption dptx-caption-low" }, this.extent, this.count),
    );
  }
}

/** The chosen block, large: its norm or a channel. */
export class LargeMap extends MapCanvas {
  constructor(block) {
    super(block, "large");
    this.block = block;
    this.outline = element("canvas", { className: "dptx-outline" });
    this.frame.append(this.outline, this.mark);
    this.frame.classList.add("dptx-large");
  }
}

export function buildParts(view) {
  const { link } = view.source;
  view.pictureCanvas = element("canvas", { className: "dptx-picture" });
  view.overlay = element("canvas", { className: "dptx-cells dptx-overlay" });
  view.outline = element("canvas", { className: "dptx-outline" });
  view.mark = mark("a");
  view.stage = element(
    "div",
    {
      className: "dptx-stage dptx-frame",
      tabIndex: 0,
      role: "application",
      "aria-label": "Picture. Arrow keys move the patch, Enter pins it, question mark lists all keys.",
    },
    view.pictureCanvas,
    view.overlay,
    view.outline,
    view.mark,
  );
  view.readout = element("div", { className: "dptx-readout" }, element("strong"), element("span"));
  view.live = element("div", { className: "dptx-offscreen", "aria-live": "polite" });
  view.pins = element("div", { className: "dptx-pins" });
  view.status = statusStrip();

  view.blockNumber = element("output", { className: "dptx-number" });
  view.slider = slider("Block", "Transformer block ([ and ])", () => view.save({ block: Number(view.slider.value) }), {
    min: 0,
    step: 1,
  });
  view.scale = segmented(
    "Scale",
    [
      ["block", "Per block", "Every map from its own smallest to its own largest patch (key s)"],
      ["shared", "Shared", "One range for all maps: from the smallest to the largest patch of any block (key s)"],
      ["log", "Log", "One logarithmic range for all maps (key s)"],
    ],
    (scale) => view.save({ scale }),
  );
  view.base = segmented(
    "Base picture",
    [
      ["picture", "Picture", "The picture under the map (key p)"],
      ["depth", "Depth", "The predicted depth under the map; nearer is brighter (key p)"],
    ],
    (base) => view.save({ base }),
  );
  view.colours = element(
    "select",
    {
      className: "dptx-select",
      "aria-label": "Colours",
      title: "Colours (key c)",
      onchange: () => view.save({ colormap: view.colours.value }),
    },
    ...COLORMAPS.map((name) => element("option", { value: name }, name)),
  );
  view.opacity = slider(
    "Overlay opacity",
    "Opacity of the chosen block's map over the picture (key o)",
    () => view.save({ opacity: Number(view.opacity.value) }),
    { min: 0, max: 1, step: 0.05 },
  );
  view.opacity.classList.add("dptx-opacity");

  // The enlarged block
  view.what = segmented(
    "What is shown of the block",
    [
      ["norm", "Norm", "The length of each token (key n)"],
      ["channel", "Channel", "One channel of each token (key n)"],
    ],
    (what) => view.save({ what }),
  );
  view.channelSlider = slider("Channel", "Channel ({ and })", () => view.toChannel(Number(view.channelSlider.value)), {
    min: 0,
    step: 1,
  });
  view.channelNumber = element("input", {
    type: "number",
    className: "dptx-entry",
    min: 0,
    step: 1,
    "aria-label": "Number of the channel",
    title: "Number of the channel",
    onchange: () => view.toChannel(Number(view.channelNumber.value)),
  });
  view.strongest = button("Largest here", "The channel that is largest in magnitude at the patch (key m)", () =>
    view.toStrongest(),
  );
  view.channelRow = element(
    "div",
    { className: "dptx-field" },
    view.channelSlider,
    view.channelNumber,
    view.strongest,
  );
  view.missing = element("span", { className: "dptx-hint" }, "Its channels are not in this page; they need the notebook");
  view.largeTitle = element("strong", { className: "dptx-large-title" });
  view.largeHost = element("div", { className: "dptx-large-host" });
  view.histogram = element("canvas", { className: "dptx-histogram", role: "img" });
  view.facts = element("div", { className: "dptx-facts" });
  view.large = element(
    "div",
    { className: "dptx-enlarged-block", hidden: true },
    element(
      "div",
      { className: "dptx-row dptx-large-head" },
      view.largeTitle,
      view.what.node,
      view.channelRow,
      view.missing,
      square("\u00d7", "Close the enlarged block", "Back to all blocks (Esc)", () => view.save({ enlarged: false })),
    ),
    element(
      "div",
      { className: "dptx-large-body" },
      view.largeHost,
      element("div", { className: "dptx-large-side" }, view.histogram, view.facts),
    ),
  );
  view.grid = element("div", { className: "dptx-tiles" });
  view.bar = new ColourBar();

  // Outliers
  view.k = slider("Deviations until a token is an outlier", "How far above the median an outlier is (- and +)", () =>
    view.save({ k: Number(view.k.value) }),
  );
  Object.assign(view.k, { min: 1, max: 20, step: 0.5 });
  view.kNumber = element("output", { className: "dptx-number" });
  view.marksButton = button("Outline", "Outline outliers on the picture and the enlarged map (key x)", () =>
    view.save({ marks: !view.get("marks") }),
  );
  view.marksButton.classList.add("dptx-chip");
  view.counts = element("div", { className: "dptx-counts", role: "group", "aria-label": "Outliers of each block" });
  view.strongestTokens = element("div", { className: "dptx-chips" });
  view.closeAttention = button("Close attention", "Take the attention explorer below away again", () =>
    link.ask("close"),
  );

  const help = helpPopover(KEYS_HELP, KEYS_NOTE);
  view.help = help.node;
  view.toggleHelp = help.toggle;
  const segment = { className: "dptx-segment" };
  view.root = element(
    "div",
    { className: "dptx dptx-norms", onkeydown: (event) => pressed(view, event) },
    element(
      "div",
      { className: "dptx-toolbar" },
      field(
        "Block",
        square("\u2039", "Previous block", "Previous block ([ or ,)", () => view.stepBlock(-1)),
        view.slider,
        square("\u203a", "Next block", "Next block (] or .)", () => view.stepBlock(1)),
        view.blockNumber,
      ),
      element(
        "div",
        { className: "dptx-actions" },
        view.closeAttention,
        element(
          "div",
          { className: "dptx-segments", role: "group", "aria-label": "Save" },
          button("PNG", "Save this view as a picture", () => savePng(view), segment),
          button("NPZ", "Save all norms as NumPy arrays (numpy.load)", () => saveNumbers(view, "npz"), segment),
          button("CSV", "Save all norms as a table: block, token, row, column, norm, outlier", () =>
            saveNumbers(view, "csv"), segment),
        ),
        copyButton(() => viewPython(view), link),
        help.opener,
      ),
    ),
    element(
      "div",
      { className: "dptx-main" },
      element(
        "div",
        { className: "dptx-left" },
        view.stage,
        view.readout,
        element("div", { className: "dptx-row dptx-pinrow" }, view.pins),
        element("div", { className: "dptx-row" }, view.base.node, field("Overlay", view.opacity)),
        element(
          "div",
          { className: "dptx-outliers" },
          element(
            "div",
            { className: "dptx-row" },
            field("Outliers: median +", view.k, view.kNumber),
            view.marksButton,
          ),
          view.counts,
          view.strongestTokens,
        ),
      ),
      element(
        "div",
        { className: "dptx-right" },
        element("div", { className: "dptx-row dptx-options" }, field("Scale", view.scale.node), view.colours),
        view.large,
        view.grid,
        view.bar.node,
      ),
    ),
    view.status.node,
    view.live,
    view.help,
  );
  view.el.append(view.root);
}

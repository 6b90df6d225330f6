// What the norm explorer is made of: its elements, their labels and tooltips. Behaviour is in the view's methods.

import { Cells, ColourBar, newMark, sizeMarks } from "../shared/cells.js";
import {
  blockStepper,
  colourPicker,
  columns,
  copyButton,
  helpPopover,
  lineOf,
  newReadout,
  saveButtons,
  slider,
  square,
  toolbar,
} from "../shared/panel.js";
import { prefixName } from "../shared/patches.js";
import { button, element, field, segmented } from "../shared/shell.js";
import { act } from "./pointer.js";
import { saveNumbers, savePng, viewPython } from "./saving.js";

const KEYS_HELP = [
  ["move", "read the patch under the pointer, on the picture or on any map"],
  ["click", "on the picture: pin the patch; on a map: enlarge that block"],
  ["\u2190 \u2191 \u2192 \u2193", "move the patch (Shift: five at a time)"],
  ["Enter", "pin the patch"],
  ["Esc", "let go of the pin, then of the enlarged block"],
  ["Tab", "to a map: arrow keys lead to others, Enter enlarges"],
  ["[ ]  or  , .", "previous, next block"],
  ["e", "enlarge the block"],
  ["n", "its norm, one channel, or similarity with the patch"],
  ["d", "similarity without what all patches have in common"],
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

/** A map painted at grid resolution, with a mark. */
class MapCanvas extends Cells {
  constructor({ rows, cols }, name) {
    super();
    this.fit(rows, cols);
    this.canvas.dataset.tile = name;
    this.mark = newMark("a");
    this.frame = element("div", { className: "dptx-frame" }, this.canvas, this.mark);
    sizeMarks(this.frame, rows, cols);
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
    this.extent = element("span", { className: "dptx-extent" });
    this.count = element("span", { className: "dptx-outlier-count", title: "Outliers" });
    const beside = element(
      "span",
      { className: "dptx-tile-value" },
      ...this.swatches,
      block.prefix ? element("span", { className: "dptx-word" }, prefixName(0)) : null,
      this.ofClass,
    );
    const name = element(
      "span",
      { className: "dptx-tile-name" },
      element("span", { className: "dptx-word" }, "Block "),
    );
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

/** The chosen block, large: its norm, a channel or a similarity. The second mark is the pinned patch's. */
export class LargeMap extends MapCanvas {
  constructor(block) {
    super(block, "large");
    this.block = block;
    this.outline = element("canvas", { className: "dptx-outline" });
    this.kept = newMark("kept");
    this.frame.append(this.outline, this.kept, this.mark);
    this.frame.classList.add("dptx-large");
  }
}

export function buildParts(view) {
  const { link } = view.source;
  view.outline = element("canvas", { className: "dptx-outline" });
  view.mark = newMark("a");
  view.kept = newMark("kept");
  view.overlaid = "the chosen block's map";
  view.buildPicture(view.outline, view.kept, view.mark);
  view.readout = newReadout();
  view.pins = element("div", { className: "dptx-pins" });
  view.stepper = blockStepper(view, (slot) => view.toBlock(view.source.blocks[slot]?.block));
  view.scale = segmented(
    "Scale",
    [
      ["block", "Per block", "Every map from its own smallest to its own largest patch (key s)"],
      ["shared", "Shared", "One range for all maps: from the smallest to the largest patch of any block (key s)"],
      ["log", "Log", "One logarithmic range for all maps (key s)"],
    ],
    (scale) => view.save({ scale }),
  );
  view.colours = colourPicker(view);

  // The enlarged block
  view.what = segmented(
    "What is shown of the block",
    [
      ["norm", "Norm", "The length of each token (key n)"],
      ["channel", "Channel", "One channel of each token (key n)"],
      ["similarity", "Similarity", "Cosine of each token with the patch under the pointer, or the pinned one (key n)"],
    ],
    (what) => view.save({ what }),
  );
  view.channelSlider = slider("Channel", "Channel ({ and })", () => view.toChannel(Number(view.channelSlider.value)));
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
  view.channelRow = element("div", { className: "dptx-field" }, view.channelSlider, view.channelNumber, view.strongest);
  const less = "Take off what all patches have in common: the similarity of what tells them apart (key d)";
  view.centred = button("Less the mean", less, () => view.toggleCentred(), { className: "dptx-chip", hidden: true });
  view.missing = element("span", { className: "dptx-hint" });
  view.largeTitle = element("strong", { className: "dptx-large-title" });
  view.largeHost = element("div", { className: "dptx-large-host" });
  view.histogram = element("canvas", { className: "dptx-histogram", role: "img" });
  view.facts = element("div", { className: "dptx-facts" });
  view.large = element(
    "div",
    { className: "dptx-enlarged-block", hidden: true },
    lineOf(
      "dptx-large-head",
      view.largeTitle,
      view.what.node,
      view.channelRow,
      view.centred,
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
  const k = () => view.save({ k: Number(view.k.value) });
  const above = "How far above the median an outlier is (- and +)";
  view.k = slider("Deviations until a token is an outlier", above, k, { min: 1, max: 20, step: 0.5 });
  view.kNumber = element("output", { className: "dptx-number" });
  view.marksButton = button("Outline", "Outline outliers on the picture and the enlarged map (key x)", () =>
    view.toggle("marks"),
  );
  view.marksButton.classList.add("dptx-chip");
  view.counts = element("div", { className: "dptx-counts", role: "group", "aria-label": "Outliers of each block" });
  view.strongestTokens = element("div", { className: "dptx-chips" });
  view.closeAttention = button("Close attention", "Take the attention explorer below away again", () =>
    link.ask("close"),
  );

  view.help = helpPopover(KEYS_HELP, KEYS_NOTE);
  const files = saveButtons(
    "Save",
    ["PNG", "Save this view as a picture", () => savePng(view)],
    [
      "NPZ",
      "Save all norms, and the channel or similarity on display, as NumPy arrays (numpy.load)",
      () => saveNumbers(view, "npz"),
    ],
    ["CSV", "Save all norms as a table: block, token, row, column, norm, outlier", () => saveNumbers(view, "csv")],
  );
  const copy = copyButton(() => viewPython(view), link);
  const counting = lineOf("", field("Outliers: median +", view.k, view.kNumber), view.marksButton);
  view.mount(
    "norms",
    act,
    toolbar([view.stepper.node], view.closeAttention, files, copy, view.help.opener),
    columns(
      [
        view.stage,
        view.readout,
        lineOf("dptx-pinrow", view.pins),
        lineOf("", view.base.node, field("Overlay", view.opacity)),
        element("div", { className: "dptx-outliers" }, counting, view.counts, view.strongestTokens),
      ],
      [lineOf("dptx-options", field("Scale", view.scale.node), view.colours), view.large, view.grid, view.bar.node],
    ),
  );
}

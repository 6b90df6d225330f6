// What the fusion explorer is made of: its elements, their labels and tooltips. Behaviour is in the view's methods.

import { Cells, ColourBar } from "../shared/cells.js";
import {
  colourPicker,
  columns,
  copyButton,
  helpPopover,
  lineOf,
  newReadout,
  picker,
  saveButtons,
  slider,
  toolbar,
} from "../shared/panel.js";
import { button, element, field, segmented } from "../shared/shell.js";
import { act, numberPressed, sliderPressed } from "./pointer.js";
import { depthPython, saveDepth, savePng } from "./saving.js";

const SHOW = [
  ["scaled", "Scaled", "The depth under the scales (key s goes to and fro)"],
  ["unscaled", "Unscaled", "The depth of the model as it is (key s; or press and hold the picture)"],
  ["difference", "Difference", "Scaled minus unscaled: red where it is larger under the scales (key d)"],
  ["picture", "Picture", "The picture itself (key p)"],
];

const SPANS = [
  ["own", "Own range", "Colours cover the range of the map on display (key e)"],
  ["unscaled", "Unscaled's range", "Colours cover the range of the unscaled map, so that maps compare (key e)"],
];

// In the order of the points: the four sliders, then the folded ones.
const ROWS = [
  ["Block 3", "its reassembly map", "Fusion block 3, the coarsest, receives reassembly map 3"],
  ["Block 2", "what comes from block 3", "Fusion block 2 adds reassembly map 2 to what block 3 gives"],
  ["Block 1", "what comes from block 2", "Fusion block 1 adds reassembly map 1 to what block 2 gives"],
  ["Block 0", "what comes from block 1", "Fusion block 0, the finest, adds reassembly map 0 to what block 1 gives"],
  ["Map 2", "into block 2", "Reassembly map 2"],
  ["Map 1", "into block 1", "Reassembly map 1"],
  ["Map 0", "into block 0", "Reassembly map 0, the finest"],
];

const SLIDER_KEYS = [
  ["1 2 3 4", "to the sliders, coarse to fine"],
  ["\u2190 \u2192", "0.01 (Shift: 0.1; Page Up, Page Down: 1)"],
  ["0", "the slider to 0; Backspace, or a double click: to 1"],
  ["r", "every slider to 1"],
];

// On a page, which holds some settings alone.
const PAGE_RESET = "Back to the setting that this page was saved with";
const PAGE_SLIDER_KEYS = [
  SLIDER_KEYS[0],
  ["\u2190 \u2192", "to the next step that this page holds"],
  ["0", "the slider to its step nearest to 0; Backspace, or a double click: nearest to 1"],
  ["r", PAGE_RESET.toLowerCase()],
];

const VIEW_KEYS = [
  ["s", "scaled or unscaled (or hold the picture down)"],
  ["d, p", "the difference; the picture"],
  ["h, v", "high contrast; colours reversed"],
  ["c, e", "next colours; the range they cover"],
];

const ANIMATION_KEYS = [["[ ]", "the animation's first and last setting, from the sliders"]];

const KEYS_NOTE =
  "Each fusion block adds its own reassembly map to what the coarser block gives, coarse to fine. The sliders scale what a block receives from above: at 1 the model is as it is, at 0 nothing coarser passes.";

/** A field for a number, which is taken when it is left. */
function entry(label, onchange, properties) {
  const look = { type: "number", className: "dptx-entry", step: 1, "aria-label": label };
  return element("input", { ...look, ...properties, onchange, onkeydown: numberPressed });
}

/** One scale: a slider with its number, and the thumbnail of the block it leads into (if it is one of the four). */
class Row {
  constructor(view, index, point, reach, thumb) {
    const [name, what, title] = ROWS[index];
    this.index = index;
    this.reach = reach;
    const range = { min: -reach, max: reach, step: 0.01 };
    const label = `Scale of ${point}: ${name}, ${what}`;
    const slide = () => view.slide(index, Number(this.slider.value));
    const look = { ...range, className: "dptx-slider dptx-wide", ondblclick: () => view.slide(index, 1) };
    this.slider = slider(label, `${title}. Its scale is that of the point ${point}.`, slide, look);
    this.slider.addEventListener("keydown", (event) => sliderPressed(view, index, event));
    this.slider.dataset.point = point;
    this.number = entry(`Scale of ${point}, as a number`, () => view.enter(index, this.number.value), range);
    this.cells = new Cells({ className: "dptx-thumb" });
    this.cells.canvas.dataset.block = name.slice(-1);
    this.norm = element("span", { className: "dptx-hint" });
    const marks = [-5, -2.5, 0, 1, 2.5, 5].filter((mark) => Math.abs(mark) <= reach);
    const scale = element(
      "div",
      { className: "dptx-ticks", "aria-hidden": "true" },
      ...marks.map((mark) => {
        const tick = element(
          "span",
          { className: mark === 1 ? "dptx-tick-one" : "" },
          `${mark}`.replace("-", "\u2212"),
        );
        tick.style.setProperty("--dptx-at", (mark + reach) / (2 * reach));
        return tick;
      }),
    );
    this.node = element(
      "div",
      { className: thumb ? "dptx-scale" : "dptx-scale dptx-scale-plain" },
      thumb
        ? element(
            "div",
            { className: "dptx-thumb-box", title: `What fusion ${name.toLowerCase()} gives: norm over channels` },
            this.cells.canvas,
          )
        : null,
      element(
        "div",
        { className: "dptx-scale-name" },
        element("strong", {}, name),
        element("span", { className: "dptx-hint" }, what),
        thumb ? this.norm : null,
      ),
      element("div", { className: "dptx-scale-track" }, this.slider, scale),
      this.number,
    );
  }

  show(value) {
    this.slider.value = value;
    const [at, one] = [value, 1].map((scale) => (scale + this.reach) / (2 * this.reach));
    this.slider.style.setProperty("--dptx-low", Math.min(at, one));
    this.slider.style.setProperty("--dptx-high", Math.max(at, one));
    // a number under the cursor is being typed
    if (this.number !== this.number.getRootNode().activeElement)
      this.number.value = String(Math.round(value * 1e4) / 1e4);
    this.slider.setAttribute("aria-valuetext", value.toFixed(2));
    this.node.classList.toggle("dptx-changed", value !== 1);
  }
}

export function buildRows(view, about) {
  view.rows = about.points.map((point, n) => new Row(view, n, point, about.reach, n < about.sliders));
  view.ladder.replaceChildren(...view.rows.slice(0, about.sliders).map((row) => row.node));
  view.mapRows.replaceChildren(...view.rows.slice(about.sliders).map((row) => row.node));
}

/** What the reset and the keys do on a page; moves: whether any slider does. */
export function describePage(view, moves) {
  view.resetButton.title = `${PAGE_RESET} (key r)`;
  view.help.list([...(moves ? PAGE_SLIDER_KEYS : []), ...VIEW_KEYS]);
}

function toggle(text, title, name, view) {
  return button(text, title, () => view.toggle(name), { className: "dptx-chip" });
}

function folded(title, ...children) {
  return element(
    "details",
    { className: "dptx-fold" },
    element("summary", {}, title),
    element("div", { className: "dptx-fold-body" }, ...children),
  );
}

export function buildParts(view) {
  view.cells = new Cells({ className: "dptx-depth" });
  view.pictureCanvas = element("canvas", { hidden: true });
  view.badge = element("div", { className: "dptx-badge", hidden: true });
  view.stage = element(
    "div",
    {
      className: "dptx-stage dptx-frame",
      tabIndex: 0,
      role: "img",
      "aria-label": "Depth map. Hold down to see it without scales; question mark lists all keys.",
    },
    view.pictureCanvas,
    view.cells.canvas,
    view.badge,
  );
  view.readout = newReadout();
  view.bar = new ColourBar();
  view.show = segmented("Show", SHOW, (show) => view.save({ show }));
  view.span = segmented("Range of the colours", SPANS, (span) => view.save({ span }));
  view.contrast = toggle(
    "High contrast",
    "Histogram equalisation: every colour covers as much (key h)",
    "high_contrast",
    view,
  );
  view.reverse = toggle("Reversed", "The colours the other way round (key v)", "reverse", view);
  view.colours = colourPicker(view);
  view.ladder = element("div", { className: "dptx-ladder" });
  view.mapRows = element("div", { className: "dptx-ladder" });
  view.resetButton = button("Reset", "Every slider to 1 (key r)", () => view.reset());
  const sized = "The size at which the model sees the picture, roughly its shorter side in pixels";
  view.sizes = picker("Processing size", sized, [], () =>
    view.save({ size: view.sizes.value === "" ? null : JSON.parse(view.sizes.value) }),
  );
  view.aspect = segmented(
    "Aspect",
    [
      ["keep", "Keep aspect", "The picture is scaled as a whole"],
      ["stretch", "Square", "The picture is stretched to a square"],
    ],
    (value) => view.save({ keep_aspect: value === "keep" }),
  );
  view.pageNote = element("p", { className: "dptx-note", hidden: true });
  const saving = saveButtons(
    "Save",
    ["PNG", "Save what is on display as a picture, at the picture's size", () => savePng(view)],
    ["PNG 16", "Save the scaled depth as 16-bit grey; its range is in the file", () => saveDepth(view, "png16")],
    ["NPY", "Save the scaled depth as float32 numbers (numpy.load)", () => saveDepth(view, "npy")],
  );
  buildAnimation(view);
  const copy = copyButton(() => depthPython(view), view.source.link);
  view.help = helpPopover([...SLIDER_KEYS, ...VIEW_KEYS, ...ANIMATION_KEYS], KEYS_NOTE);
  const order = element("em", {}, "coarse to fine");
  view.mount(
    "fusion",
    act,
    toolbar([view.show.node], saving, copy, view.help.opener),
    columns(
      [view.stage, view.readout, view.bar.node, lineOf("", view.colours, view.reverse, view.contrast, view.span.node)],
      [
        lineOf("dptx-heading", element("span", {}, "Scale what each block receives, ", order), view.resetButton),
        view.ladder,
        view.pageNote,
        folded("Reassembly maps", view.mapRows),
        view.animation,
        lineOf("", field("Processing", view.sizes), view.aspect.node),
      ],
    ),
  );
}

function buildAnimation(view) {
  const part = () => view.toPart(Number(view.between.value));
  const look = { className: "dptx-slider dptx-wide", max: 1, step: 0.01, value: 0 };
  view.between = slider("From the first setting to the last", "From setting A to setting B", part, look);
  view.frames = entry("Frames from A to B", () => view.enterFrames(), { min: 2, max: 500 });
  view.play = button("Play", "From A to B and back, as fast as maps come", () => view.togglePlay());
  view.ends = {
    start: button("Set A", "The animation begins with the sliders as they are ([)", () => view.keep("start")),
    end: button("Set B", "The animation ends with the sliders as they are (])", () => view.keep("end")),
  };
  view.endNotes = {
    start: element("span", { className: "dptx-hint" }),
    end: element("span", { className: "dptx-hint" }),
  };
  const formats = saveButtons(
    "Save the animation",
    ["GIF", "Save the way from A to B and back, in these colours", () => view.source.save("gif")],
    ["MP4", "The same as a film; needs PyAV beside the kernel", () => view.source.save("mp4")],
  );
  view.animation = folded(
    "Animation",
    lineOf("", view.ends.start, view.endNotes.start),
    lineOf("", view.ends.end, view.endNotes.end),
    element("div", { className: "dptx-between" }, "A", view.between, "B", view.play),
    lineOf("", field("Frames", view.frames), field("Save as", formats)),
  );
}

// Controls that explorers have in common (the list of keys, a stepper, colours, saving, "copy Python"), what a key press may
// mean, and what is taken from the theme.

import { COLORMAPS } from "./colours.js";
import { button, copyText, download, element, field } from "./shell.js";

/** A popover with a table of keys and gestures, and the button that opens it. keys: [keys, meaning]. */
export function helpPopover(keys, note) {
  const rowOf = ([names, meaning]) => element("tr", {}, element("th", {}, names), element("td", {}, meaning));
  const body = element("tbody", {}, ...keys.map(rowOf));
  const node = element(
    "div",
    { className: "dptx-popover", role: "dialog", "aria-label": "Keys and gestures", hidden: true },
    element("table", {}, body),
    element("p", {}, note),
  );
  const list = (others) => body.replaceChildren(...others.map(rowOf));
  const toggle = () => {
    node.hidden = !node.hidden;
    opener.setAttribute("aria-expanded", String(!node.hidden));
    const watch = node.hidden ? "removeEventListener" : "addEventListener";
    document[watch]("pointerdown", outside, true);
  };
  const outside = (event) => {
    const path = event.composedPath(); // the target alone ends at a shadow root
    if (!path.includes(node) && !path.includes(opener)) toggle();
  };
  const opener = square("?", "Help", "Keys and gestures (key ?)", toggle);
  opener.setAttribute("aria-expanded", "false");
  return { node, opener, toggle, list };
}

/**
 * Gives a key press to act(key, shift), which says whether it meant anything, unless it belongs to the control that has
 * the focus, to the notebook or to the browser. Single letters are notebook commands (a, b, x, dd): none slips through.
 */
export function handleKey(event, act) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "Enter" && event.shiftKey) return; // runs the cell
  const typing = target.matches("input[type=number]") && key !== "Escape";
  const native = target.matches("input, select") && (key.startsWith("Arrow") || target.matches("select"));
  const press = target.matches("button, summary") && (key === "Enter" || key === " ");
  if (typing || native || press) {
    event.stopPropagation();
    return;
  }
  const done = act(key, event.shiftKey, target);
  if (done) event.preventDefault();
  if (done || key.length === 1) event.stopPropagation();
}

/** What arrow keys mean where they move a patch: view.move(down, right), five at a time with Shift. */
export function arrowMove(view, key, shift) {
  const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
  if (way) view.move(...way.map((step) => step * (shift ? 5 : 1)));
  return Boolean(way);
}

/** A button of one sign; label: what it is called where signs are not seen. */
export function square(text, label, title, onclick) {
  return button(text, title, onclick, { className: "dptx-button dptx-square", "aria-label": label });
}

/** Takes a control out of use, or back into it. The focus goes to `next`: one on a disabled control gets no keys. */
export function enable(control, on, next) {
  if (!on && control.matches(":focus")) next.focus();
  control.disabled = !on;
}

/** A slider in whole steps from 0, unless the properties say otherwise. */
export function slider(label, title, oninput, properties = {}) {
  const given = { type: "range", className: "dptx-slider", min: 0, step: 1, "aria-label": label, title, ...properties };
  return element("input", { ...given, oninput });
}

/** A choice out of a list of names. */
export function picker(label, title, names, onchange) {
  const options = names.map((name) => element("option", { value: name }, name));
  return element("select", { className: "dptx-select", "aria-label": label, title, onchange }, ...options);
}

/** The choice of colours; why: where they count, if not everywhere. */
export function colourPicker(view, names = COLORMAPS, why = "Colours") {
  const control = picker("Colours", `${why} (key c)`, names, () => view.save({ colormap: control.value }));
  return control;
}

/** What files there are; choices: [text, tooltip, save()]. */
export function saveButtons(label, ...choices) {
  const buttons = choices.map(([text, title, save]) => button(text, title, save, { className: "dptx-segment" }));
  return element("div", { className: "dptx-segments", role: "group", "aria-label": label }, ...buttons);
}

/**
 * A slider with its number between two buttons. what: "block"; keys: of the buttons; step(by); to(the slider's value).
 * Returns {node, number, show}; show(value, most, text): the slider stands at `value` of `most`, the number says `text`.
 */
export function stepper(label, what, title, keys, step, to) {
  const range = slider(label, title, () => to(Number(range.value)));
  const number = element("output", { className: "dptx-number" });
  const before = square("\u2039", `Previous ${what}`, `Previous ${what} (${keys[0]})`, () => step(-1));
  const after = square("\u203a", `Next ${what}`, `Next ${what} (${keys[1]})`, () => step(1));
  return {
    node: field(label, before, range, after, number),
    number,
    show(value, most, text) {
      for (const control of [before, range, after]) control.disabled = most < 1;
      range.max = most;
      range.value = value;
      range.setAttribute("aria-valuetext", `${what} ${text.replace("/", "of")}`);
      number.textContent = text;
    },
  };
}

/** The stepper through blocks: view.stepBlock(by), and to(the slider's value). */
export function blockStepper(view, to) {
  return stepper("Block", "block", "Transformer block ([ and ])", ["[ or ,", "] or ."], (by) => view.stepBlock(by), to);
}

/** The line on top: controls, and at its end what is done with the view: files, the code, the help. */
export function toolbar(controls, ...actions) {
  const end = element("div", { className: "dptx-actions" }, ...actions);
  return element("div", { className: "dptx-toolbar" }, ...controls, end);
}

/** Under it: the picture with its controls, and beside or below it the rest. */
export function columns(left, right) {
  const column = (side, parts) => element("div", { className: `dptx-${side}` }, ...parts);
  return element("div", { className: "dptx-main" }, column("left", left), column("right", right));
}

/** Controls in a line; look: a class for one that is special. */
export function lineOf(look, ...controls) {
  return element("div", { className: `dptx-row ${look}` }, ...controls);
}

/** The line under a picture: a name and what is to be said about it. */
export function newReadout() {
  return element("div", { className: "dptx-readout" }, element("strong"), element("span"));
}

export function sayIn(readout, ...words) {
  words.forEach((text, n) => {
    const part = readout.children[n];
    if (part.textContent !== text) part.textContent = text;
  });
}

/** Python that leaves in `cap` what a picture shows at a point: by a pass of the model, or opened from a run. */
export function capturePython(point, { call, opened }) {
  return opened ? [`cap = ${opened}`] : [`with probes.capture(model, "${point}") as cap:`, `    ${call}`];
}

/** A button that copies what code() gives, and says so for a moment; where the browser refuses, the strip shows it. */
export function copyButton(code, link) {
  const control = button("Copy Python", "Copy the code that computes this view", async () => {
    const text = code();
    if (!text) return;
    if (await copyText(text, control.parentNode)) {
      control.textContent = "Copied";
      setTimeout(() => (control.textContent = "Copy Python"), 1500);
    } else {
      link.say(`The browser refused the clipboard. The code: ${text}`, { failed: true });
    }
  });
  return control;
}

/** How long something took, in the strip: the median, and on pointing at it what it is and the slow end. */
export function noteTimes({ note }, timings, name, digits, what) {
  const [median, high] = [timings.quantile(0.5), timings.quantile(0.95)];
  const latest = Math.min(256, timings.count);
  note.textContent = `${name} ${median.toFixed(digits)} ms`;
  note.title = `${what}: median ${median.toFixed(2)} ms, 95 % under ${high.toFixed(2)} ms (latest ${latest})`;
  Object.assign(note.dataset, { count: timings.count, median, high });
}

/** What a saved picture takes from the theme. */
export function themeColours(root) {
  const style = getComputedStyle(root);
  return {
    background: style.backgroundColor,
    text: style.color,
    muted: style.getPropertyValue("--dptx-muted"),
    font: style.fontFamily,
    outlier: style.getPropertyValue("--dptx-error").trim(),
    pin: style.getPropertyValue("--dptx-a").trim(),
  };
}

export function isDark(root) {
  const [red, green, blue] = getComputedStyle(root)
    .backgroundColor.match(/[\d.]+/g)
    .map(Number);
  return 0.3 * red + 0.6 * green + 0.1 * blue < 128;
}

/** Colours for values with a sign, 0 in the middle. */
export function signedColours(dark) {
  return dark ? "difference-dark" : "difference";
}

/** The width inside a view's padding; 0 while it is not on display. */
export function widthInside(root) {
  const style = getComputedStyle(root);
  return Math.max(0, root.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)) || 0;
}

/** A picture, or any canvas, at its own size on a canvas. */
export function drawWhole(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
}

/** A canvas of so many CSS pixels, sharp on dense screens; returns its cleared pen in CSS pixels. */
export function sharpPen(canvas, width, height) {
  const dense = globalThis.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * dense)), Math.max(1, Math.round(height * dense))];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(w / width, 0, 0, h / height, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

/** Downloads a canvas as a PNG. */
export function savePicture(canvas, name) {
  canvas.toBlob((blob) => download(`${name}.png`, [blob], "image/png"), "image/png");
}

/** Downloads bytes made here: arrays. */
export function saveBytes(bytes, name) {
  download(name, [bytes], "application/octet-stream");
}

// View pieces that explorers of a picture have in common: the list of keys, a colour bar, what a key press may mean, the
// "copy Python" button, and the colours of the theme for pictures that are saved.

import { button, copyText, element } from "./shell.js";

/** A popover with a table of keys and gestures, and the button that opens it. keys: [keys, meaning]. */
export function helpPopover(keys, note) {
  const rows = keys.map(([names, meaning]) => element("tr", {}, element("th", {}, names), element("td", {}, meaning)));
  const node = element(
    "div",
    { className: "dptx-popover", role: "dialog", "aria-label": "Keys and gestures", hidden: true },
    element("table", {}, element("tbody", {}, ...rows)),
    element("p", {}, note),
  );
  const toggle = () => {
    node.hidden = !node.hidden;
    opener.setAttribute("aria-expanded", String(!node.hidden));
  };
  const opener = button("?", "Keys and gestures (key ?)", toggle, {
    className: "dptx-button dptx-square",
    "aria-label": "Help",
    "aria-expanded": "false",
  });
  return { node, opener, toggle };
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
  const press = target.matches("button") && (key === "Enter" || key === " ");
  if (typing || native || press) {
    event.stopPropagation();
    return;
  }
  const done = act(key, event.shiftKey, target);
  if (done) event.preventDefault();
  if (done || key.length === 1) event.stopPropagation();
}

/** The colours of a table over a range, with labels, a pointer at one value and a line of words. */
export class ColourBar {
  constructor() {
    this.canvas = element("canvas", { width: 256, height: 1, className: "dptx-bar-colours" });
    this.pointer = element("div", { className: "dptx-bar-pointer" });
    this.ticks = element("div", { className: "dptx-bar-ticks" });
    this.words = element("div", { className: "dptx-bar-note" });
    const box = element("div", { className: "dptx-bar-box" }, this.canvas, this.pointer, this.ticks);
    this.node = element("div", { className: "dptx-bar" }, box, this.words);
    this.table = null;
    this.shown = "";
  }

  /** ticks: [position, text], positions from 0 to 1; at: the pointer's, or null. */
  show(table, ticks, at, note) {
    if (this.table !== table) {
      this.table = table;
      const pen = this.canvas.getContext("2d");
      const image = pen.createImageData(256, 1);
      new Uint32Array(image.data.buffer).set(table);
      pen.putImageData(image, 0, 0);
    }
    const key = ticks.join("|");
    if (key !== this.shown) {
      this.shown = key;
      this.ticks.replaceChildren(
        ...ticks.map(([position, text]) => {
          const label = element("span", {}, text);
          label.style.left = `${position * 100}%`;
          return label;
        }),
      );
    }
    this.pointer.style.visibility = at === null ? "hidden" : "visible";
    if (at !== null) this.pointer.style.transform = `translateX(${(at * 100).toFixed(2)}%)`;
    if (this.words.textContent !== note) this.words.textContent = note;
  }
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

/** What a saved picture takes from the theme. */
export function themeColours(root) {
  const style = getComputedStyle(root);
  return {
    background: style.backgroundColor,
    text: style.color,
    muted: style.getPropertyValue("--dptx-muted"),
    font: style.fontFamily,
    outlier: style.getPropertyValue("--dptx-a").trim(),
  };
}

export function isDark(root) {
  const [red, green, blue] = getComputedStyle(root).backgroundColor.match(/[\d.]+/g).map(Number);
  return 0.3 * red + 0.6 * green + 0.1 * blue < 128;
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

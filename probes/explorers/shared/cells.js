// Canvases with a pixel for each patch, the marks on them, the pointer over them, and the bar that explains their colours.

import { element } from "./shell.js";

/** A canvas that is painted pixel by pixel and takes the form of what it shows. */
export class Cells {
  constructor(properties = {}) {
    this.canvas = element("canvas", { width: 1, height: 1, className: "dptx-cells", ...properties });
    this.pen = this.canvas.getContext("2d");
    this.pixels = null;
  }

  /** Room for rows x cols; returns the pixels to fill, which paint() then puts on the canvas. */
  fit(rows, cols) {
    const { canvas } = this;
    if (canvas.width !== cols || canvas.height !== rows || !this.pixels) {
      canvas.width = cols;
      canvas.height = rows;
      this.image = this.pen.createImageData(cols, rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    return this.pixels;
  }

  paint() {
    this.pen.putImageData(this.image, 0, 0);
  }
}

/** The size of a mark on what has so many rows and columns. */
export function sizeMarks(node, rows, cols) {
  node.style.setProperty("--dptx-cell-width", `${100 / cols}%`);
  node.style.setProperty("--dptx-cell-height", `${100 / rows}%`);
}

export function newMark(kind) {
  return element("div", { className: `dptx-mark dptx-mark-${kind}` });
}

/** Moves a mark to a cell [row, col], or takes it away (null): by a transform alone, as a frame must not cost a layout. */
export function putMark(mark, cell) {
  mark.style.visibility = cell ? "visible" : "";
  // A percentage in translate() is of the mark's own size, which is a cell's.
  if (cell) mark.style.transform = `translate(${cell[1] * 100}%, ${cell[0] * 100}%)`;
}

/** The cell [row, col] of a patch, null for one that is none (-1). */
export function cellOf(patch, cols) {
  return patch < 0 ? null : [Math.floor(patch / cols), patch % cols];
}

/** Where in a node a pointer event is, as fractions [across, down]; a little outside at its rim. */
export function placeIn(node, event) {
  const box = node.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

/**
 * Calls point(spot, event) for the spots that a pointer passes on a node, and tap(spot) for a click, or a tap: a finger
 * that slides explores instead. spotOf(event) gives a spot, or null while there is none.
 */
export function watchSpots(node, spotOf, point, tap) {
  let touch = null;
  node.addEventListener("pointermove", (event) => {
    const spot = spotOf(event);
    if (spot !== null) point(spot, event);
  });
  node.addEventListener("pointerdown", (event) => {
    const spot = spotOf(event);
    if (spot === null || event.button !== 0) return;
    point(spot, event);
    touch = { type: event.pointerType, spot, time: event.timeStamp };
  });
  node.addEventListener("pointerup", (event) => {
    const same = touch && String(touch.spot) === String(spotOf(event));
    if (same && (touch.type === "mouse" || event.timeStamp - touch.time < 300)) tap(touch.spot);
    touch = null;
  });
}

/** Of tiles Tab reaches one, from which arrow keys lead to the others: the one that has the focus, else `chosen`. */
export function reachOne(nodes, chosen) {
  const own = nodes.find((node) => node.matches(":focus")) ?? chosen;
  for (const node of nodes) node.tabIndex = node === own ? 0 : -1;
}

/** Moves the focus from a tile to another as they stand: by arrow keys, Home and End. False for other keys and targets. */
export function walkTiles(key, target, nodes) {
  if (!nodes.includes(target)) return false;
  const placed = nodes.map((node) => ({ node, box: node.getBoundingClientRect() }));
  placed.sort((one, other) => one.box.top - other.box.top || one.box.left - other.box.left);
  const at = placed.findIndex(({ node }) => node === target);
  const own = placed[at].box;
  const away = ({ box }) => 4 * Math.abs(box.top - own.top) + Math.abs(box.left - own.left); // the next line before others
  const nearest = (tiles) => tiles.sort((one, other) => away(one) - away(other))[0];
  const ways = {
    ArrowLeft: () => placed[at - 1],
    ArrowRight: () => placed[at + 1],
    ArrowUp: () => nearest(placed.filter(({ box }) => box.bottom <= own.top)),
    ArrowDown: () => nearest(placed.filter(({ box }) => box.top >= own.bottom)),
    Home: () => placed[0],
    End: () => placed.at(-1),
  };
  if (!(key in ways)) return false;
  const next = ways[key]()?.node ?? target;
  next.focus();
  reachOne(nodes, next);
  return true;
}

/** The colours of a table over a range, with labels, a pointer at one value and a line of words. */
export class ColourBar {
  constructor() {
    this.cells = new Cells({ className: "dptx-bar-colours" });
    this.pointer = element("div", { className: "dptx-bar-pointer" });
    this.ticks = element("div", { className: "dptx-bar-ticks" });
    this.words = element("div", { className: "dptx-bar-note" });
    const box = element("div", { className: "dptx-bar-box" }, this.cells.canvas, this.pointer, this.ticks);
    this.node = element("div", { className: "dptx-bar" }, box, this.words);
    this.table = null;
    this.shown = "";
  }

  /** ticks: [position, text], positions from 0 to 1; at: the pointer's, or null. */
  show(table, ticks, at, note) {
    if (this.table !== table) {
      this.table = table;
      this.cells.fit(1, 256).set(table);
      this.cells.paint();
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

// Canvases.

import { element } from "./elements.js";

/** @import { Grid } from "./types.js" */

/**
 * The 2D context of a canvas.
 *
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
export function penOf(canvas) {
  const pen = canvas.getContext("2d");
  if (!pen) throw new Error("the browser has no 2D canvas");
  return pen;
}

/** A canvas that is painted pixel by pixel: one pixel per patch, or per pixel of a map. */
export class PixelCanvas {
  /** @param {Record<string, any>} [properties] of the element */
  constructor(properties = {}) {
    this.canvas = element("canvas", { width: 1, height: 1, className: "dptx-cells", ...properties });
    this.pen = penOf(this.canvas);
    this.image = this.pen.createImageData(1, 1);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  /**
   * Makes room for rows x cols pixels.
   *
   * @param {number} rows
   * @param {number} cols
   * @returns {Uint32Array} the pixels to fill before paint(); new ones if the size changed
   */
  fit(rows, cols) {
    const { canvas } = this;
    if (canvas.width !== cols || canvas.height !== rows) {
      canvas.width = cols;
      canvas.height = rows;
      this.image = this.pen.createImageData(cols, rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    return this.pixels;
  }

  /** Puts the pixels on the canvas. */
  paint() {
    this.pen.putImageData(this.image, 0, 0);
  }
}

/**
 * Copies an image, or a canvas, to a canvas at its own size.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap | HTMLCanvasElement} image
 */
export function drawWhole(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  penOf(canvas).drawImage(image, 0, 0);
}

/**
 * Clears a canvas for drawing in CSS pixels, sharp on dense screens.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number} width CSS pixels
 * @param {number} height CSS pixels
 * @returns {CanvasRenderingContext2D}
 */
export function sharpPen(canvas, width, height) {
  const dense = globalThis.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * dense)), Math.max(1, Math.round(height * dense))];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const pen = penOf(canvas);
  pen.setTransform(w / width, 0, 0, h / height, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

/**
 * A mark around one patch.
 *
 * @param {string} kind "a", "b", "probe" or "kept": its class is dptx-mark-{kind}
 * @returns {HTMLElement}
 */
export function createMark(kind) {
  return element("div", { className: `dptx-mark dptx-mark-${kind}` });
}

/**
 * Sets the size of the marks inside a node.
 *
 * @param {HTMLElement} node
 * @param {Pick<Grid, "rows" | "cols">} grid
 */
export function sizeMarks(node, { rows, cols }) {
  node.style.setProperty("--dptx-cell-width", `${100 / cols}%`);
  node.style.setProperty("--dptx-cell-height", `${100 / rows}%`);
}

/**
 * Moves a mark to a cell, or hides it. Only a transform changes: a pointer move must not cost a layout.
 *
 * @param {HTMLElement} mark
 * @param {readonly [row: number, col: number] | null} cell
 */
export function putMark(mark, cell) {
  mark.style.visibility = cell ? "visible" : "";
  // A percentage in translate() refers to the mark's own size, which is a cell's.
  if (cell) mark.style.transform = `translate(${cell[1] * 100}%, ${cell[0] * 100}%)`;
}

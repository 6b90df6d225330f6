// Marks on patches A and B and on the patch that is read off, and outlines of the windows of A and B: on the picture and
// on every tile.

import { createMark, putMark } from "#shared/canvas.js";
import { element } from "#shared/elements.js";

/** @import { Piece } from "#shared/types.js" */

/** @typedef {readonly [row: number, col: number] | null} Cell */

/**
 * @typedef {object} PatchMarks
 * @property {HTMLElement[]} nodes
 * @property {HTMLElement[]} marks of A, B and the patch that is read off
 * @property {HTMLElement[][]} outlines of A and B: what the patch sees, then the other pieces of its window
 */

/**
 * The marks of one map.
 *
 * @param {number} pieces how many pieces of a window are outlined
 * @returns {PatchMarks}
 */
export function createPatchMarks(pieces) {
  const marks = ["a", "b", "probe"].map(createMark);
  const outlines = ["a", "b"].map((kind) =>
    Array.from({ length: pieces }, (_, n) =>
      element("div", { className: `dptx-window dptx-window-${kind}${n ? " dptx-window-rest" : ""}` }),
    ),
  );
  return { nodes: [...outlines.flat(), ...marks], marks, outlines };
}

/** Moves the marks of several maps together, and only those that change. */
export class MarkGroup {
  constructor() {
    /** @type {PatchMarks[]} */
    this.maps = [];
    /** @type {string[]} */
    this.cells = [];
    /** @type {string[]} */
    this.pieces = [];
  }

  /** @param {PatchMarks[]} maps */
  reset(maps) {
    this.maps = maps;
    this.cells = [];
    this.pieces = [];
  }

  /** @param {readonly [a: Cell, b: Cell, read: Cell]} cells */
  moveTo(cells) {
    for (const [kind, cell] of cells.entries()) {
      const key = String(cell);
      if (this.cells[kind] === key) continue;
      this.cells[kind] = key;
      for (const { marks } of this.maps) putMark(marks[kind], cell);
    }
  }

  /**
   * Outlines pieces of the windows of A and B.
   *
   * @param {readonly [a: Piece[], b: Piece[]]} windows what the patch sees comes first
   * @param {{rows: number, cols: number}} grid
   */
  outline(windows, { rows, cols }) {
    for (const [kind, pieces] of windows.entries()) {
      const key = JSON.stringify(pieces);
      if (this.pieces[kind] === key) continue;
      this.pieces[kind] = key;
      for (const { outlines } of this.maps) {
        outlines[kind].forEach(({ style }, n) => {
          const piece = pieces[n];
          style.visibility = piece ? "visible" : "";
          if (!piece) return;
          style.left = `${(100 * piece.col) / cols}%`;
          style.top = `${(100 * piece.row) / rows}%`;
          style.width = `${(100 * piece.cols) / cols}%`;
          style.height = `${(100 * piece.rows) / rows}%`;
        });
      }
    }
  }
}

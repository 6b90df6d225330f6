// The maps on display: attention of A, of B, or their difference, for every head and the mean. No DOM.

import { attentionOf, meanOverHeads } from "./weights.js";

/** @import { Block } from "./block.js" */
/** @import { Mode } from "./selection.js" */

/**
 * @typedef {object} Slot the maps of A or B
 * @property {Block | null} block
 * @property {number} token
 * @property {string} direction
 * @property {Float32Array} values
 */

/** @returns {Slot} */
const emptySlot = () => ({ block: null, token: -1, direction: "", values: new Float32Array() });

/** Computes maps, and keeps those of A and B until their token, block or direction changes. */
export class MapValues {
  constructor() {
    this.slots = [emptySlot(), emptySlot()];
    this.difference = new Float32Array();
    /** Whether maps were computed since takeComputed() was called. */
    this.computed = false;
  }

  /**
   * The maps of a mode.
   *
   * @param {Block} block
   * @param {"row" | "column"} direction
   * @param {[a: number, b: number]} tokens
   * @param {Mode} mode
   * @returns {Float32Array} (heads + 1, tokens), the mean last; overwritten by later calls
   */
  of(block, direction, tokens, mode) {
    if (mode === "a") return this.fill(0, block, direction, tokens[0]);
    if (mode === "b") return this.fill(1, block, direction, tokens[1]);
    const a = this.fill(0, block, direction, tokens[0]);
    const b = this.fill(1, block, direction, tokens[1]);
    if (this.difference.length !== a.length) this.difference = new Float32Array(a.length);
    for (let n = 0; n < a.length; n++) this.difference[n] = a[n] - b[n];
    return this.difference;
  }

  /**
   * @param {0 | 1} index
   * @param {Block} block
   * @param {"row" | "column"} direction
   * @param {number} token
   * @returns {Float32Array}
   */
  fill(index, block, direction, token) {
    const slot = this.slots[index];
    if (slot.block === block && slot.token === token && slot.direction === direction) return slot.values;
    const length = (block.heads + 1) * block.tokens;
    if (slot.values.length !== length) slot.values = new Float32Array(length);
    attentionOf(block, token, direction, slot.values);
    meanOverHeads(slot.values, block.heads, block.tokens, slot.values, block.heads * block.tokens);
    Object.assign(slot, { block, token, direction });
    this.computed = true;
    return slot.values;
  }

  /** @returns {boolean} */
  takeComputed() {
    const { computed } = this;
    this.computed = false;
    return computed;
  }
}

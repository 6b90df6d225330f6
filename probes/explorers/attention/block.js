// A block of attention, decoded from a "block" message. No DOM.
//
// A block holds fp16 queries and keys (queries include the softmax scale) and, per query, the log-sum-exp of its scores:
// enough for any row or column of the softmax matrix (weights.js). A relative bias travels as a table by offset, query
// (row, col) minus key. Where attention is windowed, queries, keys and log-sum-exps are sorted window by window.

import { decodeArrays } from "#shared/bytes.js";
import { patchCell } from "#shared/patches.js";
import { windowBands, windowPieces, windowTokens } from "./windows.js";

/** @import { Message, Part, Piece } from "#shared/types.js" */
/** @import { WindowLayout } from "./windows.js" */

/**
 * The header of a "block" message.
 *
 * @typedef {Message & {
 *   block: number, heads: number, tokens: number, dim: number, rows: number, cols: number, prefix: number,
 *   window?: [number, number] | null, shift?: [number, number], biased?: boolean, entropy?: number[],
 * }} BlockMessage
 */

/**
 * What a relative bias adds to the scores of one window, or of the grid.
 *
 * @typedef {object} Bias
 * @property {Float32Array} table (heads, 2 rows - 1, 2 cols - 1)
 * @property {Float32Array | null} ofPrefix (heads, 3): class token to patches, patches to class token, class token to
 *   itself; null without a class token
 * @property {number} rows of a window
 * @property {number} cols of a window
 */

/**
 * How tokens lie in windows, and a buffer for one window's values.
 *
 * @typedef {WindowLayout & {
 *   inside: number, tokenAt: Int32Array, placeOf: Int32Array, bands: Uint8Array | null, buffer: Float32Array,
 * }} Windows
 */

/**
 * One block, ready for rows and columns.
 *
 * @typedef {object} Block
 * @property {number} block its number
 * @property {number} heads
 * @property {number} tokens
 * @property {number} dim of a head
 * @property {number} rows of patches
 * @property {number} cols of patches
 * @property {number} prefix tokens before the patches
 * @property {Float32Array} q (heads, tokens, dim)
 * @property {Float32Array} k (heads, tokens, dim)
 * @property {Float32Array} lse (heads, tokens)
 * @property {Bias | null} bias
 * @property {Windows | null} windows null if every token sees every token
 * @property {number[]} entropy mean entropy of each head's rows, in nats; empty if unknown
 */

/**
 * Throws where header and sizes disagree.
 *
 * @param {BlockMessage} header
 * @param {Part[]} parts q, k (fp16), lse; with a bias its table, and with a class token `ofPrefix` (float32)
 * @returns {Block}
 */
export function decodeBlock(header, parts) {
  const { heads, tokens, dim, rows, cols, prefix, window = null, shift = [0, 0], biased = false } = header;
  for (const [name, value] of Object.entries({ heads, tokens, dim, rows, cols })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(`block header: ${name} must be a whole number >= 1, got ${value}`);
    }
  }
  if (!Number.isInteger(prefix) || prefix < 0) {
    throw new RangeError(`block header: prefix must be a whole number >= 0, got ${prefix}`);
  }
  if (prefix + rows * cols !== tokens) {
    throw new RangeError(
      `block header: ${prefix} prefix tokens and ${rows} x ${cols} patches are not ${tokens} tokens`,
    );
  }
  if (window && (prefix || rows % window[0] || cols % window[1])) {
    const size = window.join(" x ");
    throw new RangeError(
      `block header: windows of ${size} do not tile ${rows} x ${cols} patches after ${prefix} prefix tokens`,
    );
  }
  const [high, wide] = window ?? [rows, cols];
  const expected = {
    q: heads * tokens * dim,
    k: heads * tokens * dim,
    lse: heads * tokens,
    ...(biased && { table: heads * (2 * high - 1) * (2 * wide - 1) }),
    ...(biased && prefix && { ofPrefix: heads * 3 }),
  };
  const arrays = decodeArrays("block", parts, /** @type {Record<string, number>} */ (expected), ["q", "k"]);
  const { q, k, lse, table, ofPrefix } = arrays;
  const bias = biased ? { table, ofPrefix: ofPrefix ?? null, rows: high, cols: wide } : null;
  const windows = window && windowsOf({ rows, cols, window, shift });
  const entropy = header.entropy ?? [];
  return { block: header.block, heads, tokens, dim, rows, cols, prefix, q, k, lse, bias, windows, entropy };
}

/**
 * @param {WindowLayout} layout
 * @returns {Windows}
 */
function windowsOf(layout) {
  const tokenAt = windowTokens(layout);
  const placeOf = new Int32Array(tokenAt.length);
  for (let place = 0; place < tokenAt.length; place++) placeOf[tokenAt[place]] = place;
  const inside = layout.window[0] * layout.window[1];
  return { ...layout, inside, tokenAt, placeOf, bands: windowBands(layout, tokenAt), buffer: new Float32Array(inside) };
}

/**
 * The pieces of a token's window. The first is the one that the token sees.
 *
 * @param {Block} block
 * @param {number} token
 * @returns {Piece[]} none if every token sees every token
 */
export function windowOf({ windows, tokens, cols }, token) {
  if (!windows || windows.inside === tokens) return [];
  return windowPieces(windows, ...patchCell(token, cols));
}

/**
 * The memory that a block takes.
 *
 * @param {Block} block
 * @returns {number} bytes
 */
export function blockBytes({ q, k, lse, bias, tokens }) {
  return 4 * (q.length + k.length + lse.length + (bias?.table.length ?? 0) + tokens);
}

/**
 * Heads in display order: by number, or the lowest mean entropy (most focused) first.
 *
 * @param {number} heads
 * @param {"index" | "entropy"} order
 * @param {number[]} entropy
 * @returns {number[]}
 */
export function headOrder(heads, order, entropy) {
  const indices = Array.from({ length: heads }, (_, head) => head);
  if (order === "index") return indices;
  if (order !== "entropy") throw new RangeError(`order must be "index" or "entropy", got ${JSON.stringify(order)}`);
  if (entropy.length !== heads) return indices;
  return indices.sort((a, b) => entropy[a] - entropy[b] || a - b);
}

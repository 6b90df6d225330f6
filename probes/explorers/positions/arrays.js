// The numbers as NumPy arrays. No DOM.

import { npz } from "#shared/files.js";
import { originArrays } from "#shared/origin.js";
import { cutOf, similarityTo } from "./data.js";

/** @import { Facts, Origin } from "#shared/origin.js" */
/** @import { PositionData } from "./data.js" */
/** @import { Cell } from "./places.js" */

/**
 * @param {PositionData} data
 * @param {Readonly<Cell>} cell of the position on display
 * @param {boolean} centred table
 * @param {Origin} origin
 * @param {Facts} facts
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function positionNpz(data, cell, centred, origin, facts) {
  const { count, rows, cols, high, wide, values } = data;
  /** @type {Parameters<typeof npz>[0]} */
  const arrays = {
    size: [Int32Array.of(data.height, data.width), [2]],
    patch: [Int32Array.from(cell), [2]],
    ...originArrays(origin, facts),
  };
  if (data.kind === "table") {
    const similarities = new Float32Array(rows * cols + 1);
    similarityTo(data, cell[0] * cols + cell[1], centred, similarities);
    return npz({
      table: [values, [count, rows, cols]],
      class_token: [data.classToken, [count]],
      similarity: [similarities.slice(0, -1), [rows, cols]],
      mean_spectrum: [data.meanPower, [rows, cols]],
      centred: [Int32Array.of(Number(centred)), []],
      ...arrays,
    });
  }
  const cuts = new Float32Array(count * rows * cols);
  for (let head = 0; head < count; head++) {
    cutOf(data, head, cell[0], cell[1], cuts.subarray(head * rows * cols, (head + 1) * rows * cols));
  }
  if (data.ofPrefix) arrays.class_token = [data.ofPrefix, [count, 3]];
  return npz({
    bias: [values.slice(0, count * high * wide), [count, high, wide]],
    from_query: [cuts, [count, rows, cols]],
    block: [Int32Array.of(data.block), []],
    ...arrays,
  });
}

/**
 * A file name without an ending.
 *
 * @param {PositionData} data
 * @param {Readonly<Cell>} cell
 * @returns {string}
 */
export function fileStem(data, cell) {
  const what = data.kind === "table" ? "table" : `bias_block${data.block}`;
  return `positions_${what}_${data.height}x${data.width}_${cell.join("-")}`;
}

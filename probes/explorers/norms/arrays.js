// All norms as files: NumPy arrays and a table. No DOM.

import { csv, npz } from "#shared/files.js";
import { originArrays } from "#shared/origin.js";
import { cellOf, tokenName } from "#shared/patches.js";

/** @import { Facts, Origin } from "#shared/origin.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { Outliers } from "./outliers.js" */
/** @import { ShownMap } from "./shown_map.js" */

/**
 * @param {NormBlock} block
 * @param {Outliers} outliers
 * @returns {Int32Array} (rows * cols): 1 for outliers
 */
function flagsOf({ rows, cols, prefix }, { tokens }) {
  const flags = new Int32Array(rows * cols);
  for (const token of tokens) flags[token - prefix] = 1;
  return flags;
}

/**
 * Arrays for numpy.load. If grids differ between blocks, each block has arrays of its own: norms_0, norms_1, ...
 *
 * @param {object} shot
 * @param {readonly NormBlock[]} shot.blocks
 * @param {readonly Outliers[]} shot.outliers of each block
 * @param {number} shot.k
 * @param {ShownMap} shot.map
 * @param {Origin} origin
 * @param {Facts} facts
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function normsNpz({ blocks, outliers, k, map }, origin, facts) {
  const [{ rows, cols, prefix }] = blocks;
  /** @type {Parameters<typeof npz>[0]} */
  const arrays = {};
  if (blocks.every((block) => block.rows === rows && block.cols === cols)) {
    const shape = [blocks.length, rows, cols];
    arrays.norms = [Float32Array.from(blocks.flatMap(({ values }) => [...values.subarray(prefix)])), shape];
    arrays.outliers = [Int32Array.from(blocks.flatMap((block, n) => [...flagsOf(block, outliers[n])])), shape];
  } else {
    for (const [n, block] of blocks.entries()) {
      const shape = [block.rows, block.cols];
      arrays[`norms_${block.block}`] = [block.values.slice(prefix), shape];
      arrays[`outliers_${block.block}`] = [flagsOf(block, outliers[n]), shape];
    }
  }
  const prefixNorms = blocks.flatMap(({ values }) => [...values.subarray(0, prefix)]);
  arrays.blocks = [Int32Array.from(blocks, ({ block }) => block), [blocks.length]];
  arrays.prefix = [Float32Array.from(prefixNorms), [blocks.length, prefix]];
  arrays.thresholds = [Float32Array.from(outliers, ({ threshold }) => threshold), [blocks.length]];
  arrays.k = [Float32Array.of(k), []];
  const { what, block, patches, signed, channel, anchor } = map;
  if (what !== "norm") {
    arrays[what] = [patches.slice(), [block.rows, block.cols]];
    arrays[`${what}_of`] = [Int32Array.of(block.block, channel ?? anchor ?? 0), [2]];
  }
  if (what === "similarity") arrays.centred = [Int32Array.of(Number(signed)), []];
  return npz({ ...arrays, ...originArrays(origin, facts) });
}

/**
 * A row per block and token. Tokens before the patches have a name instead of a row and a column.
 *
 * @param {readonly NormBlock[]} blocks
 * @param {readonly Outliers[]} outliers of each block
 * @param {Origin} origin
 * @returns {string}
 */
export function normsCsv(blocks, outliers, { model, image }) {
  const rows = blocks.flatMap((block, n) => {
    const flagged = new Set(outliers[n].tokens);
    return Array.from(block.values, (norm, token) => {
      const cell = cellOf(block, token);
      const place = cell ? ["patch", ...cell] : [tokenName(block, token), "", ""];
      return [block.block, ...place, norm, Number(flagged.has(token)), model, image];
    });
  });
  return csv(["block", "token", "row", "col", "norm", "outlier", "model", "image"], rows);
}

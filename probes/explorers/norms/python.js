// Python code that reproduces the displayed map. No DOM.

import { tokenName } from "#shared/patches.js";
import { capturePython, pythonFloat } from "#shared/python.js";

/** @import { ShownMap } from "./shown_map.js" */

/**
 * @typedef {object} View
 * @property {number} block
 * @property {string} call Python that computes the depth
 * @property {string} [opened] Python that opens the stored capture
 * @property {"norm" | "channel" | "similarity"} what
 * @property {number} [k] norm: deviations of the outliers' threshold
 * @property {number | null} [channel]
 * @property {string} [place] similarity: the token, as an argument
 * @property {boolean} [centred] similarity
 */

/**
 * @param {View} view
 * @returns {string}
 */
export function normsPython({ block, call, opened, what, k = 6, channel, place, centred }) {
  const point = what === "norm" ? "norms" : `encoder.blocks.${block}.tokens`;
  const lines = ["import probes", "", ...capturePython(point, { call, opened })];
  if (what === "norm") {
    lines.push("norms = probes.tokens.norms(cap)  # {block: (row, col)}");
    lines.push(`outliers = probes.tokens.outliers(norms[${block}], k=${pythonFloat(k)})`);
    lines.push(`norms[${block}]`);
  } else if (what === "channel") {
    lines.push(`probes.tokens.channels(cap, ${block}).sel(channel=${channel})`);
  } else {
    lines.push(`probes.tokens.similarity(cap, ${block}, ${place}${centred ? ", centred=True" : ""})  # (row, col)`);
  }
  return `${lines.join("\n")}\n`;
}

/**
 * @param {ShownMap} map
 * @param {{call: string, opened?: string, k: number}} facts
 * @returns {string}
 */
export function mapPython({ what, block, channel, anchor, signed }, { call, opened, k }) {
  const token = anchor ?? 0;
  const place = token >= block.prefix ? `patch=${tokenName(block, token)}` : `token=${token}`;
  return normsPython({ block: block.block, call, opened, what, k, channel, place, centred: signed });
}

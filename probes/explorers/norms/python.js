// Python code that reproduces the displayed map. No DOM.

import { tokenName } from "#shared/patches.js";
import { capturePython, pythonCode, pythonFloat } from "#shared/python.js";

/** @import { PythonCode } from "#shared/types.js" */
/** @import { ShownMap } from "./shown_map.js" */

/**
 * @typedef {object} View
 * @property {number} block
 * @property {string} call Python that computes the depth
 * @property {string} [opened] Python that opens the stored capture
 * @property {PythonCode} [code] how Python gets the model and the image
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
export function normsPython({ block, call, opened, code, what, k = 6, channel, place, centred }) {
  const point = what === "norm" ? "norms" : `encoder.blocks.${block}.tokens`;
  const lines = capturePython(point, { call, opened, code });
  if (what === "norm") {
    lines.push("shown_norms = probes.tokens.norms(shown_capture)  # {block: (row, col)}");
    lines.push(`shown_outliers = probes.tokens.outliers(shown_norms[${block}], k=${pythonFloat(k)})`);
    lines.push(`shown_norms[${block}]`);
  } else if (what === "channel") {
    lines.push(`probes.tokens.channels(shown_capture, ${block}).sel(channel=${channel})`);
  } else {
    lines.push(
      `probes.tokens.similarity(shown_capture, ${block}, ${place}${centred ? ", centred=True" : ""})  # (row, col)`,
    );
  }
  return pythonCode(code, ["import probes"], lines);
}

/**
 * @param {ShownMap} map
 * @param {{call: string, opened?: string, code?: PythonCode, k: number}} facts
 * @returns {string}
 */
export function mapPython({ what, block, channel, anchor, signed }, { call, opened, code, k }) {
  const token = anchor ?? 0;
  const place = token >= block.prefix ? `patch=${tokenName(block, token)}` : `token=${token}`;
  return normsPython({ block: block.block, call, opened, code, what, k, channel, place, centred: signed });
}

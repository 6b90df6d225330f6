// Python that computes what is shown with the public API. No DOM.

import { pythonCode } from "#shared/python.js";

/** @import { PythonCode } from "#shared/types.js" */

/**
 * @param {object} shot
 * @param {{encoding: string, native: readonly number[], code?: PythonCode}} shot.about
 * @param {{height: number, width: number, block?: number}} shot.data
 * @param {readonly number[]} shot.cell (row, col)
 * @param {boolean} [shot.centred] table
 * @param {number | null} shot.image the enlarged one
 * @returns {string}
 */
export function positionPython({ about, data, cell, centred = false, image }) {
  const size = [data.height, data.width];
  const native = size.join() === about.native.join();
  const call = `probes.positions(${about.code?.model ?? "model"}${native ? "" : `, size=(${size.join(", ")})`})`;
  const place = `(${cell.join(", ")})`;
  /** @type {string[]} */
  const lines = [];
  if (about.encoding === "table") {
    lines.push(`shown_positions = ${call}`);
    lines.push("shown_positions.table  # (channel, row, col)");
    lines.push(`shown_positions.similarity(${place}${centred ? ", centred=True" : ""})  # (row, col)`);
    lines.push(
      image === null
        ? `shown_positions.spectrum().mean("channel")  # (down, right)`
        : `shown_positions.spectrum()[${image}]`,
    );
  } else {
    const head = image === null || image < 0 ? `.mean("head")` : `[${image}]`;
    lines.push(`shown_biases = ${call}`);
    lines.push(`shown_biases[${data.block}]  # (head, down, right): where the key lies from the query`);
    lines.push(`shown_biases.from_query(${data.block}, ${place})${head}  # (row, col)`);
  }
  return pythonCode(about.code, ["import probes"], lines);
}

// The Python behind the "Copy Python" button of the tour. No DOM.

import { capturePython } from "#shared/python.js";

/** @import { Part } from "./source.js" */

/**
 * Python that computes the tensor of a part.
 *
 * @param {Part} part
 * @param {string} call the Python of a pass over the image
 * @returns {string}
 */
export function partPython(part, call) {
  const [point] = part.points;
  if (!point) return `x = ${call.replace("model.predict", "model.prepare")}  # (1, 3, h, w)\n`;
  const shape = part.shapes.at(-1)?.[1];
  const lines = ["import probes", "", ...capturePython(point, { call }), `cap["${point}"]  # ${shape}`];
  return `${lines.join("\n")}\n`;
}

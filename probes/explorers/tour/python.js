// The Python behind the "Copy Python" button of the tour. No DOM.

import { capturePython, pythonCode, pythonString } from "#shared/python.js";

/** @import { PythonCode } from "#shared/types.js" */
/** @import { Part } from "./source.js" */

/**
 * Python that computes the tensor of a part.
 *
 * @param {Part} part
 * @param {{call: string, code?: PythonCode}} tour the Python of a pass over the image
 * @returns {string}
 */
export function partPython(part, { call, code }) {
  const [point] = part.points;
  if (!point) return pythonCode(code, [], [`shown_input = ${call.replace(".predict(", ".prepare(")}  # (1, 3, h, w)`]);
  const shape = part.shapes.at(-1)?.[1];
  const lines = [...capturePython(point, { call, code }), `shown_capture[${pythonString(point)}]  # ${shape}`];
  return pythonCode(code, ["import probes"], lines);
}

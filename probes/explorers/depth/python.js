// The Python behind the "Copy Python" button of the depth explorer. No DOM.

import { pythonCode } from "#shared/python.js";

/** @import { PythonCode } from "#shared/types.js" */
/** @import { Processing } from "./numbers.js" */

/**
 * Python that computes the map on display with the public API.
 *
 * @param {Processing & {nearest: number, farthest: number}} settings with the metres at the ends of a relative map
 * @param {boolean} metric the map is in metres
 * @param {{call: string, code?: PythonCode}} subject `call`: an expression for the unprocessed map
 * @returns {string}
 */
export function depthPython({ far, near, plane, equalise, nearest, farthest }, metric, { call, code }) {
  const imports = ["import probes.depth"];
  const lines = [`shown_depth = ${call}`];
  const ends = `far=${far}, near=${near}${metric ? ", metric=True" : ""}`;
  lines.push(`shown_mask = probes.depth.within(shown_depth, ${ends})`);
  if (plane) lines.push("shown_depth = shown_depth - probes.depth.plane(shown_depth, shown_mask)");
  if (equalise) lines.push("shown_depth = probes.depth.equalise(shown_depth, shown_mask)");
  if (!metric && !plane && !equalise)
    lines.push(`shown_metres = probes.depth.metres(shown_depth, near=${nearest}, far=${farthest})`);
  return pythonCode(code, imports, lines);
}

// The Python behind the "Copy Python" button of the depth explorer. No DOM.

/** @import { Processing } from "./numbers.js" */

/**
 * Python that computes the map on display with the public API.
 *
 * @param {Processing & {nearest: number, farthest: number}} settings with the metres at the ends of a relative map
 * @param {boolean} metric the map is in metres
 * @param {string} call an expression for the unprocessed map
 * @returns {string}
 */
export function depthPython({ far, near, plane, equalise, nearest, farthest }, metric, call) {
  const lines = call.startsWith("probes.") ? ["import probes"] : []; // from a stored run
  lines.push("from probes import depth as numbers", "", `depth = ${call}`);
  lines.push(`mask = numbers.within(depth, far=${far}, near=${near}${metric ? ", metric=True" : ""})`);
  if (plane) lines.push("depth = depth - numbers.plane(depth, mask)");
  if (equalise) lines.push("depth = numbers.equalise(depth, mask)");
  if (!metric && !plane && !equalise) lines.push(`metres = numbers.metres(depth, near=${nearest}, far=${farthest})`);
  return `${lines.join("\n")}\n`;
}

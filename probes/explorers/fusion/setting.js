// Settings of the fusion explorer: one scale per point, in the order of the kernel's list of points. No DOM.

import { pythonCode, pythonFloat, pythonString } from "#shared/python.js";

/** @import { PythonCode } from "#shared/types.js" */

/** @typedef {readonly number[]} Scales one per point */

/** @typedef {Record<string, number>} NamedScales {point: scale}; missing points have scale 1 */

/**
 * @param {readonly string[]} points
 * @param {NamedScales} named
 * @returns {number[]}
 */
export function inOrder(points, named) {
  return points.map((point) => named[point] ?? 1);
}

/**
 * @param {readonly string[]} points
 * @param {Scales} scales
 * @returns {NamedScales}
 */
export function byName(points, scales) {
  return Object.fromEntries(points.map((point, n) => [point, scales[n]]));
}

/**
 * @param {Scales | null} a
 * @param {Scales | null} b
 * @returns {boolean}
 */
export function sameScales(a, b) {
  return a !== null && b !== null && a.length === b.length && a.every((value, n) => value === b[n]);
}

/**
 * The setting at a share of the way from one setting to another, with four decimals per scale.
 *
 * @param {Scales} first
 * @param {Scales} last
 * @param {number} share 0 to 1
 * @returns {number[]}
 */
export function between(first, last, share) {
  return first.map((from, n) => Math.round(((1 - share) * from + share * last[n]) * 1e4) / 1e4 + 0);
}

/**
 * The settings that the sliders can reach. Without `steps` and `from`: any. A page has both: it holds the setting `from`,
 * and from there the steps of one slider at a time.
 *
 * @typedef {{reach: number, steps?: readonly number[], from?: Scales}} Reachable
 */

/**
 * The setting after a slider moves. On a page it goes to the nearest step, and the others go back to `from`.
 *
 * @param {Reachable} reachable
 * @param {Scales} scales
 * @param {number} index of the slider
 * @param {number} value
 * @returns {number[]}
 */
export function moved(reachable, scales, index, value) {
  const { reach, steps, from } = reachable;
  const next = [...(from ?? scales)];
  next[index] = steps && from ? nearest(heldSteps(steps, from[index]), value) : limited(value, reach);
  return next;
}

/**
 * The value after an arrow key on a slider: by a distance, or on a page to the next step that it holds.
 *
 * @param {Reachable} reachable
 * @param {Scales} scales
 * @param {number} index of the slider
 * @param {number} by
 * @returns {number}
 */
export function stepped({ steps, from }, scales, index, by) {
  if (!steps || !from) return scales[index] + by;
  const held = heldSteps(steps, from[index]);
  return held[held.indexOf(scales[index]) + Math.sign(by)] ?? scales[index];
}

/**
 * Within -reach to reach, with two decimals and without negative zero.
 *
 * @param {number} value
 * @param {number} reach
 */
function limited(value, reach) {
  return Math.min(reach, Math.max(-reach, Math.round(value * 100) / 100)) + 0;
}

/**
 * The steps that a page holds for a slider, in ascending order: those of the page, and the saved scale.
 *
 * @param {readonly number[]} steps
 * @param {number} saved
 */
function heldSteps(steps, saved) {
  return [...new Set([...steps, saved])].sort((a, b) => a - b);
}

/**
 * @param {readonly number[]} steps
 * @param {number} value
 */
function nearest(steps, value) {
  return steps.reduce((best, step) => (Math.abs(step - value) < Math.abs(best - value) ? step : best));
}

/**
 * A file name without its extension that tells settings apart; the kernel builds the same (`named`).
 *
 * @param {readonly string[]} points
 * @param {Scales} scales
 * @returns {string}
 */
export function settingName(points, scales) {
  const changed = points.flatMap((point, n) => (scales[n] === 1 ? [] : [`${point.replace(".", "")}x${scales[n]}`]));
  return ["depth", ...(changed.length ? changed : ["unscaled"])].join("_");
}

/**
 * Python that computes the map of a setting with the public API.
 *
 * @param {readonly string[]} points
 * @param {Scales} scales
 * @param {{call: string, code?: PythonCode}} subject `call`: the Python of an unscaled pass
 * @returns {string}
 */
export function settingPython(points, scales, { call, code }) {
  const changed = points.flatMap((point, n) =>
    scales[n] === 1 ? [] : [`${pythonString(point)}: probes.scale(${pythonFloat(scales[n])})`],
  );
  if (!changed.length) return pythonCode(code, [], [`shown_depth = ${call}`]);
  const edits = changed.length > 2 ? `\n    ${changed.join(",\n    ")},\n` : changed.join(", ");
  const lines = [`with probes.edit(${code?.model ?? "model"}, {${edits}}):`, `    shown_depth = ${call}`];
  return pythonCode(code, ["import probes"], lines);
}

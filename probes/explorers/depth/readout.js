// The sentences of the depth explorer about the pixel under the pointer and about what the thresholds leave. No DOM.

import { formatFixed, formatNumber } from "#shared/format.js";
import { metresAt, nearnessOf } from "./numbers.js";

/** @import { DepthMap, Processed, Processing } from "./numbers.js" */

/** @typedef {{width: number, height: number}} Size */

/** @typedef {[column: number, row: number]} Pixel */

/**
 * The index of the map's pixel that holds the centre of a pixel of the picture.
 *
 * @param {DepthMap} map
 * @param {Size} picture
 * @param {Pixel} pixel
 * @returns {number}
 */
export function indexUnder(map, picture, [column, row]) {
  const x = ((column + 0.5) * map.width) / picture.width;
  const y = ((row + 0.5) * map.height) / picture.height;
  return Math.floor(y) * map.width + Math.floor(x);
}

/**
 * Depth, nearness and metres of a pixel in every map on display.
 *
 * @param {Pixel | null} pixel
 * @param {Size} picture
 * @param {readonly DepthMap[]} maps
 * @param {Processed} first the result for the first map
 * @param {{nearest: number, farthest: number}} distances metres at the ends of relative maps
 * @returns {string}
 */
export function pixelWords(pixel, picture, maps, first, { nearest, farthest }) {
  if (!pixel) return "Move the pointer over a picture to read its depth";
  const values = maps.map((map) => {
    const value = map.values[indexUnder(map, picture, pixel)];
    const name = maps.length > 1 ? `${map.name}: ` : "";
    if (map.metric) return `${name}${formatNumber(value)} m`;
    const near = nearnessOf(map, value);
    const metres = formatNumber(metresAt(near, nearest, farthest));
    return `${name}depth ${formatNumber(value, 4)}, nearness ${formatFixed(near, 3)}, ${metres} m`;
  });
  const outside = first.mask[indexUnder(maps[0], picture, pixel)] ? "" : " (cut away)";
  return `Pixel (${pixel[1]}, ${pixel[0]})${outside}   ${values.join("   ")}`;
}

/**
 * The range of a pane's colours.
 *
 * @param {Processed} result
 * @param {Processing} processing
 * @returns {string}
 */
export function rangeWords({ low, high }, { plane, equalise }) {
  const what = equalise ? "share of pixels below, " : plane ? "above the plane, " : "";
  return `${what}${formatNumber(low)} to ${formatNumber(high)}`;
}

/**
 * The share of pixels that pass the thresholds.
 *
 * @param {DepthMap} map
 * @param {Processed} result
 * @param {Processing} processing
 * @returns {string}
 */
export function thresholdWords(map, result, { far, near, plane }) {
  const share = formatFixed((100 * result.count) / map.values.length, 0);
  const lacking = plane && !result.plane ? "; too few to fit a plane" : "";
  return `${formatFixed(far, 2)} to ${formatFixed(near, 2)}: ${share} % of the pixels${lacking}`;
}

/**
 * @param {Size} map
 * @param {Size} picture
 * @returns {boolean} false if the kernel averaged the map to less than the picture's size
 */
export function isWhole(map, picture) {
  return map.width === picture.width && map.height === picture.height;
}

/**
 * The size of a map, and that of its picture if the kernel averaged the map.
 *
 * @param {DepthMap} map
 * @param {Size} picture
 * @returns {string}
 */
export function sizeWords(map, picture) {
  const own = `${map.width} \u00d7 ${map.height}`;
  if (isWhole(map, picture)) return `${own} pixels`;
  return `${own} means of ${picture.width} \u00d7 ${picture.height} pixels`;
}

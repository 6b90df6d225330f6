// How the maps of the depth explorer are painted: scale, colours, and what their colour bars say. No DOM.

import { lookup, signedColours } from "#shared/colours.js";
import { formatNumber } from "#shared/format.js";
import { depthScale, linearScale, signedScale, ticksOf } from "#shared/scale.js";

/** @import { BarContent } from "#shared/snapshot_sheet.js" */
/** @import { ColourTable, Scale } from "#shared/types.js" */
/** @import { DepthMap, Processed, Processing } from "./numbers.js" */

/**
 * @typedef {BarContent & {scale: Scale}} Look the colour bar of a map, and the scale of its `shown` values
 */

/**
 * @typedef {object} Style
 * @property {boolean} shared maps side by side cover one range
 * @property {string} colormap
 * @property {boolean} dark
 */

/** @type {WeakMap<ColourTable, ColourTable>} */
const reversedTables = new WeakMap();

/**
 * @param {ColourTable} table
 * @returns {ColourTable} the same one each time
 */
function reversed(table) {
  const known = reversedTables.get(table) ?? table.slice().reverse();
  reversedTables.set(table, known);
  return known;
}

/**
 * The quantity of a map with its unit.
 *
 * @param {DepthMap} map
 * @param {Pick<Processed, "plane">} result
 * @returns {string}
 */
export function unitOf({ metric }, { plane }) {
  const unit = metric ? "depth in metres" : "inverse depth";
  return plane ? `${unit} minus the plane` : unit;
}

/**
 * The looks of maps side by side. Near is bright; above a subtracted plane, near is red.
 *
 * @param {readonly (readonly [DepthMap, Processed])[]} shown
 * @param {Processing} processing
 * @param {Style} style
 * @returns {Look[]}
 */
export function looksOf(shown, { equalise }, { shared, colormap, dark }) {
  const one = shared && shown.length > 1;
  const low = Math.min(...shown.map(([, { span }]) => span.low));
  const high = Math.max(...shown.map(([, { span }]) => span.high));
  return shown.map(([map, result]) => {
    const span = one && !equalise ? { low, high } : result.span;
    const isSigned = result.plane !== null && !equalise;
    const colours = lookup(isSigned ? signedColours(dark) : colormap);
    const table = map.metric ? reversed(colours) : colours;
    const unit = unitOf(map, result);
    if (equalise) {
      /** @type {[number, string][]} */
      const ticks = [
        [0, formatNumber(span.low)],
        [1, formatNumber(span.high)],
      ];
      return { scale: linearScale(0, 1), table, ticks, note: `${unit}; every colour covers as many pixels` };
    }
    const scale = isSigned
      ? signedScale(Math.max(Math.abs(span.low), Math.abs(span.high)) || 1)
      : depthScale(span.low, span.high);
    const near = isSigned ? "red is nearer than the plane" : map.metric ? "small is near" : "large is near";
    const note = `${unit}, ${near}${one ? "; one range for both maps" : shown.length > 1 ? "; own range" : ""}`;
    return { scale, table, ticks: ticksOf(scale, 3, formatNumber), note };
  });
}

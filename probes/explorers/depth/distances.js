// The distances of the depth explorer: metres at both ends of a map of inverse depth.

import { field, numberField } from "#shared/controls.js";
import { element } from "#shared/elements.js";

/** @typedef {{nearest: number, farthest: number}} Distances in metres */

/**
 * @param {(name: keyof Distances, metres: number) => void} onChange
 * @returns {{node: HTMLElement, show: (distances: Distances) => void}}
 */
export function createDistances(onChange) {
  const entry = (/** @type {keyof Distances} */ name, /** @type {string} */ label) =>
    numberField(label, (text) => onChange(name, Number(text)), { min: 0.01, step: "any", title: label });
  const nearest = entry("nearest", "Metres to the nearest pixel");
  const farthest = entry("farthest", "Metres to the farthest pixel");
  const word = (/** @type {string} */ text) => element("span", { className: "dptx-label" }, text);
  return {
    node: field("Nearest", nearest, word("m, farthest"), farthest, word("m")),
    show(distances) {
      nearest.value = String(distances.nearest);
      farthest.value = String(distances.farthest);
    },
  };
}

/**
 * @param {Distances} distances
 * @returns {boolean} whether 0 < nearest < farthest
 */
export function areValid({ nearest, farthest }) {
  return nearest > 0 && nearest < farthest;
}

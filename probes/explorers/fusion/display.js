// The map area of the fusion explorer: a depth map, a difference or the picture, with the colour bar below it.

import { drawWhole, PixelCanvas } from "#shared/canvas.js";
import { createColourBar } from "#shared/colour_bar.js";
import { element } from "#shared/elements.js";
import { formatNumber } from "#shared/format.js";
import { placeIn } from "#shared/pointer.js";
import { colourise, linearScale, signedScale, ticksOf } from "#shared/scale.js";
import { maxMagnitude } from "#shared/statistics.js";
import { levelColours, paintLevels, valuesAt } from "./depth_map.js";

/** @import { BarContent } from "#shared/snapshot_sheet.js" */
/** @import { ColourTable } from "#shared/types.js" */
/** @import { Colouring, DepthMap } from "./depth_map.js" */

/**
 * @typedef {object} Display
 * @property {HTMLElement} node takes the focus, the pointer and the keys
 * @property {HTMLElement} bar
 * @property {(map: DepthMap, colouring: Colouring, metric: boolean) => void} showDepth
 * @property {(scaled: DepthMap, unscaled: DepthMap, table: ColourTable) => void} showDifference
 * @property {() => void} showPicture
 * @property {(picture: ImageBitmap) => void} setPicture
 * @property {(words: string) => void} showBadge over the map; "" hides it
 * @property {() => HTMLCanvasElement | null} canvas the canvas with the latest map; null before the first one
 * @property {() => BarContent | null} barContent of the latest map
 */

/**
 * @param {object} events
 * @param {(place: [across: number, down: number] | null) => void} events.onPoint fractions; null when the pointer leaves
 * @param {(held: boolean) => void} events.onHold the pointer presses the map, or lets it go
 * @returns {Display}
 */
export function createDisplay({ onPoint, onHold }) {
  const pixels = new PixelCanvas({ className: "dptx-depth" });
  const picture = element("canvas", { hidden: true });
  const badge = element("div", { className: "dptx-badge", hidden: true });
  const bar = createColourBar();
  const colours = new Uint32Array(65536);
  let painted = false;
  /** @type {BarContent | null} */
  let content = null;
  /** @param {BarContent} next */
  const showBar = (next) => {
    content = next;
    bar.show(next.table, next.ticks, null, next.note);
  };
  /** @type {{of: DepthMap, width: number, values: Float32Array} | null} the unscaled map at a preview's size */
  let resized = null;

  const node = element(
    "div",
    {
      className: "dptx-stage dptx-frame",
      tabIndex: 0,
      role: "img",
      "aria-label": "Depth map. Hold it down to see it without scales. Question mark lists all keys.",
    },
    picture,
    pixels.canvas,
    badge,
  );
  watchPointer(node, onPoint, onHold);

  /** @param {boolean} isPicture */
  const choose = (isPicture) => {
    pixels.canvas.hidden = isPicture;
    picture.hidden = !isPicture;
    bar.node.style.visibility = isPicture ? "hidden" : ""; // it keeps its place, so nothing below it moves
  };

  return {
    node,
    bar: bar.node,
    showDepth(map, colouring, metric) {
      choose(false);
      paintLevels(map, levelColours(map, colouring, colours), pixels.fit(map.height, map.width));
      pixels.paint();
      painted = true;
      const { table, flip, equalise, span } = colouring;
      const [low, high] = span ?? [map.low, map.high];
      /** @type {[number, string][]} */
      const ends = [
        [0, formatNumber(map.low)],
        [1, formatNumber(map.high)],
      ];
      const ticks = equalise ? ends : ticksOf(linearScale(low, high), 3, formatNumber);
      showBar({ table: flip ? table.slice().reverse() : table, ticks, note: barNote(map, colouring, metric) });
    },
    showDifference(scaled, unscaled, table) {
      choose(false);
      const { width, height } = scaled;
      if (resized?.of !== unscaled || resized.width !== width) {
        resized = { of: unscaled, width, values: valuesAt(unscaled, width, height) };
      }
      const values = valuesAt(scaled, width, height);
      for (let n = 0; n < values.length; n++) values[n] -= resized.values[n];
      const scale = signedScale(maxMagnitude(values));
      colourise(values, 0, values.length, scale, table, pixels.fit(height, width));
      pixels.paint();
      painted = true;
      const note = scale.high ? "scaled minus unscaled" : "no difference: the maps are equal";
      showBar({ table, ticks: ticksOf(scale, 3, formatNumber), note });
    },
    showPicture() {
      choose(true);
    },
    setPicture(image) {
      drawWhole(picture, image);
    },
    showBadge(words) {
      badge.hidden = !words;
      badge.textContent = words;
    },
    canvas: () => (painted ? pixels.canvas : null),
    barContent: () => content,
  };
}

/**
 * @param {HTMLElement} node
 * @param {(place: [number, number] | null) => void} onPoint
 * @param {(held: boolean) => void} onHold
 */
function watchPointer(node, onPoint, onHold) {
  let held = false;
  /** @param {boolean} now */
  const hold = (now) => {
    if (held === now) return;
    held = now;
    onHold(now);
  };
  node.addEventListener("pointermove", (event) => onPoint(placeIn(node, event)));
  node.addEventListener("pointerleave", () => onPoint(null));
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    node.setPointerCapture(event.pointerId);
    hold(true);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    node.addEventListener(name, () => hold(false));
  }
}

/**
 * @param {DepthMap} map
 * @param {Pick<Colouring, "equalise" | "span">} colouring
 * @param {boolean} metric
 * @returns {string}
 */
function barNote(map, { equalise, span }, metric) {
  const unit = metric ? "metres" : "inverse depth";
  if (equalise) return `${unit}, colours spread evenly`;
  if (map.low === map.high) return `${unit}, one value everywhere`;
  return span ? `${unit}, range of unscaled` : `${unit}, own range`;
}

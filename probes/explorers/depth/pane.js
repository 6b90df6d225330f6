// One pane of the depth explorer: a choice of what it shows, and a canvas with one pixel per pixel of the map.

import { PixelCanvas } from "#shared/canvas.js";
import { createColourBar } from "#shared/colour_bar.js";
import { picker } from "#shared/controls.js";
import { element } from "#shared/elements.js";
import { colourise } from "#shared/scale.js";

/** @import { Look } from "./looks.js" */
/** @import { DepthMap, Processed } from "./numbers.js" */

/** @typedef {"left" | "right"} Side */

const FAINT = 26; // of 255: opacity of the picture outside the thresholds

/**
 * @typedef {object} DepthPane
 * @property {Side} side
 * @property {HTMLElement} node
 * @property {HTMLElement} frame takes the focus and the pointer
 * @property {HTMLCanvasElement} canvas
 * @property {(names: readonly string[], chosen: string) => void} showChoices
 * @property {(map: DepthMap, result: Processed, picture: Uint32Array) => void} showPicture picture: pixels at the map's size
 * @property {(map: DepthMap, result: Processed, look: Look, words: string) => void} showMap
 * @property {(place: [x: number, y: number] | null) => void} moveCross to fractions of the pane; null hides it
 */

/**
 * @param {Side} side
 * @param {object} events
 * @param {(name: string) => void} events.onChoose
 * @param {(event: PointerEvent) => void} events.onPoint the pointer moves over the canvas, or presses it
 * @returns {DepthPane}
 */
export function createPane(side, { onChoose, onPoint }) {
  const cells = new PixelCanvas({ className: "" });
  cells.canvas.dataset.pane = side;
  const cross = element("div", { className: "dptx-depth-cross" });
  const choice = picker(`${side} pane`, `What the ${side} pane shows`, [], onChoose);
  const bar = createColourBar();
  const range = element("span", { className: "dptx-hint" });
  const frame = element(
    "div",
    {
      className: "dptx-frame dptx-depth-frame",
      tabIndex: 0,
      role: "application",
      "aria-label": `The ${side} pane. Arrow keys read the depth pixel by pixel.`,
      onpointermove: onPoint,
      onpointerdown: (/** @type {PointerEvent} */ event) => {
        frame.focus({ preventScroll: true });
        onPoint(event);
      },
    },
    cells.canvas,
    cross,
  );
  return {
    side,
    node: element(
      "div",
      { className: "dptx-depth-pane" },
      element("div", { className: "dptx-depth-head" }, choice, range),
      frame,
      bar.node,
    ),
    frame,
    canvas: cells.canvas,
    showChoices(names, chosen) {
      if (choice.childElementCount !== names.length) {
        choice.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
      }
      choice.value = chosen;
    },
    showPicture(map, { mask }, picture) {
      const pixels = cells.fit(map.height, map.width);
      for (let n = 0; n < pixels.length; n++) {
        pixels[n] = mask[n] ? picture[n] : ((picture[n] & 0xffffff) | (FAINT << 24)) >>> 0;
      }
      cells.paint();
      bar.node.classList.add("dptx-bar-unused");
      range.textContent = "";
    },
    showMap(map, { mask, shown }, { scale, table, ticks, note }, words) {
      const pixels = cells.fit(map.height, map.width);
      colourise(shown, 0, shown.length, scale, table, pixels);
      for (let n = 0; n < pixels.length; n++) if (!mask[n]) pixels[n] = 0;
      cells.paint();
      bar.node.classList.remove("dptx-bar-unused");
      bar.show(table, ticks, null, note);
      range.textContent = words;
    },
    moveCross(place) {
      cross.style.visibility = place ? "visible" : "hidden";
      if (!place) return;
      cross.style.left = `${100 * place[0]}%`;
      cross.style.top = `${100 * place[1]}%`;
    },
  };
}

// The tour's diagram: a grid of boxes, one per part, with thumbnails, and arrows drawn behind them.
//
// The boxes form a listbox: Tab reaches the chosen one, and a box that receives the focus is chosen.

import { element } from "#shared/elements.js";
import { arrowPaths, blocksOf, linksOf, partsOf, WAY_IN } from "./links.js";

/** @import { Part } from "./source.js" */
/** @import { Box, Link } from "./links.js" */

const TIP = "dptx-tour-tip";
const SVG = "http://www.w3.org/2000/svg";

const LEGEND =
  "The thumbnails show this model's tensors for this picture, with channels as colours: patches of similar colour hold similar tokens. Select a part to see more of it.";

/**
 * @typedef {object} Diagram
 * @property {HTMLElement} node
 * @property {(parts: readonly Part[], thumbnails: readonly string[]) => void} show thumbnails: URLs
 * @property {(part: Part) => void} select marks a part and its arrows
 * @property {() => void} drawArrows after a change of layout
 * @property {(name: string, options?: FocusOptions) => void} focus
 * @property {(name: string) => HTMLElement | null} boxOf
 * @property {(name: string) => HTMLElement | null} rowOf the row with a part
 * @property {() => HTMLElement[]} rows
 * @property {(name: string, right: number, down: number) => string | null} neighbour the nearest part in a direction
 */

/**
 * @param {object} events
 * @param {(name: string) => void} events.onChoose a part received the focus
 * @param {(name: string) => void} events.onClick
 * @returns {Diagram}
 */
export function createDiagram({ onChoose, onClick }) {
  /** @type {Map<string, HTMLElement>} part name -> its box */
  const boxes = new Map();
  /** @type {Map<string, HTMLElement>} the ends of arrows: the boxes, and those around the blocks of a stage */
  const ends = new Map();
  /** @type {(Link & {line: SVGElement, tip: SVGElement})[]} */
  let arrows = [];
  const lines = svg("svg", { class: "dptx-tour-lines", "aria-hidden": "true" });
  const node = element("div", {
    className: "dptx-tour-diagram",
    role: "listbox",
    "aria-label": "Parts of the model; arrow keys move between them",
  });

  /** @param {Part} part @param {readonly string[]} thumbnails */
  const addBox = (part, thumbnails) => {
    const box = newBox(part, thumbnails[part.thumbnail] ?? null);
    box.onfocus = () => onChoose(part.name);
    box.onclick = () => onClick(part.name);
    boxes.set(part.name, box);
    ends.set(part.name, box);
    return box;
  };

  const drawArrows = () => {
    const whole = node.getBoundingClientRect();
    if (!whole.width) return; // not on display
    lines.setAttribute("width", String(whole.width));
    lines.setAttribute("height", String(whole.height));
    /** @param {string} end @returns {Box} */
    const placeOf = (end) => {
      const { left, top, width, height } = /** @type {HTMLElement} */ (ends.get(end)).getBoundingClientRect();
      return { left: left - whole.left, top: top - whole.top, width, height };
    };
    for (const { from, to, way, line, tip } of arrows) {
      const paths = arrowPaths(placeOf(from), placeOf(to), way);
      line.setAttribute("d", paths.line);
      tip.setAttribute("d", paths.tip);
    }
  };

  return {
    node,
    drawArrows,
    show(parts, thumbnails) {
      boxes.clear();
      ends.clear();
      /** @param {string} look @param {...string} kinds */
      const row = (look, ...kinds) =>
        rowOf(look, ...kinds.flatMap((kind) => partsOf(parts, kind).map((part) => addBox(part, thumbnails))));
      const stages = [0, 1, 2, 3].map((stage) => {
        const blocks = partsOf(parts, "block").filter(({ group }) => group === stage);
        const inside = element("div", { className: "dptx-tour-blocks" });
        inside.append(...blocks.map((part) => addBox(part, thumbnails)));
        const group = element("div", { className: "dptx-tour-group" }, inside);
        ends.set(blocksOf(stage), group);
        return group;
      });
      const wayOut = row("way-out", "head", "depth");
      wayOut.append(element("p", { className: "dptx-tour-legend" }, LEGEND));
      node.replaceChildren(
        lines,
        row("way-in", ...WAY_IN),
        rowOf("encoder", ...stages),
        row("stages", "stage"),
        row("readout", "readout"),
        row("maps", "reassembly"),
        row("maps", "fusion"),
        wayOut,
      );
      arrows = linksOf(parts).map((link) => ({ ...link, line: svg("path"), tip: svg("path", { class: TIP }) }));
      lines.replaceChildren(...arrows.flatMap(({ line, tip }) => [line, tip]));
      drawArrows();
    },
    select(part) {
      for (const [name, box] of boxes) {
        box.setAttribute("aria-selected", String(name === part.name));
        box.tabIndex = name === part.name ? 0 : -1;
      }
      const own = part.kind === "block" ? [part.name, blocksOf(part.group)] : [part.name];
      for (const { from, to, line, tip } of arrows) {
        const lit = own.includes(from) || own.includes(to);
        for (const shape of [line, tip]) shape.classList.toggle("dptx-tour-lit", lit);
      }
    },
    boxOf: (name) => boxes.get(name) ?? null,
    rowOf: (name) => boxes.get(name)?.closest(".dptx-tour-row") ?? null,
    rows: () => [...node.querySelectorAll(".dptx-tour-row")].map((row) => /** @type {HTMLElement} */ (row)),
    focus(name, options) {
      boxes.get(name)?.focus(options);
    },
    neighbour(name, right, down) {
      const own = boxes.get(name)?.getBoundingClientRect();
      return own ? nearestBox(own, boxes, right, down) : null;
    },
  };
}

/**
 * @param {string} look
 * @param {...HTMLElement} children
 * @returns {HTMLElement}
 */
function rowOf(look, ...children) {
  return element("div", { className: `dptx-tour-row dptx-tour-${look}` }, ...children);
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @returns {SVGElement}
 */
function svg(tag, attributes = {}) {
  const node = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/**
 * @param {Part} part
 * @param {string | null} thumbnail its URL
 * @returns {HTMLElement}
 */
function newBox(part, thumbnail) {
  const shape = part.shapes.at(-1)?.[2] ?? "";
  const isBlock = part.kind === "block";
  const isReadout = part.kind === "readout"; // a wide bar without image and shape
  const name = element("span", { className: "dptx-tour-name" }, isBlock ? String(part.number) : part.title);
  const withoutBatch = part.kind === "picture" ? shape : shape.replace(/^1 \u00d7 /, "");
  const caption = isBlock
    ? name
    : element(
        "span",
        { className: "dptx-tour-caption" },
        name,
        isReadout ? null : element("span", { className: "dptx-tour-shape" }, withoutBatch),
      );
  const box = element(
    "div",
    {
      className: `dptx-tour-node dptx-tour-kind-${part.kind}`,
      role: "option",
      tabIndex: -1,
      title: isBlock ? part.title : part.why,
      "aria-label": isBlock || isReadout ? `${part.title}, ${shape}` : null, // otherwise the caption says as much
      "aria-selected": "false",
    },
    thumbnail && !isReadout ? element("img", { src: thumbnail, alt: "", draggable: false }) : null,
    caption,
  );
  box.dataset.part = part.name;
  return box;
}

/**
 * The box nearest to another in a direction. Distance across the direction costs three times as much as along it.
 *
 * @param {DOMRect} own
 * @param {Map<string, HTMLElement>} boxes
 * @param {number} right 1, -1 or 0
 * @param {number} down 1, -1 or 0
 * @returns {string | null}
 */
function nearestBox(own, boxes, right, down) {
  /** @type {string | null} */
  let best = null;
  let lowest = Infinity;
  for (const [name, box] of boxes) {
    const other = box.getBoundingClientRect();
    const dx = other.left + other.width / 2 - (own.left + own.width / 2);
    const dy = other.top + other.height / 2 - (own.top + own.height / 2);
    const ahead = right ? right * dx : down * dy;
    const aside = right ? Math.abs(dy) : Math.max(0, Math.abs(dx) - Math.max(own.width, other.width) / 2);
    if (ahead < 4 || (right && aside > own.height / 2 + other.height / 2)) continue;
    const cost = ahead + 3 * aside;
    if (cost < lowest) {
      best = name;
      lowest = cost;
    }
  }
  return best;
}

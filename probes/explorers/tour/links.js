// The arrows of the tour's diagram: which boxes they join, and their paths. No DOM.
//
//     picture > input > patches > embedding > tokens
//                        |
//     blocks 0 > blocks 1 > blocks 2 > blocks 3      one box per stage
//        |          |          |          |
//     stage 0    stage 1    stage 2    stage 3
//        |          |          |          |
//     ---------------- readout ----------------
//        |          |          |          |
//     maps 0     maps 1     maps 2     maps 3
//        |          |          |          |
//     fusion 0 < fusion 1 < fusion 2 < fusion 3
//        |
//      head > depth

/** @import { Part } from "./source.js" */
/** @typedef {Pick<Part, "kind" | "number" | "name">} PartName */

/** @typedef {"right" | "left" | "down" | "to-bar" | "from-bar"} Way a bar is a wide box: the arrow stays vertical */

/** @typedef {{from: string, to: string, way: Way}} Link keys of boxes: names of parts, or `blocksOf(stage)` */

/** @typedef {{left: number, top: number, width: number, height: number}} Box */

export const WAY_IN = ["picture", "input", "patches", "embedding", "tokens"];

/**
 * The key of the box around the blocks of a stage.
 *
 * @param {number} stage
 * @returns {string}
 */
export function blocksOf(stage) {
  return `blocks of stage ${stage}`;
}

/**
 * The parts of a kind, in order of their numbers.
 *
 * @template {PartName} P
 * @param {readonly P[]} parts
 * @param {string} kind
 * @returns {P[]}
 */
export function partsOf(parts, kind) {
  return parts.filter((part) => part.kind === kind).sort((one, other) => one.number - other.number);
}

/**
 * All arrows of the diagram.
 *
 * @param {readonly PartName[]} parts
 * @returns {Link[]}
 */
export function linksOf(parts) {
  const names = (/** @type {string} */ kind) => partsOf(parts, kind).map(({ name }) => name);
  const chain = WAY_IN.flatMap(names);
  const [readout] = names("readout");
  const [head] = names("head");
  const [depth] = names("depth");
  const [stages, maps, fused] = ["stage", "reassembly", "fusion"].map(names);
  /** @type {Link[]} */
  const links = [];
  const add = (/** @type {string} */ from, /** @type {string} */ to, /** @type {Way} */ way) =>
    links.push({ from, to, way });
  for (let n = 1; n < chain.length; n++) add(chain[n - 1], chain[n], "right");
  add(chain[chain.length - 1], blocksOf(0), "down");
  for (let stage = 0; stage < 4; stage++) {
    if (stage) add(blocksOf(stage - 1), blocksOf(stage), "right");
    add(blocksOf(stage), stages[stage], "down");
    add(stages[stage], readout, "to-bar");
    add(readout, maps[stage], "from-bar");
    add(maps[stage], fused[stage], "down");
    if (stage) add(fused[stage], fused[stage - 1], "left"); // fusion runs from coarse to fine
  }
  add(fused[0], head, "down");
  add(head, depth, "right");
  return links;
}

/**
 * The SVG paths of an arrow from the edge of one box to the edge of another. A downward arrow between boxes that are
 * not above each other turns twice.
 *
 * @param {Box} from
 * @param {Box} to
 * @param {Way} way
 * @returns {{line: string, tip: string}}
 */
export function arrowPaths(from, to, way) {
  const [fromX, fromY] = middleOf(from);
  const [toX] = middleOf(to);
  if (way === "right") {
    const end = to.left - 7;
    return { line: `M${from.left + from.width + 2} ${fromY}H${end}`, tip: tipAt(end, fromY, [0, -4], [0, 4], [6, 0]) };
  }
  if (way === "left") {
    const end = to.left + to.width + 7;
    return { line: `M${from.left - 2} ${fromY}H${end}`, tip: tipAt(end, fromY, [0, -4], [0, 4], [-6, 0]) };
  }
  const start = from.top + from.height + 2;
  const end = to.top - 7;
  const straight = way !== "down" || Math.abs(fromX - toX) < 2;
  const x = straight && way !== "from-bar" ? fromX : toX;
  const line = straight ? `M${x} ${start}V${end}` : `M${fromX} ${start}V${end - 5}H${toX}V${end}`;
  return { line, tip: tipAt(x, end, [-4, 0], [4, 0], [0, 6]) };
}

/**
 * @param {Box} box
 * @returns {[number, number]}
 */
function middleOf({ left, top, width, height }) {
  return [left + width / 2, top + height / 2];
}

/**
 * A triangle from three offsets to a point.
 *
 * @param {number} x
 * @param {number} y
 * @param {...[number, number]} corners
 * @returns {string}
 */
function tipAt(x, y, ...corners) {
  return `M${corners.map(([dx, dy]) => `${x + dx} ${y + dy}`).join("L")}Z`;
}

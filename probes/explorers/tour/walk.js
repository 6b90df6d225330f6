// The walk of the tour: its steps in the order of the forward pass, and the controls that follow them.

import { button, setEnabled } from "#shared/controls.js";
import { element } from "#shared/elements.js";

/** @import { Part } from "./source.js" */

/** @typedef {{kind: string, name: string, part: Part}} Step part: the first one of its kind */

/** @type {[kind: string, name: string][]} */
const STEPS = [
  ["picture", "Picture"],
  ["input", "Prepared input"],
  ["patches", "Patches"],
  ["embedding", "Patch embedding"],
  ["tokens", "Tokens"],
  ["block", "Blocks"],
  ["stage", "Four stages"],
  ["readout", "Readout"],
  ["reassembly", "Reassembly"],
  ["fusion", "Fusion, coarse to fine"],
  ["head", "Head"],
  ["depth", "Depth"],
];

/**
 * The steps that a model has.
 *
 * @param {readonly Part[]} parts
 * @returns {Step[]}
 */
export function stepsOf(parts) {
  return STEPS.flatMap(([kind, name]) => {
    const part = parts.find((one) => one.kind === kind);
    return part ? [{ kind, name, part }] : [];
  });
}

/**
 * @typedef {object} WalkControls
 * @property {HTMLElement} node
 * @property {(steps: readonly Step[], at: number) => void} show
 */

/**
 * @param {(by: number) => void} onStep by: 1 or -1
 * @param {{next: string, previous: string}} titles tooltips
 * @returns {WalkControls}
 */
export function createWalk(onStep, titles) {
  const back = button("\u2039 Back", titles.previous, () => onStep(-1));
  const next = button("Next \u203a", titles.next, () => onStep(1));
  const step = element("span", { className: "dptx-tour-step" });
  return {
    node: element("div", { className: "dptx-field dptx-tour-walk" }, back, next, step),
    show(steps, at) {
      step.textContent = `Step ${at + 1} of ${steps.length}: ${steps[at].name}`;
      setEnabled(back, true, next);
      setEnabled(next, at < steps.length - 1, back);
      setEnabled(back, at > 0, next);
    },
  };
}

// The chosen part of the tour: why it exists, its formula, tensors and images.

import { segmented } from "#shared/controls.js";
import { element } from "#shared/elements.js";

/** @import { Part, Shot } from "./source.js" */

const UNTRAINED =
  "Untrained model: its weights are random. Shapes, windows and biases are those of the family; the pictures do not show what a trained model computes.";

/**
 * @typedef {object} PartPanel
 * @property {HTMLElement} node
 * @property {HTMLElement} lead the beginning: title, purpose and formula
 * @property {() => void} focus focuses the title, for screen readers
 * @property {(part: Part, untrained: boolean) => void} show
 * @property {(view: string) => void} showView marks the view on display
 * @property {(shot: Shot) => void} showShot
 */

/**
 * @param {(view: string) => void} onView
 * @param {(text: string) => string} titled adds the key of the next view to a tooltip
 * @returns {PartPanel}
 */
export function createPartPanel(onView, titled) {
  const title = element("div", { className: "dptx-tour-heading", role: "heading", "aria-level": "2", tabIndex: -1 });
  const why = element("p", { className: "dptx-tour-why" });
  const formula = element("div", { className: "dptx-tour-formula" });
  const lead = element("div", { className: "dptx-tour-lead" }, title, why, formula);
  const node = element("div", { className: "dptx-tour-detail", role: "region" });
  const image = element("img", { className: "dptx-tour-shot", alt: "" });
  const caption = element("div", { className: "dptx-tour-words" });
  let views = segmented("Picture of this part", /** @type {[string, string, string][]} */ ([]), onView);
  return {
    node,
    lead,
    focus: () => title.focus({ preventScroll: true }),
    show(part, untrained) {
      views = segmented(
        "Picture of this part",
        part.views.map(([view, name]) => /** @type {const} */ ([view, name, titled(name)])),
        onView,
      );
      image.removeAttribute("src");
      image.alt = "";
      caption.textContent = "";
      title.textContent = part.title;
      why.textContent = part.why;
      formula.textContent = part.formula;
      node.setAttribute("aria-label", `Explanation of ${part.title}`);
      node.replaceChildren(
        lead,
        part.family ? element("p", { className: "dptx-tour-family" }, part.family) : "",
        shapeTable(part.shapes),
        part.views.length > 1 ? views.node : "",
        element("figure", { className: "dptx-tour-figure" }, image, caption),
        untrained ? element("p", { className: "dptx-tour-untrained" }, UNTRAINED) : "",
      );
    },
    showView(view) {
      views.set(view);
    },
    showShot(shot) {
      image.src = shot.url;
      image.alt = shot.caption;
      caption.textContent = shot.caption;
    },
  };
}

/**
 * @param {Part["shapes"]} shapes
 * @returns {HTMLElement}
 */
function shapeTable(shapes) {
  const header = ["tensor", "shape", "this model"].map((name) => element("th", {}, name));
  const rows = shapes.map(([name, symbols, here]) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, name)),
      element("td", {}, symbols),
      element("td", { className: "dptx-tour-here" }, here),
    ),
  );
  return element(
    "table",
    { className: "dptx-tour-shapes" },
    element("thead", {}, element("tr", {}, ...header)),
    element("tbody", {}, ...rows),
  );
}

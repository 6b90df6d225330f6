// A view that was created from the state of a widget saved in a notebook or an HTML file, where no kernel knows it. It
// shows the picture that Python drew when the cell ran (`saved.py`).

import { element } from "./elements.js";

/** @import { AnyModel } from "./types.js" */

/** @typedef {{_saved_picture?: string, _saved_words?: string, layout?: any}} SavedTraits */

/**
 * Whether no kernel knows a widget. To be asked when its model is created: later the kernel may have died.
 *
 * anywidget hides the connection of a model. But every widget has a layout, a model of its own whose connection shows;
 * it comes from the same kernel, or from none.
 *
 * @param {AnyModel<SavedTraits>} model
 * @returns {boolean}
 */
export function isWithoutKernel(model) {
  return !model.onPage && model.get("layout")?.comm_live === false;
}

/**
 * Shows the picture and says why it does not react.
 *
 * @param {AnyModel<SavedTraits>} model
 * @param {HTMLElement} el
 * @returns {() => void} removes it
 */
export function showSaved(model, el) {
  const words = model.get("_saved_words") ?? "";
  const picture = model.get("_saved_picture");
  const text =
    "This view was saved without a kernel, so it is a picture. Run its cell in a notebook for the live view.";
  const strip = element(
    "div",
    { className: "dptx-status" },
    element("span", { className: "dptx-status-text", role: "status" }, text),
  );
  const root = element("div", { className: "dptx dptx-saved" });
  if (picture) {
    root.append(
      element("img", { className: "dptx-saved-picture", src: `data:image/png;base64,${picture}`, alt: words }),
    );
  } else if (words) root.append(element("p", { className: "dptx-saved-words" }, words));
  root.append(strip);
  el.append(root);
  return () => root.remove();
}

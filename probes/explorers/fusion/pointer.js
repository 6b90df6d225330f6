// Pointer and keys of the fusion explorer: from events to the view's actions.

import { placeIn } from "../shared/cells.js";
import { COLORMAPS } from "../shared/colours.js";

export function watchStage(view) {
  const { stage } = view;
  const hold = (held) => {
    if (view.held === held) return;
    view.held = held;
    view.schedule();
  };
  stage.addEventListener("pointermove", (event) => {
    view.pointer = placeIn(stage, event);
    view.schedule(false);
  });
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    hold(true);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    stage.addEventListener(end, () => hold(false));
  stage.addEventListener("pointerleave", () => {
    view.pointer = null;
    view.schedule(false);
  });
}

/** What a key does; false for keys that mean nothing here. The list for users is in fusion_parts.js. */
export function act(view, key, shift, target) {
  const row = view.rows.find(({ slider }) => slider === target);
  if (row && key === "0") view.slide(row.index, 0);
  else if (row && (key === "Backspace" || key === "Delete")) view.slide(row.index, 1);
  else if (/^[1-4]$/.test(key)) view.rows[Number(key) - 1]?.slider.focus();
  else if (key === "r") view.reset();
  else if (key === "s") view.save({ show: view.get("show") === "scaled" ? "unscaled" : "scaled" });
  else if (key === "d") view.save({ show: view.get("show") === "difference" ? "scaled" : "difference" });
  else if (key === "p") view.save({ show: view.get("show") === "picture" ? "scaled" : "picture" });
  else if ("hvce".includes(key)) recolour(view, key);
  else if (key === "[" && !view.source.page) view.keep("start");
  else if (key === "]" && !view.source.page) view.keep("end");
  else return key === "Enter"; // no cell is to be edited
  return true;
}

/** Keys of the controls of colours, as far as these are offered for what is on display. */
function recolour(view, key) {
  const [control, change] = {
    h: [view.contrast, () => view.toggle("high_contrast")],
    v: [view.reverse, () => view.toggle("reverse")],
    c: [view.colours, () => view.cycle("colormap", COLORMAPS)],
    e: [view.span.buttons.get("own"), () => view.cycle("span", ["own", "unscaled"])],
  }[key];
  if (!control.disabled) change();
}

/** Arrow keys on a scale's slider: ours rather than the browser's, which know no larger step and let 0.01 drift. */
export function sliderPressed(view, index, event) {
  const { key, shiftKey, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[key];
  if (step) {
    if (view.source.page) view.stepOnPage(index, step);
    else view.slide(index, Number(target.value) + step * (shiftKey ? 0.1 : 0.01));
    event.preventDefault();
  }
  if (step || ["PageUp", "PageDown", "Home", "End"].includes(key)) event.stopPropagation();
}

/** Enter and Escape take what was typed, as leaving does. */
export function numberPressed(event) {
  const { key, shiftKey, target } = event;
  if (key !== "Escape" && (key !== "Enter" || shiftKey)) return;
  target.blur();
  event.stopPropagation();
}

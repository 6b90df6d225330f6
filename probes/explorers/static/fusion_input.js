// Pointer and keys of the fusion explorer: from events to the view's actions.

import { COLORMAPS } from "./core.js";

export function watchStage(view) {
  const { stage } = view;
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const hold = (held) => {
    if (view.held === held) return;
    view.held = held;
    view.schedule();
  };
  stage.addEventListener("pointermove", (event) => {
    view.pointer = at(event);
    view.schedule(false);
  });
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    hold(true);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) stage.addEventListener(end, () => hold(false));
  stage.addEventListener("pointerleave", () => {
    view.pointer = null;
    view.schedule(false);
  });
  stage.addEventListener("pointerenter", () => view.schedule()); // the theme may have changed
}

/** What a key does; false for keys that mean nothing here. The list for users is in fusion_parts.js. */
function act(view, key, row) {
  if (row && key === "0") view.slide(row.index, 0);
  else if (row && (key === "Backspace" || key === "Delete")) view.slide(row.index, 1);
  else if (/^[1-4]$/.test(key)) view.rows[Number(key) - 1]?.slider.focus();
  else if (key === "r") view.reset();
  else if (key === "s") view.save({ show: view.get("show") === "scaled" ? "unscaled" : "scaled" });
  else if (key === "d") view.save({ show: view.get("show") === "difference" ? "scaled" : "difference" });
  else if (key === "p") view.save({ show: view.get("show") === "picture" ? "scaled" : "picture" });
  else if (key === "h") view.save({ high_contrast: !view.get("high_contrast") });
  else if (key === "v") view.save({ reverse: !view.get("reverse") });
  else if (key === "c") view.cycle("colormap", COLORMAPS);
  else if (key === "e") view.cycle("span", ["own", "unscaled"]);
  else if (key === "[" && !view.source.page) view.keep("start");
  else if (key === "]" && !view.source.page) view.keep("end");
  else if (key === "?") view.toggleHelp();
  else if (key === "Escape" && !view.help.hidden) view.toggleHelp();
  else return false;
  return true;
}

export function pressed(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's and the notebook's own
  const { target, key } = event;
  if (key === "Enter" && event.shiftKey) return; // runs the cell
  if (target.matches("input[type=number]")) {
    if (key === "Escape" || key === "Enter") target.blur(); // takes what was typed, as leaving does
    event.stopPropagation();
    return;
  }
  const row = view.rows.find(({ slider }) => slider === target);
  const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[key];
  if (row && step && !view.source.page) {
    // Ours rather than the browser's, which know no larger step and let 0.01 drift.
    view.slide(row.index, Number(row.slider.value) + step * (event.shiftKey ? 0.1 : 0.01));
    event.preventDefault();
    event.stopPropagation();
    return;
  }
  if (row && step) {
    view.stepOnPage(row.index, step);
    event.preventDefault();
    event.stopPropagation();
    return;
  }
  const moves = step || ["PageUp", "PageDown", "Home", "End"].includes(key);
  const native = target.matches("select") || (target.matches("input") && moves);
  const press = target.matches("button, summary") && (key === "Enter" || key === " ");
  if (native || press) {
    event.stopPropagation();
    return;
  }
  const done = act(view, key, row);
  if (done) event.preventDefault();
  // Single letters are notebook commands (a, b, x, dd): none may slip through from in here.
  if (done || key.length === 1 || key === "Enter") event.stopPropagation();
}

// Pointer, touch and keys of the norm explorer: from events to the view's actions.

import { COLORMAPS, patchAt } from "./core.js";
import { handleKey } from "./panel.js";

function tokenAt(event, node, grid) {
  const box = node.getBoundingClientRect();
  return patchAt(grid, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

export function watchPicture(view) {
  const { stage, source } = view;
  let touch = null;
  stage.addEventListener("pointermove", (event) => source.grid && view.hover(tokenAt(event, stage, source.grid), null));
  stage.addEventListener("pointerdown", (event) => {
    if (!source.grid || event.button !== 0) return;
    const token = tokenAt(event, stage, source.grid);
    view.hover(token, null);
    touch = { type: event.pointerType, token, time: event.timeStamp };
  });
  stage.addEventListener("pointerup", (event) => {
    // A finger that slides reads; only a tap pins.
    const same = touch && touch.token === tokenAt(event, stage, source.grid);
    if (same && (touch.type === "mouse" || event.timeStamp - touch.time < 300)) view.togglePin(touch.token);
    touch = null;
  });
  stage.addEventListener("pointerenter", () => view.layout()); // the theme may have changed
  stage.addEventListener("pointerleave", () => view.leave());
}

/** A map of a block: reading it off, and what a click does. */
export function watchMap(view, map, onclick) {
  const { frame, block } = map;
  frame.addEventListener("pointermove", (event) => {
    view.hover(view.source.back(block, tokenAt(event, frame, block)), block);
  });
  frame.addEventListener("pointerleave", () => view.leave());
  (map.node ?? frame).addEventListener("click", onclick);
}

/** What a key does; false for keys that mean nothing here. The list for users is in norms_parts.js. */
function act(view, key, shift, target) {
  const step = shift ? 5 : 1;
  if (key === "ArrowLeft") view.move(0, -step);
  else if (key === "ArrowRight") view.move(0, step);
  else if (key === "ArrowUp") view.move(-step, 0);
  else if (key === "ArrowDown") view.move(step, 0);
  else if (key === "[" || key === ",") view.stepBlock(-1);
  else if (key === "]" || key === ".") view.stepBlock(1);
  else if (key === "{" || key === "PageUp") view.toChannel(view.channel() - 1);
  else if (key === "}" || key === "PageDown") view.toChannel(view.channel() + 1);
  else if (key === "Enter" || key === " ") view.press(target);
  else if (key === "Escape") return view.clear();
  else if (key === "e") view.save({ enlarged: !view.get("enlarged") });
  else if (key === "n") view.toggleWhat();
  else if (key === "m") view.toStrongest();
  else if (key === "-") view.stepK(-0.5);
  else if (key === "+" || key === "=") view.stepK(0.5);
  else if (key === "x") view.save({ marks: !view.get("marks") });
  else if (key === "w") view.attend(view.chosen(), "column");
  else if (key === "l") view.attend(view.chosen(), "row");
  else if (key === "s") view.cycle("scale", ["block", "shared", "log"]);
  else if (key === "c") view.cycle("colormap", COLORMAPS);
  else if (key === "p") view.cycle("base", ["picture", "depth"]);
  else if (key === "o") view.toggleOverlay();
  else if (key === "?") view.toggleHelp();
  else return false;
  return true;
}

export function pressed(view, event) {
  handleKey(event, (key, shift, target) => act(view, key, shift, target));
}

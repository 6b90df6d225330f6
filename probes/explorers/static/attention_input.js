// Pointer, touch and keys of the attention explorer: from events to the view's actions.

import { COLORMAPS, patchAt } from "./core.js";

export function watchPointer(view) {
  const { stage, source } = view;
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return patchAt(source.grid, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  let touch = null;
  stage.addEventListener("pointermove", (event) => {
    if (source.grid) source.moveTo(at(event));
  });
  stage.addEventListener("pointerdown", (event) => {
    if (!source.grid || event.button !== 0) return;
    source.moveTo(at(event));
    touch = { type: event.pointerType, token: at(event), time: event.timeStamp };
  });
  stage.addEventListener("pointerup", (event) => {
    // A finger that slides explores; only a tap pins.
    const tap = touch?.token === at(event) && (touch.type === "mouse" || event.timeStamp - touch.time < 300);
    if (tap) view.togglePin(touch.token);
    touch = null;
  });
  stage.addEventListener("pointerenter", () => view.layout()); // the theme may have changed
  stage.addEventListener("pointerleave", () => view.frozen() && view.schedule());
}

export function watchTile(view, tile) {
  tile.frame.addEventListener("pointermove", (event) => {
    const box = tile.frame.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const token = patchAt(view.source.grid, x, y);
    if (view.probe?.token === token && view.probe.tile === tile) return;
    view.probe = { token, tile };
    view.schedule();
  });
  tile.frame.addEventListener("pointerleave", () => {
    view.probe = null;
    view.schedule();
  });
  tile.node.addEventListener("click", () => view.enlarge(tile.isMean ? -1 : tile.index));
}

/** What a key does; false for keys that mean nothing here. The list for users is in attention_parts.js. */
function act(view, key, shift) {
  const step = shift ? 5 : 1;
  const heads = view.source.grid?.heads ?? 0;
  const head = view.get("head");
  if (key === "ArrowLeft") view.move(0, -step);
  else if (key === "ArrowRight") view.move(0, step);
  else if (key === "ArrowUp") view.move(-step, 0);
  else if (key === "ArrowDown") view.move(step, 0);
  else if (key === "[" || key === ",") view.stepBlock(-1);
  else if (key === "]" || key === ".") view.stepBlock(1);
  else if (key === "Enter" || key === " ") view.togglePin(view.source.cursor);
  else if (key === "Escape") return view.clear();
  else if (key === "d") view.cycle("direction", ["row", "column"]);
  else if (key === "s") view.cycle("scale", ["head", "shared", "log"]);
  else if (key === "c") view.cycle("colormap", COLORMAPS);
  else if (key === "e") view.cycle("order", ["index", "entropy"]);
  else if (key === "p") view.cycle("base", ["picture", "depth"]);
  else if (key === "o") view.toggleOverlay();
  else if (key === "h") view.save({ head: head === null || head < 0 ? 0 : head + 1 < heads ? head + 1 : null });
  else if (key === "m") view.enlarge(-1);
  else if (key === "?") view.toggleHelp();
  else if (/^[0-9]$/.test(key) && Number(key) < heads) view.enlarge(Number(key));
  else return false;
  return true;
}

export function pressed(view, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's and the notebook's own
  const { target, key } = event;
  const native = target.matches("input, select") && (key.startsWith("Arrow") || target.matches("select"));
  const press = target.matches("button") && (key === "Enter" || key === " ");
  if (key === "Enter" && event.shiftKey) return; // runs the cell
  if (native || press) {
    event.stopPropagation();
    return;
  }
  const tile = key === "Enter" ? view.tiles.find(({ node }) => node === target) : undefined;
  const done = tile ? (view.enlarge(tile.isMean ? -1 : tile.index), true) : act(view, key, event.shiftKey);
  if (done) event.preventDefault();
  // Single letters are notebook commands (a, b, x, dd): none may slip through from in here.
  if (done || key.length === 1) event.stopPropagation();
}

// Pointer, touch and keys of the attention explorer: from events to the view's actions.

import { placeIn, walkTiles, watchSpots } from "../shared/cells.js";
import { COLORMAPS } from "../shared/colours.js";
import { arrowMove } from "../shared/panel.js";
import { patchAt } from "../shared/patches.js";

export function watchPointer(view) {
  const { stage, source } = view;
  const spotOf = (event) => (source.grid ? patchAt(source.grid, ...placeIn(stage, event)) : null);
  watchSpots(
    stage,
    spotOf,
    (token) => source.moveTo(token),
    (token) => view.togglePin(token),
  );
  stage.addEventListener("pointerleave", () => view.frozen() && view.schedule());
}

export function watchTile(view, tile) {
  tile.frame.addEventListener("pointermove", (event) => {
    const token = patchAt(view.source.grid, ...placeIn(tile.frame, event));
    if (view.probe?.token === token && view.probe.tile === tile) return;
    view.probe = { token, tile };
    view.schedule();
  });
  tile.frame.addEventListener("pointerleave", () => {
    view.probe = null;
    view.schedule();
  });
  tile.node.addEventListener("click", () => {
    view.stage.focus({ preventScroll: true }); // arrow keys go on moving the patch
    view.enlarge(tile.head);
  });
}

/** What a key does; false for keys that mean nothing here. The list for users is in attention_parts.js. */
export function act(view, key, shift, target) {
  const heads = view.source.grid?.heads ?? 0;
  const head = view.get("head");
  const tile = key === "Enter" || key === " " ? view.tiles.find(({ node }) => node === target) : undefined;
  if (tile) view.enlarge(tile.head);
  else if (
    walkTiles(
      key,
      target,
      view.tiles.map(({ node }) => node),
    )
  )
    return true;
  else if (arrowMove(view, key, shift)) return true;
  else if (key === "[" || key === ",") view.stepBlock(-1);
  else if (key === "]" || key === ".") view.stepBlock(1);
  else if (key === "Enter" || key === " ") view.togglePin(view.source.cursor);
  else if (key === "Escape") return view.clear();
  else if (key === "d") view.cycle("direction", ["row", "column"]);
  else if (key === "s") view.cycle("scale", ["head", "shared", "log"]);
  else if (key === "c") view.cycle("colormap", COLORMAPS);
  else if (key === "e") view.cycle("order", ["index", "entropy"]);
  else if (key === "p") view.toggleBase();
  else if (key === "o") view.toggleOverlay();
  else if (key === "h") view.save({ head: head === null || head < 0 ? 0 : head + 1 < heads ? head + 1 : null });
  else if (key === "m") view.enlarge(-1);
  else if (/^[0-9]$/.test(key) && Number(key) < heads) view.enlarge(Number(key));
  else return false;
  return true;
}

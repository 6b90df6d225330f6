// Pointer, touch and keys of the norm explorer: from events to the view's actions.

import { placeIn, walkTiles, watchSpots } from "../shared/cells.js";
import { COLORMAPS } from "../shared/colours.js";
import { arrowMove } from "../shared/panel.js";
import { patchAt } from "../shared/patches.js";

export function watchPicture(view) {
  const { stage, source } = view;
  const spotOf = (event) => (source.grid ? patchAt(source.grid, ...placeIn(stage, event)) : null);
  watchSpots(
    stage,
    spotOf,
    (token) => view.hover(token, null),
    (token) => view.togglePin(token),
  );
  stage.addEventListener("pointerleave", () => view.leave());
}

/** A map of a block: reading it off, and what a click does. */
export function watchMap(view, map, onclick) {
  const { frame, block } = map;
  frame.addEventListener("pointermove", (event) => {
    view.hover(view.source.back(block, patchAt(block, ...placeIn(frame, event))), block);
  });
  frame.addEventListener("pointerleave", () => view.leave());
  (map.node ?? frame).addEventListener("click", () => {
    view.stage.focus({ preventScroll: true }); // arrow keys go on moving the patch
    onclick();
  });
}

/** What a key does; false for keys that mean nothing here. The list for users is in norms_parts.js. */
export function act(view, key, shift, target) {
  if (
    walkTiles(
      key,
      target,
      view.tiles.map(({ node }) => node),
    ) ||
    arrowMove(view, key, shift)
  )
    return true;
  if (key === "[" || key === ",") view.stepBlock(-1);
  else if (key === "]" || key === ".") view.stepBlock(1);
  else if (key === "{" || key === "PageUp") view.toChannel(view.channel() - 1);
  else if (key === "}" || key === "PageDown") view.toChannel(view.channel() + 1);
  else if (key === "Enter" || key === " ") view.press(target);
  else if (key === "Escape") return view.clear();
  else if (key === "e") view.toggle("enlarged");
  else if (key === "n") view.toggleWhat();
  else if (key === "m") view.toStrongest();
  else if (key === "d") view.toggleCentred();
  else if (key === "-") view.stepK(-0.5);
  else if (key === "+" || key === "=") view.stepK(0.5);
  else if (key === "x") view.toggle("marks");
  else if (key === "w") view.attend(view.chosen(), "column");
  else if (key === "l") view.attend(view.chosen(), "row");
  else if (key === "s") view.cycle("scale", ["block", "shared", "log"]);
  else if (key === "c") view.cycle("colormap", COLORMAPS);
  else if (key === "p") view.toggleBase();
  else if (key === "o") view.toggleOverlay();
  else return false;
  return true;
}

// Pointer, touch and keys of the position explorer: from events to the view's actions.

import { placeIn, walkTiles, watchSpots } from "../shared/cells.js";
import { COLORMAPS } from "../shared/colours.js";
import { arrowMove } from "../shared/panel.js";
import { cellAt } from "./numbers.js";

/** The cell under a pointer event on a tile. */
function cellUnder(tile, event) {
  const [x, y] = placeIn(tile.frame, event);
  return cellAt({ rows: tile.canvas.height, cols: tile.canvas.width }, [y, x]);
}

/** Pointer over a tile: reads its cells. */
export function readsCells(view, tile, part) {
  tile.frame.addEventListener("pointermove", (event) => {
    const cell = cellUnder(tile, event);
    view.probe = { part, tile, cell };
    view.schedule();
  });
  tile.frame.addEventListener("pointerleave", () => {
    view.probe = null;
    view.schedule();
  });
}

export function watchStage(view) {
  const { stage } = view;
  watchSpots(
    stage.frame,
    (event) => cellUnder(stage, event),
    (cell) => view.pointAt(cell),
    (cell) => view.togglePin(cell),
  );
  stage.frame.addEventListener("pointerleave", () => {
    view.probe = null;
    view.schedule();
  });
}

/** What a key does; false for keys that mean nothing here. The list for users is in positions_parts.js. */
export function act(view, key, shift, target) {
  if (!view.built) return false;
  const tile = key === "Enter" ? view.tiles.find(({ node }) => node === target) : undefined;
  if (tile) view.enlarge(tile.index);
  else if (walkTiles(key, target, view.shownNodes()) || arrowMove(view, key, shift)) return true;
  else if (key === "[" || key === ",") view.turn(-1);
  else if (key === "]" || key === ".") view.turn(1);
  else if (key === "PageUp") view.turnPage(-1);
  else if (key === "PageDown") view.turnPage(1);
  else if (key === "Enter" || key === " ") view.togglePin();
  else if (key === "Escape") return view.clear();
  else if (key === "h" || key === "H") view.enlargeNext(key === "h" ? 1 : -1);
  else if (key === "m" && view.biased) view.enlarge(-1);
  else if (key === "v" && !view.biased) view.cycle("view", ["values", "spectrum"]);
  else if (key === "n" && !view.biased) view.toggle("centred");
  else if (key === "g" || key === "G") view.nextSize(key === "g" ? 1 : -1);
  else if (key === "e") view.nextOrder();
  else if (key === "s") view.cycle("scale", ["own", "shared"]);
  else if (key === "c") view.cycle("colormap", COLORMAPS);
  else if (/^[0-9]$/.test(key) && view.biased && Number(key) < (view.data?.count ?? 0)) view.enlarge(Number(key));
  else return false;
  return true;
}

// Taking things out of the attention explorer: what is on display as a snapshot, and that as a file or as Python.

import { lookup } from "../shared/colours.js";
import { headOrder } from "./block.js";
import { saveBytes, savePicture, themeColours } from "../shared/panel.js";
import { download } from "../shared/shell.js";
import { snapshotCanvas, snapshotCsv, snapshotName, snapshotNpz, snapshotPython } from "./snapshot.js";

function snapshot(view) {
  const { block, grid, about } = view.source;
  const mode = view.mode();
  const slots = mode === "difference" ? [0, 1] : [mode === "b" ? 1 : 0];
  return {
    block: block.block,
    direction: view.get("direction"),
    mode,
    tokens: slots.map((slot) => view.tokenOf(slot)),
    windows: slots.map((slot) => view.piecesOf(slot)[0]),
    head: view.get("head"),
    grid,
    heads: block.heads,
    values: view.compute(mode),
    order: headOrder(block.heads, view.get("order"), block.entropy),
    scaleOf: (index) => view.tiles[index].scale,
    scaleMode: view.get("scale"),
    table: lookup(view.tableName(mode === "difference")),
    picture: view.pictureCanvas,
    overlay: view.overlay.canvas,
    opacity: view.get("opacity"),
    call: about.call,
    opened: about.opened,
  };
}

/** Downloads the view as a picture, in the colours of the theme. */
export function savePng(view) {
  if (!view.shown || !view.source.current) return;
  const shot = snapshot(view);
  const marks = shot.mode === "difference" ? ["#ff6b4a", "#4aa3ff"] : ["#ffffff"];
  savePicture(snapshotCanvas(shot, { ...themeColours(view.root), marks }), snapshotName(shot));
}

/** Downloads the maps on display; kind: "npz" or "csv". */
export function saveNumbers(view, kind) {
  if (!view.shown || !view.source.current) return;
  const shot = snapshot(view);
  if (kind === "npz") saveBytes(snapshotNpz(shot), `${snapshotName(shot)}.npz`);
  else download(`${snapshotName(shot)}.csv`, [snapshotCsv(shot)], "text/csv");
}

/** The code of this view. */
export function viewPython(view) {
  return view.shown && view.source.current ? snapshotPython(snapshot(view)) : "";
}

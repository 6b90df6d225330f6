// Taking things out of the attention explorer: what is on display as a snapshot, and that as a file or as Python.

import { headOrder, lookup } from "./core.js";
import { copyText, download } from "./shell.js";
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
    overlay: view.overlay,
    opacity: view.get("opacity"),
    call: about.call,
  };
}

/** Downloads the view as a picture, in the colours of the theme. */
export function savePng(view) {
  if (!view.shown || !view.source.current) return;
  const shot = snapshot(view);
  const style = getComputedStyle(view.root);
  const colours = {
    background: style.backgroundColor,
    text: style.color,
    muted: style.getPropertyValue("--dptx-muted"),
    font: style.fontFamily,
    marks: shot.mode === "difference" ? ["#ff6b4a", "#4aa3ff"] : ["#ffffff"],
  };
  snapshotCanvas(shot, colours).toBlob(
    (blob) => download(`${snapshotName(shot)}.png`, [blob], "image/png"),
    "image/png",
  );
}

/** Downloads the maps on display; kind: "npz" or "csv". */
export function saveNumbers(view, kind) {
  if (!view.shown || !view.source.current) return;
  const shot = snapshot(view);
  if (kind === "npz") download(`${snapshotName(shot)}.npz`, [snapshotNpz(shot)], "application/octet-stream");
  else download(`${snapshotName(shot)}.csv`, [snapshotCsv(shot)], "text/csv");
}

/** Copies the code of this view; the button says so for a moment. */
export async function copyPython(view, control) {
  if (!view.shown || !view.source.current) return;
  const code = snapshotPython(snapshot(view));
  if (await copyText(code, view.root)) {
    control.textContent = "Copied";
    setTimeout(() => (control.textContent = "Copy Python"), 1500);
  } else {
    view.source.link.say(`The browser refused the clipboard. The code: ${code}`, { failed: true });
  }
}

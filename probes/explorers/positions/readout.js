// What the position explorer says in numbers and words: under the grid, beside the colour bars, on class tokens and waves.

import { formatShortPercent as percentShort } from "../shared/format.js";
import { argMax } from "../shared/statistics.js";
import { sayIn } from "../shared/panel.js";
import { figure, NONE, shareOf, signedOffset } from "./numbers.js";

/** Everything said about the position on display and the cell under the pointer. */
export function positionWords(view, row, col) {
  const { data, stage, stageValues, probe } = view;
  const { rows, cols } = data;
  const area = rows * cols;
  const read = probe?.part === "stage" ? probe.cell : null;
  const value = read ? stageValues[read[0] * cols + read[1]] : null;
  let rest;
  if (view.biased) {
    const best = argMax(stageValues, 0, area);
    const at = read ?? [Math.floor(best / cols), best % cols];
    const offset = `${signedOffset(at[0] - row)} down, ${signedOffset(at[1] - col)} right`;
    const own = stageValues[at[0] * cols + at[1]];
    rest = `${view.nameOf(view.laid())}: ${read ? "" : "largest "}${figure(own)} at ${offset}`;
  } else if (read) rest = `cosine ${figure(value)} with (${read.join(", ")})`;
  else {
    let near = 0;
    for (let n = 0; n < area; n++) if (stageValues[n] > 0.5) near += 1;
    rest = `cosine over 0.5: ${near} of ${area} \u00b7 class token ${figure(stageValues[area])}`;
  }
  sayIn(view.readout, `${view.biased ? "Query" : "Position"} (${row}, ${col})`, rest);
  const { low, high } = stage.range;
  const ticks = [0, 0.5, 1].map((t) => [t, figure(low + t * (high - low))]);
  const hint = view.get("pinned") ? "pinned" : "click to pin";
  view.stageBar.show(stage.table, ticks, value === null ? null : shareOf(stage.range, value), hint);
  tileWords(view);
  if (view.biased) sayClassToken(view);
  else sayWaves(view);
}

/** The bar under the images: of the one under the pointer, of the enlarged one, or of the first. */
function tileWords(view) {
  const { probe } = view;
  const over = probe?.part === "tile" && probe.tile.index !== NONE ? probe : null;
  const tile = over?.tile ?? view.bigTiles[0] ?? view.tiles[0];
  if (!tile?.range) return;
  const { low, high } = tile.range;
  const shared = view.get("scale") === "shared";
  let note = shared ? "one range for all images" : `${view.nameOf(tile.index)}; each image has its own range`;
  let at = null;
  if (over) {
    const value = tile.values[over.cell[0] * tile.canvas.width + over.cell[1]];
    at = shareOf(tile.range, value);
    note = `${view.nameOf(tile.index)}${readOff(view, tile, over.cell, value)}`;
  }
  const word = (value) => (tile.spectral ? figure(10 ** value) : figure(value));
  view.bar.show(
    tile.table,
    [0, 0.5, 1].map((t) => [t, word(low + t * (high - low))]),
    at,
    note,
  );
}

/** What a cell of an image says. */
function readOff(view, tile, cell, value) {
  const { rows, cols } = tile.data;
  if (view.biased) {
    const [down, right] = [cell[0] - rows + 1, cell[1] - cols + 1];
    return `: ${figure(value)}, key ${signedOffset(down)} down, ${signedOffset(right)} right`;
  }
  if (!tile.spectral) return ` at (${cell.join(", ")}): ${figure(value)}`;
  const part = 10 ** value / Math.max(tile.total, 1e-30);
  return `: ${waveAt(view, cell)}, ${percentShort(part)} of the power`;
}

/** Waves by their number of periods across the grid. */
function waveAt(view, cell) {
  const { rows, cols } = view.data;
  const [down, right] = [cell[0] - Math.floor(rows / 2), cell[1] - Math.floor(cols / 2)];
  return `wave ${signedOffset(down)} down, ${signedOffset(right)} right`;
}

function sayWaves(view) {
  const over = view.probe?.part === "spectrum" ? view.probe : null;
  let text =
    "The whole table by waves across the grid. Middle: none. Further down: finer from top to bottom; further right: finer from left to right. Four decades.";
  if (over) {
    const value = view.spectrum.values[over.cell[0] * view.data.wide + over.cell[1]];
    const part = 10 ** value / Math.max(view.spectrum.total, 1e-30);
    text = `${waveAt(view, over.cell)}: ${percentShort(part)} of the table's power`;
  }
  if (view.spectrumWords.textContent !== text) view.spectrumWords.textContent = text;
}

function sayClassToken(view) {
  const { ofPrefix, count, windowed, shifted } = view.data;
  let text = windowed ? "The grid is one window of this block." : "";
  if (shifted)
    text +=
      " Its windows are shifted: those at the border also hide what came round from the other side, which is not drawn here.";
  if (ofPrefix) {
    const index = view.laid();
    const entry = (n) => {
      if (index < count) return figure(ofPrefix[3 * index + n]);
      let sum = 0;
      for (let head = 0; head < count; head++) sum += ofPrefix[3 * head + n];
      return figure(sum / count);
    };
    text = `Class token, ${view.nameOf(index).toLowerCase()}: to patches ${entry(0)}, patches to it ${entry(1)}, to itself ${entry(2)}`;
  }
  if (view.classToken.textContent !== text) view.classToken.textContent = text;
}

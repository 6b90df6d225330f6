// What the attention explorer says in numbers and words: the colour bar, the line under the picture, the strip's time.

import { formatPercent as percent, formatShortPercent as percentShort } from "../shared/format.js";
import { positionOn, valueAt } from "../shared/scale.js";
import { argMax, entropyBits } from "../shared/statistics.js";
import { noteTimes, sayIn } from "../shared/panel.js";
import { prefixName, tokenName } from "../shared/patches.js";

/** A weight as the tiles write it; finer only where a logarithmic scale shows finer. */
export function shareWords(scale, value) {
  return scale.kind !== "linear" && Math.abs(value) >= valueAt(scale, 0) ? percent(value) : percentShort(value);
}

/** The sum of a column, in times of what one query gives away. */
export function sumWords(sum) {
  return `\u03a3 ${sum < 0.01 ? "<0.01" : Number(sum.toPrecision(3))}`;
}

/** The colour bar: of the tile under the pointer, else of the enlarged one, else of the mean or of all. */
export function paintBar(view, table) {
  const tile = view.probe?.tile ?? view.focusTile();
  const { scale } = tile;
  // Labels name values, so a logarithmic bar begins with its floor, not with 0.
  const ticks = (scale.kind !== "linear" ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1]).map((t) => [t, percent(valueAt(scale, t))]);
  const { block } = view.source;
  const token = view.probe?.token ?? (view.frozen() ? view.source.cursor : -1);
  const over = token >= 0 ? view.shown[tile.index * block.tokens + token] : null;
  let note = "one range for all tiles";
  if (over !== null) note = `${tile.name} at ${tokenName(view.source.grid, token)}: ${shareWords(scale, over)}`;
  else if (view.get("scale") === "head") note = `${tile.name}; each tile has its own range`;
  view.bar.show(table, ticks, over === null ? null : positionOn(scale, over), note);
}

/** The line under the picture: which patch, and what stands out in the enlarged map or the mean. */
export function showWords(view, mode) {
  const { grid, block } = view.source;
  const tile = view.focusTile();
  const from = tile.index * block.tokens;
  const top = argMax(view.shown, from + grid.prefix, block.tokens - grid.prefix) - from;
  const peak = `${shareWords(tile.scale, view.shown[from + top])} at ${tokenName(grid, top)}`;
  let [names, rest, why] = ["", "", ""];
  if (mode === "difference") {
    names = `A ${tokenName(grid, view.tokenOf(0))} \u2212 B ${tokenName(grid, view.tokenOf(1))}`;
    rest = `${tile.name}: A leads most, by ${peak}`;
  } else {
    const token = view.tokenOf(mode === "b" ? 1 : 0);
    names = token < grid.prefix ? `Token ${prefixName(token)}` : `Patch ${tokenName(grid, token)}`;
    rest = `${tile.name}: strongest ${peak} \u00b7 entropy ${entropyBits(view.shown, from, block.tokens).toFixed(1)} bits`;
    why = `Entropy over all tokens${view.get("direction") === "column" ? ", of the column divided by its sum" : ""}`;
  }
  sayIn(view.readout, names, rest);
  if (view.readout.title !== why) view.readout.title = why;
}

export function announce(view) {
  view.announce(() => `Block ${view.get("block")}. ${view.readout.textContent}`);
}

/** How long a pointer move takes, in the strip: after a few, as the first ones include compiling. */
export function showTimes(view, now) {
  const { count } = view.timings;
  if (now - view.noted < 500 || count < 8) return;
  view.noted = now;
  noteTimes(view.status, view.timings, "hover", 1, "Computing and painting one pointer move in the browser");
}

// What the attention explorer says in numbers and words: the colour bar, the line under the picture, the strip's time.

import { argMax, entropyBits, percent, positionOn, prefixName, tokenName, valueAt } from "./core.js";
import { element } from "./shell.js";

/** The colour bar: of the tile under the pointer, else of the enlarged one, else of the mean or of all. */
export function paintBar(view, table) {
  const tile = view.probe?.tile ?? view.focusTile();
  const { scale } = tile;
  if (view.barTable !== table) {
    view.barTable = table;
    const pen = view.bar.getContext("2d");
    const image = pen.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(table);
    pen.putImageData(image, 0, 0);
  }
  // Labels name values, so a logarithmic bar begins with its floor, not with 0.
  const ticks = scale.log ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1];
  const texts = ticks.map((t) => percent(valueAt(scale, t)));
  const key = texts.join("|");
  if (key !== view.ticksShown) {
    view.ticksShown = key;
    while (view.barTicks.childElementCount > ticks.length) view.barTicks.lastChild.remove();
    while (view.barTicks.childElementCount < ticks.length) view.barTicks.append(element("span"));
    ticks.forEach((t, n) => {
      const label = view.barTicks.children[n];
      label.textContent = texts[n];
      label.style.left = `${t * 100}%`;
    });
  }
  const { block } = view.source;
  const token = view.probe?.token ?? (view.frozen() ? view.source.cursor : -1);
  const over = token >= 0 ? view.shown[tile.index * block.tokens + token] : null;
  view.barPointer.style.visibility = over === null ? "hidden" : "visible";
  if (over !== null) view.barPointer.style.transform = `translateX(${(positionOn(scale, over) * 100).toFixed(2)}%)`;
  let note = "one range for all tiles";
  if (over !== null) note = `${tile.name} at ${tokenName(view.source.grid, token)}: ${percent(over)}`;
  else if (view.get("scale") === "head") note = `${tile.name}; each tile has its own range`;
  if (view.noteShown !== note) view.barNote.textContent = view.noteShown = note;
}

/** The line under the picture: which patch, and what stands out in the enlarged map or the mean. */
export function showWords(view, mode) {
  const { grid, block } = view.source;
  const tile = view.focusTile();
  const from = tile.index * block.tokens;
  const top = argMax(view.shown, from + grid.prefix, block.tokens - grid.prefix) - from;
  const peak = `${percent(view.shown[from + top])} at ${tokenName(grid, top)}`;
  let [names, rest] = ["", ""];
  if (mode === "difference") {
    names = `A ${tokenName(grid, view.tokenOf(0))} \u2212 B ${tokenName(grid, view.tokenOf(1))}`;
    rest = `${tile.name}: A leads most, by ${peak}`;
  } else {
    const token = view.tokenOf(mode === "b" ? 1 : 0);
    names = token < grid.prefix ? `Token ${prefixName(token)}` : `Patch ${tokenName(grid, token)}`;
    rest = `${tile.name}: strongest ${peak} \u00b7 entropy ${entropyBits(view.shown, from, block.tokens).toFixed(1)} bits`;
  }
  const text = `${names}|${rest}`;
  if (view.readoutShown === text) return;
  view.readoutShown = text;
  if (!view.readout.firstChild) view.readout.append(element("strong"), element("span"));
  view.readout.firstChild.textContent = names;
  view.readout.lastChild.textContent = rest;
}

/** For screen readers: after a deliberate step, not on every pointer move. */
export function announce(view) {
  clearTimeout(view.announcing);
  view.announcing = setTimeout(() => {
    view.live.textContent = `Block ${view.get("block")}. ${view.readout.textContent}`;
  }, 400);
}

/** How long a pointer move takes, in the strip: after a few, as the first ones include compiling. */
export function showTimes(view, now) {
  const { count } = view.timings;
  if (now - view.noted < 500 || count < 8) return;
  view.noted = now;
  const { note } = view.status;
  const [median, high] = [view.timings.quantile(0.5), view.timings.quantile(0.95)];
  note.textContent = `hover ${median.toFixed(1)} ms`;
  note.title =
    "Computing and painting one pointer move in the browser: " +
    `median ${median.toFixed(2)} ms, 95 % under ${high.toFixed(2)} ms (latest ${Math.min(256, count)})`;
  Object.assign(note.dataset, { count, median, high });
}

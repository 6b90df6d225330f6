// What the norm explorer says in numbers and words: the line under the picture, the colour bar, histogram and counts.

import { cssColour } from "../shared/colours.js";
import { sayIn, sharpPen } from "../shared/panel.js";
import { tokenName } from "../shared/patches.js";
import { button, element } from "../shared/shell.js";
import { binOf, histogram, placeOn, short, valueOn } from "./numbers.js";

const BINS = 48;

/** How far above or below the median of its block's patches a norm is, in words. */
function standing(block, value) {
  if (!(block.spread > 0)) return "";
  const away = (value - block.median) / block.spread;
  const word = value > block.threshold ? "outlier, " : "";
  return ` \u00b7 ${word}${Math.abs(away).toFixed(1)} MAD ${away < 0 ? "below" : "above"} the median`;
}

/** What the enlarged map shows, in words; other: what to call the token that similarity is with. */
export function nameOf(view, other = null) {
  const { what, block, token, signed } = view.shownMap;
  if (what === "channel") return `channel ${view.channel()}`;
  if (what === "norm") return "norm";
  return `${signed ? "centred " : ""}similarity with ${other ?? tokenName(block, token)}`;
}

/** The line under the picture: the patch under the pointer (or the pinned one) in the block under it (or the chosen). */
export function showWords(view) {
  const { source } = view;
  const block = view.readBlock ?? view.block();
  if (!block) return;
  const token = source.place(block, view.current());
  const norm = block.values[token];
  const prefix = token < block.prefix;
  const names = `${prefix ? "Token" : "Patch"} ${tokenName(block, token)}`;
  let rest = `block ${block.block}: norm ${short(norm)}${prefix ? "" : standing(block, norm)}`;
  const { shownMap } = view;
  if (shownMap.what !== "norm" && block === view.block() && !view.onTile) {
    const value = short(shownMap.values[shownMap.from - block.prefix + token]);
    // Of a patch with itself there is nothing to read.
    const what = token === shownMap.token ? nameOf(view, "this one") : `${nameOf(view)} is ${value}`;
    rest = `block ${block.block}: ${what}, norm ${short(norm)}`;
  }
  sayIn(view.readout, names, rest);
}

/** The colour bar: of the map under the pointer, else of the chosen block or of all. */
export function showBar(view) {
  const block = view.readBlock ?? view.block();
  if (!block || !view.ranges) return;
  const large = view.shownMap && block === view.block() && !view.onTile ? view.shownMap : null;
  const { range, table } = large ?? { range: view.rangeOf(block), table: view.table };
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((t) => [t, short(valueOn(range, t))]);
  const token = view.source.place(block, view.current());
  const value = large ? large.values[large.from + token - block.prefix] : block.values[token];
  const pointed = value === undefined || (large && token < block.prefix) ? null : placeOn(range, value);
  const shared = view.get("scale") !== "block" ? "one range for all blocks" : "each block has its own range";
  const what = large && large.what !== "norm" ? nameOf(view) : shared;
  view.bar.show(table, ticks, pointed, `Block ${block.block}; ${what}`);
}

/** The histogram of the enlarged map, its bars in the map's own colours; heights go with the logarithm of the count. */
export function paintHistogram(view) {
  const { shownMap, histogram: canvas } = view;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!shownMap || !width || !height) return;
  const { what, values, from, range, table, signed } = shownMap;
  const block = view.block();
  const patches = values.subarray(from, from + block.rows * block.cols);
  let [low, high] = what === "norm" ? [block.low, block.high] : [range.low, range.high];
  if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  const counts = histogram(patches, 0, low, high, BINS);
  const most = Math.max(...counts);
  const style = getComputedStyle(view.root);
  const muted = style.getPropertyValue("--dptx-muted");
  const pen = sharpPen(canvas, width, height);
  const [top, floor] = [16, height - 18];
  const x = (value) => ((value - low) / (high - low)) * (width - 2) + 1;
  const outline = new Path2D(); // of all bars: those near 0 may have the colour of the paper
  for (let bin = 0; bin < BINS; bin++) {
    const [left, right] = [bin, bin + 1].map((n) => (n / BINS) * (width - 2) + 1);
    const middle = low + ((bin + 0.5) / BINS) * (high - low);
    const size = counts[bin] && Math.max(2, Math.round((Math.log1p(counts[bin]) / Math.log1p(most)) * (floor - top)));
    pen.fillStyle = cssColour(table, Math.min(255, Math.floor(placeOn(range, middle) * 256)));
    pen.fillRect(left, floor - size, right - left - 0.5, size);
    for (const x of [left, right]) outline.lineTo(x, floor - size + 0.5);
  }
  pen.strokeStyle = muted;
  pen.stroke(outline);
  pen.fillStyle = muted;
  pen.fillRect(0, floor, width, 1);
  pen.font = `11px ${style.fontFamily}`;
  pen.textBaseline = "alphabetic";
  const say = (text, at, align) => {
    pen.textAlign = align;
    pen.fillText(text, at, height - 5);
  };
  say(short(low), 0, "left");
  say(short(high), width, "right");
  say(signed ? "0" : short((low + high) / 2), width / 2, "center");
  pen.textAlign = "left";
  pen.fillText(`tallest bar ${most} patches, log heights`, 1, 10);
  if (what === "norm" && block.threshold < high) {
    pen.fillStyle = style.getPropertyValue("--dptx-a");
    for (let y = top; y < floor; y += 6) pen.fillRect(x(block.threshold) - 0.75, y, 1.5, 4);
  }
  const token = view.source.place(block, view.current()) - block.prefix;
  if (token >= 0) {
    // Where the patch under the pointer is: a small arrow on the axis.
    const at = x(patches[token]);
    pen.fillStyle = style.color;
    pen.beginPath();
    pen.moveTo(at, floor - 1);
    pen.lineTo(at - 4, floor + 6);
    pen.lineTo(at + 4, floor + 6);
    pen.fill();
  }
  const peak = low + ((counts.indexOf(most) + 0.5) / BINS) * (high - low);
  canvas.setAttribute("aria-label", `Histogram from ${short(low)} to ${short(high)}, most patches near ${short(peak)}`);
  canvas.dataset.bins = counts.join(",");
  canvas.dataset.bin = token < 0 ? "" : binOf(patches[token], low, high, BINS);
}

/** Numbers beside the enlarged map. */
export function showFacts(view) {
  const { shownMap } = view;
  const block = view.block();
  if (!block || !shownMap) return;
  const rows = [];
  if (shownMap.what !== "norm") {
    const { values, from } = shownMap;
    const patches = values.subarray(from, from + block.rows * block.cols);
    const sum = patches.reduce((total, value) => total + value, 0);
    rows.push(["range", `${short(Math.min(...patches))} to ${short(Math.max(...patches))}`]);
    rows.push(["mean", short(sum / patches.length)]);
    for (let n = 0; n < block.prefix; n++) rows.push([tokenName(block, n), short(values[from - block.prefix + n])]);
  } else {
    rows.push(["range", `${short(block.low)} to ${short(block.high)}`]);
    rows.push(["median", `${short(block.median)}, MAD ${short(block.spread)}`]);
    for (let n = 0; n < block.prefix; n++) rows.push([tokenName(block, n), short(block.values[n])]);
    rows.push(["outliers", `${block.outliers.length} above ${short(block.threshold)}`]);
  }
  const key = rows.join("|");
  if (view.factsShown === key) return;
  view.factsShown = key;
  view.facts.replaceChildren(
    ...rows.flatMap(([name, value]) => [element("span", {}, name), element("span", {}, value)]),
  );
}

/** How many outliers each block has, as bars to click on. */
export function showCounts(view) {
  const { blocks } = view.source;
  if (view.counts.childElementCount !== blocks.length) {
    view.counts.replaceChildren(
      ...blocks.map(({ block }) => {
        const number = element("span", { className: "dptx-count-number" });
        const size = element("span", { className: "dptx-count-bar" });
        const item = element("button", { type: "button", className: "dptx-count", tabIndex: -1 }, number, size);
        item.append(element("span", { className: "dptx-count-block" }, String(block)));
        item.addEventListener("click", () => view.toBlock(block));
        return item;
      }),
    );
    view.counts.classList.toggle("dptx-many", blocks.length > 16);
  }
  const most = Math.max(1, ...blocks.map(({ outliers }) => outliers.length));
  for (const [n, { block, outliers, tokens, prefix }] of blocks.entries()) {
    const item = view.counts.children[n];
    const share = ((100 * outliers.length) / (tokens - prefix)).toFixed(1);
    const title = `Block ${block}: ${outliers.length} outliers, ${share} % of its patches`;
    item.title = title;
    item.setAttribute("aria-label", title);
    item.setAttribute("aria-pressed", String(block === view.get("block")));
    item.children[0].textContent = outliers.length;
    item.children[1].style.height = outliers.length ? `max(2px, ${(outliers.length / most) * 46}px)` : "0";
  }
}

const LISTED = 5;

/** The largest outliers of the chosen block: one click opens attention on them (or pins them, where there is none to be had). */
export function showStrongest(view) {
  const block = view.block();
  const opens = view.source.attends(block.block);
  const found = block.outliers.slice(0, LISTED);
  const chips = found.map((token) => {
    const name = tokenName(block, token);
    const spot = view.source.back(block, token);
    const title = opens ? `Open the attention explorer: who looks at patch ${name}` : `Pin patch ${name}`;
    const act = () => (opens ? view.attend(spot, "column") : view.save({ pin: spot }));
    return button(name, `${title} (norm ${short(block.values[token])})`, act, { className: "dptx-chip dptx-outlier" });
  });
  const rest = block.outliers.length - found.length;
  const words = found.length
    ? `Largest in block ${block.block}${opens ? ", with their attention" : ""}:`
    : `Block ${block.block} has no outliers`;
  const more = rest > 0 ? [element("span", { className: "dptx-hint" }, `and ${rest} more`)] : [];
  view.keepFocus(view.strongestTokens, () =>
    view.strongestTokens.replaceChildren(element("span", { className: "dptx-hint" }, words), ...chips, ...more),
  );
}

/** What is pinned, and the way from there to its attention. */
export function showPin(view) {
  const { source } = view;
  const block = view.block();
  const pin = view.get("pin");
  if (pin === null) {
    const hint = source.attends(block.block) ? "Click to pin a patch, for its attention" : "Click to pin a patch";
    view.keepFocus(view.pins, () => view.pins.replaceChildren(element("span", { className: "dptx-hint" }, hint)));
    return;
  }
  const release = button(
    `${tokenName(block, source.place(block, pin))} \u00d7`,
    "Release the pin",
    () => view.togglePin(pin),
    { className: "dptx-chip dptx-pin-a" },
  );
  const links = [
    ["Who looks at it", "Open the attention explorer on this patch's column (key w)", "column"],
    ["What it looks at", "Open the attention explorer on this patch's row (key l)", "row"],
  ].map(([text, title, direction]) => {
    const why = source.attends(block.block) ? "" : source.absent("attention");
    return button(text, why || title, () => view.attend(pin, direction), { disabled: Boolean(why) });
  });
  view.keepFocus(view.pins, () => view.pins.replaceChildren(release, ...(source.about?.page ? [] : links)));
}

// What leaves the norm explorer: the picture of a view, all norms as files, and the Python that computes them again.

import { cellOf } from "../shared/cells.js";
import { cssColour } from "../shared/colours.js";
import { csv, npz } from "../shared/files.js";
import { capturePython, saveBytes, savePicture, themeColours } from "../shared/panel.js";
import { tokenName } from "../shared/patches.js";
import { download } from "../shared/shell.js";
import { short, valueOn } from "./numbers.js";
import { nameOf } from "./readout.js";

/** Arrays as numpy.load gives them. Where blocks have different grids there is one array each: norms_0, norms_1, ... */
export function normsNpz({ blocks, k, channel, similarity }) {
  const [{ rows, cols, prefix }] = blocks;
  const arrays = {};
  const patchesOf = (block) => block.values.subarray(block.prefix);
  const flagsOf = (block) => {
    const flags = new Int32Array(block.rows * block.cols);
    for (const token of block.outliers) flags[token - block.prefix] = 1;
    return flags;
  };
  if (blocks.every((block) => block.rows === rows && block.cols === cols)) {
    const shape = [blocks.length, rows, cols];
    arrays.norms = [Float32Array.from(blocks.flatMap((block) => [...patchesOf(block)])), shape];
    arrays.outliers = [Int32Array.from(blocks.flatMap((block) => [...flagsOf(block)])), shape];
  } else {
    for (const block of blocks) {
      arrays[`norms_${block.block}`] = [patchesOf(block).slice(), [block.rows, block.cols]];
      arrays[`outliers_${block.block}`] = [flagsOf(block), [block.rows, block.cols]];
    }
  }
  const beside = blocks.flatMap(({ values }) => [...values.subarray(0, prefix)]);
  arrays.blocks = [Int32Array.from(blocks, ({ block }) => block), [blocks.length]];
  arrays.prefix = [Float32Array.from(beside), [blocks.length, prefix]];
  arrays.thresholds = [Float32Array.from(blocks, ({ threshold }) => threshold), [blocks.length]];
  arrays.k = [Float32Array.of(k), []];
  if (channel) {
    arrays.channel = [channel.values, [channel.rows, channel.cols]];
    arrays.channel_of = [Int32Array.of(channel.block, channel.number), [2]];
  }
  if (similarity) {
    arrays.similarity = [similarity.values, [similarity.rows, similarity.cols]];
    arrays.similarity_of = [Int32Array.of(similarity.block, similarity.token), [2]];
    arrays.centred = [Int32Array.of(Number(similarity.centred)), []];
  }
  return npz(arrays);
}

/** One line for each block and token; prefix tokens have a name instead of a row and a column. */
export function normsCsv({ blocks }) {
  const lines = blocks.flatMap((block) => {
    const flagged = new Set(block.outliers);
    return Array.from(block.values, (norm, token) => {
      const patch = token - block.prefix;
      const place =
        patch < 0 ? [tokenName(block, token), "", ""] : ["patch", Math.floor(patch / block.cols), patch % block.cols];
      return [block.block, ...place, norm, Number(flagged.has(token))];
    });
  });
  return csv(["block", "token", "row", "col", "norm", "outlier"], lines);
}

/** Python that computes what is shown of a block with the public API. */
export function normsPython({ block, call, opened, k, what, channel, place, centred }) {
  const point = what === "norm" ? "norms" : `encoder.blocks.${block}.tokens`;
  const lines = ["import probes", "", ...capturePython(point, { call, opened })];
  if (what === "norm") {
    lines.push("norms = probes.tokens.norms(cap)  # {block: (row, col)}");
    lines.push(`outliers = probes.tokens.outliers(norms[${block}], k=${Number.isInteger(k) ? k.toFixed(1) : k})`);
    lines.push(`norms[${block}]`);
  } else if (what === "channel") {
    lines.push(`probes.tokens.channels(cap, ${block}).sel(channel=${channel})`);
  } else {
    lines.push(`probes.tokens.similarity(cap, ${block}, ${place}${centred ? ", centred=True" : ""})  # (row, col)`);
  }
  return lines.join("\n") + "\n";
}

export function viewPython(view) {
  const { about } = view.source;
  if (!about || !view.shownMap) return "";
  const { what, block, from, token, signed } = view.shownMap;
  const place = token >= block.prefix ? `patch=${tokenName(block, token)}` : `token=${token}`;
  const shot = { block: block.block, call: about.call, opened: about.opened, k: view.get("k") };
  return normsPython({ ...shot, what, channel: Math.floor(from / block.tokens), place, centred: signed });
}

/** Downloads all norms; kind: "npz" or "csv". */
export function saveNumbers(view, kind) {
  const { blocks } = view.source;
  if (!view.shownMap) return;
  if (kind === "csv") return download("norms.csv", [normsCsv({ blocks })], "text/csv");
  const { what, values, from, token, signed } = view.shownMap;
  const { block, tokens, rows, cols } = view.shownMap.block;
  const map = { values: values.slice(from, from + rows * cols), rows, cols, block };
  const number = Math.floor(from / tokens);
  const more = { channel: { ...map, number }, similarity: { ...map, token, centred: signed } };
  saveBytes(normsNpz({ blocks, k: view.get("k"), [what]: more[what] }), "norms.npz");
}

/** Downloads the view as a picture, in the colours of the theme. */
export function savePng(view) {
  if (!view.shownMap) return;
  const { what, token } = view.shownMap;
  const name = { norm: "norms", channel: `channel${view.channel()}`, similarity: `similarity${token}` }[what];
  savePicture(snapshotOf(view), `${name}_block${view.get("block")}`);
}

/** The view as one canvas: the picture with the chosen block's map on the left, all blocks on the right, scale below. */
function snapshotOf(view) {
  const colours = themeColours(view.root);
  const { pictureCanvas, overlay, tiles } = view;
  const [margin, gap, caption, title, footer] = [24, 12, 38, 40, 46];
  const aspect = pictureCanvas.height / pictureCanvas.width;
  const left = Math.min(680, Math.round(680 / Math.max(1, aspect)));
  const columns = Math.min(tiles.length, Math.max(4, Math.ceil(Math.sqrt(tiles.length * aspect * 1.4))));
  const wide = Math.floor((920 - gap * (columns - 1)) / columns);
  const high = Math.round(wide * aspect);
  const lines = Math.ceil(tiles.length / columns);
  const body = Math.max(Math.round(left * aspect), lines * (high + caption + gap) - gap);
  const canvas = document.createElement("canvas");
  canvas.width = margin * 3 + left + columns * (wide + gap) - gap;
  canvas.height = margin * 2 + title + body + footer;
  const pen = canvas.getContext("2d");
  pen.fillStyle = colours.background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.textBaseline = "top";
  const say = (text, x, y, colour, font, align = "left") => {
    [pen.fillStyle, pen.font, pen.textAlign] = [colour, `${font} ${colours.font}`, align];
    pen.fillText(text, x, y);
  };
  const block = view.block();
  const what = view.shownMap.what === "norm" ? "token norms" : nameOf(view);
  say(`Block ${block.block}: ${what}`, margin, margin, colours.text, "600 20px");
  const top = margin + title;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(pictureCanvas, margin, top, left, left * aspect);
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = view.get("opacity");
  pen.drawImage(overlay.canvas, margin, top, left, left * aspect);
  pen.globalAlpha = 1;
  pen.imageSmoothingEnabled = true;
  pen.drawImage(view.outline, margin, top, left, left * aspect);
  const { what: form, token, block: shown } = view.shownMap;
  const cell = form === "similarity" && cellOf(token - shown.prefix, shown.cols);
  if (cell) {
    const [wide, high] = [left / shown.cols, (left * aspect) / shown.rows];
    for (const [line, colour] of [
      [4, "rgba(0, 0, 0, 0.75)"],
      [2, colours.pin],
    ]) {
      [pen.lineWidth, pen.strokeStyle] = [line, colour];
      pen.strokeRect(margin + cell[1] * wide, top + cell[0] * high, wide, high);
    }
  }
  pen.imageSmoothingEnabled = false;
  const right = margin * 2 + left;
  for (const [n, tile] of tiles.entries()) {
    const [x, y] = [right + (n % columns) * (wide + gap), top + Math.floor(n / columns) * (high + caption + gap)];
    pen.drawImage(tile.canvas, x, y, wide, high);
    say(`Block ${tile.block.block}`, x, y + high + 4, colours.text, "500 13px");
    if (tile.block.prefix)
      say(`cls ${short(tile.block.values[0])}`, x + wide, y + high + 5, colours.muted, "12px", "right");
    say(`${short(tile.block.low)} \u2013 ${short(tile.block.high)}`, x, y + high + 21, colours.muted, "12px");
    const count = tile.block.outliers.length;
    if (count) say(String(count), x + wide, y + high + 21, colours.outlier, "600 12px", "right");
  }
  const { range, table } = view.shownMap;
  const below = top + body + 14;
  for (let n = 0; n < 256; n++) {
    pen.fillStyle = cssColour(table, n);
    pen.fillRect(margin + (n * 360) / 256, below, 360 / 256 + 1, 12);
  }
  const ends = [0, 1].map((t) => short(valueOn(range, t)));
  const words = `${ends[0]} to ${ends[1]}${range.log ? ", log" : ""}: block ${block.block}`;
  say(words, margin + 372, below - 1, colours.muted, "13px");
  return canvas;
}

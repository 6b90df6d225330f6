// What leaves the attention explorer: the picture of a view, its numbers, and the Python that computes them again.
//
// A snapshot is a plain object made by the view:
//   {block, direction, mode: "a" | "b" | "difference", tokens: [A] or [A, B], head: null | -1 | number, grid: the block's,
//    heads, values: Float32Array (heads + 1, tokens), the mean last; order, scaleOf(tile), table, picture, overlay,
//    call, opened: Python for the depth, and for what a run has stored;
//    windows: for each token the piece of the grid that it sees, {row, col, rows, cols}, or undefined for all of it}

import { cssColour } from "../shared/colours.js";
import { formatPercent as percent } from "../shared/format.js";
import { colourise, valueAt } from "../shared/scale.js";
import { csv, npz } from "../shared/files.js";
import { capturePython } from "../shared/panel.js";
import { tileLayout, tokenName } from "../shared/patches.js";

export function snapshotTitle(shot) {
  const names = shot.tokens.map((token) => tokenName(shot.grid, token));
  const what = shot.direction === "row" ? "what it looks at" : "who looks at it";
  const whose = shot.mode === "difference" ? `${names[0]} \u2212 ${names[1]}` : names[0];
  const kind = shot.tokens[0] < shot.grid.prefix ? "Token" : "Patch";
  return `${kind} ${whose}: ${what}, block ${shot.block}`;
}

/** A file name without an ending that tells the views of one picture apart. */
export function snapshotName(shot) {
  const names = shot.tokens.map((token) => tokenName(shot.grid, token).replace(/[() ]/g, "").replace(",", "-"));
  return `attention_block${shot.block}_${shot.direction}_${names.join("_minus_")}`;
}

/** Arrays as numpy.load gives them: attention (heads, rows, cols), mean (rows, cols), prefix (heads, prefix tokens), ... */
export function snapshotNpz(shot) {
  const { heads, values, grid } = shot;
  const { rows, cols, prefix } = grid;
  const tokens = prefix + rows * cols;
  const attention = new Float32Array(heads * rows * cols);
  const extra = new Float32Array(heads * prefix);
  for (let head = 0; head < heads; head++) {
    attention.set(values.subarray(head * tokens + prefix, (head + 1) * tokens), head * rows * cols);
    extra.set(values.subarray(head * tokens, head * tokens + prefix), head * prefix);
  }
  const mean = values.slice(heads * tokens + prefix, (heads + 1) * tokens);
  return npz({
    attention: [attention, [heads, rows, cols]],
    mean: [mean, [rows, cols]],
    prefix: [extra, [heads, prefix]],
    block: [Int32Array.of(shot.block), []],
    tokens: [Int32Array.from(shot.tokens), [shot.tokens.length]],
    direction: [shot.direction],
  });
}

/** One line for each head and token; prefix tokens have a name instead of a row and a column. */
export function snapshotCsv(shot) {
  const { heads, values, grid } = shot;
  const tokens = grid.prefix + grid.rows * grid.cols;
  const lines = [];
  for (let head = 0; head < heads; head++) {
    for (let token = 0; token < tokens; token++) {
      const patch = token - grid.prefix;
      const place =
        patch < 0 ? [tokenName(grid, token), "", ""] : ["patch", Math.floor(patch / grid.cols), patch % grid.cols];
      lines.push([head, ...place, values[head * tokens + token]]);
    }
  }
  return csv(["head", "token", "row", "col", "value"], lines);
}

/** Python that computes the numbers of this view with the public API. */
export function snapshotPython(shot) {
  const { grid, direction, head } = shot;
  const point = `encoder.blocks.${shot.block}.attention`;
  const where = (token) => {
    const patch = token - grid.prefix;
    return patch < 0 ? `token=${token}` : `patch=(${Math.floor(patch / grid.cols)}, ${patch % grid.cols})`;
  };
  const map = (token) => `attention.map(${where(token)}, direction="${direction}")`;
  const lines = ["import probes", "", ...capturePython(point, shot), `attention = cap["${point}"]`];
  if (shot.mode === "difference")
    lines.push(`maps = ${map(shot.tokens[0])} - ${map(shot.tokens[1])}  # (head, row, col)`);
  else lines.push(`maps = ${map(shot.tokens[0])}  # (head, row, col)`);
  if (head === -1) lines.push(`maps.mean("head")`);
  else if (head !== null) lines.push(`maps.isel(head=${head})`);
  return lines.join("\n") + "\n";
}

/** The view as one canvas: picture with overlay and marks on the left, all tiles on the right, the scale below. */
export function snapshotCanvas(shot, colours) {
  const { grid, heads, values, table, picture } = shot;
  const tokens = grid.prefix + grid.rows * grid.cols;
  const [margin, gap, caption, titleHeight, barHeight] = [24, 10, 22, 40, 46];
  const aspect = picture.height / picture.width;
  const pictureWidth = Math.min(680, Math.round(680 / Math.max(1, aspect)));
  const pictureHeight = Math.round(pictureWidth * aspect);
  const room = 900;
  const { columns, tile } = tileLayout(heads + 1, room, Math.max(pictureHeight, 420), aspect, gap, caption, 90);
  const tileHeight = Math.round(tile * aspect);
  const tilesWidth = Math.max(620, columns * (tile + gap) - gap); // the scale needs some, too
  const lines = Math.ceil((heads + 1) / columns);
  const body = Math.max(pictureHeight, lines * (tileHeight + caption) + gap * (lines - 1));
  const canvas = document.createElement("canvas");
  canvas.width = margin * 3 + pictureWidth + tilesWidth;
  canvas.height = margin * 2 + titleHeight + body + barHeight;
  const pen = canvas.getContext("2d");
  pen.fillStyle = colours.background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = colours.text;
  pen.font = `600 20px ${colours.font}`;
  pen.textBaseline = "top";
  pen.fillText(snapshotTitle(shot), margin, margin);

  const top = margin + titleHeight;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, margin, top, pictureWidth, pictureHeight);
  pen.imageSmoothingEnabled = false;
  pen.globalAlpha = shot.opacity;
  pen.drawImage(shot.overlay, margin, top, pictureWidth, pictureHeight);
  pen.globalAlpha = 1;
  shot.tokens.forEach((token, n) => {
    if (token < grid.prefix) return;
    const patch = token - grid.prefix;
    const own = { row: Math.floor(patch / grid.cols), col: patch % grid.cols, rows: 1, cols: 1 };
    const [w, h] = [pictureWidth / grid.cols, pictureHeight / grid.rows];
    for (const [piece, thick] of [
      [shot.windows[n], 1.5],
      [own, 2.5],
    ]) {
      if (!piece) continue;
      for (const [width, colour] of [
        [2 * thick, "rgba(0, 0, 0, 0.6)"],
        [thick, colours.marks[n]],
      ]) {
        pen.lineWidth = width;
        pen.strokeStyle = colour;
        pen.strokeRect(margin + piece.col * w, top + piece.row * h, piece.cols * w, piece.rows * h);
      }
    }
  });

  const cells = document.createElement("canvas");
  cells.width = grid.cols;
  cells.height = grid.rows;
  const cellPen = cells.getContext("2d");
  const image = cellPen.createImageData(grid.cols, grid.rows);
  const pixels = new Uint32Array(image.data.buffer);
  [heads, ...shot.order].forEach((index, n) => {
    const x = margin * 2 + pictureWidth + (n % columns) * (tile + gap);
    const y = top + Math.floor(n / columns) * (tileHeight + caption + gap);
    colourise(values, index * tokens + grid.prefix, grid.rows * grid.cols, shot.scaleOf(index), table, pixels);
    cellPen.putImageData(image, 0, 0);
    pen.drawImage(cells, x, y, tile, tileHeight);
    pen.fillStyle = colours.text;
    pen.font = `500 13px ${colours.font}`;
    pen.textAlign = "left";
    pen.fillText(index === heads ? "Mean" : `Head ${index}`, x, y + tileHeight + 5);
    pen.textAlign = "right";
    pen.fillStyle = colours.muted;
    const top_ = percent(shot.scaleOf(index).high);
    pen.fillText(`${shot.scaleOf(index).low < 0 ? "\u00b1" : "max "}${top_}`, x + tile, y + tileHeight + 5);
  });

  const bar = { x: margin * 2 + pictureWidth, y: top + body + 14, width: 360, height: 12 };
  for (let n = 0; n < 256; n++) {
    pen.fillStyle = cssColour(table, n);
    pen.fillRect(bar.x + (n * bar.width) / 256, bar.y, bar.width / 256 + 1, bar.height);
  }
  pen.fillStyle = colours.muted;
  pen.textAlign = "left";
  const shared = shot.scaleMode !== "head";
  const scale = shot.scaleOf(shot.head === null || shot.head < 0 ? heads : shot.head);
  const ends = shared
    ? [0, 1].map((t) => percent(valueAt(scale, t)))
    : scale.low < 0
      ? ["\u2212max", "max"]
      : ["0", "max"];
  pen.fillText(
    `${ends[0]} to ${ends[1]}${shared ? "" : " of each head"}${scale.kind !== "linear" ? ", log" : ""}`,
    bar.x + bar.width + 12,
    bar.y,
  );
  return canvas;
}

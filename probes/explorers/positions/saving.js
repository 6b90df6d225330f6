// What leaves the position explorer: the numbers and the picture of a view, and the Python that computes them again.

import { cssColour } from "../shared/colours.js";
import { npz } from "../shared/files.js";
import { saveBytes, savePicture, themeColours } from "../shared/panel.js";
import { cutOf, similarityTo } from "./numbers.js";

/** about: the "about" message; data: the decoded table or bias; cell: (row, col); centred, image: as on display. */
export function positionCode({ about, data, cell, centred, image }) {
  const size = [data.height, data.width];
  const native = size.join() === about.native.join();
  const call = `probes.positions(model${native ? "" : `, size=(${size.join(", ")})`})`;
  const place = `(${cell.join(", ")})`;
  const lines = ["import probes", ""];
  if (about.encoding === "table") {
    lines.push(`positions = ${call}`);
    lines.push("positions.table  # (channel, row, col)");
    lines.push(`positions.similarity(${place}${centred ? ", centred=True" : ""})  # (row, col)`);
    lines.push(
      image === null ? `positions.spectrum().mean("channel")  # (down, right)` : `positions.spectrum()[${image}]`,
    );
  } else {
    const pick = image === null || image < 0 ? `.mean("head")` : `[${image}]`;
    lines.push(`biases = ${call}`);
    lines.push(`biases[${data.block}]  # (head, down, right): where the key lies from the query`);
    lines.push(`biases.from_query(${data.block}, ${place})${pick}  # (row, col)`);
  }
  return lines.join("\n") + "\n";
}

/** Arrays as numpy.load gives them. */
export function positionNpz({ about, data, cell, centred }) {
  const { count, rows, cols, high, wide, values } = data;
  const whole = {
    size: [Int32Array.of(data.height, data.width), [2]],
    patch: [Int32Array.from(cell), [2]],
  };
  if (about.encoding === "table") {
    const similar = new Float32Array(rows * cols + 1);
    similarityTo(data, cell[0] * cols + cell[1], centred, similar);
    return npz({
      table: [values, [count, rows, cols]],
      class_token: [data.classToken, [count]],
      similarity: [similar.slice(0, -1), [rows, cols]],
      mean_spectrum: [data.meanPower, [rows, cols]],
      centred: [Int32Array.of(centred ? 1 : 0), []],
      ...whole,
    });
  }
  const cuts = new Float32Array(count * rows * cols);
  for (let head = 0; head < count; head++) {
    cutOf(data, head, cell[0], cell[1], cuts.subarray(head * rows * cols, (head + 1) * rows * cols));
  }
  return npz({
    bias: [values.slice(0, count * high * wide), [count, high, wide]],
    from_query: [cuts, [count, rows, cols]],
    ...(data.ofPrefix ? { class_token: [data.ofPrefix, [count, 3]] } : {}),
    block: [Int32Array.of(data.block), []],
    ...whole,
  });
}

export function positionFile({ about, data, cell }) {
  const what = about.encoding === "table" ? "table" : `bias_block${data.block}`;
  return `positions_${what}_${data.height}x${data.width}_${cell.join("-")}`;
}

function shotOf(view) {
  const { data, source } = view;
  return { about: source.about, data, cell: view.cell(), centred: view.get("centred"), image: view.image() };
}

export function positionPython(view) {
  return positionCode(shotOf(view));
}

export function savePositions(view, kind) {
  if (!view.data) return;
  const shot = shotOf(view);
  if (kind === "npz") saveBytes(positionNpz(shot), `${positionFile(shot)}.npz`);
  else savePicture(positionCanvas(view), positionFile(shot));
}

/** The view as one canvas: the grid with its mark on the left, the images on display on the right, their scales below. */
function positionCanvas(view) {
  const { data, stage } = view;
  const colours = themeColours(view.root);
  const [margin, gap, caption, title, foot] = [24, 12, 22, 44, 40];
  const side = 560;
  const aspect = data.rows / data.cols;
  const [width, height] = [Math.round(side / Math.max(1, aspect)), Math.round((side * aspect) / Math.max(1, aspect))];
  const shown = [...view.bigTiles, ...view.tiles].filter((tile) => tile.index !== -2);
  const tall = (tile) => tile.canvas.height / tile.canvas.width;
  const columns = Math.max(4, Math.ceil(Math.sqrt(1.6 * shown.length)));
  const small = Math.max(110, Math.min(220, Math.floor(1000 / columns)));
  const line = Math.round(small * Math.max(...shown.map(tall))) + caption + gap;
  const canvas = document.createElement("canvas");
  canvas.width = 3 * margin + width + columns * (small + gap) - gap;
  const body = Math.max(height, Math.ceil(shown.length / columns) * line);
  canvas.height = 2 * margin + title + body + foot;
  const pen = canvas.getContext("2d");
  pen.fillStyle = colours.background;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.textBaseline = "top";
  pen.fillStyle = colours.text;
  pen.font = `600 20px ${colours.font}`;
  pen.fillText(view.title(), margin, margin);
  pen.imageSmoothingEnabled = false;
  const top = margin + title;
  pen.drawImage(stage.canvas, margin, top, width, height);
  const [row, col] = view.cell();
  for (const [thick, ink] of [
    [5, "rgba(0, 0, 0, 0.6)"],
    [2.5, "#ffffff"],
  ]) {
    pen.lineWidth = thick;
    pen.strokeStyle = ink;
    const [w, h] = [width / data.cols, height / data.rows];
    pen.strokeRect(margin + col * w, top + row * h, w, h);
  }
  pen.font = `500 13px ${colours.font}`;
  shown.forEach((tile, n) => {
    const x = 2 * margin + width + (n % columns) * (small + gap);
    const y = top + Math.floor(n / columns) * line;
    pen.drawImage(tile.canvas, x, y, small, Math.round(small * tall(tile)));
    pen.fillStyle = colours.text;
    pen.fillText(tile.name.data, x, y + Math.round(small * tall(tile)) + 4, small);
  });
  for (const [bar, x] of [
    [view.stageBar, margin],
    [view.bar, 2 * margin + width],
  ]) {
    const y = top + body + 12;
    for (let n = 0; n < 256; n++) {
      pen.fillStyle = cssColour(bar.table, n);
      pen.fillRect(x + (n * 220) / 256, y, 220 / 256 + 1, 12);
    }
    pen.fillStyle = colours.muted;
    const labels = [...bar.ticks.children].map((label) => label.textContent);
    pen.fillText(`${labels[0]} to ${labels[labels.length - 1]}`, x + 232, y);
  }
  return canvas;
}

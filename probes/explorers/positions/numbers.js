// The numbers of the position explorer: similarity, spectra, cuts of offset images, ranges. No DOM in here.
//
// Two forms, by encoding. A table: {count: channels, high: rows, wide: cols, values (channels, rows, cols), rows, cols}. A
// bias: {count: heads, high: 2 rows - 1, wide: 2 cols - 1, values (heads + 1, high, wide), the mean last}. Offsets run from
// the query, which is in the middle, to the key; what one query adds to every key is a cut of rows x cols:
//
//     . . . . .       query (0, 0) of 3 x 3      query (1, 2)
//     . . . . .       sees the cut  Q k k        sees the cut  k k k
//     . . Q . .                     k k k                      k k Q
//     . . . . .                     k k k                      k k k
//     . . . . .

import { decodeFloat } from "../shared/bytes.js";
import { cosinesTo, directionOf, frameOf, inverseLength } from "../shared/similarity.js";

export const MEAN = -1; // the number that the mean of heads goes by
export const NONE = -2; // that of a tile which shows nothing, at the end of the last page

function takenApart(message, parts, expected) {
  const names = Object.keys(expected);
  if (parts.length !== names.length) {
    throw new RangeError(`position message: expected ${names.length} parts (${names.join(", ")}), got ${parts.length}`);
  }
  const arrays = Object.fromEntries(names.map((name, n) => [name, decodeFloat(parts[n])]));
  for (const name of names) {
    if (arrays[name].length !== expected[name]) {
      throw new RangeError(`position message: ${name} holds ${arrays[name].length} numbers, not ${expected[name]}`);
    }
  }
  return arrays;
}

/** A "table" message: the table (channel, row, col), its class token, strengths, frequencies, and power spectra. */
export function decodeTable(message, parts) {
  const { count, rows, cols } = message;
  const expected = { values: count * rows * cols, classToken: count, strength: count, frequency: count };
  const arrays = takenApart(message, parts, {
    ...expected,
    meanPower: rows * cols,
    power: count * rows * cols,
  });
  const table = { ...message, ...arrays, high: rows, wide: cols };
  table.range = symmetric(arrays.values, 0, arrays.values.length);
  table.frames = [false, true].map((centred) => positionFrame(table, centred));
  return table;
}

/** A "bias" message: offset images (head, down, right), strengths and, with a class token, (head, 3) of its entries. */
export function decodeBias(message, parts) {
  const { count, rows, cols, prefix } = message;
  const [high, wide] = [2 * rows - 1, 2 * cols - 1];
  const area = high * wide;
  const expected = { heads: count * area, strength: count };
  const { heads, strength, ofPrefix } = takenApart(
    message,
    parts,
    prefix ? { ...expected, ofPrefix: 3 * count } : expected,
  );
  const values = new Float32Array((count + 1) * area);
  values.set(heads);
  for (let n = 0; n < area; n++) {
    let sum = 0;
    for (let head = 0; head < count; head++) sum += heads[head * area + n];
    values[count * area + n] = sum / count;
  }
  const plain = extent(heads, 0, heads.length);
  const signed = plain.low < 0;
  const range = signed ? symmetric(heads, 0, heads.length) : plain;
  return { ...message, high, wide, values, strength, ofPrefix: ofPrefix ?? null, signed, range };
}

export function positionBytes(data) {
  return 4 * (data.values.length + (data.power?.length ?? 0));
}

/** What similarity needs of a table: its positions' frame, and one over the length of the class token's row in it. */
function positionFrame({ values, classToken, count, rows, cols }, centred) {
  const frame = frameOf(values, count, rows * cols, 0, centred);
  const square = classToken.reduce((sum, value, c) => sum + (value - frame.mean[c]) ** 2, 0);
  return { frame, ofClass: inverseLength(square) };
}

/** Cosine of position `at` with every position into out[0 .. rows*cols), and with the class token behind. */
export function similarityTo(table, at, centred, out) {
  const { values, classToken, rows, cols } = table;
  const area = rows * cols;
  if (!Number.isInteger(at) || at < 0 || at >= area)
    throw new RangeError(`position must be a whole number from 0 to ${area - 1}, got ${at}`);
  const { frame, ofClass } = table.frames[Number(centred)];
  const direction = directionOf(values, frame, at);
  cosinesTo(values, frame, direction, out);
  out[area] = ofClass * direction.reduce((sum, value, c) => sum + value * (classToken[c] - frame.mean[c]), 0);
}

/** The bias from query (row, col) to every key, of image `index`, into out (rows, cols). */
export function cutOf(bias, index, row, col, out) {
  const { values, high, wide, rows, cols } = bias;
  for (let r = 0; r < rows; r++) {
    const from = index * high * wide + (rows - 1 - row + r) * wide + cols - 1 - col;
    out.set(values.subarray(from, from + cols), r * cols);
  }
}

/** {low, high} of values; wider than nothing, so that a constant image has a colour. */
export function extent(values, from, count) {
  let [low, high] = [Infinity, -Infinity];
  for (let n = from; n < from + count; n++) {
    if (values[n] < low) low = values[n];
    if (values[n] > high) high = values[n];
  }
  if (high - low > 1e-12 * Math.max(Math.abs(low), Math.abs(high), 1e-18)) return { low, high };
  const room = Math.max(Math.abs(low) * 1e-3, 1e-12);
  return { low: low - room, high: high + room };
}

/** The same, with 0 in the middle. */
export function symmetric(values, from, count) {
  const { low, high } = extent(values, from, count);
  const top = Math.max(-low, high);
  return { low: -top, high: top };
}

/** Decades under the strongest wave that a spectrum shows. */
const DECADES = 4;

/** Powers as their logarithms, in place: the floor DECADES under `top`. */
export function logarithms(power, top) {
  const floor = Math.max(top, 1e-30) * 10 ** -DECADES;
  for (let n = 0; n < power.length; n++) power[n] = Math.log10(Math.max(power[n], floor));
  return { low: Math.log10(floor), high: Math.log10(floor) + DECADES };
}

export function shareOf({ low, high }, value) {
  return Math.min(1, Math.max(0, (value - low) / (high - low)));
}

/** Colour `count` values over a range {low, high} through a table of 256 into out. */
export function paintRange(values, from, count, { low, high }, table, out) {
  const gain = 256 / (high - low);
  for (let n = 0; n < count; n++) {
    const index = ((values[from + n] - low) * gain) | 0;
    out[n] = table[index < 0 ? 0 : index > 255 ? 255 : index];
  }
}

/** Images in display order: as numbered, strongest first, or slowest wave first. */
export function imageOrder(data, order) {
  const indices = Array.from({ length: data.count }, (_, n) => n);
  const key = order === "strength" ? data.strength.map((x) => -x) : order === "frequency" ? data.frequency : null;
  return key ? indices.sort((a, b) => key[a] - key[b] || a - b) : indices;
}

/** A place of the picture, (down, right) as fractions, as a cell of a grid. */
export function cellAt({ rows, cols }, [down, right]) {
  const within = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  return [within(down, rows), within(right, cols)];
}

/** The middle of a cell as fractions. */
export function middleOf({ rows, cols }, row, col) {
  return [(row + 0.5) / rows, (col + 0.5) / cols];
}

/** A number for people: three figures, a real minus. */
export function figure(value) {
  const size = Math.abs(value);
  const text =
    size === 0 ? "0" : size >= 1000 || size < 0.001 ? size.toExponential(1) : String(Number(size.toPrecision(3)));
  return value < 0 && text !== "0" ? `\u2212${text}` : text;
}

/** A signed offset for people: +2, 0, −1. */
export function signedOffset(value) {
  return value > 0 ? `+${value}` : value < 0 ? `\u2212${-value}` : "0";
}

/**
 * Where things go, in pixels. aspect: height over width of a map. count: tiles there are; panes: aspects of the maps
 * enlarged side by side; below: height of what stands under the stage. Returns {beside, left, stage: widths, columns, tile, page: tiles at a time, big: height of the enlarged maps}.
 */
export function positionLayout(width, aspect, count, panes, below) {
  const [gap, space, caption] = [24, 10, 22];
  const beside = width >= 640;
  const left = beside ? Math.round(Math.min(480, Math.max(300, width * 0.36))) : width;
  const stage = Math.floor(Math.min(left, 430 / aspect));
  const room = beside ? width - left - gap : width;
  const height = Math.max(430, stage * aspect + below); // about where the left side ends
  const across = panes.reduce((sum, one) => sum + 1 / one, 0); // width of all enlarged maps at height 1
  const big = panes.length ? Math.floor(Math.min((room - space * (panes.length - 1)) / across, 300)) : 0;
  const rest = panes.length ? Math.max(150, height - big - caption - space) : height;
  // Few tiles grow until they fill the room; of many there are as many at a time as fit at a size that can be read.
  let columns = 1;
  let tile = 0;
  for (let n = 1; n <= count; n++) {
    const wide = Math.floor((room - space * (n - 1)) / n);
    const down = Math.floor(((rest - space * (Math.ceil(count / n) - 1)) / Math.ceil(count / n) - caption) / aspect);
    if (Math.min(wide, down) > tile) [columns, tile] = [n, Math.min(wide, down)];
  }
  const smallest = 84;
  if (tile < smallest) {
    columns = Math.max(1, Math.floor((room + space) / (smallest + space)));
    tile = Math.floor((room - space * (columns - 1)) / columns);
  }
  const lines = Math.max(panes.length ? 1 : 2, Math.floor((rest + space) / (tile * aspect + caption + space)));
  return { beside, left, stage, columns, tile, page: columns * lines, big };
}

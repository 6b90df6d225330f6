// Depth maps in the browser: levels of a range in, coloured pixels out. No DOM in here.
//
// A map arrives as 16-bit (or 8-bit) levels of its own range, low to high. A colour depends on the level alone, so every
// way of colouring is a table of 65536 colours, made once a map, and one look-up a pixel. The kernel colours animations
// by the same rules: `shade` in probes/animation.py.

import { colourIndex } from "../shared/core.js";

const LEVELS = 65536;

/** {width, height, low, high, levels: Uint16Array} from a message and its first part; throws when they disagree. */
export function decodeMap(header, part) {
  const { width, height, low, high, bits } = header;
  for (const [name, value] of Object.entries({ width, height })) {
    if (!Number.isInteger(value) || value < 1) throw new RangeError(`map: ${name} must be positive, got ${value}`);
  }
  if (!(low <= high)) throw new RangeError(`map: a range from ${low} to ${high}`);
  const bytes = part instanceof ArrayBuffer ? new Uint8Array(part) : bytesOf(part);
  if (bytes.length !== (width * height * bits) / 8) {
    throw new RangeError(`map: ${bytes.length} bytes are not ${width} x ${height} levels of ${bits} bits`);
  }
  const levels = bits === 8 ? Uint16Array.from(bytes, (level) => level * 257) : new Uint16Array(bytes.slice().buffer);
  return { width, height, low, high, levels };
}

/** Views into a frame may begin at any byte. */
function bytesOf(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export function valueOf(map, level) {
  return map.low + (level / (LEVELS - 1)) * (map.high - map.low);
}

/**
 * 65536 colours for the levels of a map. options: {table, flip, equalise, span: [low, high] | null}: flip turns the
 * colours round; equalise gives every colour about as many pixels; span is what the colours cover, else the map's range.
 */
export function levelColours(map, { table, flip, equalise, span }, out = new Uint32Array(LEVELS)) {
  const unit = equalise ? equalised(map.levels) : null;
  const [low, high] = span ?? [map.low, map.high];
  const gain = (map.high - map.low) / (LEVELS - 1);
  const width = high > low ? high - low : 1;
  for (let level = 0; level < LEVELS; level++) {
    const t = unit ? unit[level] : (map.low + level * gain - low) / width;
    const position = flip ? 1 - t : t;
    out[level] = table[position > 0 ? colourIndex(Math.min(1, position)) : 0];
  }
  return out;
}

/** Where each level stands among the pixels, 0 to 1: the lowest at 0 (histogram equalisation). */
export function equalised(levels) {
  const counts = new Uint32Array(LEVELS);
  for (const level of levels) counts[level]++;
  let least = 0;
  while (least < LEVELS - 1 && counts[least] === 0) least++;
  const first = counts[least];
  const rest = Math.max(1, levels.length - first);
  const unit = new Float64Array(LEVELS);
  for (let level = 0, below = 0; level < LEVELS; level++) {
    below += counts[level];
    unit[level] = Math.max(0, below - first) / rest;
  }
  return unit;
}

export function paintLevels(map, colours, out) {
  const { levels } = map;
  for (let n = 0; n < levels.length; n++) out[n] = colours[levels[n]];
}

/** Values of a map at another size, between its pixels in proportion, corners on corners (as the models resize). */
export function valuesAt(map, width, height) {
  const out = new Float32Array(width * height);
  const gain = (map.high - map.low) / (LEVELS - 1);
  if (width === map.width && height === map.height) {
    for (let n = 0; n < out.length; n++) out[n] = map.low + map.levels[n] * gain;
    return out;
  }
  const [stepX, stepY] = [step(map.width, width), step(map.height, height)];
  for (let row = 0; row < height; row++) {
    const y = row * stepY;
    const top = Math.min(map.height - 1, Math.floor(y));
    const bottom = Math.min(map.height - 1, top + 1);
    const down = y - top;
    for (let col = 0; col < width; col++) {
      const x = col * stepX;
      const left = Math.min(map.width - 1, Math.floor(x));
      const right = Math.min(map.width - 1, left + 1);
      const across = x - left;
      const upper = map.levels[top * map.width + left] * (1 - across) + map.levels[top * map.width + right] * across;
      const lower =
        map.levels[bottom * map.width + left] * (1 - across) + map.levels[bottom * map.width + right] * across;
      out[row * width + col] = map.low + (upper * (1 - down) + lower * down) * gain;
    }
  }
  return out;
}

function step(from, to) {
  return to > 1 ? (from - 1) / (to - 1) : 0;
}

/** The value under a point given as fractions of the picture. */
export function valueUnder(map, x, y) {
  const col = Math.min(map.width - 1, Math.max(0, Math.floor(x * map.width)));
  const row = Math.min(map.height - 1, Math.max(0, Math.floor(y * map.height)));
  return valueOf(map, map.levels[row * map.width + col]);
}

/** A number for people: three digits that count, and a true minus. */
export function brief(value) {
  const size = Math.abs(value);
  const sign = value < 0 ? "\u2212" : "";
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return sign + size.toExponential(1);
  return sign + (size >= 100 ? size.toFixed(0) : size.toPrecision(3));
}

/** A file name without an ending that tells settings apart: the same as the kernel's. */
export function settingName(points, scales) {
  const changed = points.flatMap((point, n) => (scales[n] === 1 ? [] : [`${point.replace(".", "")}x${scales[n]}`]));
  return ["depth", ...(changed.length ? changed : ["unscaled"])].join("_");
}

/** Python that computes the map of a setting with the public API. */
export function settingPython(points, scales, call) {
  const factor = (scale) => (Number.isInteger(scale) ? scale.toFixed(1) : String(scale)); // a float there, too
  const changed = points.flatMap((point, n) =>
    scales[n] === 1 ? [] : [`"${point}": probes.scale(${factor(scales[n])})`],
  );
  if (!changed.length) return `depth = ${call}\n`;
  const edits = changed.length > 2 ? `\n    ${changed.join(",\n    ")},\n` : changed.join(", ");
  return `import probes\n\nwith probes.edit(model, {${edits}}):\n    depth = ${call}\n`;
}

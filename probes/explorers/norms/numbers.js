// The numbers behind the norm explorer: which tokens stand out, histograms, ranges and colours. No DOM in here.

import { decodeFloat, decodeHalf } from "../shared/bytes.js";
import { colourIndex } from "../shared/scale.js";
import { cosinesTo, directionOf, frameOf } from "../shared/similarity.js";

/**
 * All blocks' norms, from the header and the part of a "norms" message: float32, block after block, each with its prefix
 * tokens and then its patches. Returns [{block, rows, cols, prefix, tokens, channels, values, low, high}]; low and high
 * are of the patches. Throws when sizes disagree.
 */
export function decodeNorms(header, parts) {
  const all = decodeFloat(parts[0]);
  const { prefix } = header;
  let at = 0;
  const blocks = header.blocks.map(([rows, cols, channels], n) => {
    const block = header.numbers[n];
    const tokens = prefix + rows * cols;
    const values = all.subarray(at, at + tokens);
    at += tokens;
    return { block, rows, cols, prefix, tokens, channels, values, ...extent(values, prefix, tokens) };
  });
  if (at !== all.length) throw new RangeError(`norms message: ${all.length} numbers, the header says ${at}`);
  return blocks;
}

/** A block's channels, (channels, tokens), from a "tokens" message. */
export function decodeTokens(header, parts) {
  const { block, channels, tokens, unit } = header;
  const values = decodeHalf(parts[0]);
  if (values.length !== channels * tokens) {
    throw new RangeError(`tokens message: ${values.length} numbers, the header says ${channels} x ${tokens}`);
  }
  if (unit !== 1) for (let n = 0; n < values.length; n++) values[n] *= unit;
  return { block, channels, tokens, values };
}

/** {low, high} of values[from .. to). */
export function extent(values, from, to) {
  let low = Infinity;
  let high = -Infinity;
  for (let n = from; n < to; n++) {
    if (values[n] < low) low = values[n];
    if (values[n] > high) high = values[n];
  }
  return { low, high };
}

// --------------------------------------------------------------------------------------------------------- outliers

function middle(sorted) {
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** What a mean absolute deviation is to a median one in a normal distribution; probes.tokens has the same. */
const MEAN_TO_MEDIAN = 0.6744897501960817 / Math.sqrt(2 / Math.PI);

/** {median, spread} of values[from ..): spread is the median absolute deviation, or what stands in for one of 0. */
export function centreAndSpread(values, from) {
  const sorted = Float64Array.from(values.subarray(from)).sort();
  const median = middle(sorted);
  const away = sorted.map((value) => Math.abs(value - median)).sort();
  const spread = middle(away) || (away.reduce((sum, value) => sum + value, 0) / away.length) * MEAN_TO_MEDIAN;
  return { median, spread };
}

/** Tokens from `from` on whose value is above the threshold, the largest first. */
export function tokensAbove(values, from, threshold) {
  const found = [];
  for (let n = from; n < values.length; n++) if (values[n] > threshold) found.push(n);
  return found.sort((a, b) => values[b] - values[a]);
}

/**
 * The outline of a set of patches, as lines [x0, y0, x1, y1] in patches: the sides that a patch of the set shares with one
 * that is not in it. patches: numbers, counted row by row.
 */
export function outlineOf(patches, rows, cols) {
  const inside = new Set(patches);
  const lines = [];
  for (const patch of patches) {
    const row = Math.floor(patch / cols);
    const col = patch % cols;
    if (row === 0 || !inside.has(patch - cols)) lines.push([col, row, col + 1, row]);
    if (row === rows - 1 || !inside.has(patch + cols)) lines.push([col, row + 1, col + 1, row + 1]);
    if (col === 0 || !inside.has(patch - 1)) lines.push([col, row, col, row + 1]);
    if (col === cols - 1 || !inside.has(patch + 1)) lines.push([col + 1, row, col + 1, row + 1]);
  }
  return lines;
}

/**
 * Cosine of each token of a block with one of them, (tokens): 1 for the same direction, 0 for a right angle. prefix: how
 * many tokens come before the patches, whose mean is taken off first where the similarity is centred.
 */
export function similarityWith(data, prefix, token, centred) {
  data.frames ??= {};
  const frame = (data.frames[centred] ??= frameOf(data.values, data.channels, data.tokens, prefix, centred));
  const out = new Float32Array(data.tokens);
  cosinesTo(data.values, frame, directionOf(data.values, frame, token), out);
  return out;
}

/** The channel that is largest in magnitude at a token. */
export function strongestChannel({ channels, tokens, values }, token) {
  let best = 0;
  for (let c = 1; c < channels; c++) {
    if (Math.abs(values[c * tokens + token]) > Math.abs(values[best * tokens + token])) best = c;
  }
  return best;
}

// -------------------------------------------------------------------------------------------------------- histogram

/** Counts in `bins` equal bins between low and high; the last bin holds high itself. */
export function histogram(values, from, low, high, bins) {
  const counts = new Int32Array(bins);
  for (let n = from; n < values.length; n++) counts[binOf(values[n], low, high, bins)]++;
  return counts;
}

export function binOf(value, low, high, bins) {
  if (!(high > low)) return 0;
  return Math.max(0, Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins)));
}

// ------------------------------------------------------------------------------------------------- ranges, colours

/**
 * The range a map is coloured over. log: positions go with the logarithm; what is not above 0 lies at the bottom, and the
 * range begins no lower than a millionth of its top.
 */
export function makeRange(low, high, log = false) {
  if (!(high >= low) || !Number.isFinite(low) || !Number.isFinite(high)) {
    throw new RangeError(`a range goes from a finite number to one that is not smaller, not from ${low} to ${high}`);
  }
  return log ? { low: Math.max(low, high * 1e-6), high, log: high > 0 } : { low, high, log };
}

/** Position of a value on a range, 0 to 1 (clamped); the middle where there is no range. */
export function placeOn({ low, high, log }, value) {
  if (!(high > low)) return 0.5;
  const t = log ? (value > 0 ? Math.log(value / low) / Math.log(high / low) : 0) : (value - low) / (high - low);
  return t > 0 ? (t < 1 ? t : 1) : 0;
}

/** The value at a position: the inverse of placeOn, for labels. */
export function valueOn({ low, high, log }, t) {
  return log ? low * (high / low) ** t : low + t * (high - low);
}

/** Colours values[from ..) into out (Uint32Array over ImageData). */
export function colourRange(values, from, range, table, out) {
  if (out.length < values.length - from) {
    throw new RangeError(`the output holds ${out.length} pixels, ${values.length - from} are needed`);
  }
  for (let n = from; n < values.length; n++) out[n - from] = table[colourIndex(placeOn(range, values[n]))];
}

/** A number for people, three digits or a little more: 0.0123, 4.56, 78.9, 1234. */
export function short(value) {
  const size = Math.abs(value);
  const sign = value < 0 ? "\u2212" : "";
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return `${sign}${size.toExponential(1)}`;
  const digits = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
  return `${sign}${size.toFixed(digits)}`;
}

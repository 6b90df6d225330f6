// Rows and columns of the softmax matrix of every head, from a block's queries, keys and log-sum-exps. No DOM.
//
//     row    of query i:  p[j] = exp(s_ij - lse_i)     what patch i looks at      s_ij = q_i . k_j + bias_ij
//     column of key j:    p[i] = exp(s_ij - lse_i)     who looks at patch j
//
// One row or column of all heads takes a few million multiplications, so it is computed on each pointer move. Results
// cover the whole grid, token by token, and are zero outside the token's window. Nothing is allocated per call.

import { patchCell } from "#shared/patches.js";
import { checkLength } from "#shared/statistics.js";

/** @import { Bias, Block, Windows } from "./block.js" */

/** Added between tokens of a shifted window that are not neighbours in the image. Swin uses the same number. */
const MASKED = -100;

/** The smallest normal float32. Smaller weights come from masked pairs and are 0 in the model's own float32. */
const TINY = 2 ** -126;

/**
 * out[to + n] = x . rows[n] for `count` rows of length `dim`. Four rows at once share each load of x.
 *
 * @param {Float32Array} x
 * @param {number} at where the vector begins in x
 * @param {Float32Array} rows
 * @param {number} from where the first row begins
 * @param {number} count
 * @param {number} dim
 * @param {Float32Array} out
 * @param {number} to
 */
function dots(x, at, rows, from, count, dim, out, to) {
  let n = 0;
  for (; n + 3 < count; n += 4) {
    let r0 = from + n * dim;
    let r1 = r0 + dim;
    let r2 = r1 + dim;
    let r3 = r2 + dim;
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    for (let t = at; t < at + dim; t++) {
      const value = x[t];
      s0 += value * rows[r0++];
      s1 += value * rows[r1++];
      s2 += value * rows[r2++];
      s3 += value * rows[r3++];
    }
    out[to + n] = s0;
    out[to + n + 1] = s1;
    out[to + n + 2] = s2;
    out[to + n + 3] = s3;
  }
  for (; n < count; n++) {
    let sum = 0;
    for (let t = 0; t < dim; t++) sum += x[at + t] * rows[from + n * dim + t];
    out[to + n] = sum;
  }
}

/**
 * Adds a head's bias between one token of a window and every token of it.
 *
 * @param {Bias} bias
 * @param {number} head
 * @param {number} at place of the token in its window
 * @param {boolean} isQuery whether the token is the query, or else the key
 * @param {Float32Array} values
 * @param {number} to
 */
function addBias(bias, head, at, isQuery, values, to) {
  const { table, ofPrefix, rows, cols } = bias;
  let n = to;
  let patch = at;
  if (ofPrefix) {
    const [classToPatches, patchesToClass, classToItself] = ofPrefix.subarray(3 * head, 3 * head + 3);
    if (at === 0) {
      const others = isQuery ? classToPatches : patchesToClass;
      values[n++] += classToItself;
      for (const end = n + rows * cols; n < end; n++) values[n] += others;
      return;
    }
    values[n++] += isQuery ? patchesToClass : classToPatches;
    patch = at - 1;
  }
  const across = 2 * cols - 1;
  const [row, col] = patchCell(patch, cols);
  // Offsets are query minus key: they fall while the key runs over the window, and grow while the query does.
  const step = isQuery ? -1 : 1;
  const middle = (head * (2 * rows - 1) + rows - 1) * across + cols - 1;
  for (let r = 0; r < rows; r++) {
    let entry = middle + step * ((r - row) * across - col);
    for (let c = 0; c < cols; c++, n++, entry += step) values[n] += table[entry];
  }
}

/**
 * Scores of a head between one token and every token of its window.
 *
 * @param {Block} block
 * @param {number} head
 * @param {number} place of the token in the order of q and k
 * @param {boolean} isQuery
 * @param {Float32Array} values
 * @param {number} to
 */
function scores(block, head, place, isQuery, values, to) {
  const { tokens, dim, bias, windows } = block;
  const count = windows ? windows.inside : tokens;
  const first = place - (place % count);
  const [own, others] = isQuery ? [block.q, block.k] : [block.k, block.q];
  dots(own, (head * tokens + place) * dim, others, (head * tokens + first) * dim, count, dim, values, to);
  if (bias) addBias(bias, head, place - first, isQuery, values, to);
  if (windows?.bands) {
    const { bands } = windows;
    for (let n = 0; n < count; n++) if (bands[first + n] !== bands[place]) values[to + n] += MASKED;
  }
}

/**
 * Copies one window's weights from windows.buffer to the places of their tokens in out[start ..].
 *
 * @param {Windows} windows
 * @param {number} first
 * @param {Float32Array} out
 * @param {number} start
 */
function scatter({ inside, tokenAt, buffer }, first, out, start) {
  for (let n = 0; n < inside; n++) out[start + tokenAt[first + n]] = buffer[n] < TINY ? 0 : buffer[n];
}

/**
 * Replaces the scores in values[from .. end) by their softmax.
 *
 * @param {Float32Array} values
 * @param {number} from
 * @param {number} end
 */
function softmax(values, from, end) {
  let top = -Infinity;
  for (let n = from; n < end; n++) if (values[n] > top) top = values[n];
  let sum = 0;
  for (let n = from; n < end; n++) {
    const value = Math.exp(values[n] - top);
    values[n] = value;
    sum += value;
  }
  const scale = 1 / sum;
  for (let n = from; n < end; n++) values[n] *= scale;
}

/**
 * Weights of one token for every head.
 *
 * @param {Block} block
 * @param {number} token
 * @param {"row" | "column"} direction "row": what this token looks at, each head sums to 1; "column": who looks at it
 * @param {Float32Array} out (heads, tokens)
 */
export function attentionOf(block, token, direction, out) {
  const { heads, tokens, lse, windows } = block;
  if (direction !== "row" && direction !== "column") {
    throw new RangeError(`direction must be "row" or "column", got ${JSON.stringify(direction)}`);
  }
  if (!Number.isInteger(token) || token < 0 || token >= tokens) {
    throw new RangeError(`token must be a whole number from 0 to ${tokens - 1}, got ${token}`);
  }
  checkLength(out, heads * tokens);
  const isQuery = direction === "row";
  const count = windows ? windows.inside : tokens;
  const place = windows ? windows.placeOf[token] : token;
  const first = place - (place % count);
  if (windows) out.fill(0, 0, heads * tokens);
  for (let head = 0; head < heads; head++) {
    const start = head * tokens;
    const [values, from] = windows ? [windows.buffer, 0] : [out, start];
    scores(block, head, place, isQuery, values, from);
    if (isQuery) softmax(values, from, from + count);
    else for (let n = 0; n < count; n++) values[from + n] = Math.exp(values[from + n] - lse[start + first + n]);
    if (windows) scatter(windows, first, out, start);
  }
}

/**
 * The mean over heads.
 *
 * @param {Float32Array} values (heads, tokens)
 * @param {number} heads
 * @param {number} tokens
 * @param {Float32Array} out may be `values` itself
 * @param {number} to where the mean begins in out
 */
export function meanOverHeads(values, heads, tokens, out, to) {
  checkLength(out, to + tokens);
  for (let n = 0; n < tokens; n++) {
    let sum = 0;
    for (let head = 0; head < heads; head++) sum += values[head * tokens + n];
    out[to + n] = sum / heads;
  }
}

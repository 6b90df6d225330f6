// The numbers behind the explorers: attention rows and columns, statistics, colours. No DOM in here.
//
// A block of attention arrives as fp16 queries and keys (the softmax scale is already folded into the queries) plus, for
// every query, the log-sum-exp of its scores. With those, any row or column of the softmax matrix of every head is a few
// million multiplications away: fast enough to do on each pointer move, with no kernel in between.
//
//     row    of query i:  p[j] = exp(s_ij - lse_i)        "what patch i looks at"        s_ij = q_i . k_j + bias_ij
//     column of key j:    p[i] = exp(s_ij - lse_i)        "who looks at patch j"
//
// A bias comes as a table by offset, (row, col) of the query minus that of the key, and is added on the fly. Where
// attention is windowed, queries, keys and lse come window by window: what a token can see is one run of each. Results
// are laid on the whole grid, token by token, with zeros outside the window.
//
// Arrays are flat and reused; nothing here allocates per call except the functions that decode.

import { windowBands, windowPlaces } from "./windows.js";

// ---------------------------------------------------------------------------------------------------------- fp16

let halfTable = null;

function buildHalfTable() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}

/** The bytes of a message part (DataView, typed array or ArrayBuffer) as a fresh, aligned ArrayBuffer. */
function alignedBytes(part) {
  if (part instanceof ArrayBuffer) return part;
  if (ArrayBuffer.isView(part)) {
    // Jupyter hands out views into the whole websocket frame, at any offset: typed arrays need an aligned copy.
    return part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength);
  }
  throw new TypeError("expected an ArrayBuffer or a view of one, got " + Object.prototype.toString.call(part));
}

/** IEEE half precision, little endian, to Float32Array. Exact: every half is a float. */
export function decodeHalf(part) {
  const bytes = alignedBytes(part);
  if (bytes.byteLength % 2)
    throw new RangeError(`half precision takes 2 bytes a number, got ${bytes.byteLength} bytes`);
  halfTable ??= buildHalfTable();
  const halves = new Uint16Array(bytes);
  const out = new Float32Array(halves.length);
  for (let n = 0; n < halves.length; n++) out[n] = halfTable[halves[n]];
  return out;
}

export function decodeFloat(part) {
  return new Float32Array(alignedBytes(part));
}

// ------------------------------------------------------------------------------------------------------ attention

/** Added between tokens of a shifted window that are no neighbours on the picture; Swin's own number. */
const MASKED = -100;

/** The smallest normal float32. What is below stands for masked pairs, and the model's own float32 makes it nothing. */
const TINY = 2 ** -126;

/**
 * One block, ready for rows and columns, from the header and the parts of a "block" message: q, k (heads, tokens, dim)
 * fp16; lse (heads, tokens) float32; if the header says `biased` also the table (heads, 2 rows - 1, 2 cols - 1) of a
 * window or the grid, and with a class token what it adds (heads, 3): class to patches, patches to class, class to itself,
 * both float32. The header's `window` and `shift`, (rows, cols) each, say how attention is windowed; q, k and lse are
 * then window by window. Throws when sizes and header disagree.
 */
export function decodeBlock(header, parts) {
  const { heads, tokens, dim, rows, cols, prefix, window = null, shift = [0, 0], biased = false } = header;
  for (const [name, value] of Object.entries({ heads, tokens, dim, rows, cols })) {
    if (!Number.isInteger(value) || value < 1)
      throw new RangeError(`block header: ${name} must be a positive whole number, got ${value}`);
  }
  if (!Number.isInteger(prefix) || prefix < 0)
    throw new RangeError(`block header: prefix must be 0 or more, got ${prefix}`);
  if (prefix + rows * cols !== tokens) {
    throw new RangeError(
      `block header: ${prefix} prefix tokens and ${rows} x ${cols} patches are not ${tokens} tokens`,
    );
  }
  if (window && (prefix || rows % window[0] || cols % window[1])) {
    throw new RangeError(
      `block header: windows of ${window.join(" x ")} do not tile ${rows} x ${cols} patches after ${prefix} prefix tokens`,
    );
  }
  const [high, wide] = window ?? [rows, cols];
  const expected = { q: heads * tokens * dim, k: heads * tokens * dim, lse: heads * tokens };
  if (biased) expected.table = heads * (2 * high - 1) * (2 * wide - 1);
  if (biased && prefix) expected.ofPrefix = heads * 3;
  const names = Object.keys(expected);
  if (parts.length !== names.length) {
    throw new RangeError(`block message: expected ${names.length} parts (${names.join(", ")}), got ${parts.length}`);
  }
  const arrays = Object.fromEntries(
    names.map((name, n) => [name, name === "q" || name === "k" ? decodeHalf(parts[n]) : decodeFloat(parts[n])]),
  );
  for (const name of names) {
    if (arrays[name].length !== expected[name]) {
      throw new RangeError(
        `block message: ${name} holds ${arrays[name].length} numbers, the header says ${expected[name]}`,
      );
    }
  }
  const { q, k, lse, table, ofPrefix } = arrays;
  const bias = biased ? { table, ofPrefix: ofPrefix ?? null, rows: high, cols: wide } : null;
  const windows = window && layoutOf({ rows, cols, window, shift });
  const entropy = header.entropy ?? [];
  return { heads, tokens, dim, rows, cols, prefix, q, k, lse, bias, windows, entropy, block: header.block };
}

/** A layout of windows with what follows from it: tokens by place, places by token, bands, and room for one window. */
function layoutOf(layout) {
  const places = windowPlaces(layout);
  const placeOf = new Int32Array(places.length);
  for (let place = 0; place < places.length; place++) placeOf[places[place]] = place;
  const inside = layout.window[0] * layout.window[1];
  const bands = windowBands(layout, places);
  return { ...layout, inside, places, placeOf, bands, room: new Float32Array(inside) };
}

/** Bytes that a decoded block takes. */
export function blockBytes(block) {
  return 4 * (block.q.length + block.k.length + block.lse.length + (block.bias?.table.length ?? 0) + block.tokens);
}

function checkToken(block, token) {
  if (!Number.isInteger(token) || token < 0 || token >= block.tokens) {
    throw new RangeError(`token must be a whole number from 0 to ${block.tokens - 1}, got ${token}`);
  }
}

function checkRoom(out, length) {
  if (out.length < length) throw new RangeError(`the output array holds ${out.length} numbers, ${length} are needed`);
}

/** out[to + n] = x . rows[n] for `count` rows of length `dim`; x starts at `at`. Four rows at once share each load of x. */
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
 * Adds a head's bias to values[to ..]: between the token at place `at` of a window, as the query or as the key, and every
 * token of the window.
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
  const row = Math.floor(patch / cols);
  const col = patch % cols;
  // Offsets are query minus key: they fall as the key runs over the window, and grow as the query does.
  const step = isQuery ? -1 : 1;
  const middle = (head * (2 * rows - 1) + rows - 1) * across + cols - 1;
  for (let r = 0; r < rows; r++) {
    let entry = middle + step * ((r - row) * across - col);
    for (let c = 0; c < cols; c++, n++, entry += step) values[n] += table[entry];
  }
}

/** Scores of a head between the token at `place` of all places, as query or key, and its window, into values[to ..]. */
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

/** Lays one window's weights on the whole grid: from windows.room to where their tokens stand in out[start ..]. */
function unfold(windows, first, out, start) {
  const { inside, places, room } = windows;
  for (let n = 0; n < inside; n++) out[start + places[first + n]] = room[n] < TINY ? 0 : room[n];
}

/** Turns values[from .. end) from scores into their softmax. */
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

/** Softmax row of query `token` for every head into out (heads, tokens): what this token looks at. Each head sums to 1. */
export function attentionRow(block, token, out) {
  weightsOf(block, token, true, out);
}

/** Softmax column of key `token` for every head into out (heads, tokens): who looks at this token, and how much. */
export function attentionColumn(block, token, out) {
  weightsOf(block, token, false, out);
}

function weightsOf(block, token, isQuery, out) {
  checkToken(block, token);
  const { heads, tokens, lse, windows } = block;
  checkRoom(out, heads * tokens);
  const count = windows ? windows.inside : tokens;
  const place = windows ? windows.placeOf[token] : token;
  const first = place - (place % count);
  if (windows) out.fill(0, 0, heads * tokens);
  for (let head = 0; head < heads; head++) {
    const start = head * tokens;
    const [values, from] = windows ? [windows.room, 0] : [out, start];
    scores(block, head, place, isQuery, values, from);
    if (isQuery) softmax(values, from, from + count);
    else for (let n = 0; n < count; n++) values[from + n] = Math.exp(values[from + n] - lse[start + first + n]);
    if (windows) unfold(windows, first, out, start);
  }
}

export function attentionOf(block, token, direction, out) {
  if (direction === "row") attentionRow(block, token, out);
  else if (direction === "column") attentionColumn(block, token, out);
  else throw new RangeError(`direction must be "row" or "column", got ${JSON.stringify(direction)}`);
}

/** Mean over heads of values (heads, tokens) into out[to ..]; `to` may lie right behind the heads in the same array. */
export function meanOverHeads(values, heads, tokens, out, to) {
  checkRoom(out, to + tokens);
  for (let n = 0; n < tokens; n++) {
    let sum = 0;
    for (let head = 0; head < heads; head++) sum += values[head * tokens + n];
    out[to + n] = sum / heads;
  }
}

/** Entropy in bits of `count` non-negative values, taken as a distribution (so a column is normalised first). */
export function entropyBits(values, from, count) {
  let sum = 0;
  let weighted = 0;
  for (let n = from; n < from + count; n++) {
    const value = values[n];
    if (value > 0) {
      sum += value;
      weighted += value * Math.log2(value);
    }
  }
  return sum > 0 ? Math.log2(sum) - weighted / sum : 0;
}

/** Index of the largest of values[from .. from + count). */
export function argMax(values, from, count) {
  let best = from;
  for (let n = from + 1; n < from + count; n++) if (values[n] > values[best]) best = n;
  return best;
}

/** Sum of values[from .. from + count). */
export function sumOf(values, from, count) {
  let sum = 0;
  for (let n = from; n < from + count; n++) sum += values[n];
  return sum;
}

/** Largest magnitude among values[from .. from + count). */
export function maxMagnitude(values, from, count) {
  let top = 0;
  for (let n = from; n < from + count; n++) {
    const size = Math.abs(values[n]);
    if (size > top) top = size;
  }
  return top;
}

/** Heads in display order: as numbered, or the most focused (lowest mean entropy) first. */
export function headOrder(heads, order, entropy) {
  const indices = Array.from({ length: heads }, (_, head) => head);
  if (order === "index") return indices;
  if (order !== "entropy") throw new RangeError(`order must be "index" or "entropy", got ${JSON.stringify(order)}`);
  if (entropy.length !== heads) return indices;
  return indices.sort((a, b) => entropy[a] - entropy[b] || a - b);
}

// --------------------------------------------------------------------------------------------------------- colours

// 256 x RGB as in matplotlib. Differences: RdBu_r, white in the middle, red above, blue below; on dark themes berlin,
// which is black in the middle.
const TABLES = {
  viridis:
    "RAFURAJWRQRXRQVZRgdaRghcRgpdRgteRw1gRw5hRxBjRxFkRxNlSBRnSBZoSBdpSBhqSBpsSBttSBxuSB1vSB9wSCBxSCFzSCN0SCR1SCV2SCZ3SCh4SCl5Ryp6Ryx6Ry17Ry58Ry99RjB+RjJ+RjN/RjSARTWBRTeBRTiCRDmDRDqDRDuEQz2EQz6FQj+FQkCGQkGGQUKHQUSHQEWIQEaIP0eIP0iJPkmJPkqJPkyKPU2KPU6KPE+KPFCLO1GLO1KLOlOLOlSMOVWMOVaMOFiMOFmMN1qMN1uNNlyNNl2NNV6NNV+NNGCNNGGNM2KNM2ONMmSOMmWOMWaOMWeOMWiOMGmOMGqOL2uOL2yOLm2OLm6OLm+OLXCOLXGOLHGOLHKOLHOOK3SOK3WOKnaOKneOKniOKXmOKXqOKXuOKHyOKH2OJ36OJ3+OJ4COJoGOJoKOJoKOJYOOJYSOJYWOJIaOJIeOI4iOI4mOI4qNIouNIoyNIo2NIY6NIY+NIZCNIZGMIJKMIJKMIJOMH5SMH5WLH5aLH5eLH5iLH5mKH5qKHpuKHpyJHp2JH56JH5+IH6CIH6GIH6GHH6KHIKOGIKSGIaWFIaaFIqeFIqiEI6mDJKqDJauCJayCJq2BJ62BKK6AKa9/KrB/LLF+LbJ9LrN8L7R8MbV7MrZ6NLZ5Nbd5N7h4OLl3Orp2O7t1Pbx0P7xzQL1yQr5xRL9wRsBvSMFuSsFtTMJsTsNrUMRqUsVpVMVoVsZnWMdlWshkXMhjXsliYMpgY8tfZcteZ8xcac1bbM1abs5YcM9Xc9BWddBUd9FTetFRfNJQf9NOgdNNhNRLhtVJidVIi9ZGjtZFkNdDk9dBldhAmNg+m9k8ndk7oNo5oto3pds2qNs0qtwyrdwwsN0vst0ttd4ruN4put4ovd8mwN8lwt8jxeAhyOAgyuEfzeEd0OEc0uIb1eIa2OIZ2uMZ3eMY3+MY4uQY5eQZ5+QZ6uUa7OUb7+Uc8eUd9OYe9uYg+OYh++cj/ecl",
  cividis:
    "ACJOACNPACRRACVTACVUACZWACdYAChZAChbACldACpfACphACtiACxkACxmAC1oAC5qAC5sAC9tADBvADBwADFwADFxATJxBTNxCDNwDDRwDzVwEjVwFDZwFjdwGDdvGjhvHDlvHjpvIDpvITtuIzxuJDxuJj1uJz5uKT9uKj9tK0BtLUFtLkFtL0JtMUNtMkNtM0RtNEVsNUVsNkZsOEdsOUhsOkhsO0lsPEpsPUpsPktsP0xsQExsQU1sQk5sQ05sRE9sRVBsRlFsR1FsSFJsSVNsSlNsS1RsTFVsTVVsTlZsT1dsUFdsUVhtUlltU1ptVFptVVttVVxtVlxtV11tWF5tWV5uWl9uW2BuXGFuXWFuXmJuXmNvX2NvYGRvYWVvYmVvY2ZwZGdwZWhwZWhwZmlwZ2pxaGpxaWtxamxxa21ybG1ybG5ybW9ybm9zb3BzcHFzcXJ0cnJ0cnN0c3R1dHR1dXV1dnZ2d3d2d3d3eHh3eXl3enp4e3p4fHt4fXx4fnx4fn14f354gH94gX94goB5g4F5hIJ5hYJ5hoN5h4R4iIV4iYV4ioZ4i4d4jIh4jYh4jol4j4p4kIt4kYt4kox4ko14k454lI53lY93lpB3l5F3mJJ3mZJ3mpN2m5R2nJV2nZV2npZ2n5d1oJh1oZl1opl1o5p0pJt0pZx0ppx0p51zqJ5zqZ9zqqBzq6ByrKFyraJyrqNxr6RxsKVxsaVws6ZwtKdvtahvtqlvt6luuKpuuattuqxtu61tvK5sva5svq9rv7BrwLFqwbJqwrNpw7NpxLRoxbVoxrZnx7dnyLhmyblly7llzLpkzbtjzrxjz71i0L5i0b9h0sBg08Bf1MFf1cJe1sNd18Rc2cVc2sZb28da3MhZ3chY3slY38pX4MtW4cxV4s1U5M5T5c9S5tBR59FQ6NJP6dNO6tNM69RL7dVK7tZJ79dI8NhG8dlF8tpE89tC9dxB9t0/994++N88+eA6++E4/OI2/eM0/uQ0/uU1/uY2/ug4",
  magma:
    "AAAEAQAFAQEGAQEIAgEJAgILAgINAwMPAwMSBAQUBQQWBgUYBgUaBwYcCAceCQcgCggiCwkkDAkmDQopDgsrEAstEQwvEg0xEw00FA42FQ44Fg87GA89GRA/GhBCHBBEHRFHHhFJIBFLIRFOIhFQJBJTJRJVJxJYKRFaKhFcLBFfLRFhLxFjMRFlMxBnNBBpNhBrOBBsOQ9uOw9wPQ9xPw9yQA90Qg91RA92RRB3RxB4SRB4ShB5TBF6ThF7TxJ7URJ8UhN8VBN9VhR9VxV+WRV+WhZ+XBZ/XRd/Xxh/YBiAYhmAZBqAZRqAZxuAaByBahyBax2BbR2Bbh6BcB+Bch+BcyCBdSGBdiGBeCKBeSKCeyOCfCOCfiSCgCWCgSWBgyaBhCaBhieBiCeBiSiBiymBjCmBjiqBkCqBkSuBkyuAlCyAliyAmC2AmS2Amy5/nC5/ni9/oC9/oTB+ozB+pTF+pjF9qDJ9qjN9qzN8rTR8rjR7sDV7sjV7szZ6tTZ6tzd5uDd5ujh4vDl4vTl3vzp3wDp2wjt1xDx1xTx0xz1zyD5zyj5yzD9xzUBxz0Bw0EFv0kJv00Nu1URt1kVs2EVs2UZr20dq3Ehp3klo30po4Exn4k1m405l5E9k5VBk51Jj6FNi6VRi6lZh61dg7Fhg7Vpf7lte711e8F9e8WBd8mJd8mRc82Vc9Gdc9Glc9Wtc9mxc9m5c93Bc93Jc+HRc+HZc+Xhd+Xld+Xtd+n1e+n9e+oFf+4Nf+4Vg+4dh/Ilh/Ipi/Ixj/I5k/JBl/ZJm/ZRn/ZZo/Zhp/Zpq/Ztr/p1s/p9t/qFu/qNv/qVx/qdy/qlz/qp0/qx2/q53/rB4/rJ6/rR7/rZ8/rd+/rl//ruB/r2C/r+E/sGF/sKH/sSI/saK/siM/sqN/syP/s2Q/s+S/tGU/tOV/tWX/teZ/tia/dqc/dye/d6g/eCh/eKj/eOl/eWn/eep/emq/eus/Oyu/O6w/PCy/PK0/PS2/Pa4/Pe5/Pm7/Pu9/P2/",
  difference:
    "BTBhBjJkBzRnCDZqCThtCjtwDD1zDT92DkF5D0N7EEV+EUeBEkmEE0yHFE6KFVCNF1KQGFSTGVaWGliZG1qcHFyfHV+iHmGlH2OoIGWrImesI2mtJGquJmyvJ26wKHCxKnGyK3OzLHW0Lne1L3m1MHq2Mny3M364NIC5NoG6N4O7OIW8Ooe9O4i+PIq+Poy/P47AQI/BQpHCQ5PDRpXESZfFTJnGT5vHUp3IVp/JWaHKXKPLX6XNYqfOZanPaKvQa6zRbq7ScbDTdbLUeLTVe7bWfrjXgbrYhLzZh77aisDbjcLckMTdk8belsffmMjgm8ngncvhoMzios3jpc7jp9DkqdHlrNLlrtPmsdXns9bottfouNjpu9rqvdvqwNzrwt3sxd/sx+DtyuHuzOLvz+Tv0eXw0ubw1Obx1efx1+jx2Onx2uny2+ry3evy3uvy4Ozz4e3z4+3z5O705u/05/D06fD06vH17PL17fL17/P18PT28vX28/X29fb39vf39/b29/X0+PTy+PPw+PLv+PHt+fDr+e/p+e7n+e3l+evj+urh+unf+uje+ufc++ba++XY++TW++PU/OLS/ODQ/N/P/N7N/d3L/dzJ/dvH/dnE/NfC/NW//NO8+9C5+863+8y0+sqx+siv+cas+cSp+cKn+L+k+L2h+Lue97mc97eZ97WW9rOU9rGR9q+O9ayL9aqJ9aiG9KaD86SB8qF/8Z598Jx775l57pZ37JN065Fy6o5w6Ytu6Ils5oZq5YNo5IBm435k4nti4Xhg33Ze3nNc3XBZ3G5X22tV2mhT2GVR12NP1mBN1V1M01pK0lhJ0FVIz1JGzk9FzExEy0lCyUdByERAxkE+xT49xDs8wjg6wTY5vzM4vjA2vS01uyo0uigyuCUxtyIwth8utBwtsxkssRgrrhcqqxYqqBUppRQpohMonxIonBEnmRAnlg8nkw4mkA0mjQwligslhwokhAkkgQgjfwgjfAcieQYidgUhcwQhcAMgbQIgagEfZwAf",
  "difference-dark":
    "nrD/nLD+mrD9mK/8la/7k6/6ka75jq73jK72iq71h630ha3zgq3ygKzxfqzwe6zueavtdqvsdKrrcarpb6nobKnmaqjlZ6jjZafiYqbgYKXfXaXdW6TbWKPZVqLXVKDVUZ/TT57RTZ3PS5vNSJrKRpjIRJfGQ5XDQZTBP5K+PpC8PI65O423OYu0OImyN4evNoWtNYSqM4KoMoCmMn6jMXyhMHqeL3icLnaZLXWXLHOULHGSK2+PKm2NKWuLKWmIKGiGJ2aDJ2SBJmJ/JWB8JF56JF14I1t1IllzIldxIVVuIFRsIFJqH1BoHk5lHk1jHUthHElfHEdcG0ZaGkRYGkJWGUFTGT9RGD1PFzxNFzpLFjhJFjdHFTVEFTNCFDJAFDA+Ey88Ey06Eiw4Eio2Eik0EScyESYwESQuESMsESEqESAoEB8mEB0lEBwjERshERogERkeERgcERYbERUZERQYERMXEhIVEhIUExESFBARFA8QFQ4OFg4NFw0LGAwKGQwJGgwIGwsHHAsGHQsFHgsEIAsEIQsDIgwCIwwCJAwCJQwBJg0BJw0BKA0BKg4BKw4BLA4ALQ4ALw4AMA8AMQ8AMw8ANA8ANRAANxAAOBAAOREAOxEAPBEBPhIBPxIBQRIBQhMBRBMBRRQBRxQBSBUCShUCSxYCTRYCTxcDUBgDUhgEVBkFVhoFVxsGWRwHWx0IXR4JXx8KYSALYyEMZSMOaCQPaiUQbCcRbigTcCoUcysWdS0Xdy8ZeTAbezIcfTQegDYggjcihDkkhjsmiD0oij8qjEAsjkIukEQwkkYylEg0lko2mEw5mk07nE89nlE/oFNBolVEpFdGpllIqFpKqlxMrF5PrmBRsGJTsmRVtGZYtmhauGpcumtfvG1hvm9jwHFlwnNoxHVqxndsyHlvyntxzH1zzn920IF40oN61YV914d/2YmC24uE3Y2G34+J4ZGL45OO5ZWQ55eS6pmV7JuX7p2a8J+c8qGf9KOh9qWj+aem+6mo/aur/62t",
};

export const COLORMAPS = ["viridis", "cividis", "magma", "grey"];
const lookups = new Map();

/** 256 colours as RGBA bytes packed for a Uint32Array over ImageData (little endian, as every browser's machine is). */
export function lookup(name) {
  if (lookups.has(name)) return lookups.get(name);
  const table = new Uint32Array(256);
  if (name === "grey") {
    for (let n = 0; n < 256; n++) table[n] = (0xff000000 | (n << 16) | (n << 8) | n) >>> 0;
  } else if (Object.hasOwn(TABLES, name)) {
    const bytes = atob(TABLES[name]);
    for (let n = 0; n < 256; n++) {
      const [r, g, b] = [0, 1, 2].map((c) => bytes.charCodeAt(3 * n + c));
      table[n] = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
    }
  } else {
    throw new RangeError(
      `no colormap ${JSON.stringify(name)}; there are ${COLORMAPS.join(", ")}, difference and difference-dark`,
    );
  }
  lookups.set(name, table);
  return table;
}

export function cssColour(table, index) {
  const packed = table[index];
  return `rgb(${packed & 255}, ${(packed >> 8) & 255}, ${(packed >> 16) & 255})`;
}

/** Where a logarithmic scale ends: 4 decades under its top. Uniform attention over 1370 tokens lies at 7e-4. */
export const LOG_FLOOR = 1e-4;

/**
 * The range a tile is coloured over. mode: "head" and "shared" are linear from 0 (attention) or symmetric about 0
 * (signed: differences); "log" covers the 4 decades under `top`, for differences on either side of the middle.
 */
export function makeScale(mode, top, signed) {
  if (mode !== "head" && mode !== "shared" && mode !== "log") {
    throw new RangeError(`scale must be "head", "shared" or "log", got ${JSON.stringify(mode)}`);
  }
  if (!(top >= 0) || top === Infinity)
    throw new RangeError(`the top of a scale must be finite and not negative, got ${top}`);
  return { log: mode === "log", signed, top: Math.max(top, 1e-30) };
}

/** Position of a value on a scale, 0 to 1 (clamped). */
export function positionOn(scale, value) {
  const { log, signed, top } = scale;
  let t;
  if (!log) {
    t = signed ? (value / top + 1) / 2 : value / top;
  } else {
    const size = Math.abs(value) / top;
    const depth = size > LOG_FLOOR ? 1 - Math.log(size) / Math.log(LOG_FLOOR) : 0;
    t = signed ? (1 + (value < 0 ? -depth : depth)) / 2 : depth;
  }
  return t > 0 ? (t < 1 ? t : 1) : 0;
}

/** The value at a position on a scale: the inverse of positionOn, for the labels of a colour bar. */
export function valueAt(scale, t) {
  const { log, signed, top } = scale;
  if (!log) return signed ? (2 * t - 1) * top : t * top;
  const depth = signed ? Math.abs(2 * t - 1) : t;
  const size = signed && depth === 0 ? 0 : top * LOG_FLOOR ** (1 - depth);
  return signed && t < 0.5 ? -size : size;
}

/** Colour index of a position, by matplotlib's rule: 256 equal bins. */
export function colourIndex(t) {
  const index = (t * 256) | 0;
  return index > 255 ? 255 : index;
}

/** Colour `count` values through a scale and a table into out (Uint32Array over ImageData). */
export function colourise(values, from, count, scale, table, out) {
  checkRoom(out, count);
  const { log, signed, top } = scale;
  if (!log) {
    // The common case, kept free of calls: index = 256 * position.
    const gain = (signed ? 128 : 256) / top;
    const shift = signed ? 128 : 0;
    for (let n = 0; n < count; n++) {
      const index = (values[from + n] * gain + shift) | 0;
      out[n] = table[index < 0 ? 0 : index > 255 ? 255 : index];
    }
    return;
  }
  for (let n = 0; n < count; n++) out[n] = table[colourIndex(positionOn(scale, values[from + n]))];
}

// ------------------------------------------------------------------------------------------------------------ words

/** An attention weight for people: 12 %, 3.4 %, 0.56 %, 7.8e-5 %. */
export function percent(value) {
  const hundredths = Math.abs(value) * 100;
  const sign = value < 0 ? "\u2212" : "";
  if (hundredths === 0) return "0 %";
  if (hundredths >= 9.95) return `${sign}${hundredths.toFixed(0)} %`;
  if (hundredths >= 0.995) return `${sign}${hundredths.toFixed(1)} %`;
  if (hundredths >= 0.00995) return `${sign}${hundredths.toFixed(hundredths >= 0.0995 ? 2 : 3)} %`;
  return `${sign}${hundredths.toExponential(1)} %`;
}

/** The same where room is short: nothing finer than a hundredth of a percent. */
export function percentShort(value) {
  if (value !== 0 && Math.abs(value) < 0.995e-4) return value > 0 ? "<0.01 %" : "~0 %";
  return Math.abs(value) < 0.995e-3
    ? `${value < 0 ? "\u2212" : ""}${(Math.abs(value) * 100).toFixed(2)} %`
    : percent(value);
}

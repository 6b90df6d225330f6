// Attention in JavaScript against numbers that torch computed (goldens.py).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { decodeBlock, headOrder } from "../../../../probes/explorers/attention/block.js";
import { attentionLayout } from "../../../../probes/explorers/attention/layout.js";
import { attentionScale } from "../../../../probes/explorers/attention/scales.js";
import { attentionOf, meanOverHeads } from "../../../../probes/explorers/attention/weights.js";
import { windowBands, windowPieces, windowTokens } from "../../../../probes/explorers/attention/windows.js";
import { lookup } from "../../../../probes/explorers/shared/colours.js";
import { colourise, positionOn, valueAt } from "../../../../probes/explorers/shared/scale.js";
import { argMax, entropyOf, maxMagnitude } from "../../../../probes/explorers/shared/statistics.js";

const golden = JSON.parse(readFileSync(new URL("../../../data/explorer_numbers.json", import.meta.url), "utf8"));
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const { header, picked, ...expected } = golden.attention;

function block(change = {}, parts = [expected.q, expected.k, expected.lse].map(bytes)) {
  return decodeBlock({ ...header, ...change }, parts);
}

function close(actual, wanted, tolerance, what) {
  assert.equal(actual.length, wanted.length, what);
  for (let n = 0; n < wanted.length; n++) {
    assert.ok(Math.abs(actual[n] - wanted[n]) <= tolerance, `${what}[${n}]: ${actual[n]} is not ${wanted[n]}`);
  }
}

test("rows and columns equal the float64 softmax matrix", () => {
  const own = block();
  const out = new Float32Array(header.heads * header.tokens);
  picked.forEach((token, n) => {
    attentionOf(own, token, "row", out);
    close(out, expected.rows[n], 1e-6, `row ${token}`);
    attentionOf(own, token, "row", out);
    close(out, expected.rows[n], 1e-6, `row ${token}`);
    attentionOf(own, token, "column", out);
    close(out, expected.columns[n], 1e-6, `column ${token}`);
  });
});

test("biased and windowed rows and columns equal the softmax matrix on the whole grid, and are zero outside", () => {
  for (const [name, { header, parts, picked, rows, columns }] of Object.entries(golden.biased)) {
    const own = decodeBlock(header, parts.map(bytes));
    const out = new Float32Array(header.heads * header.tokens).fill(7); // left from another patch
    picked.forEach((token, n) => {
      for (const [direction, wanted] of [
        ["row", rows[n]],
        ["column", columns[n]],
      ]) {
        attentionOf(own, token, direction, out);
        close(out, wanted, 1e-6, `${name}: ${direction} ${token}`);
        for (const [m, value] of wanted.entries()) {
          assert.equal(out[m] === 0, value === 0, `${name}: ${direction} ${token}[${m}]`);
        }
      }
    });
    // control: without its bias, and with rows and columns mixed up, the result differs
    attentionOf({ ...own, bias: null }, picked[1], "row", out);
    assert.throws(() => close(out, rows[1], 1e-3, name));
    attentionOf(own, picked[1], "row", out);
    assert.throws(() => close(out, columns[1], 1e-3, name));
  }
});

test("places and bands of windows are those of the model", () => {
  for (const { header, order } of Object.values(golden.biased)) {
    if (!header.window) continue;
    assert.deepEqual([...windowTokens(header)], order);
  }
  const plain = golden.biased.windows.header;
  assert.equal(windowBands(plain, windowTokens(plain)), null);
  // The drawing in windows.js: 4 x 4 in windows of 2, shifted by 1.
  /** @type {import("../../../../probes/explorers/attention/windows.js").WindowLayout} */
  const drawn = { rows: 4, cols: 4, window: [2, 2], shift: [1, 1] };
  const places = windowTokens(drawn);
  assert.deepEqual([...places], [5, 6, 9, 10, 7, 4, 11, 8, 13, 14, 1, 2, 15, 12, 3, 0]);
  const bands = windowBands(drawn, places) ?? new Uint8Array();
  const sizes = [0, 4, 8, 12].map((from) => new Set(bands.subarray(from, from + 4)).size);
  assert.deepEqual(sizes, [1, 2, 2, 4]);
});

test("a window's pieces tile it, and the first is what the patch sees", () => {
  for (const { header, parts } of Object.values(golden.biased)) {
    if (!header.window) continue;
    const { cols, tokens } = header;
    const block = decodeBlock(header, parts.map(bytes));
    const { windows } = block;
    assert.ok(windows);
    const out = new Float32Array(header.heads * tokens);
    const inside = (piece, n) =>
      Math.floor(n / cols) >= piece.row &&
      Math.floor(n / cols) < piece.row + piece.rows &&
      n % cols >= piece.col &&
      n % cols < piece.col + piece.cols;
    for (let token = 0; token < tokens; token++) {
      const pieces = windowPieces(header, Math.floor(token / cols), token % cols);
      attentionOf(block, token, "row", out);
      for (let n = 0; n < tokens; n++) assert.equal(out[n] > 0, inside(pieces[0], n), `${token} sees ${n}`);
      const first = windows.placeOf[token] - (windows.placeOf[token] % windows.inside);
      const window = [...windows.tokenAt.subarray(first, first + windows.inside)];
      for (let n = 0; n < tokens; n++) {
        const count = pieces.filter((piece) => inside(piece, n)).length;
        assert.equal(count, window.includes(n) ? 1 : 0, `${token}'s window and ${n}`);
      }
    }
  }
});

test("a row with scores far beyond exp's range is still a softmax", () => {
  const q = Uint16Array.from([0x7000, 0, 0x7000, 0]); // 8192, 0, 8192, 0
  const k = Uint16Array.from([0x3c00, 0, 0x4000, 0]); // 1, 0, 2, 0: scores 8192 and 16384
  const one = decodeBlock({ kind: "block", block: 0, heads: 1, tokens: 2, dim: 2, rows: 1, cols: 2, prefix: 0 }, [
    q,
    k,
    new Float32Array(2),
  ]);
  const out = new Float32Array(2);
  attentionOf(one, 0, "row", out);
  assert.deepEqual([...out], [0, 1]);
});

test("mean over heads and entropy in nats", () => {
  const own = block();
  const { heads, tokens } = header;
  const out = new Float32Array((heads + 1) * tokens);
  picked.forEach((token, n) => {
    attentionOf(own, token, "row", out);
    meanOverHeads(out, heads, tokens, out, heads * tokens);
    close(out.subarray(heads * tokens), expected.row_mean[n], 1e-6, `mean ${token}`);
    const rowEntropy = Array.from({ length: heads }, (_, head) => entropyOf(out, head * tokens, tokens));
    close(rowEntropy, expected.row_entropy[n], 1e-5, `row entropy ${token}`);
    attentionOf(own, token, "column", out);
    const columnEntropy = Array.from({ length: heads }, (_, head) => entropyOf(out, head * tokens, tokens));
    close(columnEntropy, expected.column_entropy[n], 1e-5, `column entropy ${token}`);
  });
  assert.equal(entropyOf(Float32Array.of(0, 1, 0, 0), 0, 4), 0);
  assert.equal(entropyOf(new Float32Array(8).fill(0.125), 0, 8).toFixed(12), Math.log(8).toFixed(12));
  assert.equal(entropyOf(new Float32Array(4), 0, 4), 0);
});

test("a message whose sizes disagree is refused, with both sizes", () => {
  const parts = [expected.q, expected.k, expected.lse].map(bytes);
  assert.throws(() => block({ tokens: 21 }), /2 prefix tokens and 4 x 5 patches are not 21 tokens/);
  assert.throws(() => block({ dim: 13 }), /858 numbers in q .*got 792/);
  assert.throws(() => block({ heads: 0 }), /heads must be .*>= 1, got 0/);
  assert.throws(() => block({ prefix: -1 }), /prefix must be .*>= 0, got -1/);
  assert.throws(() => block({}, parts.slice(0, 2)), /expected 3 parts/);
  assert.throws(() => block({}, [parts[0], parts[1], parts[0]]), / in lse /);
  const shifted = golden.biased["shifted windows"];
  const decoded = (change, count = 4) =>
    decodeBlock({ ...shifted.header, ...change }, shifted.parts.slice(0, count).map(bytes));
  assert.throws(() => decoded({ window: [4, 4] }), /windows of 4 x 4 do not tile 6 x 8 patches after 0 prefix tokens/);
  assert.throws(() => decoded({}, 3), /expected 4 parts \(q, k, lse, table\), got 3/);
  assert.throws(() => decoded({ window: [3, 2] }), /30 numbers in table .*got 70/);
  const own = block();
  const out = new Float32Array(header.heads * header.tokens);
  assert.throws(() => attentionOf(own, 22, "row", out), /token must be a whole number from 0 to 21, got 22/);
  assert.throws(() => attentionOf(own, 1.5, "row", out), /got 1.5/);
  assert.throws(() => attentionOf(own, 0, "row", out.subarray(1)), /66 numbers, it holds 65/);
  // @ts-expect-error: not a direction
  assert.throws(() => attentionOf(own, 0, "diagonal", out), /direction must be "row" or "column", got "diagonal"/);
});

test("positions on a scale are those of matplotlib's norms, and colours follow them", () => {
  const table = lookup("grey");
  for (const { mode, signed, top, values, positions } of golden.scales) {
    const scale = attentionScale(mode, top, signed);
    close(
      values.map((value) => positionOn(scale, value)),
      positions,
      1e-6,
      `${mode} ${signed}`,
    );
    const out = new Uint32Array(values.length);
    colourise(Float32Array.from(values), 0, values.length, scale, table, out);
    positions.forEach((t, n) => {
      const step = Math.abs((out[n] & 255) - Math.min(255, Math.floor(t * 256)));
      assert.ok(step <= 1, `${mode} ${signed} ${values[n]}: ${step} colours off`);
    });
  }
});

test("the value at a position is the inverse of the position of a value", () => {
  for (const mode of /** @type {const} */ (["head", "shared", "log"])) {
    for (const signed of [false, true]) {
      const scale = attentionScale(mode, 0.2, signed);
      for (const t of [0.1, 0.3, 0.6, 0.9, 1]) {
        assert.ok(Math.abs(positionOn(scale, valueAt(scale, t)) - t) < 1e-9, `${mode} ${signed} ${t}`);
      }
    }
  }
  assert.ok(Math.abs(valueAt(attentionScale("log", 0.2, false), 0) - 0.2e-4) < 1e-12);
});

test("a constant map has one colour: the lowest, or the middle one for differences", () => {
  const out = new Uint32Array(3);
  const table = lookup("grey");
  colourise(new Float32Array(3), 0, 3, attentionScale("head", 0, false), table, out);
  assert.deepEqual([...out], [table[0], table[0], table[0]]);
  colourise(new Float32Array(3), 0, 3, attentionScale("head", 0, true), table, out);
  assert.deepEqual([...out], [table[128], table[128], table[128]]);
  // @ts-expect-error: not a scale
  assert.throws(() => attentionScale("cubic", 1, false), /scale must be "head", "shared" or "log", got "cubic"/);
  assert.throws(() => attentionScale("head", NaN, false), /finite/);
});

test("largest values and the order of heads", () => {
  const values = Float32Array.of(9, 0.1, -0.7, 0.4, 9);
  assert.equal(argMax(values, 1, 3), 3);
  assert.ok(Math.abs(maxMagnitude(values, 1, 3) - 0.7) < 1e-6);
  assert.deepEqual(headOrder(4, "index", [3, 1, 2, 1]), [0, 1, 2, 3]);
  assert.deepEqual(headOrder(4, "entropy", [3, 1, 2, 1]), [1, 3, 2, 0]);
  assert.deepEqual(headOrder(2, "entropy", []), [0, 1]);
  // @ts-expect-error: not an order
  assert.throws(() => headOrder(2, "size", []), /order must be/);
});

test("picture and tiles share the width without leaving it", () => {
  for (const width of [300, 660, 1040, 1560]) {
    for (const aspect of [0.5, 0.75, 1, 1.6]) {
      for (const heads of [3, 6, 12, 16, 24, 48]) {
        for (const enlarged of [false, true]) {
          const place = attentionLayout(width, aspect, heads, enlarged);
          const what = `${width} ${aspect} ${heads} ${enlarged}: ${JSON.stringify(place)}`;
          const across = place.columns * place.tile + (place.columns - 1) * 10;
          const room = place.beside ? width - place.left - 24 : width;
          assert.ok(place.picture > 0 && place.picture <= place.left && place.left <= width, what);
          assert.ok(across <= room && place.big <= room, what);
          assert.ok(place.tile >= 60, what);
          assert.equal(place.big > 0, enlarged, what);
        }
      }
    }
  }
  assert.equal(attentionLayout(1040, 0.66, 3, false).columns, 2);
  assert.equal(attentionLayout(500, 0.66, 3, false).beside, false);
});

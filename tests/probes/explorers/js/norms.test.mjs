// norms_numbers.js and norms_layout.js: worked out by hand here, compared with Python in tests/probes/test_norm_explorer.py.

import assert from "node:assert/strict";
import test from "node:test";

import { normLayout } from "../../../../probes/explorers/norms/layout.js";
import * as numbers from "../../../../probes/explorers/norms/numbers.js";

const floats = (...values) => Float32Array.from(values);

test("blocks of different grids are cut out of one run of numbers", () => {
  const header = {
    prefix: 1,
    numbers: [3, 7],
    blocks: [
      [2, 3, 8],
      [1, 2, 16],
    ],
  };
  const all = floats(9, 1, 2, 3, 4, 5, 6, 70, 8, 7);
  const [first, second] = numbers.decodeNorms(header, [all.buffer]);
  assert.deepEqual([first.block, second.block], [3, 7]);
  assert.deepEqual([...first.values], [9, 1, 2, 3, 4, 5, 6]);
  assert.deepEqual([first.low, first.high], [1, 6]); // the class token is not among them
  assert.deepEqual([...second.values], [70, 8, 7]);
  assert.deepEqual([second.rows, second.cols, second.channels, second.low, second.high], [1, 2, 16, 7, 8]);
  assert.throws(() => numbers.decodeNorms(header, [floats(1, 2, 3).buffer]), /3 numbers, the header says 10/);
});

test("channels are halves times their unit", () => {
  const part = Uint16Array.of(0x3c00, 0xc000, 0x4200, 0x0000); // 1 -2 3 0
  const { values } = numbers.decodeTokens({ block: 0, channels: 2, tokens: 2, unit: 4 }, [part.buffer]);
  assert.deepEqual([...values], [4, -8, 12, 0]);
  assert.equal(numbers.strongestChannel({ channels: 2, tokens: 2, values }, 0), 1);
  assert.equal(numbers.strongestChannel({ channels: 2, tokens: 2, values }, 1), 0);
  assert.throws(() => numbers.decodeTokens({ channels: 3, tokens: 2, unit: 1 }, [part.buffer]), /4 numbers.*3 x 2/);
});

test("median and MAD by hand, prefix tokens left out", () => {
  const { median, spread } = numbers.centreAndSpread(floats(1000, 2, 40, 3, 1, 4, 5, 2, 4), 1);
  assert.deepEqual([median, spread], [3.5, 1.5]);
  assert.deepEqual(numbers.tokensAbove(floats(1000, 2, 40, 3, 1, 4, 50), 1, 3.5), [6, 2, 5]);
  assert.equal(numbers.centreAndSpread(floats(7, 7, 7), 0).spread, 0);
  assert.ok(numbers.centreAndSpread(floats(7, 7, 7, 7, 9), 0).spread > 0);
});

test("an outline is around the set, not around each patch", () => {
  assert.deepEqual(numbers.outlineOf([4], 3, 3), [
    [1, 1, 2, 1],
    [1, 2, 2, 2],
    [1, 1, 1, 2],
    [2, 1, 2, 2],
  ]);
  assert.equal(numbers.outlineOf([3, 4], 3, 3).length, 6); // two patches side by side: no line between them
  assert.equal(numbers.outlineOf([2, 3], 2, 3).length, 8); // end of a row and beginning of the next: no neighbours
  assert.equal(numbers.outlineOf([0, 1, 2, 3, 4, 5], 2, 3).length, 10);
  assert.deepEqual(numbers.outlineOf([], 3, 3), []);
});

test("histograms hold every value, the largest in the last bin", () => {
  assert.deepEqual([...numbers.histogram(floats(9, 0, 1, 2, 3, 4), 1, 0, 4, 4)], [1, 1, 1, 2]);
  assert.deepEqual([...numbers.histogram(floats(5, 5), 0, 5, 5, 3)], [2, 0, 0]);
});

test("positions and values on a range are inverse, and stay in it", () => {
  for (const range of [numbers.makeRange(2, 10), numbers.makeRange(2, 10, true), numbers.makeRange(-3, 3)]) {
    for (const t of [0, 0.25, 0.5, 1]) {
      assert.ok(Math.abs(numbers.placeOn(range, numbers.valueOn(range, t)) - t) < 1e-12);
    }
    assert.equal(numbers.placeOn(range, -100), 0);
    assert.equal(numbers.placeOn(range, 100), 1);
  }
  assert.equal(numbers.placeOn(numbers.makeRange(4, 4), 4), 0.5);
  assert.equal(numbers.placeOn(numbers.makeRange(0, 8, true), 0), 0);
  assert.throws(() => numbers.makeRange(3, 1), /a range goes from/);
  assert.throws(() => numbers.makeRange(NaN, 1), /a range goes from/);
});

test("colours go from the first of the table to the last", () => {
  const out = new Uint32Array(3);
  const table = Uint32Array.from({ length: 256 }, (_, n) => n);
  numbers.colourRange(floats(99, 0, 5, 10), 1, numbers.makeRange(0, 10), table, out);
  assert.deepEqual([...out], [0, 128, 255]);
  assert.throws(
    () => numbers.colourRange(floats(1, 2), 0, numbers.makeRange(0, 1), table, new Uint32Array(1)),
    /2 are/,
  );
});

test("numbers for people", () => {
  const words = [0, 0.01234, 1.234, 45.67, 99.96, 345.6, -2.5, 123456, 0.0001].map(numbers.short);
  assert.deepEqual(words, ["0", "0.012", "1.23", "45.7", "100", "346", "\u22122.50", "1.2e+5", "1.0e-4"]);
});

test("everything fits, at any width, for 4 to 40 blocks", () => {
  for (const width of [300, 500, 700, 1000, 1600]) {
    for (const blocks of [4, 7, 12, 24, 40]) {
      for (const aspect of [0.6, 1, 1.6]) {
        for (const enlarged of [false, true]) {
          const place = normLayout(width, aspect, blocks, enlarged);
          const room = place.beside ? width - place.left - 24 : width;
          const what = JSON.stringify({ width, blocks, aspect, enlarged, place });
          assert.ok(place.picture > 0 && place.picture <= width, what);
          assert.ok(place.columns * (place.tile + 10) - 10 <= room, what);
          assert.ok(place.tile >= 60, what);
          if (enlarged) assert.ok(place.big >= 100 && place.big <= room, what);
        }
      }
    }
  }
});

test("similarity is the cosine of two tokens' channels, less the patches' mean where it is centred", () => {
  const [channels, tokens, prefix] = [5, 7, 1]; // channels in fours and one over
  const values = Float32Array.from({ length: channels * tokens }, (_, n) => Math.sin(3 * n) + (n < tokens ? 4 : 0));
  for (const centred of [false, true]) {
    const mean = Array.from({ length: channels }, (_, c) => {
      const of = values.subarray(c * tokens + prefix, (c + 1) * tokens);
      return centred ? of.reduce((sum, value) => sum + value, 0) / of.length : 0;
    });
    const vector = (t) => mean.map((m, c) => values[c * tokens + t] - m);
    const dot = (a, b) => a.reduce((sum, value, c) => sum + value * b[c], 0);
    const data = { channels, tokens, values };
    for (const at of [0, 1, 4]) {
      const found = numbers.similarityWith(data, prefix, at, centred);
      for (let t = 0; t < tokens; t++) {
        const [a, b] = [vector(at), vector(t)];
        const wanted = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
        assert.ok(Math.abs(found[t] - wanted) < 1e-5, `${found[t]} is not ${wanted}`);
      }
    }
  }
  const flat = { channels: 2, tokens: 3, values: floats(0, 1, 2, 0, 1, 2) }; // the first token has no length
  assert.deepEqual([...numbers.similarityWith(flat, 0, 0, false)], [0, 0, 0]);
  assert.equal(numbers.similarityWith(flat, 0, 1, false)[0], 0);
});

// The numbers of the position explorer against their definitions, written out the slow way.

import assert from "node:assert/strict";
import test from "node:test";

import {
  cellAt,
  cutOf,
  decodeBias,
  decodeTable,
  extent,
  figure,
  imageOrder,
  logarithms,
  middleOf,
  paintRange,
  positionLayout,
  similarityTo,
  symmetric,
} from "../../../../probes/explorers/positions/numbers.js";
import { positionCode } from "../../../../probes/explorers/positions/saving.js";

let seed = 1;
const random = () => {
  seed = (seed * 16807) % 2147483647;
  return (seed / 2147483647) * 2 - 1;
};
const numbers = (count) => Float32Array.from({ length: count }, random);
const close = (one, other, within) => assert.ok(Math.abs(one - other) <= within, `${one} is not ${other}`);

const ROWS = 4;
const COLS = 5;
const COUNT = 3;

function table() {
  const parts = [COUNT * ROWS * COLS, COUNT, COUNT, COUNT, ROWS * COLS, COUNT * ROWS * COLS].map(numbers);
  return decodeTable({ count: COUNT, rows: ROWS, cols: COLS }, parts);
}

function bias(prefix = true) {
  const parts = [numbers(COUNT * 7 * 9), numbers(COUNT), ...(prefix ? [numbers(3 * COUNT)] : [])];
  return decodeBias({ count: COUNT, rows: ROWS, cols: COLS, prefix, block: 2 }, parts);
}

function checkSimilarity(centred) {
  const data = table();
  const area = ROWS * COLS;
  const vectors = Array.from({ length: area }, (_, n) =>
    Array.from({ length: COUNT }, (_, c) => data.values[c * area + n]),
  );
  vectors.push([...data.classToken]);
  const mean = Array.from({ length: COUNT }, (_, c) =>
    centred ? vectors.slice(0, area).reduce((sum, v) => sum + v[c], 0) / area : 0,
  );
  const away = vectors.map((v) => v.map((x, c) => x - mean[c]));
  const dot = (a, b) => a.reduce((sum, x, c) => sum + x * b[c], 0);
  const out = new Float32Array(area + 1);
  for (const at of [0, 7, area - 1]) {
    similarityTo(data, at, centred, out);
    for (let n = 0; n <= area; n++) {
      close(out[n], dot(away[at], away[n]) / Math.sqrt(dot(away[at], away[at]) * dot(away[n], away[n])), 1e-5);
    }
    close(out[at], 1, 1e-6);
  }
  assert.throws(() => similarityTo(data, area, centred, out), /position must be a whole number from 0 to 19, got 20/);
}

test("similarity is the cosine of two positions' vectors", () => checkSimilarity(false));

test("centred similarity is the cosine of two positions' vectors less their mean", () => checkSimilarity(true));

test("a query's cut holds for each key the entry of the offset from query to key", () => {
  const data = bias();
  const out = new Float32Array(ROWS * COLS);
  for (const [row, col] of [
    [0, 0],
    [2, 4],
    [3, 1],
  ]) {
    cutOf(data, 1, row, col, out);
    for (let r = 0; r < ROWS; r++) {
      for (let c = 0; c < COLS; c++) {
        const entry = 1 * 63 + (r - row + ROWS - 1) * 9 + (c - col + COLS - 1);
        assert.equal(out[r * COLS + c], data.values[entry]);
      }
    }
  }
});

test("the mean over heads stands behind them", () => {
  const data = bias(false);
  assert.equal(data.ofPrefix, null);
  for (const n of [0, 31, 62]) {
    close(data.values[3 * 63 + n], (data.values[n] + data.values[63 + n] + data.values[126 + n]) / 3, 1e-6);
  }
});

test("messages that do not add up are refused", () => {
  const header = { count: 1, rows: 2, cols: 2, prefix: false };
  assert.throws(() => decodeBias(header, [numbers(9)]), /expected 2 parts \(heads, strength\), got 1/);
  assert.throws(() => decodeBias(header, [numbers(8), numbers(1)]), /heads holds 8 numbers, not 9/);
  assert.throws(() => decodeTable({ count: 1, rows: 2, cols: 2 }, [1, 2, 3, 4].map(numbers)), /expected 6 parts/);
});

test("ranges: from lowest to highest, around 0, and never nothing", () => {
  const values = Float32Array.of(9, -1, 3, 2);
  assert.deepEqual(extent(values, 1, 3), { low: -1, high: 3 });
  assert.deepEqual(symmetric(values, 1, 3), { low: -3, high: 3 });
  for (const constant of [0, 5, -2]) {
    const { low, high } = extent(Float32Array.of(constant, constant), 0, 2);
    assert.ok(low < constant && constant < high);
  }
  const ramp = Uint32Array.from({ length: 256 }, (_, n) => n);
  const out = new Uint32Array(4);
  paintRange(Float32Array.of(-1, 0, 0.999, 7), 0, 4, { low: 0, high: 1 }, ramp, out);
  assert.deepEqual([...out], [0, 0, 255, 255]);
});

test("spectra are shown over four decades under the strongest wave", () => {
  const power = Float32Array.of(100, 1, 0, 1e-9);
  assert.deepEqual(logarithms(power, 100), { low: -2, high: 2 });
  assert.deepEqual([...power], [2, 0, -2, -2]);
});

test("orders", () => {
  const data = { count: 3, strength: Float32Array.of(1, 3, 2), frequency: Float32Array.of(5, 6, 4) };
  assert.deepEqual(imageOrder(data, "index"), [0, 1, 2]);
  assert.deepEqual(imageOrder(data, "strength"), [1, 2, 0]);
  assert.deepEqual(imageOrder(data, "frequency"), [2, 0, 1]);
});

test("a place leads to the cell that it lies in, on any grid", () => {
  for (let row = 0; row < ROWS; row++) {
    for (let col = 0; col < COLS; col++) {
      assert.deepEqual(cellAt({ rows: ROWS, cols: COLS }, middleOf({ rows: ROWS, cols: COLS }, row, col)), [row, col]);
    }
  }
  assert.deepEqual(cellAt({ rows: 4, cols: 5 }, [1, 0]), [3, 0]);
  assert.deepEqual(cellAt({ rows: 37, cols: 49 }, middleOf({ rows: 4, cols: 5 }, 3, 0)), [32, 4]);
});

test("numbers for people", () => {
  assert.deepEqual([0, 1, -0.12345, 1234.5, 4e-5].map(figure), ["0", "1", "\u22120.123", "1.2e+3", "4.0e-5"]);
});

test("tiles fit the width, enlarged maps too, at any width", () => {
  for (const width of [320, 500, 700, 1000, 1600]) {
    for (const count of [2, 7, 33, 192, 1024]) {
      for (const { aspect, panes } of [
        { aspect: 1, panes: [] },
        { aspect: 0.7, panes: [0.7, 1, 0.7] },
        { aspect: 1.5, panes: [1.5] },
      ]) {
        const { beside, left, stage, columns, tile, page, big } = positionLayout(width, aspect, count, panes, 200);
        const room = beside ? width - left - 24 : width;
        assert.ok(stage <= left && tile >= 1 && page >= columns && left <= width);
        assert.ok(columns * tile + 10 * (columns - 1) <= room, `tiles at ${width}, ${count}`);
        const all = panes.reduce((sum, one) => sum + big / one, 0) + 10 * Math.max(0, panes.length - 1);
        assert.ok(all <= room + 1, `enlarged at ${width}`);
      }
    }
  }
});

test("Python that computes the view", () => {
  const shot = { about: { encoding: "table", native: [518, 518] }, data: { height: 42, width: 70 }, cell: [1, 3] };
  const table = positionCode({ ...shot, centred: true, image: 5 });
  assert.match(table, /probes\.positions\(model, size=\(42, 70\)\)/);
  assert.match(table, /positions\.similarity\(\(1, 3\), centred=True\)/);
  assert.match(table, /positions\.spectrum\(\)\[5\]/);
  const about = { encoding: "bias", native: [80, 80] };
  const biased = positionCode({ about, data: { height: 80, width: 80, block: 2 }, cell: [0, 4], image: null });
  assert.match(biased, /probes\.positions\(model\)\n/);
  assert.match(biased, /biases\.from_query\(2, \(0, 4\)\)\.mean\("head"\)/);
});

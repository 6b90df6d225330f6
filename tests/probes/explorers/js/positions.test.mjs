// The numbers of the position explorer against their definitions, written out the slow way.

import assert from "node:assert/strict";
import test from "node:test";

import {
  cutOf,
  decodeBias,
  decodeTable,
  describe,
  imageOrder,
  MEAN,
  similarityTo,
} from "../../../../probes/explorers/positions/data.js";
import { positionLayout } from "../../../../probes/explorers/positions/layout.js";
import { gridLook, imageLook, meanSpectrumLook, spectrumLook } from "../../../../probes/explorers/positions/looks.js";
import { cellAt, middleOf, stepCell } from "../../../../probes/explorers/positions/places.js";
import { positionPython } from "../../../../probes/explorers/positions/python.js";
import { biasText, imageBar, readoutOf, spectrumText } from "../../../../probes/explorers/positions/readout.js";
import { positionOn } from "../../../../probes/explorers/shared/scale.js";

let seed = 1;
const random = () => {
  seed = (seed * 16807) % 2147483647;
  return (seed / 2147483647) * 2 - 1;
};
const numbers = (count) => Float32Array.from({ length: count }, random);
/** Part of a message, as far as a test needs it. @returns {any} */
const message = (fields) => fields;
const bytes = (values) => values.buffer;
const close = (one, other, within) => assert.ok(Math.abs(one - other) <= within, `${one} is not ${other}`);

const ROWS = 4;
const COLS = 5;
const COUNT = 3;

function table() {
  const parts = [COUNT * ROWS * COLS, COUNT, COUNT, COUNT, ROWS * COLS, COUNT * ROWS * COLS].map(numbers);
  return decodeTable(
    message({ count: COUNT, rows: ROWS, cols: COLS, height: 56, width: 70, stored: false }),
    parts.map(bytes),
  );
}

function bias(prefix = true) {
  const parts = [numbers(COUNT * 7 * 9), numbers(COUNT), ...(prefix ? [numbers(3 * COUNT)] : [])];
  return decodeBias(message({ count: COUNT, rows: ROWS, cols: COLS, prefix, block: 2 }), parts.map(bytes));
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
  const header = message({ count: 1, rows: 2, cols: 2, prefix: false });
  assert.throws(() => decodeBias(header, [numbers(9)].map(bytes)), /expected 2 parts \(heads, strength\), got 1/);
  assert.throws(() => decodeBias(header, [numbers(8), numbers(1)].map(bytes)), /9 numbers in heads .*got 8/);
  assert.throws(
    () => decodeTable(message({ count: 1, rows: 2, cols: 2 }), [1, 2, 3, 4].map(numbers).map(bytes)),
    /expected 6 parts/,
  );
});

const STYLE = { shared: false, colormap: "viridis", dark: false };

test("images of values with a sign span their largest magnitude, others their range; constants get some room", () => {
  const data = table();
  const own = imageLook(data, 1, STYLE);
  const top = Math.max(...own.values.map(Math.abs));
  assert.deepEqual([own.scale.low, own.scale.high], [-top, top]);
  assert.deepEqual([...own.values], [...data.values.subarray(ROWS * COLS, 2 * ROWS * COLS)]);
  const shared = imageLook(data, 1, { ...STYLE, shared: true });
  assert.equal(shared.scale.high, Math.max(...data.values.map(Math.abs)));
  const positive = { ...bias(), signed: false };
  positive.values = positive.values.map(Math.abs);
  const plain = imageLook(positive, MEAN, STYLE);
  assert.deepEqual([plain.scale.low, plain.scale.high], [Math.min(...plain.values), Math.max(...plain.values)]);
  for (const constant of [0, 5, -2]) {
    positive.values = positive.values.map(() => constant);
    const { low, high } = imageLook({ ...positive }, 0, STYLE).scale;
    assert.ok(low < constant && constant < high);
  }
});

test("spectra span four decades below their strongest wave, or that of any channel", () => {
  const data = table();
  data.power.fill(0);
  data.power.set([100, 1, 0, 1e-9], 0);
  data.power[ROWS * COLS] = 10_000;
  const own = spectrumLook(data, 0, STYLE);
  assert.deepEqual(
    [0, 1, 2, 3].map((n) => positionOn(own.scale, own.values[n])),
    [1, 0.5, 0, 0],
  );
  assert.equal(
    own.power,
    data.power.subarray(0, ROWS * COLS).reduce((sum, x) => sum + x, 0),
  );
  const shared = spectrumLook(data, 0, { ...STYLE, shared: true });
  assert.equal(shared.scale.high, 10_000);
  assert.equal(meanSpectrumLook(data, STYLE).values, data.meanPower);
});

test("the grid shows the similarity with a position, or a query's cut on the scale of the whole image", () => {
  const data = table();
  const out = new Float32Array(ROWS * COLS + 1);
  const look = gridLook(data, [1, 2], { ...STYLE, centred: false, head: MEAN }, out);
  close(look.values[1 * COLS + 2], 1, 1e-6);
  assert.deepEqual([look.scale.low, look.scale.high], [Math.min(...look.values), Math.max(...look.values)]);
  const biases = bias();
  const cut = gridLook(biases, [1, 2], { ...STYLE, centred: false, head: 2 }, out);
  const expected = new Float32Array(ROWS * COLS);
  cutOf(biases, 2, 1, 2, expected);
  assert.deepEqual([...cut.values], [...expected]);
  assert.deepEqual(cut.scale, imageLook(biases, 2, STYLE).scale);
});

test("read-outs name the position, the offset and the wave", () => {
  const data = table();
  const out = new Float32Array(ROWS * COLS + 1);
  const look = gridLook(data, [1, 2], { ...STYLE, centred: false, head: MEAN }, out);
  assert.deepEqual(readoutOf(look, [1, 2], [1, 2], out[out.length - 1]), [
    "Position (1, 2)",
    "cosine 1.00 with (1, 2)",
  ]);
  assert.match(
    readoutOf(look, [1, 2], null, out[out.length - 1])[1],
    /^cosine over 0\.5: \d+ of 20 \u00b7 class token /,
  );
  const biases = bias();
  const cut = gridLook(biases, [3, 1], { ...STYLE, centred: false, head: 2 }, out);
  assert.match(
    readoutOf(cut, [3, 1], [0, 4], 0).join(": "),
    /^Query \(3, 1\): Head 2: \S+ at \u22123 down, \+3 right$/,
  );
  assert.match(imageBar(imageLook(biases, 0, STYLE), [3, 4], false).note, /^Head 0: \S+, key 0 down, 0 right$/);
  data.meanPower.fill(1);
  const spectrum = meanSpectrumLook(data, STYLE);
  assert.equal(spectrumText(spectrum, [0, 4]), "wave \u22122 down, +2 right: 5.0 % of the table's power");
  biases.ofPrefix?.set([1, 2, 3, 10, 20, 30, 100, 200, 300]);
  assert.match(biasText(biases, 1), /head 1: to patches 10.0, from patches 20.0, to itself 30.0/);
  assert.match(biasText(biases, MEAN), /mean of heads: to patches 37.0, from patches 74.0, to itself 111/);
});

test("the status line counts heads in singular and plural", () => {
  const one = { ...bias(), count: 1, height: 28, width: 42 };
  assert.match(describe(one), /of 1 head, grid of 4 \u00d7 5 tokens \(input of 28 \u00d7 42 pixels\)/);
  assert.match(describe({ ...one, count: 2, windowed: true }), /of 2 heads, windows of/);
  assert.match(describe(table()), /Table of 3 channels, 4 \u00d7 5 positions, resized/);
});

test("orders", () => {
  const data = message({
    kind: "table",
    count: 3,
    strength: Float32Array.of(1, 3, 2),
    frequency: Float32Array.of(5, 6, 4),
  });
  assert.deepEqual(imageOrder(data, "index"), [0, 1, 2]);
  assert.deepEqual(imageOrder(data, "strength"), [1, 2, 0]);
  assert.deepEqual(imageOrder(data, "frequency"), [2, 0, 1]);
  assert.deepEqual(imageOrder({ ...data, kind: "bias" }, "strength"), [MEAN, 1, 2, 0]);
});

test("a place leads to the cell that it lies in, on any grid", () => {
  for (let row = 0; row < ROWS; row++) {
    for (let col = 0; col < COLS; col++) {
      assert.deepEqual(cellAt({ rows: ROWS, cols: COLS }, middleOf({ rows: ROWS, cols: COLS }, [row, col])), [
        row,
        col,
      ]);
    }
  }
  assert.deepEqual(cellAt({ rows: 4, cols: 5 }, [1, 0]), [3, 0]);
  assert.deepEqual(stepCell({ rows: 4, cols: 5 }, [1, 3], -5, 1), [0, 4]);
  assert.deepEqual(cellAt({ rows: 37, cols: 49 }, middleOf({ rows: 4, cols: 5 }, [3, 0])), [32, 4]);
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
  const table = positionPython({ ...shot, centred: true, image: 5 });
  assert.match(table, /probes\.positions\(model, size=\(42, 70\)\)/);
  assert.match(table, /positions\.similarity\(\(1, 3\), centred=True\)/);
  assert.match(table, /positions\.spectrum\(\)\[5\]/);
  const about = { encoding: "bias", native: [80, 80] };
  const biased = positionPython({ about, data: { height: 80, width: 80, block: 2 }, cell: [0, 4], image: null });
  assert.match(biased, /probes\.positions\(model\)\n/);
  assert.match(biased, /biases\.from_query\(2, \(0, 4\)\)\.mean\("head"\)/);
});

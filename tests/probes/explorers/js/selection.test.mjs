// Pins of the attention explorer, what its maps show, and how it writes weights.

import assert from "node:assert/strict";
import test from "node:test";

import { barOf, formatSum, formatWeight, readoutOf } from "../../../../probes/explorers/attention/readout.js";
import { attentionScale } from "../../../../probes/explorers/attention/scales.js";
import { isFrozen, modeOf, tokensOf, withToggledPin } from "../../../../probes/explorers/attention/selection.js";
import { MapValues } from "../../../../probes/explorers/attention/values.js";

const cursor = 5;

test("the first click pins A, the second B, a third moves B, and a click on a pin releases it", () => {
  /** @type {import("../../../../probes/explorers/attention/selection.js").Selection} */
  let selection = { pins: [], compare: "a", cursor };
  const click = (token) => {
    selection = { ...selection, ...withToggledPin(selection, token) };
    return [selection.pins, selection.compare];
  };
  assert.deepEqual(click(7), [[7], "a"]);
  assert.deepEqual(click(9), [[7, 9], "difference"]);
  selection.compare = "b";
  assert.deepEqual(click(11), [[7, 11], "b"]);
  assert.deepEqual(click(7), [[11], "a"]);
  assert.deepEqual(click(11), [[], "a"]);
});

test("without pins the tiles follow the pointer; with one they do for B; with two they are frozen", () => {
  assert.deepEqual(tokensOf({ pins: [], compare: "b", cursor }), [5, 5]);
  assert.equal(modeOf({ pins: [], compare: "b", cursor }), "a");
  assert.equal(isFrozen({ pins: [], compare: "a", cursor }), false);
  assert.deepEqual(tokensOf({ pins: [7], compare: "b", cursor }), [7, 5]);
  assert.equal(isFrozen({ pins: [7], compare: "a", cursor }), true);
  assert.equal(isFrozen({ pins: [7], compare: "b", cursor }), false);
  assert.deepEqual(tokensOf({ pins: [7, 9], compare: "b", cursor }), [7, 9]);
  assert.equal(isFrozen({ pins: [7, 9], compare: "b", cursor }), true);
});

/** One head on two patches whose attention is uniform: queries are 0. */
const uniform = (lse) => ({
  ...{ block: 0, heads: 1, tokens: 2, dim: 1, rows: 1, cols: 2, prefix: 0, bias: null, windows: null, entropy: [] },
  ...{ q: new Float32Array(2), k: new Float32Array(2), lse: Float32Array.of(lse, lse) },
});

test("maps are computed once per block, token and direction", () => {
  const values = new MapValues();
  const block = uniform(Math.log(2));
  assert.deepEqual([...values.of(block, "row", [0, 1], "a")], [0.5, 0.5, 0.5, 0.5]);
  assert.equal(values.takeComputed(), true);
  values.of(block, "row", [0, 1], "a");
  assert.equal(values.takeComputed(), false);
  assert.deepEqual([...values.of(block, "row", [0, 1], "difference")], [0, 0, 0, 0]);
  assert.equal(values.takeComputed(), true); // B
  values.of(block, "column", [0, 1], "a");
  assert.equal(values.takeComputed(), true);
  values.of(uniform(Math.log(2)), "column", [0, 1], "a"); // another block
  assert.equal(values.takeComputed(), true);
});

test("weights are finer than a tile writes them only where a logarithmic scale reaches that far", () => {
  const plain = attentionScale("shared", 0.5, false);
  const log = attentionScale("log", 0.5, false);
  assert.equal(formatWeight(plain, 6.9e-23), "<0.01 %");
  assert.equal(formatWeight(log, 6.9e-23), "<0.01 %");
  assert.equal(formatWeight(log, 7e-5), "7.0e-3 %");
  assert.equal(formatWeight(plain, 0.034), "3.4 %");
  assert.equal(formatSum(1.2345), "\u03a3 1.23");
  assert.equal(formatSum(0.001), "\u03a3 <0.01");
});

test("the line under the picture names the strongest patch, and the bar the value that is read off", () => {
  const block = { ...uniform(0), heads: 1, tokens: 3, rows: 1, cols: 2, prefix: 1 };
  const values = Float32Array.of(0.5, 0.1, 0.4, 0.5, 0.1, 0.4);
  const map = { index: 1, name: "Mean", scale: attentionScale("head", 0.4, false) };
  /** @type {any} */
  const shown = { block, values, tokens: [1, 2], direction: "row" };
  const [name, text] = readoutOf(map, { ...shown, mode: "a" });
  assert.deepEqual([name, text], ["Patch (0, 0)", "Mean: strongest 40 % at (0, 1) \u00b7 entropy 0.94 nats"]);
  assert.equal(readoutOf(map, { ...shown, mode: "difference" })[0], "A (0, 0) \u2212 B (0, 1)");
  assert.equal(readoutOf(map, { ...shown, mode: "b" })[0], "Patch (0, 1)");
  const bar = barOf(map, { values, grid: block, token: 2, shared: false });
  assert.deepEqual([bar.at, bar.note], [1, "Mean at (0, 1): 40 %"]);
  assert.equal(barOf(map, { values, grid: block, token: -1, shared: true }).at, null);
});

// The readout of the depth explorer. test_depth_explorer.py compares the numbers with those that Python computes.

import assert from "node:assert/strict";
import test from "node:test";

import { areValid } from "../../../../probes/explorers/depth/distances.js";
import { decodeDepth, processed } from "../../../../probes/explorers/depth/numbers.js";
import {
  indexUnder,
  pixelWords,
  rangeWords,
  sizeWords,
  thresholdWords,
} from "../../../../probes/explorers/depth/readout.js";

const VALUES = Float32Array.of(0, 1, 2, 4);
const header = { name: "depth", width: 2, height: 2, metric: false };
const map = decodeDepth(header, VALUES.buffer);
const PICTURE = { width: 4, height: 4 }; // each pixel of the map is the mean of 2 x 2 pixels
const ALL = { far: 0, near: 1, plane: false, equalise: false };
const METRES = { nearest: 1, farthest: 20 };

test("a map with too few bytes is refused", () => {
  assert.throws(() => decodeDepth({ ...header, width: 3 }, VALUES.buffer), /depth.*6.*4/);
});

test("a pixel of the picture reads the pixel of the map that holds its centre", () => {
  assert.deepEqual(
    [0, 1, 2, 3].map((x) => indexUnder(map, PICTURE, [x, 2])),
    [2, 2, 3, 3],
  );
});

test("the readout gives depth, nearness and metres, and marks pixels outside the thresholds", () => {
  const words = (changes) => pixelWords([3, 3], PICTURE, [map], processed(map, { ...ALL, ...changes }), METRES);
  assert.equal(words({}), "Pixel (3, 3)   depth 4.000, nearness 1.000, 1.00 m");
  assert.match(words({ near: 0.5 }), /^Pixel \(3, 3\) \(cut away\) /);
  assert.match(pixelWords(null, PICTURE, [map], processed(map, ALL), METRES), /pointer/);
});

test("a metric map has metres of its own", () => {
  const metric = { ...map, metric: true };
  const words = pixelWords([0, 0], PICTURE, [metric], processed(metric, ALL), METRES);
  assert.equal(words, "Pixel (0, 0)   0 m");
});

test("thresholds, ranges and sizes in words", () => {
  const half = { ...ALL, far: 0.5 };
  assert.equal(thresholdWords(map, processed(map, half), half), "0.50 to 1.00: 50 % of the pixels");
  assert.match(thresholdWords(map, processed(map, { ...half, plane: true }), { ...half, plane: true }), /plane/);
  assert.equal(rangeWords(processed(map, half), half), "2.00 to 4.00");
  assert.equal(sizeWords(map, PICTURE), "2 \u00d7 2 means of 4 \u00d7 4 pixels");
  assert.equal(sizeWords(map, map), "2 \u00d7 2 pixels");
});

test("distances must be positive and in order", () => {
  assert.ok(areValid(METRES));
  for (const [nearest, farthest] of [
    [0, 20],
    [20, 20],
    [30, 20],
  ]) {
    assert.ok(!areValid({ nearest, farthest }));
  }
});

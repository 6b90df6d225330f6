// Depth maps of the fusion explorer: decoding, colouring, resampling. test_fusion_explorer.py compares the colours with
// those that Python computes.

import assert from "node:assert/strict";
import test from "node:test";
import {
  decodeMap,
  equalised,
  levelColours,
  paintLevels,
  valueOfLevel,
  valuesAt,
  valueUnder,
} from "../../../../probes/explorers/fusion/depth_map.js";
import { lookup } from "../../../../probes/explorers/shared/colours.js";
import { formatNumber } from "../../../../probes/explorers/shared/format.js";

const LEVELS = Uint16Array.of(0, 0, 0, 13107, 39321, 65535);
const header = { width: 3, height: 2, low: -1, high: 4, bits: 16 };
const map = decodeMap(header, LEVELS.buffer);

test("a map is read at any offset, in 16 and in 8 bits", () => {
  const frame = new Uint8Array(15);
  frame.set(new Uint8Array(LEVELS.buffer), 3); // an odd offset, as in a websocket frame
  assert.deepEqual(decodeMap(header, new DataView(frame.buffer, 3, 12)).levels, LEVELS);
  const bytes = Uint8Array.of(0, 0, 0, 51, 153, 255);
  assert.deepEqual(decodeMap({ ...header, bits: 8 }, bytes).levels, LEVELS);
  assert.equal(valueOfLevel(map, 65535), 4);
  assert.ok(Math.abs(valueOfLevel(map, 13107) - 0) < 1e-12);
});

test("a header that disagrees with its bytes is refused", () => {
  assert.throws(() => decodeMap({ ...header, width: 4 }, LEVELS.buffer), /16 bytes.*4 x 2.*16 bits.*12/);
  assert.throws(() => decodeMap({ ...header, width: 0 }, LEVELS.buffer), /width.*0/);
  assert.throws(() => decodeMap({ ...header, low: NaN }, LEVELS.buffer), /NaN to 4/);
});

function colours(options) {
  const out = new Uint32Array(6);
  const table = lookup("grey");
  paintLevels(map, levelColours(map, { table, flip: false, equalise: false, span: null, ...options }), out);
  return Array.from(out, (packed) => packed & 255);
}

test("colours cover the map's own range or a given one, in either direction", () => {
  assert.deepEqual(colours({}), [0, 0, 0, 51, 153, 255]);
  assert.deepEqual(colours({ flip: true }), [255, 255, 255, 204, 102, 0]);
  assert.deepEqual(colours({ span: [0, 2] }), [0, 0, 0, 0, 255, 255]);
});

test("equalisation puts the lowest level at 0, the highest at 1, and the others by their rank", () => {
  const unit = equalised(LEVELS);
  assert.deepEqual(
    [0, 13107, 39321, 65535].map((level) => Math.round(3 * unit[level])),
    [0, 1, 2, 3],
  );
  assert.deepEqual(colours({ equalise: true }), [0, 0, 0, 85, 170, 255]);
  assert.ok(equalised(Uint16Array.of(7, 7)).every((value) => value === 0)); // flat
});

test("values at another size keep their corners", () => {
  const larger = valuesAt(map, 5, 3);
  assert.equal(larger.length, 15);
  const near = (a, b) => assert.ok(Math.abs(a - b) < 1e-5, `${a} is not ${b}`);
  near(larger[0], -1);
  near(larger[14], 4);
  near(larger[12], 2); // under the middle of the second row
  near(larger[5], -0.5); // half-way down the left side, from -1 to 0
  near(valuesAt(map, 1, 1)[0], -1);
  assert.deepEqual(
    Array.from(valuesAt(map, 3, 2), (value) => Math.round(value)),
    [-1, -1, -1, 0, 2, 4],
  );
});

test("the value under a point, inside and outside the map", () => {
  assert.equal(valueUnder(map, 0.99, 0.99), 4);
  assert.equal(valueUnder(map, -3, 7), valueOfLevel(map, 13107)); // outside: the nearest
});

test("readouts show three significant digits and a true minus sign", () => {
  assert.deepEqual(
    [0, 1, -0.25, 12.345, 1234.5, 0.0001, -3e6].map((value) => formatNumber(value)),
    ["0", "1.00", "\u22120.250", "12.3", "1235", "1.0e-4", "\u22123.0e+6"],
  );
});

// Scales, statistics and number formats by hand.

import assert from "node:assert/strict";
import test from "node:test";

import { formatNumber, formatOffset } from "../../../../probes/explorers/shared/format.js";
import {
  colourise,
  depthScale,
  linearScale,
  logScale,
  positionOn,
  signedLogScale,
  signedScale,
  ticksOf,
  valueAt,
  widened,
} from "../../../../probes/explorers/shared/scale.js";
import { extent, maxMagnitude, sumOf } from "../../../../probes/explorers/shared/statistics.js";

const near = (actual, wanted) => assert.ok(Math.abs(actual - wanted) < 1e-12, `${actual} is not ${wanted}`);

test("positions and values are inverse on every scale", () => {
  for (const scale of [linearScale(-1, 4), signedScale(3), logScale(0.01, 100), signedLogScale(2, 3)]) {
    for (const t of [0, 0.1, 0.3, 0.6, 0.9, 1]) {
      assert.ok(Math.abs(positionOn(scale, valueAt(scale, t)) - t) < 1e-9, `${scale.kind} ${t}`);
    }
    assert.equal(positionOn(scale, -1e9), 0);
    assert.equal(positionOn(scale, 1e9), 1);
  }
});

test("positions by hand", () => {
  near(positionOn(linearScale(2, 4), 2.5), 0.25);
  near(positionOn(signedScale(2), 0), 0.5);
  near(positionOn(logScale(0.01, 100), 1), 0.5);
  assert.equal(positionOn(logScale(0.01, 100), 0), 0); // no logarithm: at the bottom
  assert.equal(positionOn(logScale(0.01, 100), -5), 0);
  near(positionOn(signedLogScale(1, 2), -0.1), 0.25);
  near(positionOn(signedLogScale(1, 2), 0.005), 0.5); // under two decades: the middle
});

test("a logarithmic scale spans its decades at most, and is linear without positive values", () => {
  near(logScale(0, 10, 4).low, 1e-3);
  near(logScale(5, 10, 4).low, 5);
  assert.equal(logScale(-2, 0).kind, "linear");
});

test("a constant array lies in the middle, and gets room for a colour bar", () => {
  assert.equal(positionOn(linearScale(3, 3), 3), 0.5);
  const out = new Uint32Array(2);
  colourise(
    Float32Array.of(3, 3),
    0,
    2,
    linearScale(3, 3),
    Uint32Array.from({ length: 256 }, (_, n) => n),
    out,
  );
  assert.deepEqual([...out], [128, 128]);
  const { low, high } = widened({ low: 3, high: 3 });
  assert.ok(low < 3 && high > 3);
  assert.deepEqual(widened({ low: 3, high: 4 }), { low: 3, high: 4 });
});

test("a scale without finite ends in order is refused", () => {
  for (const [low, high] of [
    [1, 0],
    [NaN, 1],
    [0, Infinity],
  ]) {
    assert.throws(() => linearScale(low, high), new RegExp(`got ${low} and ${high}`));
  }
});

test("ticks lie at equal distances and name values", () => {
  assert.deepEqual(ticksOf(linearScale(0, 4), 3, String), [
    [0, "0"],
    [0.5, "2"],
    [1, "4"],
  ]);
});

test("statistics of a stretch leave out what lies around it", () => {
  const values = Float32Array.of(90, -1, 3, 2, -90);
  assert.deepEqual(extent(values, 1, 3), { low: -1, high: 3 });
  assert.deepEqual(extent(values), { low: -90, high: 90 });
  assert.equal(sumOf(values, 1, 3), 4);
  assert.equal(maxMagnitude(values, 1, 3), 3);
});

test("numbers for people: three significant digits", () => {
  /** @type {[number, string][]} */
  const cases = [
    [0, "0"],
    [1, "1.00"],
    [0.01234, "0.0123"],
    [4.56, "4.56"],
    [78.94, "78.9"],
    [99.96, "100"],
    [1234.4, "1234"],
    [123456, "1.2e+5"],
    [-0.00078, "\u22127.8e-4"],
  ];
  for (const [value, text] of cases) assert.equal(formatNumber(value), text);
  assert.equal(formatNumber(12.345, 4), "12.35");
  assert.deepEqual([2, 0, -1].map(formatOffset), ["+2", "0", "\u22121"]);
});

test("on a flat depth map every pixel takes the lowest colour", () => {
  assert.equal(positionOn(depthScale(3, 3), 3), 0);
  assert.equal(positionOn(depthScale(1, 3), 3), 1);
});

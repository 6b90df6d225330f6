// Settings of the fusion explorer: limits, steps of a page, the way between two settings, names and Python.

import assert from "node:assert/strict";
import test from "node:test";

import {
  between,
  byName,
  heldSteps,
  inOrder,
  limitScale,
  nearestStep,
  sameScales,
  settingName,
  settingPython,
} from "../../../../probes/explorers/fusion/setting.js";

test("scales by point and in order", () => {
  const points = ["reassembly.3", "fusion.3"];
  assert.deepEqual(inOrder(points, { "fusion.3": -2 }), [1, -2]);
  assert.deepEqual(byName(points, [1, -2]), { "reassembly.3": 1, "fusion.3": -2 });
  assert.ok(sameScales([1, -2], [1, -2]));
  assert.ok(!sameScales([1, -2], [1, 2]));
  assert.ok(!sameScales(null, null));
});

test("a scale stays within reach, has two decimals and no negative zero", () => {
  assert.deepEqual(
    [7, -7, 0.123, -0.001].map((value) => limitScale(value, 5)),
    [5, -5, 0.12, 0],
  );
  assert.ok(Object.is(limitScale(-0.001, 5), 0));
});

test("a page goes to the step nearest to a value; its saved scale is a step", () => {
  assert.deepEqual(heldSteps([-1, 0, 1], 2), [-1, 0, 1, 2]);
  assert.deepEqual(heldSteps([-1, 0, 1], 0), [-1, 0, 1]);
  assert.equal(nearestStep([-1, 0, 1, 2], 1.6), 2);
  assert.equal(nearestStep([-1, 0, 1, 2], -40), -1);
});

test("the way between two settings is straight", () => {
  assert.deepEqual(between([1, 1], [1, -2], 0.5), [1, -0.5]);
  assert.deepEqual(between([1, 1], [1, -2], 1), [1, -2]);
});

test("a setting has a file name and Python", () => {
  const points = ["reassembly.3", "fusion.3", "fusion.2"];
  assert.equal(settingName(points, [1, 1, 1]), "depth_unscaled");
  assert.equal(settingName(points, [1, -0.5, 2]), "depth_fusion3x-0.5_fusion2x2");
  assert.equal(settingPython(points, [1, 1, 1], "model.predict(image)"), "depth = model.predict(image)\n");
  assert.match(
    settingPython(points, [1, -0.5, 1], "model.predict(image)"),
    /edit\(model, \{"fusion\.3": probes\.scale\(-0\.5\)\}\)/,
  );
});

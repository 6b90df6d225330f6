// Settings of the fusion explorer: limits, steps of a page, the way between two settings, names and Python.

import assert from "node:assert/strict";
import test from "node:test";

import {
  between,
  byName,
  inOrder,
  moved,
  sameScales,
  settingName,
  settingPython,
  stepped,
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
  const to = (value) => moved({ reach: 5 }, [1, 2], 0, value);
  assert.deepEqual([7, -7, 0.123].map(to), [
    [5, 2],
    [-5, 2],
    [0.12, 2],
  ]);
  assert.ok(Object.is(to(-0.001)[0], 0));
  assert.equal(stepped({ reach: 5 }, [1, 2], 1, -0.1), 1.9);
});

test("a page moves one slider at a time, between its steps and the saved scale", () => {
  const page = { reach: 5, steps: [-1, 0, 1], from: [2, 1] };
  assert.deepEqual(moved(page, [2, 0], 0, 1.6), [2, 1]); // the other slider goes back
  assert.deepEqual(moved(page, [2, 1], 0, 1.4), [1, 1]);
  assert.deepEqual(moved(page, [2, 1], 0, -40), [-1, 1]);
  assert.equal(stepped(page, [1, 1], 0, 0.01), 2);
  assert.equal(stepped(page, [2, 1], 0, 0.01), 2); // the last one
  assert.equal(stepped(page, [2, 1], 0, -0.1), 1);
});

test("the way between two settings is straight", () => {
  assert.deepEqual(between([1, 1], [1, -2], 0.5), [1, -0.5]);
  assert.deepEqual(between([1, 1], [1, -2], 1), [1, -2]);
});

test("a setting has a file name and Python", () => {
  const points = ["reassembly.3", "fusion.3", "fusion.2"];
  assert.equal(settingName(points, [1, 1, 1]), "depth_unscaled");
  assert.equal(settingName(points, [1, -0.5, 2]), "depth_fusion3x-0.5_fusion2x2");
  assert.equal(
    settingPython(points, [1, 1, 1], { call: "model.predict(image)" }),
    "shown_depth = model.predict(image)\n",
  );
  assert.match(
    settingPython(points, [1, -0.5, 1], { call: "model.predict(image)" }),
    /edit\(model, \{"fusion\.3": probes\.scale\(-0\.5\)\}\)/,
  );
});

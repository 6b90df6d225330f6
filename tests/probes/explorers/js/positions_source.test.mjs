// What the position explorer reports about its data.

import assert from "node:assert/strict";
import test from "node:test";

import { PositionSource } from "../../../../probes/explorers/positions/source.js";

test("one head, two heads", () => {
  const source = new PositionSource(/** @type {any} */ ({ get: () => null, on: () => null }));
  source.about = { encoding: "bias" };
  for (const count of [1, 2]) {
    const words = count === 1 ? "1 head," : "2 heads,";
    source.data = { count, block: 0, rows: 2, cols: 3, height: 28, width: 42 };
    (source.reportReady ?? source.ready).call(source);
    assert.ok(source.link.status.text.includes(words), source.link.status.text);
  }
});

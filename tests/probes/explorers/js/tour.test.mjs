// The diagram of the tour: which boxes its arrows join, and where they end.

import assert from "node:assert/strict";
import test from "node:test";

import { arrowPaths, blocksOf, linksOf, partsOf } from "../../../../probes/explorers/tour/links.js";

const part = (kind, number = 0, name = `${kind}.${number}`) => ({ kind, number, name });
const PARTS = [
  ...["picture", "input", "patches", "embedding", "tokens", "readout", "head", "depth"].map((kind) =>
    part(kind, 0, kind),
  ),
  ...[3, 2, 1, 0].flatMap((n) => [part("stage", n), part("reassembly", n), part("fusion", n)]),
];
const LINKS = linksOf(PARTS);

test("parts of a kind are in the order of their numbers", () => {
  assert.deepEqual(
    partsOf(PARTS, "fusion").map(({ name }) => name),
    ["fusion.0", "fusion.1", "fusion.2", "fusion.3"],
  );
});

test("arrows follow the forward pass from the picture to the depth", () => {
  const next = (from) => LINKS.filter((link) => link.from === from).map(({ to }) => to);
  assert.deepEqual(next("picture"), ["input"]);
  assert.deepEqual(next("tokens"), [blocksOf(0)]);
  assert.deepEqual(next(blocksOf(0)).sort(), [blocksOf(1), "stage.0"].sort());
  assert.deepEqual(next("readout"), ["reassembly.0", "reassembly.1", "reassembly.2", "reassembly.3"]);
  assert.deepEqual(next("fusion.3"), ["fusion.2"]);
  assert.deepEqual(next("fusion.0"), ["head"]);
  assert.deepEqual(next("head"), ["depth"]);
  assert.deepEqual(next("depth"), []);
});

test("an arrow runs between the edges of two boxes", () => {
  const box = (left, top) => ({ left, top, width: 20, height: 10 });
  assert.equal(arrowPaths(box(0, 0), box(50, 0), "right").line, "M22 5H43");
  assert.equal(arrowPaths(box(50, 0), box(0, 0), "left").line, "M48 5H27");
  assert.equal(arrowPaths(box(0, 0), box(0, 40), "down").line, "M10 12V33");
  assert.equal(arrowPaths(box(50, 0), box(0, 40), "down").line, "M60 12V28H10V33");
  assert.equal(arrowPaths(box(0, 0), box(50, 0), "right").tip, "M43 1L43 9L49 5Z");
});

test("an arrow to or from a wide bar is vertical, at the narrow box", () => {
  const bar = { left: 0, top: 40, width: 200, height: 10 };
  const box = (top) => ({ left: 150, top, width: 20, height: 10 });
  assert.equal(arrowPaths(box(0), bar, "to-bar").line, "M160 12V33");
  assert.equal(arrowPaths(bar, box(80), "from-bar").line, "M160 52V73");
});

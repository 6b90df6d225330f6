// Tokens over an image.

import assert from "node:assert/strict";
import test from "node:test";

import * as patches from "../../../../probes/explorers/shared/patches.js";

test("patches under a point, and steps from patch to patch", () => {
  const grid = { rows: 4, cols: 5, prefix: 2 };
  assert.equal(patches.patchAt(grid, 0, 0), 2);
  assert.equal(patches.patchAt(grid, 0.999, 0.999), 21);
  assert.equal(patches.patchAt(grid, 1, 1.2), 21); // on and beyond the border: the nearest patch
  assert.equal(patches.patchAt(grid, 0.4, 0.25), 2 + 5 + 2); // a border belongs to the patch after it
  assert.equal(patches.stepToken(grid, 9, -1, 0), 4);
  assert.equal(patches.stepToken(grid, 9, 0, 1), 10);
  assert.equal(patches.stepToken(grid, 2, -1, -1), 2);
  assert.equal(patches.stepToken(grid, 2, 50, 50), 21);
  assert.equal(patches.stepToken(grid, 1, 0, 1), 2);
  assert.equal(patches.tokenName(grid, 0), "cls");
  assert.equal(patches.tokenName(grid, 1), "r1");
  assert.equal(patches.tokenName(grid, 9), "(1, 2)");
});

test("a token maps to the patch of another grid that covers its centre, also for odd ratios", () => {
  const [fine, coarse, thirds] = [
    { rows: 8, cols: 12, prefix: 0 },
    { rows: 4, cols: 6, prefix: 0 },
    { rows: 3, cols: 4, prefix: 0 },
  ];
  assert.equal(patches.sameSpot(coarse, fine, 5 * 12 + 11), 2 * 6 + 5);
  assert.equal(patches.sameSpot(fine, coarse, 2 * 6 + 5), 5 * 12 + 11); // between four patches: the one below and to the right
  assert.equal(patches.sameSpot(thirds, fine, 7 * 12 + 3), 2 * 4 + 1);
  for (let token = 0; token < 96; token++) assert.equal(patches.sameSpot(fine, fine, token), token);
  const withClass = { rows: 2, cols: 2, prefix: 1 };
  assert.equal(patches.sameSpot({ ...withClass, rows: 4, cols: 4 }, withClass, 0), 0);
  assert.equal(patches.sameSpot({ ...withClass, rows: 4, cols: 4 }, withClass, 1), 1 + 4 + 1);
});

test("tiles are as large as the space allows, and never smaller than the limit", () => {
  for (const count of [2, 4, 7, 13, 17, 25]) {
    for (const width of [330, 570, 860]) {
      const { columns, tile } = patches.tileLayout(count, width, 500, 0.75, 10, 22, 72);
      assert.ok(columns * tile + (columns - 1) * 10 <= width, `${count} tiles in ${width}`);
      assert.ok(tile >= 72);
    }
  }
  assert.deepEqual(patches.tileLayout(4, 570, 500, 0.9, 10, 22, 72), { columns: 2, tile: 247 });
});

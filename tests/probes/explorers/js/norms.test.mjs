// The numbers and the layout of the norm explorer, checked by hand. test_norm_explorer.py compares them with Python.

import assert from "node:assert/strict";
import test from "node:test";

import {
  decodeNorms,
  decodeTokens,
  similarityWith,
  strongestChannel,
} from "../../../../probes/explorers/norms/blocks.js";
import { histogram } from "../../../../probes/explorers/norms/histogram.js";
import { normLayout } from "../../../../probes/explorers/norms/layout.js";
import { centreAndSpread, outliersOf, outlineOf, tokensAbove } from "../../../../probes/explorers/norms/outliers.js";
import { barOf, readoutOf } from "../../../../probes/explorers/norms/readout.js";
import {
  channelMap,
  nameOf,
  normMap,
  normScales,
  similarityMap,
} from "../../../../probes/explorers/norms/shown_map.js";
import { positionOn } from "../../../../probes/explorers/shared/scale.js";

/** Part of a message, as far as a test needs it. @returns {any} */
const message = (fields) => fields;
const floats = (...values) => Float32Array.from(values);

test("blocks of different grids are cut out of one run of numbers", () => {
  const header = message({
    prefix: 1,
    numbers: [3, 7],
    blocks: [
      [2, 3, 8],
      [1, 2, 16],
    ],
  });
  const all = floats(9, 1, 2, 3, 4, 5, 6, 70, 8, 7);
  const [first, second] = decodeNorms(header, [all.buffer]);
  assert.deepEqual([first.block, second.block], [3, 7]);
  assert.deepEqual([...first.values], [9, 1, 2, 3, 4, 5, 6]);
  assert.deepEqual([first.low, first.high], [1, 6]); // the class token is not among them
  assert.deepEqual([...second.values], [70, 8, 7]);
  assert.deepEqual([second.rows, second.cols, second.channels, second.low, second.high], [1, 2, 16, 7, 8]);
  assert.throws(() => decodeNorms(header, [floats(1, 2, 3).buffer]), /10 .*got 3/);
});

test("channels are halves times their unit", () => {
  const part = Uint16Array.of(0x3c00, 0xc000, 0x4200, 0x0000); // 1 -2 3 0
  const { values } = decodeTokens(message({ block: 0, channels: 2, tokens: 2, unit: 4 }), [part.buffer]);
  assert.deepEqual([...values], [4, -8, 12, 0]);
  assert.equal(strongestChannel({ channels: 2, tokens: 2, values }, 0), 1);
  assert.equal(strongestChannel({ channels: 2, tokens: 2, values }, 1), 0);
  assert.throws(() => decodeTokens(message({ channels: 3, tokens: 2, unit: 1 }), [part.buffer]), /6 .*got 4/);
});

test("median and MAD by hand, prefix tokens left out", () => {
  const { median, spread } = centreAndSpread(floats(1000, 2, 40, 3, 1, 4, 5, 2, 4), 1);
  assert.deepEqual([median, spread], [3.5, 1.5]);
  assert.deepEqual(tokensAbove(floats(1000, 2, 40, 3, 1, 4, 50), 1, 3.5), [6, 2, 5]);
  assert.equal(centreAndSpread(floats(7, 7, 7), 0).spread, 0);
  assert.ok(centreAndSpread(floats(7, 7, 7, 7, 9), 0).spread > 0);
});

test("an outline is around the set, not around each patch", () => {
  assert.deepEqual(outlineOf([4], 3, 3), [
    [1, 1, 2, 1],
    [1, 2, 2, 2],
    [1, 1, 1, 2],
    [2, 1, 2, 2],
  ]);
  assert.equal(outlineOf([3, 4], 3, 3).length, 6); // two patches side by side: no line between them
  assert.equal(outlineOf([2, 3], 2, 3).length, 8); // end of a row and beginning of the next: no neighbours
  assert.equal(outlineOf([0, 1, 2, 3, 4, 5], 2, 3).length, 10);
  assert.deepEqual(outlineOf([], 3, 3), []);
});

test("histograms hold every value, the largest in the last bin", () => {
  assert.deepEqual([...histogram(floats(0, 1, 2, 3, 4), 0, 4, 4)], [1, 1, 1, 2]);
  assert.deepEqual([...histogram(floats(5, 5), 5, 5, 3)], [2, 0, 0]);
});

/** Two blocks of 2 x 2 patches behind a class token. */
function blocks() {
  const header = message({
    prefix: 1,
    numbers: [3, 7],
    blocks: [
      [2, 2, 2],
      [2, 2, 2],
    ],
  });
  return decodeNorms(header, [floats(90, 2, 4, 6, 8, 80, 1, 10, 3, 100).buffer]);
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => n);

test("scales of norm maps span a block, all blocks, or all blocks by logarithm; prefix tokens take no part", () => {
  const ends = (mode) => normScales(blocks(), mode).map(({ kind, low, high }) => [kind, low, high]);
  assert.deepEqual(ends("block"), [
    ["linear", 2, 8],
    ["linear", 1, 100],
  ]);
  assert.deepEqual(ends("shared"), [
    ["linear", 1, 100],
    ["linear", 1, 100],
  ]);
  assert.deepEqual(ends("log"), [
    ["log", 1, 100],
    ["log", 1, 100],
  ]);
  assert.ok(Math.abs(positionOn(normScales(blocks(), "log")[0], 10) - 0.5) < 1e-12);
});

test("a channel spans its largest magnitude on both sides of 0; a centred similarity spans -1 to 1", () => {
  const [block] = blocks();
  const data = {
    block: 3,
    channels: 2,
    tokens: 5,
    values: floats(50, 1, -2, 0.5, 0, 7, 0, 3, 4, 0),
    frames: new Map(),
  };
  const channel = channelMap(block, data, 0, "difference");
  assert.deepEqual([channel.scale.low, channel.scale.high, channel.signed], [-2, 2, true]);
  assert.deepEqual([...channel.patches], [1, -2, 0.5, 0]);
  assert.deepEqual([...channel.values], [50, 1, -2, 0.5, 0]);
  const plain = similarityMap(block, data, 1, false, "difference", TABLE);
  assert.equal(plain.scale.high, Math.max(...plain.patches));
  assert.equal(plain.table, TABLE);
  const centred = similarityMap(block, data, 1, true, "difference", TABLE);
  assert.deepEqual([centred.scale.low, centred.scale.high, centred.signed], [-1, 1, true]);
  assert.deepEqual(
    [channel, plain, centred].map((map) => nameOf(map)),
    ["channel 0", "similarity with (0, 0)", "centred similarity with (0, 0)"],
  );
});

test("the read-out names the token, its norm and how far it is from the median", () => {
  const [block] = blocks();
  const outliers = outliersOf(block, 1.2);
  assert.deepEqual([outliers.threshold, outliers.tokens], [7.4, [4]]); // median 5, deviation 2
  const reading = { block, outliers, map: normMap(block, normScales([block], "block")[0], TABLE) };
  assert.deepEqual(readoutOf({ ...reading, token: 4 }), [
    "Patch (1, 1)",
    "block 3: norm 8.00 \u00b7 outlier, 1.5 MAD above the median",
  ]);
  assert.deepEqual(readoutOf({ ...reading, token: 0 }), ["Token cls", "block 3: norm 90.0"]);
  const bar = barOf({ ...reading, token: 1 }, { scale: reading.map.scale, table: TABLE, shared: false });
  assert.deepEqual([bar.at, bar.ticks.length, bar.note], [0, 5, "Block 3; each block has its own range"]);
  assert.equal(barOf({ ...reading, token: 0 }, { scale: reading.map.scale, table: TABLE, shared: true }).at, null);
});

test("on a phone, more maps of a tall picture stand in a row", () => {
  assert.deepEqual(
    [0.66, 3].map((aspect) => normLayout(336, aspect, 12, false).columns),
    [3, 4],
  );
});

test("everything fits, at any width, for 4 to 40 blocks", () => {
  for (const width of [300, 500, 700, 1000, 1600]) {
    for (const blocks of [4, 7, 12, 24, 40]) {
      for (const aspect of [0.6, 1, 1.6]) {
        for (const enlarged of [false, true]) {
          const place = normLayout(width, aspect, blocks, enlarged);
          const room = place.beside ? width - place.left - 24 : width;
          const what = JSON.stringify({ width, blocks, aspect, enlarged, place });
          assert.ok(place.picture > 0 && place.picture <= width, what);
          assert.ok(place.columns * (place.tile + 10) - 10 <= room, what);
          assert.ok(place.tile >= 60, what);
          if (enlarged) assert.ok(place.big >= 100 && place.big <= room, what);
        }
      }
    }
  }
});

test("similarity is the cosine of two tokens' channels, less the patches' mean where it is centred", () => {
  const [channels, tokens, prefix] = [5, 7, 1]; // channels in fours and one over
  const values = Float32Array.from({ length: channels * tokens }, (_, n) => Math.sin(3 * n) + (n < tokens ? 4 : 0));
  for (const centred of [false, true]) {
    const mean = Array.from({ length: channels }, (_, c) => {
      const of = values.subarray(c * tokens + prefix, (c + 1) * tokens);
      return centred ? of.reduce((sum, value) => sum + value, 0) / of.length : 0;
    });
    const vector = (t) => mean.map((m, c) => values[c * tokens + t] - m);
    const dot = (a, b) => a.reduce((sum, value, c) => sum + value * b[c], 0);
    const data = { block: 0, channels, tokens, values, frames: new Map() };
    for (const at of [0, 1, 4]) {
      const found = similarityWith(data, prefix, at, centred);
      for (let t = 0; t < tokens; t++) {
        const [a, b] = [vector(at), vector(t)];
        const wanted = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
        assert.ok(Math.abs(found[t] - wanted) < 1e-5, `${found[t]} is not ${wanted}`);
      }
    }
  }
  const flat = { block: 0, channels: 2, tokens: 3, values: floats(0, 1, 2, 0, 1, 2), frames: new Map() }; // the first token has no length
  assert.deepEqual([...similarityWith(flat, 0, 0, false)], [0, 0, 0]);
  assert.equal(similarityWith(flat, 0, 1, false)[0], 0);
});

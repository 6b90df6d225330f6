// Bytes, colours and formats against numpy and matplotlib (goldens.py).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { decodeHalf } from "../../../../probes/explorers/shared/bytes.js";
import { cssColour, lookup } from "../../../../probes/explorers/shared/colours.js";
import { formatPercent, formatShortPercent } from "../../../../probes/explorers/shared/format.js";
import { crc32 } from "../../../../probes/explorers/shared/png.js";

const golden = JSON.parse(readFileSync(new URL("../../../data/explorer_numbers.json", import.meta.url), "utf8"));
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));

test("every half becomes the float that numpy makes of it", () => {
  const values = decodeHalf(Uint16Array.from({ length: 65536 }, (_, n) => n));
  let nan = 0;
  for (let n = 0; n < values.length; n++) {
    if (Number.isNaN(values[n])) {
      nan += 1;
      values[n] = 0;
    }
  }
  assert.equal(nan, golden.half.nan);
  assert.equal(crc32(new Uint8Array(values.buffer)), golden.half.crc32);
  values[0x3c01] += 2 ** -23; // control: the smallest change of one number is seen
  assert.notEqual(crc32(new Uint8Array(values.buffer)), golden.half.crc32);
});

test("halves are read from views at any byte offset, as Jupyter passes them", () => {
  const frame = new Uint8Array([0xff, 0x00, 0x3c, 0x00, 0xc0, 0xff]); // 1.0 and -2.0 from byte 1 on
  assert.deepEqual([...decodeHalf(new DataView(frame.buffer, 1, 4))], [1, -2]);
  assert.throws(() => decodeHalf(new Uint8Array(3)), /2 bytes per number, got 3/);
  // @ts-expect-error: not a part of a message
  assert.throws(() => decodeHalf([1, 2]), /expected an ArrayBuffer/);
});

test("colour tables are matplotlib's, opaque", () => {
  for (const [name, text] of Object.entries(golden.colormaps)) {
    const wanted = bytes(text);
    const table = lookup(name);
    for (let n = 0; n < 256; n++) {
      const packed = table[n];
      assert.deepEqual(
        [packed & 255, (packed >> 8) & 255, (packed >> 16) & 255, packed >>> 24],
        [...wanted.subarray(3 * n, 3 * n + 3), 255],
        `${name} ${n}`,
      );
    }
  }
  assert.equal(cssColour(lookup("grey"), 17), "rgb(17, 17, 17)");
  assert.throws(() => lookup("jet"), /viridis, .*got "jet"/);
});

test("percentages for people", () => {
  /** @type {[number, string][]} */
  const cases = [
    [0, "0 %"],
    [1, "100 %"],
    [0.1234, "12 %"],
    [0.034, "3.4 %"],
    [0.0056, "0.56 %"],
    [0.00012, "0.012 %"],
    [7.8e-7, "7.8e-5 %"],
    [-0.034, "\u22123.4 %"],
  ];
  for (const [value, text] of cases) assert.equal(formatPercent(value), text);
  assert.equal(formatShortPercent(3e-6), "<0.01 %");
  assert.equal(formatShortPercent(-3e-6), "~0 %");
  assert.equal(formatShortPercent(0.00012), "0.01 %");
});

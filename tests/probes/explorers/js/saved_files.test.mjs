// Saved files: what they are called, what they say about themselves, and that colours do not change numbers.

import assert from "node:assert/strict";
import test from "node:test";
import { looksOf } from "../../../../probes/explorers/depth/looks.js";
import { decodeDepth, processed } from "../../../../probes/explorers/depth/numbers.js";
import { savedTitle, savedValues, stateName } from "../../../../probes/explorers/depth/saving.js";
import { lookup } from "../../../../probes/explorers/shared/colours.js";
import { csv } from "../../../../probes/explorers/shared/files.js";
import { namedAfter, originArrays, originTexts, safeName } from "../../../../probes/explorers/shared/origin.js";
import { withTexts } from "../../../../probes/explorers/shared/png.js";
import { labelledTicks, TICK_GAP } from "../../../../probes/explorers/shared/ticks.js";

const ORIGIN = { model: "Depth-Anything V2 ViT-S, demo", image: 'my "photo", 1.jpeg', software: "DPT Workbench 1" };
const ALL = { far: 0, near: 1, plane: false, equalise: false };
// Not on a plane: 2 x 3 pixels.
const mapOf = (metric, values = [0, 1, 2, 4, 5, 9]) =>
  decodeDepth({ name: "depth", width: 3, height: 2, metric }, Float32Array.from(values).buffer);

const STYLE = { shared: false, colormap: "magma", dark: false };

test("even colours do not change the saved depth", () => {
  const map = mapOf(false);
  for (const changes of [{}, { far: 0.3 }, { near: 0.5 }, { plane: true }, { plane: true, far: 0.1 }]) {
    const plain = savedValues(processed(map, { ...ALL, ...changes }));
    const even = processed(map, { ...ALL, ...changes, equalise: true });
    assert.deepEqual(savedValues(even), plain);
    assert.notDeepEqual(even.shown, plain);
    assert.ok(plain instanceof Float32Array);
  }
  assert.deepEqual([...savedValues(processed(map, { ...ALL, equalise: true }))], [0, 1, 2, 4, 5, 9]);
  assert.deepEqual([...savedValues(processed(map, { ...ALL, far: 0.2, equalise: true }))], [NaN, NaN, 2, 4, 5, 9]);
});

test("names of depth files tell what was done to the map, and not how it is coloured", () => {
  const map = mapOf(false);
  const nameOf = (changes) => {
    const processing = { ...ALL, ...changes };
    return stateName(map, processed(map, processing), processing);
  };
  assert.equal(nameOf({}), "depth");
  assert.equal(nameOf({ equalise: true }), "depth");
  assert.equal(nameOf({ far: 0.1, plane: true }), "depth_0.10-1.00_minus-plane");
  assert.equal(stateName({ ...map, name: "140 px" }, processed(map, ALL), ALL), "depth_140-px");
  const processing = { ...ALL, near: 0.5, equalise: true };
  const title = savedTitle(["picture", "depth"], processed(map, processing), processing);
  assert.equal(title, "Picture and depth, nearness 0.00 to 0.50, even colours");
});

test("two depth maps share a range unless each has its own, and the bar says which", () => {
  const maps = [mapOf(false), mapOf(false, [1, 2, 3, 4, 5, 20])];
  const pairs = maps.map((map) => /** @type {const} */ ([map, processed(map, ALL)]));
  const style = { shared: true, colormap: "magma", dark: false };
  const ends = (looks) => looks.map(({ scale }) => [scale.low, scale.high]);
  assert.deepEqual(ends(looksOf(pairs, ALL, style)), [
    [0, 20],
    [0, 20],
  ]);
  const own = looksOf(pairs, ALL, { ...style, shared: false });
  assert.deepEqual(ends(own), [
    [0, 9],
    [1, 20],
  ]);
  assert.match(looksOf(pairs, ALL, style)[0].note, /inverse depth.*one range/);
  assert.match(own[0].note, /own range/);
  assert.doesNotMatch(looksOf(pairs.slice(1), ALL, style)[0].note, /range/);
});

test("depth above a plane has zero in the middle and near in red, also in metres", () => {
  for (const metric of [false, true]) {
    const map = mapOf(metric);
    const processing = { ...ALL, plane: true };
    const [{ scale, table, note }] = looksOf([[map, processed(map, processing)]], processing, {
      shared: true,
      colormap: "magma",
      dark: false,
    });
    assert.equal(scale.low, -scale.high);
    const colours = lookup("difference");
    assert.equal(table[255], colours[metric ? 0 : 255]);
    assert.match(note, metric ? /metres minus the plane/ : /inverse depth minus the plane/);
  }
  const metres = looksOf([[mapOf(true), processed(mapOf(true), ALL)]], ALL, STYLE);
  assert.equal(metres[0].table[0], lookup("magma")[255]); // small is near and bright
  const even = looksOf(
    [[mapOf(false), processed(mapOf(false), { ...ALL, equalise: true })]],
    { ...ALL, equalise: true },
    STYLE,
  );
  assert.deepEqual(even[0].ticks, [
    [0, "0"],
    [1, "9.00"],
  ]);
});

test("file names carry the image's name on every system", () => {
  assert.equal(namedAfter("depth", ORIGIN), "depth_my-photo-1");
  assert.equal(namedAfter("depth", { image: "" }), "depth");
  assert.equal(namedAfter("depth", { image: "v1.2.tar" }), "depth_v1.2");
  assert.equal(safeName("../../etc/passwd"), "etc-passwd");
  assert.equal(safeName("Gärten 写真.x"), "Gärten-写真.x");
  assert.equal(safeName('con:*?"<>|\n\u0000x'), "con-x");
  assert.equal(Array.from(safeName("𝒳".repeat(300))).length, 60);
});

test("files name their model and image", () => {
  const { model, image, meta } = originArrays(ORIGIN, { title: "A", unit: "m", block: 0, pin: null });
  assert.deepEqual([model, image], [[ORIGIN.model], [ORIGIN.image]]);
  assert.deepEqual(JSON.parse(meta[0]), { title: "A", unit: "m", block: 0, ...ORIGIN });
  const texts = originTexts({ ...ORIGIN, image: "" }, { title: "B" });
  assert.deepEqual([texts.Title, texts.Software], ["B", ORIGIN.software]);
  assert.deepEqual(JSON.parse(texts.Description), { model: ORIGIN.model, software: ORIGIN.software });
});

test("texts of a PNG are Latin-1 where they can be, else UTF-8", () => {
  const png = Uint8Array.from({ length: 40 }, (_, n) => n);
  const [head, latin, wide, rest] = withTexts(png, { Title: "A \u00d7 B", Author: "写真" });
  assert.deepEqual([...head, ...rest], [...png]);
  assert.equal(head.length, 33);
  const text = (bytes) => Buffer.from(bytes).toString("latin1", 4).replaceAll("\0", "|");
  assert.ok(text(latin).startsWith("tEXtTitle|A \u00d7 B"));
  assert.ok(text(wide).startsWith("iTXtAuthor|||||"));
  assert.ok(Buffer.from(wide).includes(Buffer.from("写真", "utf8")));
});

test("cells of a table keep commas, quotes and line breaks", () => {
  assert.equal(csv(["a", "b"], [[1, 'x, "y"\nz']]), 'a,b\n1,"x, ""y""\nz"\n');
});

test("labels of a colour bar do not touch, and both ends come first", () => {
  const sizeOf = (text) => 6 * text.length;
  const ticks = ["0.0068 %", "0.068 %", "0.68 %", "6.8 %", "68 %"].map(
    (text, n) => /** @type {[number, string]} */ ([n / 4, text]),
  );
  const kept = (width, of = ticks) => labelledTicks(of, sizeOf, width).map(([, text]) => text);
  assert.equal(kept(300).length, 5);
  assert.deepEqual(kept(170), ["0.0068 %", "0.68 %", "68 %"]);
  assert.deepEqual(kept(100), ["0.0068 %", "68 %"]);
  assert.deepEqual(kept(60), ["68 %"]);
  for (let width = 40; width < 400; width += 7) {
    let end = -Infinity;
    for (const [position, text] of labelledTicks(ticks, sizeOf, width)) {
      const left = position === 0 ? 0 : position === 1 ? width - sizeOf(text) : position * width - sizeOf(text) / 2;
      assert.ok(left - end >= TICK_GAP || end === -Infinity, `${text} touches its neighbour at ${width}`);
      end = left + sizeOf(text);
    }
  }
  assert.deepEqual(
    kept(300, [
      [0, "0"],
      [1, "max"],
    ]),
    ["0", "max"],
  );
  assert.deepEqual(kept(300, [[0.5, "one"]]), ["one"]);
  assert.deepEqual(kept(300, []), []);
});

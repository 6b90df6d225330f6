// Key tables: what runs, what the help lists, what tooltips say.

import assert from "node:assert/strict";
import test from "node:test";

import { isForApplication } from "../../../../probes/explorers/shared/host_keys.js";
import { ARROWS, arrowStep, handleKey, KeyTable } from "../../../../probes/explorers/shared/keys.js";

/** @returns {any} */
const press = (key, shift = false, target = "") => ({ key, shift, target });

test("the first entry that applies handles a key; one that returns false leaves it to the next", () => {
  const ran = [];
  let biased = false;
  const keys = new KeyTable({
    tile: { keys: ["Enter"], run: ({ target }) => String(target) === "tile" && ran.push("tile") },
    pin: { keys: ["Enter", " "], run: () => void ran.push("pin") },
    mean: { keys: ["m"], when: () => biased, run: () => void ran.push("mean") },
    hover: { label: "move", help: "read" },
  });
  assert.equal(keys.run(press("Enter", false, "tile")), true);
  assert.equal(keys.run(press("Enter", false, "picture")), true);
  assert.equal(keys.run(press(" ")), true);
  assert.equal(keys.run(press("m")), false); // does not apply now
  assert.equal(keys.run(press("q")), false);
  biased = true;
  assert.equal(keys.run(press("m")), true);
  assert.deepEqual(ran, ["tile", "pin", "pin", "mean"]);
});

test("help and tooltips follow from the table", () => {
  let page = true;
  const keys = new KeyTable({
    hover: { label: "move", help: "read a patch" },
    silent: { keys: ["Enter"], run: () => {} },
    arrows: { keys: ARROWS, help: "move the patch", run: () => {} },
    previous: { keys: ["[", ","], help: "previous block", run: () => {} },
    next: { keys: ["]", "."], help: "next block", run: () => {} },
    start: { keys: ["PageUp"], help: "start", when: () => !page, run: () => {} },
  });
  const rows = [
    ["move", "read a patch"],
    ["\u2190 \u2191 \u2192 \u2193", "move the patch"],
    ["[ or ,", "previous block"],
    ["] or .", "next block"],
  ];
  assert.deepEqual(keys.rows(), rows);
  page = false;
  assert.deepEqual(keys.rows(), [...rows, ["PgUp", "start"]]);
  assert.equal(keys.titled("Previous block", "previous"), "Previous block (key [ or ,)");
  assert.equal(keys.titled("Block", "previous", "next"), "Block (keys [ and ])");
  assert.equal(keys.titled("Pin", "silent"), "Pin (key Enter)");
});

test("arrow keys step down and right, five at a time with Shift", () => {
  assert.deepEqual(arrowStep(press("ArrowUp")), [-1, 0]);
  assert.deepEqual(arrowStep(press("ArrowRight", true)), [0, 5]);
  assert.deepEqual(arrowStep(press("ArrowDown", true), 10), [10, 0]);
  assert.deepEqual(arrowStep(press("x")), [0, 0]);
});

test("keys of the application and of the focused control stay theirs; no other key leaves the widget", () => {
  class FakeElement {
    /** @param {string[]} selectors */
    constructor(selectors) {
      this.selectors = selectors;
    }
    matches(selector) {
      return selector.split(", ").some((one) => this.selectors.includes(one));
    }
  }
  Reflect.set(globalThis, "HTMLElement", FakeElement);
  const pressed = (key, /** @type {any} */ { selectors = [], handled = true, ...more } = {}) => {
    const done = [];
    const event = {
      key,
      shiftKey: false,
      target: new FakeElement(selectors),
      preventDefault: () => done.push("default"),
      stopPropagation: () => done.push("stop"),
      ...more,
    };
    handleKey(/** @type {any} */ (event), () => {
      done.push("handle");
      return handled;
    });
    return done.join(" ");
  };
  assert.equal(pressed("a"), "stop handle default");
  assert.equal(pressed("a", { handled: false }), "stop handle"); // "a" would insert a cell
  assert.equal(pressed("ArrowDown", { handled: false }), "stop handle"); // nbclassic would select the next cell
  assert.equal(pressed("Escape", { handled: false }), "stop handle");
  assert.equal(pressed("s", { ctrlKey: true }), ""); // saves the notebook
  assert.equal(pressed("a", { ctrlKey: true }), "stop"); // would select all cells
  assert.equal(pressed("Enter", { ctrlKey: true }), "stop"); // would run the cell
  assert.equal(pressed("5", { selectors: ["input", "input[type=number]"] }), "stop");
  assert.equal(pressed("Escape", { selectors: ["input", "input[type=number]"] }), "stop handle default");
  assert.equal(pressed("ArrowLeft", { selectors: ["input"] }), "stop"); // a slider's own
  assert.equal(pressed("d", { selectors: ["input"] }), "stop handle default");
  assert.equal(pressed("d", { selectors: ["select"] }), "stop"); // a list goes to the option by its letter
  assert.equal(pressed("Enter", { selectors: ["button"] }), "stop");
});

test("presses that save, search or open the commands are the application's; those that edit or run cells are not", () => {
  const held = { shiftKey: false, ctrlKey: false, metaKey: false, altKey: false };
  const forApplication = (key, modifier) => isForApplication({ key, ...held, ...(modifier && { [modifier]: true }) });
  for (const key of ["s", "S", "f", "b", "p"]) assert.equal(forApplication(key, "ctrlKey"), true, key);
  assert.equal(forApplication("s", "metaKey"), true);
  assert.equal(isForApplication({ key: "C", ...held, shiftKey: true, ctrlKey: true }), true); // JupyterLab's commands
  assert.equal(forApplication("F1"), true);
  for (const key of ["d", "a", "Enter", "Tab", "Escape", "ArrowUp", " "]) assert.equal(forApplication(key), false, key);
  for (const key of ["a", "A", "z", "x", "c", "v", "m", "M", "Enter", "ArrowUp", "Backspace", "-"]) {
    assert.equal(forApplication(key, "ctrlKey"), false, key);
  }
  assert.equal(forApplication("Enter", "altKey"), false); // runs the cell and inserts one
});

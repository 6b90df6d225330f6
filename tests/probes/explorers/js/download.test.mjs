// Files that leave the page, and frames that forbid it.

import assert from "node:assert/strict";
import test from "node:test";

import { downloadCanvas, downloadWords, tryToSave } from "../../../../probes/explorers/shared/download.js";
import { downloadsAllowed } from "../../../../probes/explorers/shared/frame.js";
import { Link } from "../../../../probes/explorers/shared/link.js";

/**
 * A window in frames, the innermost first: null where the page around it is another site's, else the sandbox or "".
 *
 * @param {(string | null)[]} frames
 * @param {{origin?: string, protocol?: string}} [place]
 * @returns {any}
 */
function windowIn(frames, { origin = "https://example.org", protocol = "https:" } = {}) {
  /** @type {any} */
  let view = { origin, location: { protocol } };
  view.parent = view;
  for (const sandbox of [...frames].reverse()) {
    const tokens = sandbox?.split(" ") ?? [];
    const frameElement = sandbox === null ? null : { hasAttribute: () => sandbox !== "", sandbox: listOf(tokens) };
    view = { origin, location: { protocol }, parent: view, frameElement };
  }
  return view;
}

/** What a page calls a DOMTokenList. */
function listOf(tokens) {
  return { contains: (token) => tokens.includes(token) };
}

test("the sandboxes of all frames around a widget decide whether it may download", () => {
  assert.equal(downloadsAllowed(windowIn([])), "yes");
  assert.equal(downloadsAllowed(windowIn([""])), "yes");
  assert.equal(downloadsAllowed(windowIn(["allow-scripts allow-same-origin allow-downloads"])), "yes");
  assert.equal(downloadsAllowed(windowIn(["allow-scripts allow-same-origin"])), "no");
  assert.equal(downloadsAllowed(windowIn(["", "allow-scripts allow-same-origin"])), "no"); // the outer one
  assert.equal(downloadsAllowed(windowIn([null])), "unknown");
  assert.equal(downloadsAllowed(windowIn(["", null])), "unknown");
});

test("a page without an origin may be sandboxed by its server; a file has none either", () => {
  assert.equal(downloadsAllowed(windowIn([], { origin: "null" })), "unknown");
  assert.equal(downloadsAllowed(windowIn([], { origin: "null", protocol: "file:" })), "yes");
  assert.equal(downloadsAllowed(windowIn([null], { origin: "null", protocol: "vscode-webview:" })), "yes");
});

test("a frame whose sandbox raises is another site's", () => {
  const view = windowIn([null]);
  Object.defineProperty(view, "frameElement", {
    get() {
      throw new Error("SecurityError");
    },
  });
  assert.equal(downloadsAllowed(view), "unknown");
});

test("only a download that nothing can have blocked is called saved", () => {
  assert.match(downloadWords("a.png", "yes", "2 levels"), /^Saved a\.png: 2 levels$/);
  for (const allowed of /** @type {const} */ (["no", "unknown"])) {
    assert.match(downloadWords("a.png", allowed), /a\.png/);
    assert.doesNotMatch(downloadWords("a.png", allowed), /saved/i);
  }
});

function strip() {
  const link = new Link(/** @type {any} */ ({ on() {}, send() {} }));
  return { link, shown: () => link.status };
}

test("a canvas that the browser cannot encode is an error with its size", async () => {
  const { link, shown } = strip();
  const canvas = /** @type {any} */ ({ width: 40000, height: 30000, toBlob: (take) => take(null) });
  await tryToSave(link, "PNG", () => downloadCanvas(link, canvas, "view"));
  assert.ok(shown().failed);
  assert.match(shown().text, /PNG.*40000 x 30000/);
});

test("an encoder that throws, now or later, shows why in the strip", async () => {
  const { link, shown } = strip();
  const broken = () => {
    throw new TypeError("no such array");
  };
  for (const save of [broken, async () => broken()]) {
    link.report("");
    await tryToSave(link, "NPZ", save);
    assert.ok(shown().failed);
    assert.match(shown().text, /NPZ.*no such array/);
  }
  await tryToSave(link, "CSV", () => link.report("Saved it"));
  assert.equal(shown().failed, false);
});

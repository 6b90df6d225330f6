// What a page tells the kernel about its views, and when it lets go of its data.
import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { ByteCache } from "../../../../probes/explorers/shared/cache.js";
import { LINGER, Presence } from "../../../../probes/explorers/shared/presence.js";

/** A model that keeps what is sent, and the actions of its page. */
function page(properties = {}) {
  const sent = [];
  const calls = { gone: 0, returned: 0 };
  /** @type {any} */
  const model = { send: ({ kind, count }) => sent.push([kind, count]), ...properties };
  const presence = new Presence(model, { onGone: () => calls.gone++, onReturn: () => calls.returned++ });
  return { presence, sent, calls };
}

test("the kernel hears of the first view and of the end of the last", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const { presence, sent, calls } = page();
    presence.show(1);
    presence.show(2);
    presence.show(1);
    assert.deepEqual(sent, [["views", 1]]);
    presence.show(0);
    mock.timers.tick(LINGER - 1);
    assert.equal(calls.gone, 0);
    mock.timers.tick(1);
    assert.equal(calls.gone, 1);
    assert.deepEqual(sent.splice(0), [
      ["views", 1],
      ["views", 0],
    ]);
    presence.show(1); // shown again
    assert.deepEqual(sent, [["views", 1]]);
  } finally {
    mock.timers.reset();
  }
});

test("a view that is only moved loses nothing", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const { presence, sent, calls } = page();
    presence.show(1);
    presence.show(0);
    mock.timers.tick(LINGER / 2);
    presence.show(1);
    mock.timers.tick(10 * LINGER);
    assert.deepEqual([sent, calls.gone], [[["views", 1]], 0]);
  } finally {
    mock.timers.reset();
  }
});

test("a closed explorer is told nothing, and the kernel's question is answered while a view is there", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const { presence, sent, calls } = page();
    presence.repeat();
    assert.deepEqual(sent, []);
    presence.show(1);
    presence.repeat();
    assert.equal(sent.length, 2);
    presence.show(0);
    presence.end();
    mock.timers.tick(10 * LINGER);
    assert.deepEqual([sent.length, calls.gone], [2, 0]);
  } finally {
    mock.timers.reset();
  }
});

test("pages without a kernel send nothing, and a closed comm is no error", () => {
  const { presence, sent } = page({ onPage: true });
  presence.show(1);
  assert.deepEqual(sent, []);
  const closed = page({
    send() {
      throw new Error("the comm is closed");
    },
  });
  closed.presence.show(1);
  closed.presence.end();
  presence.end();
});

test("leaving the page is said at once", () => {
  const listeners = new Map();
  globalThis.addEventListener = (name, action) => listeners.set(name, action);
  globalThis.removeEventListener = (name) => listeners.delete(name);
  try {
    const { presence, sent, calls } = page();
    presence.show(2);
    listeners.get("pagehide")();
    assert.deepEqual(sent.splice(0), [
      ["views", 2],
      ["views", 0],
    ]);
    listeners.get("pageshow")({ persisted: false });
    assert.equal(calls.returned, 0);
    listeners.get("pageshow")({ persisted: true });
    assert.deepEqual([sent, calls.returned], [[["views", 2]], 1]);
    presence.end();
    assert.equal(listeners.size, 0);
  } finally {
    Reflect.deleteProperty(globalThis, "addEventListener");
    Reflect.deleteProperty(globalThis, "removeEventListener");
  }
});

test("a cleared cache is empty and can be used again", () => {
  const cache = new ByteCache(10);
  cache.put("a", 1, 8);
  cache.clear();
  assert.deepEqual([cache.get("a"), cache.bytes], [undefined, 0]);
  cache.put("b", 2, 8);
  assert.equal(cache.get("b"), 2);
});

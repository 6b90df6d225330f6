// Requests to the kernel, the cache, the embedded model, timings.

import assert from "node:assert/strict";
import test from "node:test";

import { ByteCache } from "../../../../probes/explorers/shared/cache.js";
import { Link } from "../../../../probes/explorers/shared/link.js";
import { EmbeddedModel } from "../../../../probes/explorers/shared/page.js";
import { Timings } from "../../../../probes/explorers/shared/status.js";

class Kernel {
  constructor() {
    this.sent = [];
    this.handlers = [];
  }
  on(name, handler) {
    assert.equal(name, "msg:custom");
    this.handlers.push(handler);
  }
  send(message) {
    this.sent.push(message);
  }
  answer(request, message = {}, buffers = []) {
    const { seq, client, kind } = request;
    for (const handler of this.handlers) handler({ kind, asked: kind, seq, client, ...message }, buffers);
  }
}

function linked(patience = 60_000) {
  const kernel = new Kernel();
  const link = new Link(/** @type {any} */ (kernel), patience);
  const events = [];
  link.listen((event, message) => events.push([event, message]));
  const stop = () => link.close();
  return {
    kernel,
    link,
    events,
    stop,
    replies: () => events.filter(([event]) => event === "reply").map(([, message]) => message.block),
  };
}

test("one request is in flight and one queued: of five requests the first and the last are sent", () => {
  const { kernel, link, replies, stop } = linked();
  for (const block of [1, 2, 3, 4, 5]) link.request("block", { block });
  assert.deepEqual(
    kernel.sent.map((message) => message.block),
    [1],
  );
  kernel.answer(kernel.sent[0], { block: 1 });
  assert.deepEqual(
    kernel.sent.map((message) => message.block),
    [1, 5],
  );
  kernel.answer(kernel.sent[1], { block: 5 });
  assert.equal(kernel.sent.length, 2);
  assert.deepEqual(replies(), [1, 5]);
  stop();
});

test("kinds do not wait for each other", () => {
  const { kernel, link, stop } = linked();
  link.request("picture");
  link.request("block", { block: 3 });
  assert.deepEqual(
    kernel.sent.map((message) => message.kind),
    ["picture", "block"],
  );
  stop();
});

test("stale replies and replies to another page are dropped", () => {
  const { kernel, link, replies, stop } = linked();
  link.request("block", { block: 1 });
  const [request] = kernel.sent;
  kernel.answer({ ...request, seq: request.seq - 1 }, { block: 9 });
  kernel.answer({ ...request, client: "another page" }, { block: 8 });
  assert.deepEqual(replies(), []);
  kernel.answer(request, { block: 1 }); // control: the matching reply is accepted
  kernel.answer(request, { block: 1 }); // only once
  assert.deepEqual(replies(), [1]);
  stop();
});

test("progress is reported while the request is in flight; an error ends it and can be retried", () => {
  const { kernel, link, events, stop } = linked();
  link.request("block", { block: 1 });
  kernel.answer(kernel.sent[0], { kind: "status", text: "Packing block 1" });
  assert.deepEqual(events.at(-1), ["status", { text: "Packing block 1", busy: true, failed: false, retry: null }]);
  kernel.answer(kernel.sent[0], { kind: "error", text: "ValueError: no" });
  assert.equal(link.status.text, "ValueError: no");
  assert.equal(link.status.failed, true);
  link.status.retry?.();
  assert.deepEqual(
    kernel.sent.map((message) => message.block),
    [1, 1],
  );
  assert.notEqual(kernel.sent[0].seq, kernel.sent[1].seq);
  stop();
});

test("a silent kernel is reported; the request is sent again only on demand", async () => {
  const { kernel, link, replies, stop } = linked(5);
  link.request("block", { block: 1 });
  await new Promise((done) => setTimeout(done, 25));
  assert.match(link.status.text, /not answered/);
  assert.equal(kernel.sent.length, 1);
  link.status.retry?.();
  kernel.answer(kernel.sent[0], { block: 1 }); // the old request was given up
  assert.deepEqual(replies(), []);
  kernel.answer(kernel.sent[1], { block: 1 });
  assert.deepEqual(replies(), [1]);
  stop();
});

test("the cache forgets the least recently used first and always keeps the newest", () => {
  const cache = new ByteCache(100);
  cache.put("a", 1, 40);
  cache.put("b", 2, 40);
  assert.equal(cache.get("a"), 1); // now b is the oldest
  cache.put("c", 3, 40);
  assert.deepEqual([cache.get("a"), cache.get("b"), cache.get("c")], [1, undefined, 3]);
  cache.put("big", 4, 500);
  assert.deepEqual([cache.get("a"), cache.get("c"), cache.get("big")], [undefined, undefined, 4]);
  cache.put("big", 5, 10);
  assert.equal(cache.bytes, 10);
});

test("an exported page replies with its data, and reports an error for other requests", async () => {
  const replies = [{ match: { block: 2 }, message: { kind: "block", heads: 3 }, buffers: ["AAEC"] }];
  const model = new EmbeddedModel({ state: { block: 2 }, replies });
  const got = [];
  model.on("msg:custom", (message, buffers) => got.push([message, buffers.map((part) => [...part])]));
  model.send({ kind: "block", seq: 7, client: "x", block: 2 });
  model.send({ kind: "block", seq: 8, client: "x", block: 3 });
  await new Promise((done) => setTimeout(done, 5));
  assert.deepEqual(got[0], [{ kind: "block", heads: 3, seq: 7, client: "x" }, [[0, 1, 2]]]);
  assert.equal(got[1][0].kind, "error");
  assert.equal(got[1][0].retry, false);
  const changes = [];
  model.on("change:block", () => changes.push(model.get("block")));
  model.set("block", 2);
  model.set("block", 4);
  assert.deepEqual(changes, [4]);
});

test("quantiles of the latest durations", () => {
  const timings = new Timings(100);
  assert.equal(timings.quantile(0.5), 0);
  for (let n = 0; n < 1000; n++) timings.add(n % 100);
  assert.equal(timings.quantile(0.5), 50);
  assert.equal(timings.quantile(0.95), 95);
});

test("a closed connection is reported at once, not as a slow kernel", async () => {
  const { kernel, link, stop } = linked(5);
  const send = kernel.send;
  kernel.send = () => {
    throw new Error("Cannot send"); // what Jupyter's widgets throw after a restart
  };
  link.request("block", { block: 1 });
  assert.match(link.status.text, /restarted or stopped.*Run the cell again/);
  assert.equal(link.status.failed, true);
  await new Promise((done) => setTimeout(done, 25));
  assert.match(link.status.text, /restarted or stopped/);
  kernel.send = send; // control: the failed request does not block the next one
  link.request("block", { block: 2 });
  assert.deepEqual(
    kernel.sent.map((message) => message.block),
    [2],
  );
  stop();
});

// Requests to the kernel, the cache, the embedded model, timings.

import assert from "node:assert/strict";
import test from "node:test";

import { ByteCache } from "../../../../probes/explorers/shared/cache.js";
import { Link } from "../../../../probes/explorers/shared/link.js";
import { EmbeddedModel } from "../../../../probes/explorers/shared/page.js";
import { Timings } from "../../../../probes/explorers/shared/status.js";
import { cardPlace, elapsedWords } from "../../../../probes/explorers/shared/waiting.js";

class Kernel {
  constructor() {
    this.sent = [];
    this.handlers = [];
  }
  on(name, handler) {
    if (name === "msg:custom") this.handlers.push(handler);
    else this.restarted = handler;
  }
  off(name, handler) {
    if (name === "msg:custom") this.handlers = this.handlers.filter((known) => known !== handler);
  }
  send(message) {
    this.sent.push(message);
  }
  /** Messages of a kind. */
  of(kind) {
    return this.sent.filter((message) => message.kind === kind);
  }
  close() {
    this.send = () => {
      throw new Error("Cannot send"); // what Jupyter's widgets throw after a restart
    };
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

/** What the view waits for. */
function waitOf(link) {
  assert.ok(link.wait);
  return link.wait;
}

/** @returns {any} a rectangle of a page, as far as the test reads it */
function boxOf(rectangle) {
  return rectangle;
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
  const [event, { text, busy, failed, retry }] = events.at(-1);
  assert.deepEqual([event, text, busy, failed, retry], ["status", "Packing block 1", true, false, null]);
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

const seconds = (count) => new Promise((done) => setTimeout(done, count * 1000));

test("what a view waits for: the request in a pass, with its stage, until the reply", () => {
  const { kernel, link, stop } = linked();
  assert.equal(link.wait, null);
  link.request("picture");
  link.request("block", { block: 1 });
  const stage = { stage: "block 7 of 24", done: 6, total: 30 };
  kernel.answer(kernel.sent[1], { kind: "status", text: "Running the model", cancellable: true, ...stage });
  const { kind, text, ...rest } = waitOf(link);
  assert.deepEqual(
    [kind, text, rest.stage, rest.done, rest.total],
    ["block", "Running the model", "block 7 of 24", 6, 30],
  );
  assert.equal(link.status.stage, "block 7 of 24");
  kernel.answer(kernel.sent[1]);
  assert.equal(waitOf(link).kind, "picture");
  kernel.answer(kernel.sent[0]);
  assert.equal(link.wait, null);
  stop();
});

test("cancel tells the kernel, drops what is queued, and can be undone by trying again", () => {
  const { kernel, link, stop } = linked();
  link.request("block", { block: 1 });
  link.request("block", { block: 2 });
  kernel.answer(kernel.sent[0], { kind: "status", text: "Running", cancellable: true });
  waitOf(link).cancel?.();
  assert.deepEqual(
    kernel.of("cancel").map(({ seq }) => seq),
    [kernel.sent[0].seq],
  );
  assert.equal(waitOf(link).cancel, null); // one is enough
  kernel.answer(kernel.sent[0], { kind: "error", text: "Cancelled.", cancelled: true });
  assert.deepEqual([link.status.cancelled, link.status.failed, link.wait], [true, true, null]);
  assert.equal(kernel.of("block").length, 1);
  link.status.retry?.();
  assert.deepEqual(
    kernel.of("block").map(({ block }) => block),
    [1, 1],
  );
  stop();
});

test("a request that the kernel has not read yet is cancelled at once, and one try sends all of them again", () => {
  const { kernel, link, stop } = linked();
  link.request("picture");
  link.request("block", { block: 1 });
  waitOf(link).cancel?.();
  assert.equal(kernel.of("cancel").length, 2);
  assert.equal(link.wait, null);
  link.status.retry?.();
  assert.deepEqual([kernel.of("picture").length, kernel.of("block").length], [2, 2]);
  stop();
});

test("a kernel that reads no messages during a pass offers no cancelling", () => {
  const { kernel, link, stop } = linked();
  link.request("block");
  kernel.answer(kernel.sent[0], { kind: "status", text: "Running", cancellable: false });
  assert.deepEqual([waitOf(link).cancel, waitOf(link).stoppable], [null, false]);
  stop();
});

test("the watch goes on after a status message, and ends with the reply", async () => {
  const { kernel, link, stop } = linked(40);
  link.request("block", { block: 1 });
  kernel.answer(kernel.sent[0], { kind: "status", text: "Running the model" });
  await seconds(0.1);
  assert.match(link.status.text, /not answered/);
  assert.ok(kernel.of("ping").length > 0);
  const [request] = kernel.sent;
  kernel.answer(kernel.of("ping").at(-1), {
    kind: "pong",
    requests: [{ seq: request.seq, text: "Running the model" }],
  });
  assert.equal(link.status.text, "Running the model"); // it is there
  assert.equal(kernel.of("block").length, 1);
  kernel.answer(request, { block: 1 });
  const pings = kernel.of("ping").length;
  await seconds(0.1);
  assert.equal(kernel.of("ping").length, pings);
  stop();
});

test("a request that the kernel does not know is sent again", async () => {
  const { kernel, link, replies, stop } = linked(40);
  link.request("block", { block: 1 });
  await seconds(0.05);
  const [ping] = kernel.of("ping");
  kernel.answer(ping, { kind: "pong", requests: [] });
  assert.equal(kernel.of("block").length, 2);
  kernel.answer(ping, { kind: "pong", requests: [] }); // the new request came after that ping
  assert.equal(kernel.of("block").length, 2);
  // It was not lost but waited for a cell: the kernel begins with the first of the two.
  const [first, second] = kernel.of("block");
  kernel.answer(first, { kind: "status", text: "Running", stage: "block 1 of 4", done: 0, total: 9 });
  assert.equal(waitOf(link).stage, "block 1 of 4");
  kernel.answer(first, { block: 1 });
  kernel.answer(second, { block: 1 });
  assert.deepEqual(replies(), [1]);
  assert.deepEqual(
    kernel.of("cancel").map(({ seq }) => seq),
    [second.seq],
  );
  stop();
});

test("what is queued behind a request that is sent again is sent after it", async () => {
  const { kernel, link, replies, stop } = linked(40);
  for (const block of [1, 2]) link.request("block", { block });
  await seconds(0.05);
  kernel.answer(kernel.of("ping")[0], { kind: "pong", requests: [] });
  kernel.answer(kernel.of("block")[1], { block: 1 });
  kernel.answer(kernel.of("block")[2], { block: 2 });
  assert.deepEqual(replies(), [1, 2]);
  stop();
});

test("a kernel that dies during a pass is named within the patience", async () => {
  const { kernel, link, stop } = linked(40);
  link.request("block", { block: 1 });
  kernel.answer(kernel.sent[0], {
    kind: "status",
    text: "Running the model",
    stage: "block 3 of 24",
    done: 2,
    total: 30,
  });
  kernel.close();
  await seconds(0.1);
  assert.match(link.status.text, /restarted or stopped.*Run the cell again/);
  assert.deepEqual([link.status.lost, link.status.busy, link.status.retry, link.wait], [true, false, null, null]);
  stop();
});

test("a restart that the page notices is named at once, also while nothing is pending", () => {
  const { kernel, link, stop } = linked();
  kernel.restarted(); // control: the comm still works
  assert.equal(link.status.lost, false);
  kernel.close();
  kernel.restarted();
  assert.equal(link.status.lost, true);
  stop();
});

test("a silent kernel is reported; the request is sent again only on demand", async () => {
  const { kernel, link, replies, stop } = linked(5);
  link.request("block", { block: 1 });
  await seconds(0.025);
  assert.match(link.status.text, /not answered/);
  assert.equal(kernel.of("block").length, 1);
  link.status.retry?.();
  kernel.answer(kernel.of("block")[0], { block: 1 }); // it was on its way
  assert.deepEqual(replies(), [1]);
  kernel.answer(kernel.of("block")[1], { block: 1 });
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

test("the card of a view goes over the place of its data, or to the top if that is far down", () => {
  const root = { left: 100, top: 50, width: 1000, height: 900 };
  const beside = { left: 600, top: 150, width: 500, height: 0 };
  assert.deepEqual(cardPlace(boxOf(root), boxOf(beside)), { left: 750, top: 124 });
  const below = { left: 100, top: 700, width: 1000, height: 0 };
  assert.deepEqual(cardPlace(boxOf(root), boxOf(below)), { left: 500, top: 72 });
  assert.equal(elapsedWords(900), "");
  assert.equal(elapsedWords(12_400), "12 s");
  assert.equal(elapsedWords(125_000), "2 min 5 s");
});

// What defineWidget() does when Python sets another image or model.

import assert from "node:assert/strict";
import test, { afterEach } from "node:test";

import { EmbeddedModel } from "../../../../probes/explorers/shared/page.js";
import { Source } from "../../../../probes/explorers/shared/source.js";
import { defineWidget } from "../../../../probes/explorers/shared/widget.js";

/** @type {Source<any>[]} */
const sources = []; // one that is not closed waits for the kernel for ever

afterEach(() => {
  for (const source of sources.splice(0)) source.close();
});

/** @returns {any} */
function started() {
  const model = new EmbeddedModel({ state: { token: 3 }, replies: [] });
  const requests = [];
  const cancelled = [];
  model.send = (request) => (request.kind === "cancel" ? cancelled : requests).push(request);
  const log = [];
  class OwnSource extends Source {
    constructor(own) {
      super(own);
      this.token = own.get("token");
      sources.push(this);
      this.follow("token", () => log.push(`follows ${this.token}`));
    }
    requestFirst() {
      this.link.request("picture");
    }
    receive(message) {
      log.push(`source of ${this.token} receives ${message.text}`);
      this.emit("picture");
    }
  }
  class OwnView {
    constructor(own, el, source) {
      this.own = own;
      this.el = el;
      this.source = source;
    }
    start() {
      log.push(`shows ${this.source.token}`);
      this.source.open();
    }
    dispose() {
      log.push("leaves");
    }
  }
  const widget = defineWidget(OwnSource, /** @type {any} */ (OwnView))();
  widget.initialize({ model });
  const answer = ({ kind, seq, client }, text) => model.emit("msg:custom", { kind, seq, client, text }, []);
  const display = () => {
    const el = /** @type {any} */ ({ style: {}, offsetHeight: 480 });
    return { el, remove: widget.render({ model, el }) };
  };
  return { model, requests, cancelled, log, answer, display, take: () => log.splice(0) };
}

test("another image: every display is made anew over the new traits, and the first data is requested again", () => {
  const { model, requests, cancelled, answer, display, take } = started();
  const [one, two] = [display(), display()];
  assert.deepEqual(take(), ["shows 3", "shows 3"]);
  assert.equal(requests.length, 1);
  model.emit("msg:custom", { kind: "replacing" }, []);
  assert.deepEqual(take(), ["leaves", "leaves"]);
  assert.deepEqual(
    cancelled.map(({ seq }) => seq),
    [requests[0].seq], // the model need not run for it
  );
  model.set("token", 9); // nobody draws it over the former image
  answer(requests[0], "late"); // nor a reply that was on its way
  assert.deepEqual(take(), []);
  assert.equal(one.el.style.minHeight, "480px"); // the page does not jump
  model.emit("msg:custom", { kind: "replaced" }, []);
  assert.deepEqual(take(), ["shows 9", "shows 9"]);
  assert.equal(requests.length, 2);
  answer(requests[1], "new");
  assert.deepEqual(take(), ["source of 9 receives new"]);
  assert.equal(one.el.style.minHeight, "");
  model.set("token", 4);
  assert.deepEqual(take(), ["follows 9"]);
  two.remove();
  assert.deepEqual(take(), ["leaves"]);
});

test("a display that is removed meanwhile does not return, and one that is added appears once", () => {
  const { model, display, take } = started();
  const one = display();
  model.emit("msg:custom", { kind: "replacing" }, []);
  one.remove();
  display();
  assert.deepEqual(take(), ["shows 3", "leaves"]);
  model.emit("msg:custom", { kind: "replaced" }, []);
  assert.deepEqual(take(), ["shows 3"]);
});

test("a page that was loaded between the two messages starts over, too", () => {
  const { model, requests, display, take } = started();
  display();
  take();
  model.emit("msg:custom", { kind: "replaced" }, []);
  assert.deepEqual(take(), ["leaves", "shows 3"]);
  assert.equal(requests.length, 2);
});

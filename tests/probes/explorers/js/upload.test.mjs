// A file on its way to the kernel.

import assert from "node:assert/strict";
import test from "node:test";

import { UploadSource } from "../../../../probes/explorers/upload/source.js";

/** A kernel that receives parts of four bytes. */
class Kernel {
  constructor() {
    this.bytes = [];
    this.requests = [];
    this.held = null; // a kind of request that is not answered
    this.refuses = false;
  }
  on(name, handler) {
    if (name === "msg:custom") this.handler = handler;
  }
  off() {}
  send(message, _callbacks, parts = []) {
    this.requests.push(message.kind);
    if (message.kind === this.held) return;
    if (message.kind === "part") this.bytes.push(...new Uint8Array(parts[0]));
    const answers = { start: { part: this.refuses ? 0 : 4 }, part: { received: this.bytes.length } };
    setTimeout(() => this.handler({ ...message, ...answers[message.kind] }, []), 0);
  }
}

async function until(condition) {
  for (let n = 0; n < 500 && !condition(); n++) await new Promise((done) => setTimeout(done, 2));
  assert.ok(condition());
}

function started() {
  const kernel = new Kernel();
  const source = new UploadSource(/** @type {any} */ (kernel));
  return { kernel, source, file: new File([Uint8Array.from({ length: 10 }, (_, n) => n)], "photo.png") };
}

test("a file arrives in parts, one at a time and in order, and is then used", async () => {
  const { kernel, source, file } = started();
  const sent = [];
  source.listen((event) => event === "sending" && sent.push(source.sending?.sent));
  source.send(file);
  await until(() => kernel.requests.includes("use"));
  assert.deepEqual(kernel.bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual(kernel.requests, ["start", "part", "part", "part", "use"]);
  assert.deepEqual(sent, [0, 4, 8, 10, undefined]);
  source.link.close();
});

test("a file that is refused is not sent; one that is cancelled is sent no further", async () => {
  const { kernel, source, file } = started();
  kernel.refuses = true;
  source.send(file);
  await until(() => source.sending === null);
  assert.deepEqual(kernel.requests, ["start"]);
  kernel.refuses = false;
  kernel.held = "part";
  source.send(file);
  await until(() => kernel.requests.includes("part"));
  source.cancel();
  assert.equal(source.link.status.cancelled, true);
  const count = kernel.requests.length;
  kernel.handler({ kind: "part", seq: source.link.seq, client: source.link.client, received: 4 }, []);
  await new Promise((done) => setTimeout(done, 10));
  assert.equal(kernel.requests.length, count);
  source.link.close();
});

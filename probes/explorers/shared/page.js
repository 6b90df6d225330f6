// A widget on a page without a kernel: the model answers from data that the page holds.

/** Bytes from base64: Uint8Array.fromBase64 is too new to rely on, and fetch("data:") is a request. */
export function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let n = 0; n < letters.length; n++) bytes[n] = letters.charCodeAt(n);
  return bytes;
}

/**
 * A page written by to_html(): the same widget code over a model that answers from data embedded in the page.
 * data: {state: {trait: value}, replies: [{message, match, buffers: [base64]}]}.
 */
export class EmbeddedModel {
  constructor(data) {
    this.onPage = true;
    this.state = { ...data.state };
    this.replies = data.replies;
    this.handlers = new Map();
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    if (this.state[name] === value) return;
    this.state[name] = value;
    this.emit(`change:${name}`);
  }

  save_changes() {}

  on(name, handler) {
    if (!this.handlers.has(name)) this.handlers.set(name, new Set());
    this.handlers.get(name).add(handler);
  }

  off(name, handler) {
    this.handlers.get(name)?.delete(handler);
  }

  emit(name, ...values) {
    for (const handler of [...(this.handlers.get(name) ?? [])]) handler(...values);
  }

  send({ kind, seq, client, ...payload }) {
    const fits = ([key, value]) => JSON.stringify(payload[key]) === JSON.stringify(value); // lists as well
    const found = this.replies.find(({ message, match }) => message.kind === kind && Object.entries(match).every(fits));
    const reply = found
      ? { ...found.message, seq, client }
      : { kind: "error", asked: kind, seq, client, text: "This page does not hold that.", retry: false };
    setTimeout(() => this.emit("msg:custom", reply, (found?.buffers ?? []).map(fromBase64)), 0);
  }
}

/**
 * Starts the widgets of this kind that an exported page describes, in script elements of JSON:
 * `<script type="application/json" data-dptx-page="attention">`. Each appears in front of its script element. In a
 * notebook, where no element matches, this does nothing.
 *
 * @param {string} name
 * @param {() => {initialize: Function, render: Function}} define
 */
export function startPage(name, define) {
  if (typeof document === "undefined") return;
  for (const script of document.querySelectorAll(`script[data-dptx-page="${name}"]`)) {
    const el = document.createElement("main");
    script.before(el);
    script.removeAttribute("data-dptx-page"); // started
    const [model, widget] = [new EmbeddedModel(JSON.parse(script.textContent)), define()];
    widget.initialize({ model });
    widget.render({ model, el });
  }
}

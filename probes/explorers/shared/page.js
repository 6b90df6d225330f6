// A widget on a page without a kernel: the model answers from data in the page.

import { fromBase64 } from "./bytes.js";

/** @import { Message, Widget } from "./types.js" */

/**
 * What to_html() embeds.
 *
 * @typedef {object} PageData
 * @property {Record<string, any>} state traits by name
 * @property {{message: Message, match: Record<string, unknown>, buffers: string[]}[]} replies `match`: what a request of
 *   the message's kind must contain; buffers: base64
 */

/** The traits and the replies of a widget, from data in the page. It has the methods of anywidget's model. */
export class EmbeddedModel {
  /** @param {PageData} data */
  constructor(data) {
    this.onPage = true;
    this.state = { ...data.state };
    this.replies = data.replies;
    /** @type {Map<string, Set<(...values: any[]) => void>>} */
    this.handlers = new Map();
  }

  /**
   * @param {string} name
   * @returns {any}
   */
  get(name) {
    return this.state[name];
  }

  /**
   * @param {string} name
   * @param {unknown} value
   */
  set(name, value) {
    if (this.state[name] === value) return;
    this.state[name] = value;
    this.emit(`change:${name}`);
  }

  save_changes() {}

  /**
   * @param {string} name
   * @param {(...values: any[]) => void} handler
   */
  on(name, handler) {
    const handlers = this.handlers.get(name) ?? new Set();
    this.handlers.set(name, handlers.add(handler));
  }

  /**
   * @param {string} name
   * @param {(...values: any[]) => void} handler
   */
  off(name, handler) {
    this.handlers.get(name)?.delete(handler);
  }

  /**
   * @param {string} name
   * @param {...unknown} values
   */
  emit(name, ...values) {
    for (const handler of [...(this.handlers.get(name) ?? [])]) handler(...values);
  }

  /** @param {any} request as Link sends it */
  send({ kind, seq, client, ...payload }) {
    /** @param {[string, unknown]} entry */
    const fits = ([key, value]) => JSON.stringify(payload[key]) === JSON.stringify(value); // lists too
    const found = this.replies.find(({ message, match }) => message.kind === kind && Object.entries(match).every(fits));
    const reply = found
      ? { ...found.message, seq, client }
      : { kind: "error", asked: kind, seq, client, text: "This page does not contain that data.", retry: false };
    setTimeout(() => this.emit("msg:custom", reply, (found?.buffers ?? []).map(fromBase64)), 0);
  }
}

/**
 * Starts the widgets of one kind that an exported page describes in script elements of JSON:
 * `<script type="application/json" data-dptx-page="attention">`. Each widget appears in front of its script element. In a
 * notebook no element matches, and nothing happens.
 *
 * @param {string} name
 * @param {() => Widget} define
 */
export function startPage(name, define) {
  if (typeof document === "undefined") return;
  for (const script of document.querySelectorAll(`script[data-dptx-page="${name}"]`)) {
    const el = document.createElement("main");
    script.before(el);
    script.removeAttribute("data-dptx-page"); // not started twice
    const [model, widget] = [new EmbeddedModel(JSON.parse(script.textContent ?? "")), define()];
    widget.initialize({ model });
    widget.render({ model, el });
  }
}

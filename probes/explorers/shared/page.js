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
    /** @type {(() => string) | undefined} */
    this.pageSource = undefined;
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

/** What stands on a page while no script runs (see page_shell.py): a picture of the view, and words. */
const STATIC = "[data-dptx-static]";
const DATA = "data-dptx-page";

/**
 * The source of an exported page, with other traits: the new page shows what this one shows now. Python drew its picture
 * for places without scripts and described it; if the traits have changed, the new page says so.
 *
 * @param {string} name of the widget
 * @param {Element | null} picture the page's static part, which is no longer in the document
 * @param {object} state
 * @returns {string}
 */
function sourceOfPage(name, picture, state) {
  const copy = /** @type {HTMLElement} */ (document.documentElement.cloneNode(true));
  copy.querySelector("[data-dptx-view]")?.remove();
  const script = copy.querySelector('main > script[type="application/json"]');
  if (!script) throw new Error("the page has lost its data");
  const first = JSON.parse(script.textContent ?? "");
  const data = { ...first, state };
  script.setAttribute(DATA, name);
  script.textContent = JSON.stringify(data).replaceAll("<", "\\u003c");
  if (picture && !copy.querySelector(STATIC)) script.before(picture.cloneNode(true));
  copy.querySelector(STATIC)?.removeAttribute("hidden");
  if (JSON.stringify(first.state) !== JSON.stringify(state)) {
    copy.querySelector("[data-dptx-shows]")?.remove();
    copy.querySelector("[data-dptx-older]")?.removeAttribute("hidden");
  }
  return `<!doctype html>\n${copy.outerHTML}\n`;
}

/**
 * Starts the widgets of one kind that an exported page describes in script elements of JSON:
 * `<script type="application/json" data-dptx-page="attention">`. Each widget appears in front of its script element. In a
 * notebook no element matches, and nothing happens.
 *
 * The static part disappears for good once the view is ready. Until then, an error shows it again (see page_shell.py).
 *
 * @param {string} name
 * @param {() => Widget} define
 */
export function startPage(name, define) {
  if (typeof document === "undefined") return;
  for (const script of document.querySelectorAll(`script[${DATA}="${name}"]`)) {
    const el = document.createElement("div");
    el.setAttribute("data-dptx-view", "");
    script.before(el);
    script.removeAttribute(DATA); // not started twice
    const picture = document.querySelector(STATIC);
    const [model, widget] = [new EmbeddedModel(JSON.parse(script.textContent ?? "")), define()];
    model.pageSource = () => sourceOfPage(name, picture, model.state);
    widget.initialize({ model });
    widget.render({ model, el });
    picture?.toggleAttribute("hidden", true);
    whenReady(el, () => picture?.remove());
  }
}

/**
 * @param {HTMLElement} el
 * @param {() => void} action called once, when the view in the element is ready
 */
function whenReady(el, action) {
  // After an error the element is no longer on the page, and the picture must stay.
  const isReady = () => el.isConnected && el.querySelector('.dptx[data-state="ready"]') !== null;
  const changes = new MutationObserver(() => {
    if (!isReady()) return;
    changes.disconnect();
    action();
  });
  changes.observe(el, { attributes: true, subtree: true, attributeFilter: ["data-state"] });
}

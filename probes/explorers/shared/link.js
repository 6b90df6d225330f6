// Requests to the kernel by custom messages, and its replies.

/** @import { AnyModel, ErrorMessage, Message, Part, Status } from "./types.js" */

/** @typedef {"reply" | "status" | "error"} LinkEvent */
/** @typedef {(event: LinkEvent, message: any, parts: Part[]) => void} LinkListener */

/**
 * @typedef {object} Slot requests of one kind
 * @property {(Message & Record<string, unknown>) | null} pending the request in flight
 * @property {object | null} queued the payload to send next
 * @property {ReturnType<typeof setTimeout> | undefined} timer
 */

/**
 * Sends requests. Per kind, one request is in flight and at most one more is queued: dragging a slider over ten blocks
 * requests the first and the last. Each request carries the id of this page and a sequence number, and its reply repeats
 * them. Stale replies, and replies to other pages, are dropped.
 */
export class Link {
  /**
   * @param {AnyModel<any>} model
   * @param {number} [patience] milliseconds until the strip says that the kernel is slow to answer
   */
  constructor(model, patience = 4000) {
    this.model = model;
    this.patience = patience;
    this.client = Math.random().toString(36).slice(2);
    this.seq = 0;
    /** @type {Map<string, Slot>} */
    this.slots = new Map();
    /** @type {Set<LinkListener>} */
    this.listeners = new Set();
    /** @type {Status} */
    this.status = { text: "", busy: false, failed: false, retry: null, offer: null, more: null };
    model.on("msg:custom", (message, parts) => this.receive(message, parts));
  }

  /**
   * @param {LinkListener} listener
   * @returns {() => void} stops listening
   */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * @param {LinkEvent} event
   * @param {object} message
   * @param {Part[]} [parts]
   */
  emit(event, message, parts = []) {
    for (const listener of [...this.listeners]) listener(event, message, parts);
  }

  /**
   * Shows a text in the status strip.
   *
   * @param {string} text
   * @param {Partial<Omit<Status, "text">>} [state]
   */
  report(text, { busy = false, failed = false, retry = null, offer = null, more = null } = {}) {
    this.status = { text, busy, failed, retry, offer, more };
    this.emit("status", this.status);
  }

  /**
   * Sends a request, or queues it in place of the one that is queued.
   *
   * @param {string} kind
   * @param {object} [payload]
   */
  request(kind, payload = {}) {
    const slot = this.slots.get(kind) ?? { pending: null, queued: null, timer: undefined };
    this.slots.set(kind, slot);
    if (slot.pending) slot.queued = payload;
    else this.send(kind, slot, payload);
  }

  /**
   * @param {string} kind
   * @param {Slot} slot
   * @param {object} payload
   */
  send(kind, slot, payload) {
    this.seq += 1;
    slot.pending = { ...payload, kind, seq: this.seq, client: this.client };
    slot.queued = null;
    clearTimeout(slot.timer);
    slot.timer = setTimeout(() => {
      const retry = () => this.send(kind, slot, slot.queued ?? payload);
      const text = "The kernel has not answered yet. It may be running another cell, or it has stopped.";
      this.report(text, { busy: true, retry });
    }, this.patience);
    try {
      this.model.send(slot.pending);
    } catch {
      // The comm is closed: no further message arrives.
      clearTimeout(slot.timer);
      slot.pending = null;
      const text = "The kernel of this view was restarted or stopped. Run the cell again for a new view.";
      this.report(text, { failed: true });
    }
  }

  /**
   * @param {Message & {asked?: string, text?: string, retry?: boolean}} message
   * @param {Part[]} parts
   */
  receive(message, parts) {
    if (message.client !== this.client) return;
    const slot = this.slots.get(message.asked ?? message.kind);
    if (!slot?.pending || slot.pending.seq !== message.seq) return;
    clearTimeout(slot.timer);
    if (message.kind === "status") {
      this.report(message.text ?? "", { busy: true }); // the kernel is still working on the request
      return;
    }
    const { seq, client, kind, ...payload } = slot.pending;
    slot.pending = null;
    if (message.kind === "error") {
      const { text, retry } = /** @type {ErrorMessage} */ (message);
      this.report(text, { failed: true, retry: retry === false ? null : () => this.request(kind, payload) });
      this.emit("error", message);
    } else {
      this.emit("reply", message, parts);
    }
    if (slot.queued) this.send(kind, slot, slot.queued);
  }

  /** Stops waiting for replies. */
  close() {
    for (const slot of this.slots.values()) clearTimeout(slot.timer);
  }
}

// Requests to the kernel by custom messages, and its replies.
//
// A request can take half a minute. While one is pending, a watch makes sure that the kernel is there: it sends a ping
// when nothing was heard for a while. The kernel answers pings during a pass, and lists the requests that it knows.

import { cellIsRunning } from "./kernel.js";

/** @import { AnyModel, ErrorMessage, Message, Part, ProgressMessage, Status, Wait } from "./types.js" */

/** @typedef {"reply" | "status" | "error"} LinkEvent */
/** @typedef {(event: LinkEvent, message: any, parts: Part[]) => void} LinkListener */

/**
 * @typedef {object} Slot requests of one kind
 * @property {string} kind
 * @property {(Message & Record<string, unknown>) | null} pending the request in flight
 * @property {Set<number>} seqs numbers under which the pending request was sent: more than one if it seemed lost
 * @property {Part[]} parts binary parts of the pending request
 * @property {object | null} queued the payload to send next
 * @property {Part[]} queuedParts
 * @property {number} since when the pending request was first sent, by performance.now()
 * @property {ProgressMessage | null} progress what the kernel said of it last; null until it says something
 * @property {boolean} cancelling
 */

export const LOST = "The kernel of this view was restarted or stopped. Run the cell again for a new view.";
const BUSY = "The kernel is busy with another cell. This view continues when the cell ends.";
const OFFLINE = "The browser is offline. This view continues when the connection is back.";
const SILENT =
  "The kernel has not answered yet. It may be busy, or the connection may be lost. If the kernel was restarted, run " +
  "the cell again.";
const CANCELLED = "Cancelled.";

/**
 * Sends requests. Per kind, one request is in flight and at most one more is queued: dragging a slider over ten blocks
 * requests the first and the last. Each request carries the id of this page and a sequence number, and its reply repeats
 * them. Stale replies, and replies to other pages, are dropped.
 */
export class Link {
  /**
   * @param {AnyModel<any>} model
   * @param {number} [patience] milliseconds of silence after which the strip says so
   */
  constructor(model, patience = 4000) {
    this.model = model;
    this.patience = patience;
    this.client = Math.random().toString(36).slice(2);
    this.seq = 0;
    /** @type {Map<string, Slot>} */
    this.slots = new Map();
    /** @type {Map<string, object>} failed requests: kind and payload */
    this.failed = new Map();
    /** @type {Set<LinkListener>} */
    this.listeners = new Set();
    /** @type {Status} */
    this.status = statusOf("");
    this.heard = 0; // when the kernel last said something
    this.pinged = 0;
    this.silent = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {(message: any, parts: Part[]) => void} */
    this.receiver = (message, parts) => this.receive(message, parts);
    this.pinger = () => this.ping();
    model.on("msg:custom", this.receiver);
    // Jupyter's widget managers set this when the kernel restarts. Sending shows whether the comm is closed.
    model.on("comm_live_update", this.pinger);
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
  report(text, state = {}) {
    this.status = statusOf(text, state);
    this.emit("status", this.status);
  }

  /** The requests in flight, the oldest first. @returns {Slot[]} */
  get pending() {
    return [...this.slots.values()].filter(({ pending }) => pending).sort((a, b) => a.since - b.since);
  }

  /** The request that the view waits for, or null. @returns {Wait | null} */
  get wait() {
    const { pending } = this;
    const slot =
      pending.find(({ progress }) => progress?.total) ?? pending.find(({ progress }) => progress) ?? pending[0];
    if (!slot) return null;
    const { progress, cancelling, since } = slot;
    const { stage = "", done = 0, total = 0 } = (!this.silent && progress) || {};
    const cancellable = !cancelling && (this.silent || progress?.cancellable !== false);
    return {
      kind: slot.kind,
      since,
      text: this.status.busy ? this.status.text : (progress?.text ?? ""),
      stage,
      done,
      total,
      cancel: cancellable ? () => this.cancel() : null,
      stoppable: progress?.cancellable !== false,
    };
  }

  /**
   * Sends a request, or queues it in place of the one that is queued.
   *
   * @param {string} kind
   * @param {object} [payload]
   * @param {Part[]} [parts]
   */
  request(kind, payload = {}, parts = []) {
    const slot = this.slots.get(kind) ?? newSlot(kind);
    this.slots.set(kind, slot);
    this.failed.delete(kind);
    if (slot.pending) Object.assign(slot, { queued: payload, queuedParts: parts });
    else this.send(slot, payload, parts);
  }

  /**
   * @param {Slot} slot
   * @param {object} payload
   * @param {Part[]} parts
   * @param {boolean} [again] whether the pending request is sent again: any reply to it will do
   */
  send(slot, payload, parts, again = false) {
    const now = performance.now();
    if (!this.pending.length) this.heard = now;
    this.seq += 1;
    slot.pending = { ...payload, kind: slot.kind, seq: this.seq, client: this.client };
    slot.seqs = new Set(again ? slot.seqs : []).add(this.seq);
    Object.assign(slot, { parts, progress: null, cancelling: false, since: now });
    if (!again) Object.assign(slot, { queued: null, queuedParts: [] }); // what waits for the pending one still does
    if (!this.transmit(slot.pending, parts)) return;
    this.watch();
    this.emit("status", this.status); // a view may have to show that it waits
  }

  /**
   * @param {object} message
   * @param {Part[]} [parts]
   * @returns {boolean} false if the kernel of this view is gone
   */
  transmit(message, parts = []) {
    try {
      if (parts.length) this.model.send(message, undefined, parts);
      else this.model.send(message);
      return true;
    } catch {
      // The comm is closed: no further message arrives.
      for (const slot of this.slots.values()) Object.assign(slot, { pending: null, queued: null, progress: null });
      clearTimeout(this.timer);
      this.silent = false;
      this.report(LOST, { failed: true, lost: true });
      return false;
    }
  }

  /**
   * @param {Message & {asked?: string, requests?: ProgressMessage[]}} message
   * @param {Part[]} parts
   */
  receive(message, parts) {
    if (message.client !== this.client) return;
    const wasSilent = this.silent;
    this.heard = performance.now();
    this.silent = false;
    if (message.kind === "pong") this.receivePong(message);
    else this.receiveAnswer(message, parts);
    if (wasSilent && !this.silent && this.status.text !== "" && this.status.busy) this.reportProgress();
  }

  /**
   * @param {Message & {asked?: string}} message
   * @param {Part[]} parts
   */
  receiveAnswer(message, parts) {
    const slot = this.slots.get(message.asked ?? message.kind);
    if (!slot?.pending || message.seq === undefined || !slot.seqs.has(message.seq)) return;
    if (message.kind === "status") {
      slot.progress = /** @type {ProgressMessage} */ (message);
      this.reportProgress();
      return;
    }
    const { seq, client, kind, ...payload } = slot.pending;
    Object.assign(slot, { pending: null, progress: null });
    for (const other of slot.seqs) {
      if (other !== message.seq) this.transmit({ kind: "cancel", seq: other, client: this.client });
    }
    if (message.kind === "error") {
      const { text, retry, cancelled = false } = /** @type {ErrorMessage} */ (message);
      this.fail(text, slot, retry === false ? null : payload, cancelled);
      this.emit("error", message);
    } else {
      this.emit("reply", message, parts);
      this.emit("status", this.status); // or that it waits no more
    }
    if (slot.queued) this.send(slot, slot.queued, slot.queuedParts);
  }

  /**
   * Reports a failed request. "Try again" sends all that have failed.
   *
   * @param {string} text
   * @param {Slot} slot
   * @param {object | null} payload null if it would fail again
   * @param {boolean} cancelled
   */
  fail(text, slot, payload, cancelled) {
    if (payload) this.failed.set(slot.kind, payload);
    const retry = () => {
      for (const [kind, again] of [...this.failed]) this.request(kind, again);
    };
    this.report(text, { failed: true, cancelled, retry: payload ? retry : null });
  }

  /**
   * Takes over what the kernel knows. A request that it does not know was lost with a connection, and is sent again.
   *
   * @param {Message & {requests?: ProgressMessage[]}} pong
   */
  receivePong({ seq: ping = 0, requests = [] }) {
    for (const slot of this.pending) {
      const { seq: sent = 0, client, kind, ...payload } = /** @type {Message} */ (slot.pending);
      const known = requests.find(({ seq }) => seq !== undefined && slot.seqs.has(seq));
      if (known?.text) slot.progress = { ...slot.progress, ...known };
      else if (!known && sent < ping) {
        const { since } = slot;
        this.send(slot, payload, slot.parts, true);
        slot.since = since;
      }
    }
  }

  /** Shows what the kernel is doing. */
  reportProgress() {
    const slot = this.pending.find(({ progress }) => progress?.total) ?? this.pending.find(({ progress }) => progress);
    const stage = slot?.progress?.stage ?? "";
    const text = this.pending.some(({ cancelling }) => cancelling)
      ? "Cancelling. The model stops at the next block"
      : (slot?.progress?.text ?? "The kernel is working on the request");
    this.report(text, { busy: true, stage });
  }

  /** Cancels all requests. */
  cancel() {
    for (const slot of this.pending) {
      const { seq, client, kind, ...payload } = /** @type {Message} */ (slot.pending);
      slot.queued = null;
      for (const each of slot.seqs) {
        if (!this.transmit({ kind: "cancel", seq: each, client: this.client })) return;
      }
      if (this.silent || !slot.progress) {
        // The kernel has not begun. It drops the request when it reads both messages.
        Object.assign(slot, { pending: null, progress: null });
        this.fail(CANCELLED, slot, payload, true);
      } else {
        slot.cancelling = true;
      }
    }
    if (this.pending.length) this.reportProgress();
  }

  /** Looks after the kernel until nothing is pending. */
  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (!this.pending.length) return;
      const now = performance.now();
      const quiet = now - this.heard;
      if (quiet >= this.patience) this.reportSilence();
      if (quiet >= this.patience / 2 && now - this.pinged >= this.patience / 2) this.ping();
      if (this.pending.length) this.watch();
    }, this.patience / 4);
  }

  /** Asks the kernel whether it is there. */
  ping() {
    this.seq += 1;
    this.pinged = performance.now();
    this.transmit({ kind: "ping", seq: this.seq, client: this.client });
  }

  reportSilence() {
    const offline = typeof navigator !== "undefined" && navigator.onLine === false;
    const text = offline ? OFFLINE : cellIsRunning() ? BUSY : SILENT;
    if (this.silent && this.status.text === text) return;
    this.silent = true;
    const retry = () => {
      for (const slot of this.pending) {
        const { seq, client, kind, ...payload } = /** @type {Message} */ (slot.pending);
        if (slot.queued) this.send(slot, slot.queued, slot.queuedParts);
        else this.send(slot, payload, slot.parts, true);
      }
    };
    this.report(text, { busy: true, retry: text === SILENT ? retry : null });
  }

  /** Stops waiting for replies, and receives none. The kernel need not go on. */
  close() {
    for (const { seqs } of this.pending) {
      for (const seq of seqs) this.transmit({ kind: "cancel", seq, client: this.client });
    }
    this.model.off("msg:custom", this.receiver);
    this.model.off("comm_live_update", this.pinger);
    clearTimeout(this.timer);
  }
}

/**
 * @param {string} kind
 * @returns {Slot}
 */
function newSlot(kind) {
  return {
    kind,
    pending: null,
    seqs: new Set(),
    parts: [],
    queued: null,
    queuedParts: [],
    since: 0,
    progress: null,
    cancelling: false,
  };
}

/**
 * @param {string} text
 * @param {Partial<Status>} [state]
 * @returns {Status}
 */
function statusOf(text, state = {}) {
  const none = {
    stage: "",
    busy: false,
    failed: false,
    cancelled: false,
    lost: false,
    retry: null,
    offer: null,
    more: null,
  };
  return { ...none, ...state, text };
}

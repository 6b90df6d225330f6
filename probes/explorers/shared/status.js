// The status strip at the bottom of a widget.

import { button } from "./controls.js";
import { element, setText } from "./elements.js";
import { formatFixed } from "./format.js";
import { createOffer } from "./offer.js";

/** @import { Status } from "./types.js" */

/**
 * @typedef {object} StatusStrip
 * @property {HTMLElement} node
 * @property {HTMLElement} offer a file to be saved by hand
 * @property {(status: Status) => void} show
 * @property {(name: string, timings: Timings, digits: number, what: string) => void} showTimings shows the median; the
 *   tooltip explains `what` was timed and gives the slow end
 */

/** @returns {StatusStrip} */
export function createStatusStrip() {
  /** @type {Status["retry"]} */
  let retry = null;
  /** @type {Status["more"]} */
  let more = null;
  const text = element("span", { className: "dptx-status-text", role: "status" });
  const again = button("Try again", "Send the request again", () => retry?.(), { hidden: true });
  const next = button("", "", () => more?.run(), { hidden: true });
  const stage = element("span", { className: "dptx-status-stage" }); // not announced: it changes at each block
  const note = element("span", { className: "dptx-status-note" });
  const lamp = element("span", { className: "dptx-lamp" });
  const node = element("div", { className: "dptx-status" }, lamp, text, stage, again, next, note);
  const offer = createOffer();
  return {
    node,
    offer: offer.node,
    show(status) {
      retry = status.retry;
      setText(text, status.text);
      setText(stage, status.stage);
      again.hidden = !status.retry;
      more = status.more;
      next.hidden = !more;
      next.textContent = more?.text ?? "";
      next.title = more?.title ?? "";
      if (status.offer) offer.show(status.offer);
      const ended = status.cancelled ? "cancelled" : "failed";
      node.dataset.state = status.failed ? ended : status.busy ? "busy" : "ready";
    },
    showTimings(name, timings, digits, what) {
      const [median, high] = [timings.quantile(0.5), timings.quantile(0.95)];
      const latest = Math.min(timings.ring.length, timings.count);
      note.textContent = `${name} ${formatFixed(median, digits)} ms`;
      note.title = `${what}: median ${formatFixed(median, 2)} ms, 95 % under ${formatFixed(high, 2)} ms (latest ${latest})`;
      Object.assign(note.dataset, { count: timings.count, median, high });
    },
  };
}

/** Durations of the latest paints. */
export class Timings {
  /** @param {number} [size] how many are kept */
  constructor(size = 256) {
    this.ring = new Float32Array(size);
    this.count = 0;
  }

  /** @param {number} ms */
  add(ms) {
    this.ring[this.count++ % this.ring.length] = ms;
  }

  /**
   * @param {number} fraction
   * @returns {number} milliseconds; 0 before the first one
   */
  quantile(fraction) {
    const known = this.ring.slice(0, Math.min(this.count, this.ring.length)).sort();
    return known.length ? known[Math.min(known.length - 1, Math.floor(fraction * known.length))] : 0;
  }
}

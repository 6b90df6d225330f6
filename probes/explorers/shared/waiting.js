// What a view waits for, shown where its data will stand: text, progress, elapsed time, and a button that cancels it.

import { button } from "./controls.js";
import { element, setText } from "./elements.js";

/** @import { Link } from "./link.js" */

/** Milliseconds before the card appears: a fast model must not flicker. Longer over data that is already there. */
const DELAY = { empty: 150, over: 1000 };

/**
 * @param {number} ms
 * @returns {string} e.g. "12 s", "2 min 5 s"; "" under a second
 */
export function elapsedWords(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "";
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/**
 * Where the card goes, in pixels from the root's top left corner: over the area of the data, or at the top of the
 * widget if that area begins so far down that it may lie below the fold.
 *
 * @param {DOMRect} root
 * @param {DOMRect} area
 * @returns {{left: number, top: number}} of the middle of the card's upper edge
 */
export function cardPlace(root, area) {
  const beside = area.width > 0 && area.top - root.top < 260;
  const { left, width } = beside ? area : root;
  const top = Math.max(beside ? area.top - root.top : 0, 48) + 24;
  return { left: left - root.left + width / 2, top };
}

/** The card over a view. It follows the link, and its clock. */
export class Waiting {
  /**
   * @param {Link} link
   * @param {{root: HTMLElement, area: () => Element | null, isEmpty: () => boolean}} view `area`: where the data will
   *   stand; `isEmpty`: whether there is none yet
   */
  constructor(link, { root, area, isEmpty }) {
    this.link = link;
    this.root = root;
    this.area = area;
    this.isEmpty = isEmpty;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.text = element("p", { className: "dptx-waiting-text" });
    this.fill = element("div", { className: "dptx-progress-fill" });
    this.bar = element(
      "div",
      { className: "dptx-progress", role: "progressbar", "aria-label": "Progress of the request" },
      this.fill,
    );
    this.stage = element("span", { className: "dptx-waiting-stage" });
    this.stop = button("Cancel", "Stop the model at its next block", () => this.link.wait?.cancel?.());
    this.again = button("Try again", "Send the request again", () => this.link.status.retry?.());
    this.card = element(
      "div",
      { className: "dptx-waiting-card" },
      this.text,
      this.bar,
      element("div", { className: "dptx-waiting-row" }, this.stage, this.stop, this.again),
    );
    this.node = element("div", { className: "dptx-waiting", hidden: true }, this.card);
  }

  /** Shows what the link waits for, or why it does not. */
  update() {
    clearTimeout(this.timer);
    const { status, wait } = this.link;
    const unfinished = this.root.dataset.state !== "ready";
    const failed = status.failed && (this.isEmpty() || ((status.lost || status.cancelled) && unfinished));
    if (failed) {
      this.show(status.text, Boolean(status.retry));
    } else if (!wait) {
      this.hide();
    } else {
      const age = performance.now() - wait.since;
      const delay = this.isEmpty() ? DELAY.empty : DELAY.over;
      if (age >= delay) this.showWait(age);
      else if (!this.node.hidden && this.node.dataset.state === "failed") this.hide();
      this.timer = setTimeout(() => this.update(), age < delay ? delay - age : 1000 - (age % 1000));
    }
  }

  /** @param {number} age milliseconds */
  showWait(age) {
    const { wait, status } = this.link;
    if (!wait) return;
    this.show(wait.text || "Waiting for the kernel", false);
    this.node.dataset.state = "busy";
    const stopped = wait.stoppable ? "" : "interrupt the kernel to stop it";
    setText(this.stage, [wait.stage, elapsedWords(age), stopped].filter(Boolean).join(" \u00b7 "));
    this.bar.hidden = false;
    this.bar.classList.toggle("dptx-progress-open", !wait.total);
    if (wait.total) {
      this.fill.style.width = `${(100 * wait.done) / wait.total}%`;
      this.bar.setAttribute("aria-valuemax", String(wait.total));
      this.bar.setAttribute("aria-valuenow", String(wait.done));
      this.bar.setAttribute("aria-valuetext", wait.stage || `${wait.done} of ${wait.total}`);
    } else {
      this.fill.style.width = "";
      for (const name of ["aria-valuemax", "aria-valuenow", "aria-valuetext"]) this.bar.removeAttribute(name);
    }
    this.stop.hidden = !wait.stoppable;
    this.stop.disabled = !wait.cancel;
    this.again.hidden = !status.retry;
  }

  /**
   * @param {string} text
   * @param {boolean} retry
   */
  show(text, retry) {
    setText(this.text, text);
    if (this.node.hidden) {
      this.node.hidden = false;
      this.place();
    }
    this.node.dataset.state = "failed";
    this.stop.hidden = true;
    this.bar.hidden = true;
    this.again.hidden = !retry;
    setText(this.stage, "");
  }

  hide() {
    // A focus on the card would be lost with it, and with it the keys.
    if (this.node.contains(document.activeElement)) this.root.focus({ preventScroll: true });
    this.node.hidden = true;
  }

  /** Puts the card over the area. */
  place() {
    if (this.node.hidden) return;
    const root = this.root.getBoundingClientRect();
    const { left, top } = cardPlace(root, this.area()?.getBoundingClientRect() ?? root);
    Object.assign(this.card.style, { left: `${left}px`, top: `${top}px` });
  }

  dispose() {
    clearTimeout(this.timer);
  }
}

// Tells the kernel whether this page shows a widget: for views that are gone, neither side keeps data.

/** @import { AnyModel } from "./types.js" */

/** Milliseconds without a view before the data goes. A cell that is moved, or run again, loses its view for a moment. */
export const LINGER = 2000;

const PAGE = Math.random().toString(36).slice(2);

/** Whether the page shows a widget. */
export class Presence {
  /**
   * @param {AnyModel<any>} model
   * @param {object} actions
   * @param {() => void} actions.onGone called when the page shows the widget no longer
   * @param {() => void} actions.onReturn called when the browser restores the page that was left
   */
  constructor(model, { onGone, onReturn }) {
    this.model = model;
    this.onGone = onGone;
    this.count = 0;
    this.announced = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.going = undefined;
    this.hide = () => this.say(0);
    /** @param {PageTransitionEvent} event */
    this.restore = ({ persisted }) => {
      if (!persisted) return;
      onReturn();
      this.say(this.count);
    };
  }

  /** @param {number} count of views on this page */
  show(count) {
    this.count = count;
    clearTimeout(this.going);
    if (count && !this.announced) {
      this.announced = true;
      this.say(count);
      globalThis.addEventListener?.("pagehide", this.hide);
      globalThis.addEventListener?.("pageshow", this.restore);
    } else if (!count && this.announced) {
      this.going = setTimeout(() => {
        this.say(0);
        this.end();
        this.onGone();
      }, LINGER);
    }
  }

  /** Answers the kernel, which cannot tell a page that was closed from one that is silent. */
  repeat() {
    if (this.announced && this.count) this.say(this.count);
  }

  /** Stops: the widget is closed, or the page shows it no longer. */
  end() {
    clearTimeout(this.going);
    this.announced = false;
    globalThis.removeEventListener?.("pagehide", this.hide);
    globalThis.removeEventListener?.("pageshow", this.restore);
  }

  /** @param {number} count */
  say(count) {
    if (this.model.onPage) return; // no kernel
    try {
      this.model.send({ kind: "views", client: PAGE, count });
    } catch {
      // the comm is closed, and so is the explorer
    }
  }
}

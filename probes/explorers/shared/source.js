// The data of a widget. One Source per widget model, shared by all displays of the widget on the page, which therefore
// stay in step. It requests data from the kernel and keeps the replies; views listen to its events.

import { Link } from "./link.js";
import { receivePage } from "./save_page.js";

/** @import { AnyModel, ImageMessage, Message, Part } from "./types.js" */

/**
 * Subclasses override requestFirst() and receive(). Their events are strings of their own; every source also emits
 * "status" when the status strip changes, and "error" when a request failed.
 *
 * @template {object} Traits
 */
export class Source {
  /**
   * @param {AnyModel<Traits>} model
   * @param {number} [patience] milliseconds until the strip says that the kernel is slow to answer
   */
  constructor(model, patience) {
    this.model = model;
    this.link = new Link(model, patience);
    this.opened = false;
    this.advice = ""; // what the model is not made for
    this.closed = false;
    this.pageName = ""; // of the page that was requested last
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.saving = undefined;
    /** @type {Set<(event: string) => void>} */
    this.listeners = new Set();
    /** @type {(() => void)[]} */
    this.cleanup = [() => this.link.close()];
    this.link.listen((event, message, parts) => {
      if (event === "reply" && typeof message.advice === "string") this.advice = message.advice;
      if (event === "reply" && message.kind === "page") receivePage(this, message, parts);
      else if (event === "reply") this.receive(message, parts);
      else this.emit(event);
    });
  }

  /**
   * @param {(event: string) => void} listener
   * @returns {() => void} stops listening
   */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** @param {string} event */
  emit(event) {
    for (const listener of [...this.listeners]) listener(event);
  }

  /**
   * What the display shows where the traits do not have it yet, such as the place under the pointer.
   *
   * @returns {Partial<Traits>}
   */
  get present() {
    return {};
  }

  /**
   * Follows a trait until the source is closed.
   *
   * @param {keyof Traits & string} name
   * @param {() => void} action
   */
  follow(name, action) {
    this.model.on(`change:${name}`, action);
    this.cleanup.push(() => this.model.off(`change:${name}`, action));
  }

  /** Lets go of the model: no further data arrives, and traits are not followed. */
  close() {
    clearTimeout(this.saving);
    for (const undo of this.cleanup) undo();
    this.listeners.clear();
    this.closed = true;
  }

  /** Requests the first data. The first view calls this: a widget requests no data until it is displayed. */
  open() {
    if (this.opened) return;
    this.opened = true;
    this.requestFirst();
  }

  /** Requests the first data. */
  requestFirst() {}

  /**
   * Handles a reply of the kernel.
   *
   * @param {any} _message
   * @param {Part[]} _parts
   */
  receive(_message, _parts) {}

  /**
   * Runs a decoder. If it throws, the status strip shows the error.
   *
   * @template Decoded
   * @param {() => Decoded} decode
   * @returns {Decoded | null}
   */
  decode(decode) {
    try {
      return decode();
    } catch (error) {
      this.link.report(error instanceof Error ? error.message : String(error), { failed: true });
      return null;
    }
  }

  /**
   * Decodes an image file in the browser.
   *
   * @param {ImageMessage} message
   * @param {Part} part
   * @param {(image: ImageBitmap) => void} take
   */
  readImage(message, part, take) {
    createImageBitmap(new Blob([part], { type: message.type })).then(
      (image) => (this.closed ? image.close() : take(image)),
      (error) => this.link.report(`The browser cannot decode the ${message.kind}: ${error.message}`, { failed: true }),
    );
  }

  /**
   * Saves a trait in 250 ms, unless it is saved again before. For deliberate moves, never for hovering: Python and other
   * pages see the trait.
   *
   * @template {keyof Traits & string} Name
   * @param {Name} name
   * @param {() => Traits[Name]} value
   */
  saveSoon(name, value) {
    clearTimeout(this.saving);
    this.saving = setTimeout(() => {
      this.model.set(name, value());
      this.model.save_changes();
    }, 250);
  }
}

// The data of the tour: the diagram, requested once, and one image per part and view, requested when it is shown.

import { Source } from "#shared/source.js";

/** @import { Origin } from "#shared/origin.js" */
/** @import { AnyModel, Message, Part as Bytes, PythonCode } from "#shared/types.js" */

/**
 * @typedef {object} Part
 * @property {string} name
 * @property {string} kind "picture", "block", "fusion", ...
 * @property {number} number among the parts of its kind
 * @property {number} group the stage that a block belongs to
 * @property {string} title
 * @property {string} formula
 * @property {string} why
 * @property {string} family what differs in this model's family; "" if nothing
 * @property {[name: string, symbols: string, here: string][]} shapes
 * @property {string[]} points probe points that capture the part
 * @property {[view: string, name: string][]} views
 * @property {number} thumbnail an index into the thumbnails; -1 if it has none
 */

/**
 * @typedef {object} Tour
 * @property {string} title
 * @property {boolean} untrained
 * @property {string} line the size of the model, in words
 * @property {Part[]} parts
 * @property {number} aspect width / height of the model's input
 * @property {string} call the Python of a pass over the image
 * @property {PythonCode} [code] how Python gets the model and the image
 * @property {Origin} origin
 */

/** @typedef {{url: string, caption: string}} Shot an image of a part */

/** @typedef {{part: string, view: string}} TourTraits names; view "" is the first of the part */

/**
 * Events: "tour" when the diagram is here, "part" when another part or view is chosen, "shot" when its image is here.
 *
 * @extends {Source<TourTraits>}
 */
export class TourSource extends Source {
  /** @param {AnyModel<TourTraits>} model */
  constructor(model) {
    super(model);
    /** @type {Tour | null} */
    this.tour = null;
    /** @type {string[]} URLs */
    this.thumbnails = [];
    /** @type {Map<string, Shot>} by part and view */
    this.shots = new Map();
    this.cleanup.push(() => {
      for (const url of [...this.thumbnails, ...[...this.shots.values()].map(({ url }) => url)])
        URL.revokeObjectURL(url);
      this.thumbnails = [];
      this.shots.clear();
    });
    this.follow("part", () => this.requestShot());
    this.follow("view", () => this.requestShot());
  }

  /** @override */
  requestFirst() {
    this.link.report("Requesting the diagram", { busy: true });
    this.link.request("tour");
  }

  /** @returns {Part | null} the chosen part */
  get part() {
    return this.tour?.parts.find(({ name }) => name === this.model.get("part")) ?? null;
  }

  /**
   * The view to show of a part: the chosen one if the part has it, else its first.
   *
   * @param {Part} part
   * @returns {string}
   */
  viewOf(part) {
    const views = part.views.map(([view]) => view);
    const chosen = this.model.get("view");
    return views.includes(chosen) ? chosen : views[0];
  }

  /** @returns {Shot | null} the image of the chosen part and view, once it is here */
  get shot() {
    const { part } = this;
    return (part && this.shots.get(shotKey(part.name, this.viewOf(part)))) ?? null;
  }

  requestShot() {
    this.emit("part");
    const { part } = this;
    if (!part) return;
    if (this.shot) this.reportReady();
    else this.link.request("shot", { part: part.name, view: this.viewOf(part) });
  }

  /**
   * @override
   * @param {Message & Tour & {part: string, view: string, type: string, caption: string}} message
   * @param {Bytes[]} buffers
   */
  receive(message, buffers) {
    if (message.kind === "tour") {
      this.tour = message;
      this.thumbnails = buffers.map((bytes) => urlOf(bytes, "image/png"));
      this.emit("tour");
      this.requestShot();
    } else if (message.kind === "shot") {
      const { part, view, type, caption } = message;
      this.shots.set(shotKey(part, view), { url: urlOf(buffers[0], type), caption });
      this.reportReady();
    }
  }

  reportReady() {
    if (this.tour) this.link.report(`${this.tour.title}: ${this.tour.line}`);
    this.emit("shot");
  }
}

/**
 * @param {string} part
 * @param {string} view
 */
function shotKey(part, view) {
  return `${part} ${view}`;
}

/**
 * @param {Bytes} bytes
 * @param {string} type
 */
function urlOf(bytes, type) {
  return URL.createObjectURL(new Blob([bytes], { type }));
}

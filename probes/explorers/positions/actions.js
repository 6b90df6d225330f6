// What a user can do in the position explorer: every control, key and gesture calls one of these.

import { imageOrder, MEAN } from "./data.js";
import { middleOf, stepCell } from "./places.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { Cell } from "./places.js" */
/** @import { PositionSource, PositionTraits } from "./source.js" */

/** Images are shown in pages. `size` follows from the layout. */
export class Pages {
  /**
   * @param {Settings<PositionTraits>} settings
   * @param {PositionSource} source
   */
  constructor(settings, source) {
    this.settings = settings;
    this.source = source;
    this.size = 1;
  }

  /** Indices of all images in display order. */
  get order() {
    const { data } = this.source;
    return data ? imageOrder(data, this.settings.get("order")) : [];
  }

  get count() {
    return Math.ceil(this.order.length / this.size);
  }

  /** The page shown. */
  get current() {
    return Math.max(0, Math.min(this.count - 1, Math.floor(this.settings.get("first") / this.size)));
  }

  /** Indices of the images shown. */
  get images() {
    const first = this.current * this.size;
    return this.order.slice(first, first + this.size);
  }
}

export class PositionActions {
  /**
   * @param {object} options
   * @param {Settings<PositionTraits>} options.settings
   * @param {PositionSource} options.source
   * @param {Pages} options.pages
   * @param {() => void} options.onStep called after a deliberate step: it is announced, and nothing is read off
   */
  constructor({ settings, source, pages, onStep }) {
    this.settings = settings;
    this.source = source;
    this.pages = pages;
    this.onStep = onStep;
  }

  /** The trait of the enlarged image. */
  get imageTrait() {
    return /** @type {"head" | "channel"} */ (this.source.biased ? "head" : "channel");
  }

  /** The enlarged image: its index, MEAN, or null. The mean stands in for a head that the block does not have. */
  get image() {
    const image = this.settings.get(this.imageTrait);
    return image !== null && this.source.data && image >= this.source.data.count ? MEAN : image;
  }

  /** The head that is laid on the grid. */
  get head() {
    return this.image ?? MEAN;
  }

  /** @param {Readonly<Cell>} cell */
  moveTo(cell) {
    const { data } = this.source;
    if (data) this.source.moveTo(middleOf(data, cell));
  }

  /**
   * Pins the position on display, or moves the pin to another cell. A tap on the pin releases it.
   *
   * @param {Readonly<Cell>} [cell]
   */
  togglePin(cell) {
    const { source, settings } = this;
    if (!source.data) return;
    if (cell && settings.get("pinned") && cell.join() !== source.cell.join()) this.moveTo(cell);
    else settings.save({ pinned: !settings.get("pinned") });
    source.savePlace();
    this.onStep();
  }

  /**
   * @param {number} down
   * @param {number} right
   */
  move(down, right) {
    const { data, cell } = this.source;
    if (!data) return;
    this.moveTo(stepCell(data, cell, down, right));
    this.source.savePlace();
    this.onStep();
  }

  /**
   * Enlarges an image, or goes back to all of them.
   *
   * @param {number} image
   * @returns {boolean} false if there is no such image
   */
  enlarge(image) {
    const { data } = this.source;
    if (!data || image >= data.count) return false;
    this.settings.save({ [this.imageTrait]: image === this.image ? null : image });
    this.onStep();
    return true;
  }

  /**
   * Enlarges the next image in display order, and turns to its page.
   *
   * @param {number} by
   */
  enlargeNext(by) {
    const { order, current, size } = this.pages;
    if (!order.length) return;
    const now = this.image === null ? -1 : order.indexOf(this.image);
    const next = now < 0 ? current * size : (now + by + order.length) % order.length;
    this.settings.save({ [this.imageTrait]: order[next], first: next });
    this.onStep();
  }

  /** @param {number} block */
  goToBlock(block) {
    const blocks = this.source.about?.blocks ?? 0;
    if (block < 0 || block >= blocks || block === this.settings.get("block")) return;
    this.settings.save({ block });
    this.onStep();
  }

  /** @param {number} by */
  stepBlock(by) {
    this.goToBlock(this.settings.get("block") + by);
  }

  /** @param {number} page */
  goToPage(page) {
    if (page >= 0 && page < this.pages.count) this.settings.save({ first: page * this.pages.size });
  }

  /** @param {number} by */
  turnPage(by) {
    this.goToPage(this.pages.current + by);
  }

  /** @param {number} by */
  stepSize(by) {
    const { sizes } = this.source;
    const now = sizes.findIndex((size) => size.join() === this.settings.get("size").join());
    this.settings.save({ size: sizes[(now + by + sizes.length) % sizes.length] });
  }

  /**
   * Another order begins at its first page.
   *
   * @param {PositionTraits["order"]} order
   */
  sortBy(order) {
    this.settings.save({ order, first: 0 });
  }

  /** Goes to the next order. */
  nextOrder() {
    const orders = ordersOf(this.source.biased);
    this.sortBy(orders[(orders.indexOf(this.settings.get("order")) + 1) % orders.length]);
  }

  /**
   * Releases the pin, or else closes the enlarged image.
   *
   * @returns {boolean} false if there was neither
   */
  clear() {
    if (this.settings.get("pinned")) this.togglePin();
    else if (this.image !== null) this.settings.save({ [this.imageTrait]: null });
    else return false;
    return true;
  }
}

/**
 * @param {boolean} biased
 * @returns {PositionTraits["order"][]}
 */
export function ordersOf(biased) {
  return biased ? ["index", "strength"] : ["index", "strength", "frequency"];
}

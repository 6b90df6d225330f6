// What the user does in the attention explorer: moves, pins, goes to a block, enlarges a head. No DOM.

import { stepToken } from "#shared/patches.js";
import { withToggledPin } from "./selection.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { Selection } from "./selection.js" */
/** @import { AttentionSource, AttentionTraits } from "./source.js" */

/**
 * The selection of tokens, from traits and pointer.
 *
 * @param {Settings<AttentionTraits>} settings
 * @param {AttentionSource} source
 * @returns {Selection}
 */
export function selectionOf(settings, { cursor }) {
  return { pins: settings.get("pins"), compare: settings.get("compare"), cursor };
}

/** Changes traits and the cursor; each deliberate step is announced. */
export class AttentionActions {
  /**
   * @param {Settings<AttentionTraits>} settings
   * @param {AttentionSource} source
   * @param {() => void} announce tells screen readers what is displayed now
   */
  constructor(settings, source, announce) {
    this.settings = settings;
    this.source = source;
    this.announce = announce;
  }

  /**
   * Moves the cursor on the grid.
   *
   * @param {number} down
   * @param {number} right
   */
  move(down, right) {
    const { source } = this;
    if (!source.grid) return;
    source.moveTo(stepToken(source.grid, source.cursor, down, right));
    source.saveCursor();
    this.announce();
  }

  /** @param {number} token */
  togglePin(token) {
    this.settings.save(withToggledPin(selectionOf(this.settings, this.source), token));
    this.announce();
  }

  /** @param {number | undefined} block */
  goToBlock(block) {
    if (block === undefined || block === this.settings.get("block")) return;
    this.source.goToBlock(block);
    this.announce();
  }

  /**
   * Moves to another available block.
   *
   * @param {number} by
   */
  stepBlock(by) {
    const { blocks } = this.source;
    this.goToBlock(blocks[blocks.indexOf(this.settings.get("block")) + by]);
  }

  /**
   * Enlarges a head, or goes back to all of them.
   *
   * @param {number} head -1: the mean
   * @returns {boolean} false if the block does not have the head
   */
  enlarge(head) {
    if (head >= this.source.heads) return false;
    this.settings.save({ head: head === this.settings.get("head") ? null : head });
    this.announce();
    return true;
  }

  /** Enlarges the next head; after the last one none. */
  enlargeNext() {
    const head = this.settings.get("head");
    const next = head === null ? 0 : head + 1;
    this.settings.save({ head: next < this.source.heads ? next : null });
  }

  /**
   * Releases the pins, or else goes back from the enlarged head.
   *
   * @returns {boolean} false if there was neither
   */
  clear() {
    if (this.settings.get("pins").length) this.settings.save({ pins: [], compare: "a" });
    else if (this.settings.get("head") !== null) this.settings.save({ head: null });
    else return false;
    return true;
  }
}

// What a user can do in the norm explorer: every control, key and gesture calls one of these.

import { stepToken } from "#shared/patches.js";
import { strongestChannel } from "./blocks.js";
import { QUANTITIES } from "./shown_map.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { NormSource, NormTraits } from "./source.js" */

/** Tokens are those of the picture's grid. */
export class NormActions {
  /**
   * @param {Settings<NormTraits>} settings
   * @param {NormSource} source
   * @param {object} callbacks
   * @param {() => void} callbacks.onMove the patch was moved by a key
   * @param {() => void} callbacks.onAttend the attention explorer was requested
   */
  constructor(settings, source, { onMove, onAttend }) {
    this.settings = settings;
    this.source = source;
    this.onMove = onMove;
    this.onAttend = onAttend;
  }

  /** The token that keys and buttons act on: the pinned one, else the one under the pointer. */
  get chosen() {
    return this.settings.get("pin") ?? this.source.cursor;
  }

  /** The channel shown: the last one of a block that has fewer. */
  get channel() {
    return Math.min(this.settings.get("channel"), (this.source.block?.channels ?? 1) - 1);
  }

  /**
   * The token of a block that similarity is with.
   *
   * @param {NormBlock} block
   * @returns {number} of the block
   */
  anchorIn(block) {
    return this.source.toBlock(block, this.chosen);
  }

  /**
   * Enlarges a block, or closes it.
   *
   * @param {number} block
   */
  enlarge(block) {
    const { settings } = this;
    if (settings.get("enlarged") && settings.get("block") === block) this.close();
    else settings.save({ block, enlarged: true });
  }

  /** Closes the enlarged block. Its channel or similarity goes with it: the picture shows the norm again. */
  close() {
    this.settings.save({ enlarged: false, what: "norm" });
  }

  toggleEnlarged() {
    if (this.settings.get("enlarged")) this.close();
    else this.settings.save({ enlarged: true });
  }

  /** @param {number | undefined} block */
  goToBlock(block) {
    if (block === undefined || !this.source.blockOf(block) || block === this.settings.get("block")) return;
    this.settings.save({ block });
  }

  /** @param {number} by */
  stepBlock(by) {
    const { block, blocks } = this.source;
    if (block) this.goToBlock(blocks[blocks.indexOf(block) + by]?.block);
  }

  /** @returns {boolean} whether the chosen block has channels; if not, the status strip says why */
  requireChannels() {
    const { source } = this;
    const available = source.hasChannels(this.settings.get("block"));
    if (!available) source.link.report(source.whyNoChannels);
    return available;
  }

  nextQuantity() {
    if (!this.requireChannels()) return;
    const next = QUANTITIES[(QUANTITIES.indexOf(this.source.what) + 1) % QUANTITIES.length];
    this.settings.save({ what: next, enlarged: true });
  }

  /** Shows the similarity first, if it is not on display. */
  toggleCentred() {
    if (!this.requireChannels()) return;
    if (this.source.what === "similarity") this.settings.toggle("centred");
    else this.settings.save({ what: "similarity", enlarged: true });
  }

  /**
   * Shows a channel, and enlarges its block: its number and its histogram are there.
   *
   * @param {number} channel
   */
  goToChannel(channel) {
    const { block } = this.source;
    if (!block || !Number.isInteger(channel) || !this.requireChannels()) return;
    const within = Math.max(0, Math.min(block.channels - 1, channel));
    this.settings.save({ what: "channel", enlarged: true, channel: within });
  }

  /** @param {number} by */
  stepChannel(by) {
    this.goToChannel(this.channel + by);
  }

  /** Shows the channel that is largest at the chosen patch; the current one before channels have arrived. */
  goToStrongest() {
    const { block, channels } = this.source;
    if (block && channels) this.goToChannel(strongestChannel(channels, this.anchorIn(block)));
    else this.goToChannel(this.channel);
  }

  /** @param {number} by */
  stepThreshold(by) {
    this.settings.save({ k: Math.max(1, Math.min(20, this.settings.get("k") + by)) });
  }

  /** @param {number} token */
  togglePin(token) {
    this.settings.save({ pin: this.settings.get("pin") === token ? null : token });
  }

  /**
   * Opens attention at an outlier, or pins it if attention is not available.
   *
   * @param {number} token
   */
  openToken(token) {
    if (this.source.hasAttention(this.settings.get("block"))) this.attend("column", token);
    else this.settings.save({ pin: token });
  }

  /**
   * Opens the attention explorer. If it is not available, the status strip says why.
   *
   * @param {"row" | "column"} direction
   * @param {number} [token]
   */
  attend(direction, token = this.chosen) {
    const { source } = this;
    const block = this.settings.get("block");
    if (!source.hasAttention(block)) {
      source.link.report(source.whyNoAttention(block));
      return;
    }
    this.onAttend();
    source.requestAttention(token, direction);
  }

  /**
   * Moves the patch, and releases the pin.
   *
   * @param {number} down
   * @param {number} right
   */
  move(down, right) {
    const { source, settings } = this;
    const { block } = source;
    if (!block) return;
    source.moveTo(source.fromBlock(block, stepToken(block, source.toBlock(block, source.cursor), down, right)));
    if (settings.get("pin") !== null) settings.save({ pin: null });
    source.saveCursor();
    this.onMove();
  }

  /**
   * Releases the pin, or else closes the enlarged block.
   *
   * @returns {boolean} false if there was neither
   */
  clear() {
    if (this.settings.get("pin") !== null) this.settings.save({ pin: null });
    else if (this.settings.get("enlarged")) this.close();
    else return false;
    return true;
  }
}

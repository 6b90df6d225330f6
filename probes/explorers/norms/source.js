// The norm explorer's data: the norms of all blocks, the channels of the blocks that were looked at, and the token under
// the pointer.
//
// The cursor refers to the model's patch grid, whatever the grid of the block on display: toBlock() and fromBlock()
// convert.

import { ByteCache } from "#shared/cache.js";
import { sameSpot, tokenName } from "#shared/patches.js";
import { PictureSource } from "#shared/picture_source.js";
import { decodeNorms, decodeTokens } from "./blocks.js";

/** @import { PictureTraits } from "#shared/picture_source.js" */
/** @import { AnyModel, Grid, ImageMessage, Message, Part, PictureMessage } from "#shared/types.js" */
/** @import { BlockChannels, NormBlock, NormsMessage, TokensMessage } from "./blocks.js" */
/** @import { Quantity } from "./shown_map.js" */

/**
 * @typedef {PictureTraits & {
 *   block: number, enlarged: boolean, what: Quantity, channel: number, centred: boolean, k: number, marks: boolean,
 *   pin: number | null, scale: "block" | "shared" | "log", _attending: boolean,
 * }} NormTraits `_attending`: an attention explorer is displayed below
 */

/**
 * The first reply. `blocks`, `channels`, `attention`: numbers of the blocks that have norms, channels and attention;
 * `grids` and `reads`: of every block, its grid, and a sentence on what reads its output; `page`: on an exported page,
 * `channels` are those that it contains.
 *
 * @typedef {PictureMessage & Grid & {
 *   blocks: number[], channels: number[], attention: number[], grids: [rows: number, cols: number][], reads: string[],
 *   page?: boolean,
 * }} NormAbout
 */

/** Bytes of decoded channels that are kept: ViT-L at 518 px takes 6 MB per block. */
const CHANNEL_BYTES = 192 * 2 ** 20;

/**
 * Events: "picture", "depth", "cursor"; "norms" and "tokens" when they arrive, "attention" when the attention explorer
 * was opened.
 *
 * @extends {PictureSource<NormTraits, NormAbout>}
 */
export class NormSource extends PictureSource {
  /** @param {AnyModel<NormTraits>} model */
  constructor(model) {
    super(model);
    /** @type {ByteCache<BlockChannels>} */
    this.cache = new ByteCache(CHANNEL_BYTES);
    /** @type {NormBlock[]} */
    this.blocks = [];
    /** @type {{block: NormBlock, token: number} | null} of the picture's grid: where the attention explorer was last opened */
    this.attended = null;
    this.cleanup.push(() => {
      this.cache.clear();
      this.blocks = [];
    });
    for (const name of /** @type {const} */ (["block", "what", "enlarged"]))
      this.follow(name, () => this.requestChannels());
  }

  /** @override */
  requestMaps() {
    this.link.request("norms");
    this.requestChannels();
  }

  /**
   * @param {number} number
   * @returns {NormBlock | undefined} undefined for a block that was not captured
   */
  blockOf(number) {
    return this.blocks.find(({ block }) => block === number);
  }

  /** The chosen block. */
  get block() {
    return this.blockOf(this.model.get("block"));
  }

  /** @returns {Quantity} what is shown of the chosen block; channels and similarities only while it is enlarged */
  get what() {
    return this.model.get("enlarged") ? this.model.get("what") : "norm";
  }

  /** Whether a channel is shown, or what is computed from all of them. */
  get wantsChannels() {
    return this.what !== "norm";
  }

  /**
   * Whether a block's channels are available: captured, or contained in the exported page.
   *
   * @param {number} block
   * @returns {boolean}
   */
  hasChannels(block) {
    return this.about?.channels.includes(block) ?? true;
  }

  get whyNoChannels() {
    return this.absent("tokens") || "Its channels are not in this page; they need the notebook";
  }

  /**
   * The block that reads a block's output, and therefore its norms.
   *
   * @param {number} block
   * @returns {number | null} null for the last block
   */
  readerOf(block) {
    return block + 1 < (this.about?.grids.length ?? 0) ? block + 1 : null;
  }

  /**
   * What reads a block's output, as a sentence.
   *
   * @param {number} block
   * @returns {string}
   */
  readWords(block) {
    return this.about?.reads[block] ?? "";
  }

  /**
   * The patch of the next block that a patch was merged into.
   *
   * @param {NormBlock} block
   * @param {number} token of the picture's grid
   * @returns {string} "" where the next block has the same grid
   */
  mergedWords(block, token) {
    const reader = this.readerOf(block.block);
    const grid = reader === null ? undefined : this.about?.grids[reader];
    if (!grid || token < block.prefix || (grid[0] === block.rows && grid[1] === block.cols)) return "";
    const next = { rows: grid[0], cols: grid[1], prefix: block.prefix };
    const merged = tokenName(next, this.grid ? sameSpot(next, this.grid, token) : token);
    return `; before it, patch ${tokenName(block, this.toBlock(block, token))} was merged into patch ${merged}`;
  }

  /**
   * Whether the kernel can open the attention that reads a block's output.
   *
   * @param {number} block
   * @returns {boolean}
   */
  hasAttention(block) {
    const reader = this.readerOf(block);
    return !this.about?.page && reader !== null && Boolean(this.about?.attention.includes(reader));
  }

  /**
   * Why the attention that reads a block's output cannot be opened.
   *
   * @param {number} block
   * @returns {string}
   */
  whyNoAttention(block) {
    if (this.about?.page) return "Attention is not in this page; it needs the notebook";
    const words = capitalised(this.readWords(block));
    return this.readerOf(block) === null ? words : `${words}, and ${this.absent("attention")}`;
  }

  /** The channels of the chosen block, if they are wanted and have arrived. */
  get channels() {
    return this.wantsChannels ? (this.cache.get(this.model.get("block")) ?? null) : null;
  }

  /** Whether the channels of the chosen block are on their way. */
  get waits() {
    return this.wantsChannels && this.hasChannels(this.model.get("block")) && !this.channels;
  }

  requestChannels() {
    if (!this.opened || !this.waits) {
      this.reportReady();
      return;
    }
    const block = this.model.get("block");
    this.link.report(`Requesting the channels of block ${block}`, { busy: true });
    this.link.request("tokens", { block });
  }

  /**
   * Opens the attention explorer below the widget, in the block that reads the chosen block's output.
   *
   * @param {number} token
   * @param {"row" | "column"} direction
   */
  requestAttention(token, direction) {
    const { block } = this;
    if (!block) return;
    this.attended = { block, token };
    this.link.request("attention", { token, direction, block: this.readerOf(block.block) });
  }

  /** What the attention explorer shows of the token that it was opened at. */
  get attendedWords() {
    if (!this.attended) return "";
    const { block, token } = this.attended;
    return `: ${this.readWords(block.block)}${this.mergedWords(block, token)}`;
  }

  closeAttention() {
    this.link.request("close");
  }

  /**
   * @override
   * @param {Message} message
   * @param {Part[]} parts
   */
  receive(message, parts) {
    const { kind } = message;
    if (kind === "norms") this.receiveNorms(/** @type {NormsMessage} */ (message), parts);
    else if (kind === "tokens") this.receiveTokens(/** @type {TokensMessage} */ (message), parts);
    else if (kind === "attention") {
      this.link.report(`The attention explorer is below${this.attendedWords}`);
      this.emit("attention");
    } else if (kind === "close") this.reportReady();
    else {
      if (kind === "picture") {
        this.about = /** @type {NormAbout} */ (message);
        const { rows, cols, prefix } = this.about;
        this.grid = { rows, cols, prefix };
        this.emit("picture"); // the layout is known before the image is decoded
      }
      this.receiveImage(/** @type {ImageMessage & {kind: "picture" | "depth"}} */ (message), parts[0]);
    }
  }

  /**
   * @param {NormsMessage} message
   * @param {Part[]} parts
   */
  receiveNorms(message, parts) {
    const blocks = this.decode(() => decodeNorms(message, parts));
    if (!blocks) return;
    this.blocks = blocks;
    this.reportReady();
    this.emit("norms");
  }

  /**
   * @param {TokensMessage} message
   * @param {Part[]} parts
   */
  receiveTokens(message, parts) {
    const channels = this.decode(() => decodeTokens(message, parts));
    if (!channels) return;
    this.cache.put(channels.block, channels, channels.values.byteLength);
    this.reportReady();
    this.emit("tokens");
  }

  /** @override */
  reportReady() {
    const { block } = this;
    if (!this.about || !block || this.waits) return;
    const { tokens, channels, rows, cols } = block;
    const size = `${tokens} tokens of ${channels} channels, ${rows} \u00d7 ${cols} patches`;
    this.link.report(`Block ${block.block}: ${size}`);
  }

  /**
   * The token of a block at the place of a token of the picture's grid.
   *
   * @param {NormBlock} block
   * @param {number} token
   * @returns {number}
   */
  toBlock(block, token) {
    return this.grid ? sameSpot(block, this.grid, token) : token;
  }

  /**
   * The token of the picture's grid at the centre of a token of a block.
   *
   * @param {NormBlock} block
   * @param {number} token
   * @returns {number}
   */
  fromBlock(block, token) {
    return this.grid ? sameSpot(this.grid, block, token) : token;
  }
}

/** @param {string} words */
function capitalised(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

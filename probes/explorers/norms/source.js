// The norm explorer's data: the norms of all blocks, the channels of those that were looked at, and where the pointer is.
// One for each widget model, shared by its views on the page.
//
// The cursor counts on the model's patch grid, whatever the grid of the block on display: `place` brings it there.

import { sameSpot } from "../shared/patches.js";
import { PictureSource } from "../shared/picture.js";
import { ByteCache } from "../shared/shell.js";
import { decodeNorms, decodeTokens } from "./numbers.js";

const CHANNEL_BYTES = 192 * 2 ** 20; // decoded channels: ViT-L at 518 px takes 6 MB a block

export class NormSource extends PictureSource {
  constructor(model) {
    super(model);
    this.cache = new ByteCache(CHANNEL_BYTES);
    this.blocks = []; // as decodeNorms gives them
    for (const name of ["block", "what"]) model.on(`change:${name}`, () => this.wantTokens());
  }

  wantMaps() {
    this.link.ask("norms");
    this.wantTokens();
  }

  /** By its number; undefined for one that was not captured. */
  blockOf(number) {
    return this.blocks.find(({ block }) => block === number);
  }

  /** Blocks whose channels can be had: all of them, those that were captured, or those that an exported page holds. */
  hasChannels(block) {
    return this.about?.channels.includes(block) ?? true;
  }

  get whyNoChannels() {
    return this.absent("tokens") || "Its channels are not in this page; they need the notebook";
  }

  /** Whether the kernel can open the attention of a block. */
  attends(block) {
    return !this.about?.page && Boolean(this.about?.attention.includes(block));
  }

  get whyNoAttention() {
    return this.absent("attention") || "Attention is not in this page; it needs the notebook";
  }

  wantTokens() {
    const block = this.model.get("block");
    if (!this.opened || !this.wantsChannels || this.cache.get(block)) return this.ready();
    if (!this.hasChannels(block)) return this.ready();
    this.link.say(`Asking for the channels of block ${block}`, { busy: true });
    this.link.ask("tokens", { block });
  }

  /** Whether a channel is to be shown, or what is worked out from all of them. */
  get wantsChannels() {
    return this.model.get("what") !== "norm";
  }

  /** The decoded channels of the chosen block, if they are wanted and have come. */
  get channels() {
    return this.wantsChannels ? (this.cache.get(this.model.get("block")) ?? null) : null;
  }

  receive(message, buffers) {
    if (message.kind === "norms" || message.kind === "tokens") {
      const decode = message.kind === "norms" ? decodeNorms : decodeTokens;
      const decoded = this.decoded(() => decode(message, buffers));
      if (!decoded) return;
      if (message.kind === "norms") this.blocks = decoded;
      else this.cache.put(decoded.block, decoded, 4 * decoded.values.length);
      this.ready();
      this.tell(message.kind);
    } else if (message.kind === "attention") {
      this.link.say("The attention explorer is below");
      this.tell("attention");
    } else if (message.kind === "close") {
      this.ready();
    } else {
      if (message.kind === "picture") {
        this.about = message;
        this.grid = { rows: message.rows, cols: message.cols, prefix: message.prefix };
        this.tell("picture"); // the layout is known before the picture is decoded
      }
      this.receiveImage(message, buffers[0]);
    }
  }

  /** The strip goes quiet once what is on display is what was asked for. */
  ready() {
    const block = this.blockOf(this.model.get("block"));
    if (!this.about || !block) return;
    const waits = this.wantsChannels && !this.channels && this.hasChannels(block.block);
    if (waits) return;
    const text = `Block ${block.block}: ${block.tokens} tokens of ${block.channels} channels, ${block.rows} \u00d7 ${block.cols} patches`;
    this.link.say(text);
  }

  /** Where a token of the picture's grid is in a block. */
  place(block, token) {
    return sameSpot(block, this.grid, token);
  }

  /** And back: the patch of the picture's grid in the middle of a block's. */
  back(block, token) {
    return sameSpot(this.grid, block, token);
  }
}

// The norm explorer's data: the norms of all blocks, the channels of those that were looked at, and where the pointer is.
// One for each widget model, shared by its views on the page.
//
// The cursor counts on the model's patch grid, whatever the grid of the block on display: `place` brings it there.

import { sameSpot } from "./core.js";
import { decodeNorms, decodeTokens } from "./norms_numbers.js";
import { ByteCache, Link } from "./shell.js";

const CHANNEL_BYTES = 192 * 2 ** 20; // decoded channels: ViT-L at 518 px takes 6 MB a block

export class NormSource {
  constructor(model) {
    this.model = model;
    this.link = new Link(model);
    this.cache = new ByteCache(CHANNEL_BYTES);
    this.about = null; // header of the picture message
    this.grid = null; // {rows, cols, prefix} of the picture
    this.images = { picture: null, depth: null }; // ImageBitmap
    this.blocks = []; // as decodeNorms gives them
    this.cursor = model.get("token");
    this.opened = false;
    this.listeners = new Set();
    this.saving = 0;
    this.link.listen((event, message, buffers) => {
      if (event === "reply") this.receive(message, buffers);
      else this.tell(event);
    });
    for (const name of ["block", "what"]) model.on(`change:${name}`, () => this.wantTokens());
    model.on("change:token", () => this.moveTo(model.get("token")));
  }

  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  tell(event) {
    for (const listener of [...this.listeners]) listener(event);
  }

  /** Called by the first view once it stands: nothing is asked for widgets that nobody looks at. */
  open() {
    if (this.opened) return;
    this.opened = true;
    this.link.say("Asking for the picture", { busy: true });
    this.link.ask("picture");
    this.link.ask("norms");
    this.wantTokens();
    if (this.model.get("base") === "depth") this.wantDepth();
  }

  /** Blocks whose channels can be had: all of them, or those that an exported page holds. */
  hasChannels(block) {
    return !this.about?.page || this.about.channels.includes(block);
  }

  wantTokens() {
    const block = this.model.get("block");
    if (!this.opened || this.model.get("what") !== "channel" || this.cache.get(block)) return this.ready();
    if (!this.hasChannels(block)) return this.ready();
    this.link.say(`Asking for the channels of block ${block}`, { busy: true });
    this.link.ask("tokens", { block });
  }

  /** The decoded channels of the chosen block, if channels are on display and have come. */
  get channels() {
    return this.model.get("what") === "channel" ? (this.cache.get(this.model.get("block")) ?? null) : null;
  }

  wantDepth() {
    if (!this.images.depth) this.link.ask("depth");
  }

  receive(message, buffers) {
    if (message.kind === "norms" || message.kind === "tokens") {
      try {
        if (message.kind === "norms") {
          this.blocks = decodeNorms(message, buffers);
        } else {
          const decoded = decodeTokens(message, buffers);
          this.cache.put(decoded.block, decoded, 4 * decoded.values.length);
        }
      } catch (error) {
        this.link.say(error.message, { failed: true });
        return;
      }
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
      createImageBitmap(new Blob([buffers[0]], { type: message.type })).then(
        (image) => {
          this.images[message.kind] = image;
          this.ready();
          this.tell(message.kind);
        },
        (error) => this.link.say(`The browser cannot read the ${message.kind}: ${error.message}`, { failed: true }),
      );
    }
  }

  /** The strip goes quiet once what is on display is what was asked for. */
  ready() {
    const block = this.blocks[this.model.get("block")];
    if (!this.about || !block) return;
    const waits = this.model.get("what") === "channel" && !this.channels && this.hasChannels(block.block);
    if (waits) return;
    const text = `Block ${block.block}: ${block.tokens} tokens of ${block.channels} channels, ${block.rows} \u00d7 ${block.cols} patches`;
    this.link.say(text);
  }

  moveTo(token) {
    if (token === this.cursor) return;
    this.cursor = token;
    this.tell("cursor");
  }

  /** Where a token of the picture's grid is in a block. */
  place(block, token) {
    return sameSpot(block, this.grid, token);
  }

  /** And back: the patch of the picture's grid in the middle of a block's. */
  back(block, token) {
    return sameSpot(this.grid, block, token);
  }

  /** Into the trait, so that Python and other pages see it: for deliberate moves, never for hovering. */
  saveCursor() {
    clearTimeout(this.saving);
    this.saving = setTimeout(() => {
      this.model.set("token", this.cursor);
      this.model.save_changes();
    }, 250);
  }
}

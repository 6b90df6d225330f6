// The attention explorer's data: what the kernel was asked, what came, and where the pointer is. One for each widget model,
// shared by its views on the page, which so share the pointer, too.

import { decodeBlock } from "./core.js";
import { ByteCache, Link } from "./shell.js";

const CACHE_BYTES = 384 * 2 ** 20; // decoded blocks: ViT-L at 518 px takes 11 MB a block

export class AttentionSource {
  constructor(model) {
    this.model = model;
    this.link = new Link(model);
    this.cache = new ByteCache(CACHE_BYTES);
    this.grid = null; // {rows, cols, prefix}
    this.about = null; // header of the picture message
    this.images = { picture: null, depth: null }; // ImageBitmap
    this.block = null; // the decoded block on display
    this.cursor = model.get("token");
    this.opened = false;
    this.listeners = new Set();
    this.saving = 0;
    this.link.listen((event, message, buffers) => {
      if (event === "reply") this.receive(message, buffers);
      else this.tell(event);
    });
    model.on("change:block", () => this.wantBlock());
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
    this.wantBlock();
    if (this.model.get("base") === "depth") this.wantDepth();
  }

  wantBlock() {
    const block = this.model.get("block");
    const known = this.cache.get(block);
    if (known) {
      this.block = known;
      this.ready();
      this.tell("block");
    } else if (this.opened) {
      this.link.say(`Asking for block ${block}`, { busy: true });
      this.link.ask("block", { block });
    }
    this.tell("wanted");
  }

  wantDepth() {
    if (!this.images.depth) this.link.ask("depth");
  }

  receive(message, buffers) {
    if (message.kind === "block") {
      let block;
      try {
        block = decodeBlock(message, buffers);
      } catch (error) {
        this.link.say(error.message, { failed: true });
        return;
      }
      this.cache.put(message.block, block, 4 * (block.q.length + block.k.length + block.lse.length));
      if (message.block !== this.model.get("block")) return; // the slider has moved on
      this.block = block;
      this.ready();
      this.tell("block");
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
    if (!this.grid || this.block?.block !== this.model.get("block")) return;
    const { heads, tokens, rows, cols } = this.block;
    this.link.say(`Block ${this.block.block}: ${heads} heads, ${tokens} tokens, ${rows} \u00d7 ${cols} patches`);
  }

  moveTo(token) {
    if (token === this.cursor) return;
    this.cursor = token;
    this.tell("cursor");
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

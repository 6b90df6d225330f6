// What every explorer shares around its own picture: asking the kernel for data, controls, the status strip, saving.

// ------------------------------------------------------------------------------------------------------------ data

/**
 * Pulls data from the kernel by custom messages. One request of a kind is in flight and at most one more is wanted:
 * dragging a slider over ten blocks fetches the first and the last. Every request carries this page's id and a sequence
 * number, and its reply brings them back: replies to anybody else, or to a request given up, are dropped.
 */
export class Link {
  constructor(model, patience = 4000) {
    this.model = model;
    this.patience = patience; // ms until the strip says that the kernel is slow to answer
    this.client = Math.random().toString(36).slice(2);
    this.seq = 0;
    this.slots = new Map(); // kind -> {flying: request | null, wanted: payload | null, timer}
    this.listeners = new Set();
    this.status = { text: "", busy: false, failed: false, retry: null };
    model.on("msg:custom", (message, buffers) => this.receive(message, buffers));
  }

  /** Listeners get ("reply" | "status", message, buffers); returns the function that stops listening. */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  emit(event, message, buffers) {
    for (const listener of [...this.listeners]) listener(event, message, buffers);
  }

  say(text, { busy = false, failed = false, retry = null } = {}) {
    this.status = { text, busy, failed, retry };
    this.emit("status", this.status);
  }

  ask(kind, payload = {}) {
    const slot = this.slots.get(kind) ?? { flying: null, wanted: null, timer: 0 };
    this.slots.set(kind, slot);
    if (slot.flying) slot.wanted = payload;
    else this.fly(kind, slot, payload);
  }

  fly(kind, slot, payload) {
    this.seq += 1;
    slot.flying = { ...payload, kind, seq: this.seq, client: this.client };
    slot.wanted = null;
    clearTimeout(slot.timer);
    slot.timer = setTimeout(() => {
      const retry = () => this.fly(kind, slot, slot.wanted ?? payload);
      this.say("No answer from the kernel yet. It may be busy with another cell, or stopped.", { busy: true, retry });
    }, this.patience);
    try {
      this.model.send(slot.flying);
    } catch {
      // The line is cut: nothing that is sent from here arrives any more.
      clearTimeout(slot.timer);
      slot.flying = null;
      const text = "The kernel of this view is gone: it was restarted or stopped. Run the cell again for a new view.";
      this.say(text, { failed: true });
    }
  }

  receive(message, buffers) {
    if (message.client !== this.client) return;
    const slot = this.slots.get(message.asked ?? message.kind);
    if (!slot?.flying || slot.flying.seq !== message.seq) return;
    clearTimeout(slot.timer);
    if (message.kind === "status") {
      this.say(message.text, { busy: true }); // the request is still being worked on
      return;
    }
    const { seq, client, kind, ...payload } = slot.flying;
    slot.flying = null;
    if (message.kind === "error") {
      const retry = () => this.ask(kind, payload);
      this.say(message.text, { failed: true, retry: message.retry === false ? null : retry });
      this.emit("error", message);
    } else {
      this.emit("reply", message, buffers);
    }
    if (slot.wanted) this.fly(kind, slot, slot.wanted);
  }
}

/** Least recently used first out, bounded by bytes; the newest entry always stays. */
export class ByteCache {
  constructor(limit) {
    this.limit = limit;
    this.entries = new Map();
    this.bytes = 0;
  }

  get(key) {
    const entry = this.entries.get(key);
    if (!entry) return undefined;
    this.entries.delete(key);
    this.entries.set(key, entry);
    return entry.value;
  }

  put(key, value, bytes) {
    if (this.entries.has(key)) this.bytes -= this.entries.get(key).bytes;
    this.entries.delete(key);
    this.entries.set(key, { value, bytes });
    this.bytes += bytes;
    for (const [old, entry] of this.entries) {
      if (this.bytes <= this.limit || this.entries.size === 1) break;
      this.entries.delete(old);
      this.bytes -= entry.bytes;
    }
  }
}

/** Durations of the latest paints, for an honest number in the strip. */
export class Timings {
  constructor(size = 256) {
    this.ring = new Float32Array(size);
    this.count = 0;
  }

  add(ms) {
    this.ring[this.count++ % this.ring.length] = ms;
  }

  quantile(fraction) {
    const known = this.ring.slice(0, Math.min(this.count, this.ring.length)).sort();
    return known.length ? known[Math.min(known.length - 1, Math.floor(fraction * known.length))] : 0;
  }
}

// -------------------------------------------------------------------------------------------------------- controls

/** An element with properties, attributes (dashed names, role) and children. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "dataset") Object.assign(node.dataset, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function button(text, title, onclick, properties = {}) {
  return element("button", { type: "button", className: "dptx-button", title, onclick, ...properties }, text);
}

/** Exclusive choices side by side; choices: [value, text, tooltip]. */
export function segmented(label, choices, onchange) {
  const buttons = new Map();
  const node = element("div", { className: "dptx-segments", role: "group", "aria-label": label });
  for (const [value, text, title] of choices) {
    const item = button(text, title, () => onchange(value), { className: "dptx-segment", "aria-pressed": "false" });
    item.dataset.value = value;
    buttons.set(value, item);
    node.append(item);
  }
  return {
    node,
    buttons,
    set(value) {
      for (const [own, item] of buttons) item.setAttribute("aria-pressed", String(own === value));
    },
    /** Takes a choice out of use for a reason; without one it can be chosen. */
    shut(value, why) {
      const item = buttons.get(value);
      item.disabled = Boolean(why);
      item.title = why || choices.find(([own]) => own === value)[2];
    },
  };
}

export function field(label, ...children) {
  return element("div", { className: "dptx-field" }, element("span", { className: "dptx-label" }, label), ...children);
}

/** The strip at the bottom: what is going on, what went wrong, a way to try again. */
export function statusStrip() {
  const text = element("span", { className: "dptx-status-text", role: "status" });
  const again = button("Try again", "Ask the kernel once more", null, { hidden: true });
  const note = element("span", { className: "dptx-status-note" });
  const node = element(
    "div",
    { className: "dptx-status" },
    element("span", { className: "dptx-lamp" }),
    text,
    again,
    note,
  );
  let retry = null;
  again.addEventListener("click", () => retry?.());
  return {
    node,
    note,
    show(status) {
      retry = status.retry;
      text.textContent = status.text;
      again.hidden = !status.retry;
      node.dataset.state = status.failed ? "failed" : status.busy ? "busy" : "ready";
    },
  };
}

// ---------------------------------------------------------------------------------------------------------- saving

export function download(name, parts, type) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const link = element("a", { href: url, download: name });
  document.body.append(link); // Firefox ignores clicks on links outside the document
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** To the clipboard; resolves to false where the browser refuses. */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not a secure context, or no permission: the old way, which needs a selected field.
    const area = element("textarea", { value: text, className: "dptx-offscreen", "aria-hidden": "true" });
    near.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// What every explorer is made of. A Source, one for each widget model, pulls the data and is shared by the views on the
// page, which so stay in step; a View is one display of it; defineWidget makes of both what anywidget runs.

import { handleKey } from "./panel.js";
import { element, Link, statusStrip } from "./shell.js";

/** Subclasses have begin(), which asks for the first data, and receive(message, buffers). */
export class Source {
  /** patience: ms until the strip says that the kernel is slow to answer. */
  constructor(model, patience) {
    this.model = model;
    this.link = new Link(model, patience);
    this.about = null; // header of the first message: what holds for the widget as a whole
    this.opened = false;
    this.saving = 0;
    this.listeners = new Set();
    this.link.listen((event, message, buffers) => {
      if (event === "reply") this.receive(message, buffers);
      else this.tell(event);
    });
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
    this.begin();
  }

  /** What decode() gives; null where it throws, which the strip then says. */
  decoded(decode) {
    try {
      return decode();
    } catch (error) {
      this.link.say(error.message, { failed: true });
      return null;
    }
  }

  /** Gives the picture in a part to take(image) once the browser has read it. */
  readPicture(message, part, take) {
    createImageBitmap(new Blob([part], { type: message.type })).then(take, (error) =>
      this.link.say(`The browser cannot read the ${message.kind}: ${error.message}`, { failed: true }),
    );
  }

  /** Into a trait, so that Python and other pages see it: for deliberate moves, never for hovering. */
  saveSoon(name, value) {
    clearTimeout(this.saving);
    this.saving = setTimeout(() => {
      this.model.set(name, value());
      this.model.save_changes();
    }, 250);
  }
}

/** Subclasses have begin(), which shows what is there already, and paint(); they mount their parts when they are made. */
export class View {
  constructor(model, el, source) {
    this.model = model;
    this.el = el;
    this.source = source;
    this.undo = [];
    this.frame = 0;
    this.announcing = 0;
    this.help = null; // a helpPopover
    this.status = statusStrip();
    this.live = element("div", { className: "dptx-offscreen", "aria-live": "polite" });
  }

  /** The root element, dptx-name, with these parts; act(view, key, shift, target) says what keys mean. */
  mount(name, act, ...parts) {
    const onkeydown = (event) => this.pressed(event, act);
    this.root = element("div", { className: `dptx dptx-${name}`, onkeydown });
    this.arrange(...parts);
    this.el.append(this.root);
  }

  arrange(...parts) {
    this.root.replaceChildren(...parts, this.status.node, this.live, ...(this.help ? [this.help.node] : []));
  }

  pressed(event, act) {
    handleKey(event, (key, shift, target) => {
      const closes = key === "Escape" && this.help?.node.hidden === false;
      if (key !== "?" && !closes) return act(this, key, shift, target);
      this.help?.toggle();
      return true;
    });
  }

  get(name) {
    return this.model.get(name);
  }

  save(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.model.save_changes();
  }

  cycle(name, values) {
    this.save({ [name]: values[(values.indexOf(this.get(name)) + 1) % values.length] });
  }

  toggle(name) {
    this.save({ [name]: !this.get(name) });
  }

  /** Listeners first: rendering shows what is there already, data comes afterwards. */
  start() {
    this.undo.push(this.source.listen((event) => this.heard(event)));
    this.status.show(this.source.link.status);
    this.begin();
    this.source.open();
  }

  watch(names, action) {
    for (const name of names) {
      this.model.on(`change:${name}`, action);
      this.undo.push(() => this.model.off(`change:${name}`, action));
    }
  }

  watchSize(node, action) {
    const sizes = new ResizeObserver(action);
    sizes.observe(node);
    this.undo.push(() => sizes.disconnect());
  }

  /** For colours that are painted rather than styled: another theme of JupyterLab, or of the browser. */
  watchTheme(action) {
    const marks = new MutationObserver(action);
    marks.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", action);
    this.undo.push(
      () => marks.disconnect(),
      () => scheme.removeEventListener("change", action),
    );
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.announcing);
    for (const undo of this.undo) undo();
    this.root.remove();
  }

  /** An event of the source; true for those of the strip, which are dealt with here. */
  heard(event) {
    const ofStrip = event === "status" || event === "error";
    if (ofStrip) this.status.show(this.source.link.status);
    return ofStrip;
  }

  /** Keys work at once on a page of its own; in a notebook the focus stays where its user has it. */
  focusOnPage(node) {
    if (this.model.onPage) node.focus({ preventScroll: true });
  }

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  /** For screen readers: after a deliberate step, not on every pointer move. */
  announce(words = () => this.readout.textContent, delay = 400) {
    clearTimeout(this.announcing);
    this.announcing = setTimeout(() => (this.live.textContent = words()), delay);
  }
}

export function defineWidget(SourceOfModel, ViewOfModel) {
  return () => {
    let source = null; // one for each widget model: this function runs once a model
    return {
      initialize({ model }) {
        source = new SourceOfModel(model);
      },
      render({ model, el }) {
        const view = new ViewOfModel(model, el, source);
        view.start();
        return () => view.dispose();
      },
    };
  };
}

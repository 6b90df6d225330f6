// What every explorer consists of. A Source (source.js), one per widget model, requests the data and is shared by the
// displays on the page. A View is one display. defineWidget() makes of both what anywidget runs.

import { watchAppearance } from "./appearance.js";
import { element, setText } from "./elements.js";
import { watchFocus } from "./focus.js";
import { keepKeys } from "./host_keys.js";
import { handleKey } from "./keys.js";
import { Presence } from "./presence.js";
import { isWithoutKernel, showSaved } from "./saved.js";
import { Settings } from "./settings.js";
import { createStatusStrip } from "./status.js";
import { isDark } from "./theme.js";
import { Waiting } from "./waiting.js";

/** @import { Help } from "./help.js" */
/** @import { KeyTable } from "./keys.js" */
/** @import { Source } from "./source.js" */
/** @import { AnyModel, Widget } from "./types.js" */

/**
 * One display of a widget. A subclass builds its components in the constructor, mounts them, and overrides connect(),
 * onEvent() and paint().
 *
 * @template {object} Traits
 * @template {Source<any>} OwnSource
 */
export class View {
  /**
   * @param {AnyModel<Traits>} model
   * @param {HTMLElement} el the node that anywidget gives the display
   * @param {OwnSource} source
   * @param {string} name of the widget: its root element has the class dptx-{name}
   */
  constructor(model, el, source, name) {
    this.model = model;
    this.source = source;
    this.settings = new Settings(model, () => this.onSave());
    this.status = createStatusStrip();
    this.advice = element("p", { className: "dptx-advice", hidden: true });
    this.live = element("div", { className: "dptx-offscreen", "aria-live": "polite" });
    /** @type {KeyTable<any> | null} */
    this.keyTable = null;
    /** @type {Help | null} */
    this.help = null;
    /** @type {(() => unknown)[]} undo what the view did outside its own elements */
    this.cleanup = [];
    this.frame = 0;
    this.dark = false; // whether the theme is, once the view is displayed
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.announcing = undefined;
    this.root = element("div", {
      className: `dptx dptx-${name}`,
      onkeydown: (/** @type {KeyboardEvent} */ event) =>
        handleKey(event, (press) => Boolean(this.help?.handle(press) || this.keyTable?.run(press))),
    });
    this.waiting = new Waiting(source.link, {
      root: this.root,
      area: () => this.dataArea,
      isEmpty: () => this.root.dataset.state !== "ready" && !this.wasReady,
    });
    this.wasReady = false; // whether the view has shown data
    /** @type {(() => void)[]} */
    this.repaints = [];
    const strut = element("div", { className: "dptx-strut" }, ...[1, 2, 3].map(() => element("span")));
    el.classList.add("dptx-host");
    el.append(this.root, strut);
    this.recoverFocus = watchFocus(this.root);
    this.cleanup.push(keepKeys(this.root), () => strut.remove());
  }

  /** Where the data stands, or will stand. A card over it says what the view waits for. @returns {Element | null} */
  get dataArea() {
    return this.root.querySelector(".dptx-right .dptx-tiles");
  }

  /**
   * Puts components into the root element, in place of those before, and uses these keys.
   *
   * @param {KeyTable<any>} keyTable
   * @param {Help} help
   * @param {...Node} parts
   */
  mount(keyTable, help, ...parts) {
    this.keyTable = keyTable;
    this.help = help;
    this.root.replaceChildren(
      ...parts,
      this.waiting.node,
      this.status.offer,
      this.advice,
      this.status.node,
      this.live,
      help.node,
    );
  }

  /** Listens before it connects, connects before it opens the source: no event is missed. */
  start() {
    this.cleanup.push(
      this.source.listen((event) => {
        if (event !== "status") this.onEvent(event);
        this.showAdvice();
        if (event === "status" || event === "error") this.showStatus();
      }),
    );
    this.showAdvice();
    this.connect();
    this.cleanup.push(
      watchAppearance(this.root, () => {
        this.dark = isDark(this.root);
        for (const repaint of this.repaints) repaint();
      }),
    );
    this.source.open();
    this.showStatus();
    this.watchSize(this.root, () => this.waiting.place());
  }

  showStatus() {
    this.wasReady ||= this.root.dataset.state === "ready";
    this.status.show(this.source.link.status);
    this.waiting.update();
  }

  /** Shows the kernel's line about what the model is not made for. */
  showAdvice() {
    const { advice } = this.source;
    setText(this.advice, advice);
    this.advice.hidden = !advice;
  }

  /** Watches traits, sizes and the theme, and shows the data that the source already has. */
  connect() {}

  /**
   * Handles an event of the source.
   *
   * @param {string} _event
   */
  onEvent(_event) {}

  /** Called after each change of a trait that was made in this view. */
  onSave() {}

  /** Paints. Called once per animation frame after schedule(). */
  paint() {}

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
      this.recoverFocus();
    });
  }

  /**
   * @param {readonly (keyof Traits & string)[]} names
   * @param {() => void} action
   */
  watch(names, action) {
    for (const name of names) {
      this.model.on(`change:${name}`, action);
      this.cleanup.push(() => this.model.off(`change:${name}`, action));
    }
  }

  /**
   * Calls an action when the size of a node changes, and when that of the window does: pictures are no taller.
   *
   * @param {Element} node
   * @param {() => void} action
   */
  watchSize(node, action) {
    const sizes = new ResizeObserver(action);
    sizes.observe(node);
    window.addEventListener("resize", action);
    this.cleanup.push(
      () => sizes.disconnect(),
      () => window.removeEventListener("resize", action),
    );
  }

  /**
   * Calls an action when the view is displayed first, when the colours of the theme change and when the density of the
   * screen's pixels does: for what is painted, not styled.
   *
   * @param {() => void} action
   */
  watchTheme(action) {
    this.repaints.push(action);
  }

  /**
   * Focuses a node on a page of its own, so that keys work at once. In a notebook the focus stays where it is.
   *
   * @param {HTMLElement} node
   */
  focusOnPage(node) {
    if (this.model.onPage) node.focus({ preventScroll: true });
  }

  /**
   * Tells screen readers, after a deliberate step; never on each pointer move.
   *
   * @param {() => string} words
   * @param {number} [delay] milliseconds: only the last of several steps is announced
   */
  announce(words, delay = 400) {
    clearTimeout(this.announcing);
    this.announcing = setTimeout(() => {
      this.live.textContent = words();
    }, delay);
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.announcing);
    this.waiting.dispose();
    this.help?.dispose();
    for (const undo of this.cleanup) undo();
    this.root.remove();
    // A host may keep the element. It must not keep the data, which its handlers and canvases lead to.
    for (const canvas of this.root.querySelectorAll("canvas")) canvas.width = canvas.height = 0;
    this.root.replaceChildren();
  }
}

/**
 * @template {Source<any>} OwnSource
 * @typedef {object} Display a place where the widget is shown
 * @property {AnyModel<any>} model
 * @property {HTMLElement} el
 * @property {View<any, OwnSource> | null} view
 */

/**
 * What a bundle exports. anywidget calls it once per widget model. A source without a view is closed after a while: the
 * next view creates another one.
 *
 * While Python sets another image or model, the kernel sends "replacing", changed traits, and "replaced". Source and
 * views are made anew in between, so that nothing of the former image stays.
 *
 * @template {Source<any>} OwnSource
 * @param {new (model: AnyModel<any>) => OwnSource} SourceOfModel
 * @param {new (model: AnyModel<any>, el: HTMLElement, source: OwnSource) => View<any, OwnSource>} ViewOfModel
 * @returns {() => Widget}
 */
export function defineWidget(SourceOfModel, ViewOfModel) {
  return () => {
    /** @type {OwnSource | null} */
    let source = null;
    /** @type {Set<Display<OwnSource>>} */
    const displays = new Set();
    let leaving = false;
    let saved = false; // whether the widget is only a saved one
    /** @type {Presence | null} */
    let presence = null;

    /** @param {AnyModel<any>} model */
    const open = (model) => {
      source = new SourceOfModel(model);
      return source;
    };
    /** @param {Display<OwnSource>} display */
    const show = (display) => {
      if (!source) return;
      display.view = new ViewOfModel(display.model, display.el, source);
      display.view.start();
    };
    const leave = () => {
      leaving = true;
      for (const display of displays) {
        display.el.style.minHeight = `${display.el.offsetHeight}px`; // the page must not jump
        display.view?.dispose();
        display.view = null;
      }
      source?.close();
      source = null;
    };
    /** @param {AnyModel<any>} model */
    const reopen = (model) => {
      leaving = false;
      const opened = open(model);
      const settled = opened.listen((event) => {
        if (event === "status") return;
        settled();
        for (const { el } of displays) el.style.minHeight = "";
      });
      for (const display of displays) show(display);
    };

    return {
      initialize({ model }) {
        saved = isWithoutKernel(model);
        if (saved) return undefined;
        open(model);
        presence = new Presence(model, {
          onGone: () => {
            source?.close();
            source = null;
          },
          onReturn: () => {
            leave();
            reopen(model);
          },
        });
        model.on("msg:custom", ({ kind }) => {
          if (kind === "replacing" || (kind === "replaced" && source)) leave();
          if (kind === "replaced") reopen(model);
          if (kind === "count views") presence?.repeat();
        });
        return () => {
          presence?.end();
          leave(); // the explorer is closed
        };
      },
      render({ model, el }) {
        if (saved) return showSaved(model, el);
        /** @type {Display<OwnSource>} */
        const display = { model, el, view: null };
        displays.add(display);
        if (!source && !leaving) open(model);
        presence?.show(displays.size); // before the first request
        show(display); // while leaving, there is no source: reopen() shows it
        return () => {
          displays.delete(display);
          display.view?.dispose();
          display.view = null;
          presence?.show(displays.size);
        };
      },
    };
  };
}

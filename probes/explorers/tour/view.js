// The tour's view: a diagram of the model beside the chosen part.
//
// The kernel is asked once for the diagram, and once for each image of a part when it is first shown.
//
// For tests, on the root element: data-part and data-view of the image on display, and data-state.

import { copyButton, saveButtons } from "#shared/download.js";
import { element, toolbar } from "#shared/elements.js";
import { createHelp } from "#shared/help.js";
import { namedAfter } from "#shared/origin.js";
import { pageChoice } from "#shared/save_page.js";
import { defineWidget, View } from "#shared/widget.js";
import { createDiagram } from "./diagram.js";
import { createKeys } from "./keys.js";
import { createPartPanel } from "./part.js";
import { partPython } from "./python.js";
import { keepInPlace, placeColumn, reveal } from "./reveal.js";
import { TourSource } from "./source.js";
import { createWalk, stepsOf } from "./walk.js";

/** @import { AnyModel } from "#shared/types.js" */
/** @import { Part, TourTraits } from "./source.js" */

const HELP_NOTE =
  "Shapes list images first, then tokens and channels, or channels, rows and columns. The diagram omits the number of images.";

/** @extends {View<TourTraits, TourSource>} */
class TourView extends View {
  /**
   * @param {AnyModel<TourTraits>} model
   * @param {HTMLElement} el
   * @param {TourSource} source
   */
  constructor(model, el, source) {
    super(model, el, source, "tour");
    /** @type {Part | null} the part on display */
    this.shown = null;
    const keys = createKeys({
      isInDiagram: (target) => this.diagram.node.contains(target),
      readPart: () => this.readPart(),
      leavePart: (target) => this.leavePart(target),
      goToward: (down, right) => this.goToward(right, down),
      goToEnd: (end) => this.goToEnd(end),
      walk: (by) => this.walk(by),
      nextView: () => this.nextView(),
    });
    this.diagram = createDiagram({
      onChoose: (name) => this.choose(name),
      onClick: (name) => {
        this.choose(name);
        this.reveal();
      },
    });
    this.panel = createPartPanel(
      (view) => this.settings.save({ view }),
      (text) => keys.titled(text, "view"),
    );
    this.title = element("strong", { className: "dptx-tour-title" });
    const titles = {
      previous: keys.titled("The previous step of the walk", "previous"),
      next: keys.titled("The next step of the walk", "next"),
    };
    // Controls sit next to what they change: above the diagram, or above the part when that is below the diagram.
    this.walks = [1, 2].map(() => createWalk((by) => this.walk(by), titles));
    const [above, inColumn] = this.walks;
    this.column = element("div", { className: "dptx-tour-column" }, inColumn.node, this.panel.node);
    const help = createHelp(keys, HELP_NOTE);
    this.mount(
      keys,
      help,
      toolbar(
        [this.title, above.node],
        saveButtons(
          source.link,
          "Save",
          pageChoice(source, () => this.fileName()),
        ),
        copyButton(() => this.python(), source.link),
        help.opener,
      ),
      element("div", { className: "dptx-tour-main" }, this.diagram.node, this.column),
    );
  }

  /** @override */
  get dataArea() {
    return this.root.querySelector(".dptx-tour-main");
  }

  /** @override */
  connect() {
    this.watchSize(this.diagram.node, () => this.diagram.drawArrows());
    this.watchSize(this.column, () => this.place());
    if (!this.source.tour) return;
    this.showDiagram();
    this.showPart();
  }

  /**
   * @override
   * @param {string} event
   */
  onEvent(event) {
    if (event === "tour") this.showDiagram();
    else if (event === "part" && this.source.part !== this.shown) this.showPart();
    else if (event === "part")
      this.showView(); // the same part: its controls stay, and keep the focus
    else if (event === "shot") this.showShot();
  }

  // ----------------------------------------------------------------------------------------------------- on display

  showDiagram() {
    const { tour, thumbnails } = this.source;
    if (!tour) return;
    this.title.textContent = tour.title;
    this.shown = null;
    // The diagram has six rows of thumbnails: those of elongated pictures get margins.
    const aspect = Math.min(4, Math.max(0.5, tour.aspect));
    this.root.style.setProperty("--dptx-tour-aspect", String(aspect));
    this.root.style.setProperty("--dptx-tour-fit", aspect === tour.aspect ? "cover" : "contain");
    this.diagram.show(tour.parts, thumbnails);
  }

  showPart() {
    const { part, tour } = this.source;
    if (!part || !tour) return;
    this.shown = part;
    this.diagram.select(part);
    const steps = stepsOf(tour.parts);
    const at = steps.findIndex(({ kind }) => kind === part.kind);
    for (const controls of this.walks) controls.show(steps, at);
    const hadFocus = this.panel.node.matches(":focus-within"); // on a control that show() removes
    this.panel.show(part, tour.untrained);
    this.place();
    if (hadFocus) this.diagram.focus(part.name, { preventScroll: true });
    else if (this.model.onPage && !this.root.matches(":focus-within")) {
      this.diagram.focus(part.name, { preventScroll: true });
    }
    this.live.textContent = `${part.title}. ${part.why}`;
    this.showView();
  }

  showView() {
    if (!this.shown) return;
    this.panel.showView(this.source.viewOf(this.shown));
    this.root.dataset.state = "waiting";
    this.showShot();
  }

  showShot() {
    const { part, shot } = this.source;
    if (!part || !shot || part !== this.shown) return;
    this.panel.showShot(shot);
    Object.assign(this.root.dataset, { part: part.name, view: this.source.viewOf(part), state: "ready" });
  }

  // ------------------------------------------------------------------------------------------------ the explanation

  /**
   * Places the explanation: beside the diagram, or under the row of the part.
   *
   * @returns {boolean} whether it stands under the row
   */
  place() {
    const { diagram, column, shown } = this;
    const under = placeColumn({ column, row: shown && diagram.rowOf(shown.name), rows: diagram.rows() });
    diagram.drawArrows();
    return under;
  }

  /** Brings the explanation of the chosen part into view. */
  reveal() {
    const { diagram, column, panel } = this;
    const name = this.settings.get("part");
    const [box, row] = [diagram.boxOf(name), diagram.rowOf(name)];
    if (box && row) reveal({ box, row, column, lead: panel.lead, under: this.place() });
  }

  readPart() {
    this.reveal();
    this.panel.focus();
  }

  /**
   * @param {HTMLElement} target what has the focus
   * @returns {boolean} false if it is not in the explanation
   */
  leavePart(target) {
    if (!this.column.contains(target)) return false;
    this.diagram.focus(this.settings.get("part"), { preventScroll: true });
    this.reveal();
    return true;
  }

  // -------------------------------------------------------------------------------------------------------- actions

  /**
   * @param {string} name
   * @param {Element | null} [anchor] what stays in its place in the window: by default the part
   */
  choose(name, anchor = this.diagram.boxOf(name)) {
    if (name === this.settings.get("part")) return;
    const save = () => this.settings.save({ part: name });
    if (anchor) keepInPlace(anchor, save);
    else save();
  }

  /**
   * Chooses a part, moves the focus there and brings its explanation into view.
   *
   * @param {string} name
   */
  focusOn(name) {
    this.choose(name);
    this.diagram.focus(name, { preventScroll: true });
    this.reveal();
  }

  /**
   * @param {number} right
   * @param {number} down
   */
  goToward(right, down) {
    const name = this.diagram.neighbour(this.settings.get("part"), right, down);
    if (name) this.focusOn(name);
  }

  /** @param {"first" | "last"} end */
  goToEnd(end) {
    const part = this.source.tour?.parts.at(end === "first" ? 0 : -1);
    if (part) this.focusOn(part.name);
  }

  /** @param {number} by steps of the walk */
  walk(by) {
    const { part, tour } = this.source;
    if (!part || !tour) return;
    const steps = stepsOf(tour.parts);
    const next = steps[steps.findIndex(({ kind }) => kind === part.kind) + by];
    if (!next) return;
    if (this.diagram.node.matches(":focus-within")) {
      this.focusOn(next.part.name);
      return;
    }
    // The buttons of the walk stay under the pointer.
    const inColumn = this.column.matches(":focus-within");
    this.choose(next.part.name, inColumn ? this.column : null);
    this.reveal();
  }

  nextView() {
    const { part } = this.source;
    if (!part) return;
    const views = part.views.map(([view]) => view);
    this.settings.save({ view: views[(views.indexOf(this.source.viewOf(part)) + 1) % views.length] });
  }

  /** @returns {string} without an ending; "" while nothing can be saved */
  fileName() {
    const { part, tour } = this.source;
    return part && tour ? namedAfter(`tour_${part.name.replaceAll(".", "-")}`, tour.origin) : "";
  }

  python() {
    const { part, tour } = this.source;
    return part && tour ? partPython(part, tour) : "";
  }
}

export default defineWidget(TourSource, TourView);

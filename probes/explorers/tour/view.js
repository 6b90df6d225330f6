// The tour's view: a diagram of the model's parts with thumbnails of their tensors, and beside it the chosen part.
//
// The kernel is asked once for the diagram, and for a picture of a part when it is looked at. TourSource belongs to the
// widget model and is shared by its views on the page. The diagram is buttons in a grid, of which one is in the tab order;
// arrow keys go to the nearest part that way, and what has the focus is chosen. The lines between are drawn behind them.
//
// For tests, on the root element: data-part and data-view of the picture on display, data-state.

import { copyButton, enable, helpPopover, toolbar } from "../shared/panel.js";
import { button, element, segmented } from "../shared/shell.js";
import { defineWidget, Source, View } from "../shared/view.js";

const STEPS = [
  ["picture", "Picture"],
  ["input", "Prepared input"],
  ["patches", "Patches"],
  ["embedding", "Patch embedding"],
  ["tokens", "Tokens"],
  ["block", "Blocks"],
  ["stage", "Four stages"],
  ["readout", "Readout"],
  ["reassembly", "Reassembly"],
  ["fusion", "Fusion, coarse to fine"],
  ["head", "Head"],
  ["depth", "Depth"],
];

const LEGEND =
  "Small pictures are this model's tensors for this picture, their channels as colours: patches of like colour hold alike tokens. Choose any part to see more of it.";

const KEYS_HELP = [
  ["click", "show a part"],
  ["\u2190 \u2191 \u2192 \u2193", "go to the next part that way"],
  ["n, p", "next, previous step of the walk"],
  ["v", "next picture of the part"],
  ["Home, End", "first, last part"],
];

class TourSource extends Source {
  constructor(model) {
    super(model);
    this.thumbnails = []; // object URLs
    this.shots = new Map(); // "part view" -> {url, caption}
    model.on("change:part", () => this.wantShot());
    model.on("change:view", () => this.wantShot());
  }

  begin() {
    this.link.say("Asking for the diagram", { busy: true });
    this.link.ask("tour");
  }

  get part() {
    return this.about?.parts.find((part) => part.name === this.model.get("part")) ?? null;
  }

  /** The view on display: the one asked for where the part has it, else its first. */
  get view() {
    const views = this.part.views.map(([view]) => view);
    return views.includes(this.model.get("view")) ? this.model.get("view") : views[0];
  }

  wantShot() {
    this.tell("part");
    if (!this.part) return;
    if (this.shots.has(`${this.part.name} ${this.view}`)) this.ready();
    else this.link.ask("shot", { part: this.part.name, view: this.view });
  }

  receive(message, buffers) {
    const pictureOf = (part, type) => URL.createObjectURL(new Blob([part], { type }));
    if (message.kind === "tour") {
      this.about = message;
      this.thumbnails = buffers.map((part) => pictureOf(part, "image/png"));
      this.tell("tour");
      this.wantShot();
    } else if (message.kind === "shot") {
      this.shots.set(`${message.part} ${message.view}`, {
        url: pictureOf(buffers[0], message.type),
        caption: message.caption,
      });
      this.ready();
    }
  }

  ready() {
    this.link.say(`${this.about.title}: ${this.about.line}`);
    this.tell("shot");
  }
}

/** A line from the edge of one box to the edge of another, with one turn where they are not opposite. */
function linkPath(from, to, way) {
  const middle = (box) => [box.left + box.width / 2, box.top + box.height / 2];
  const [fromX, fromY] = middle(from);
  const [toX, toY] = middle(to);
  if (way === "right") return `M${from.left + from.width + 2} ${fromY}H${to.left - 7}`;
  if (way === "left") return `M${from.left - 2} ${fromY}H${to.left + to.width + 7}`;
  const [start, end] = [from.top + from.height + 2, to.top - 7];
  if (way === "bar") return `M${toX} ${start}V${end}`;
  if (way === "to-bar" || Math.abs(fromX - toX) < 2) return `M${fromX} ${start}V${end}`;
  const turn = end - 5;
  return `M${fromX} ${start}V${turn}H${toX}V${end}`;
}

class TourView extends View {
  constructor(model, el, source) {
    super(model, el, source);
    this.nodes = new Map(); // part name -> its button
    this.links = []; // {from, to, way, line}
    this.shown = null; // the part on display
    this.help = helpPopover(
      KEYS_HELP,
      "Shapes: pictures first, then tokens and channels, or channels, rows and columns. The diagram leaves the first out.",
    );
    this.diagram = element("div", {
      className: "dptx-tour-diagram",
      role: "listbox",
      "aria-label": "Parts of the model; arrow keys go from one to the next",
    });
    this.lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.lines.setAttribute("class", "dptx-tour-lines");
    this.lines.setAttribute("aria-hidden", "true");
    this.detail = element("div", { className: "dptx-tour-detail" });
    this.title = element("strong", { className: "dptx-tour-title" });
    // Over the diagram, and over the part where that stands below the diagram: what they change is next to them.
    this.walks = [this.newWalk(), this.newWalk()];
    this.column = element("div", { className: "dptx-tour-column" }, this.walks[1].node, this.detail);
    this.mount(
      "tour",
      act,
      toolbar(
        [this.title, this.walks[0].node],
        copyButton(() => this.python(), source.link),
        this.help.opener,
      ),
      element("div", { className: "dptx-tour-main" }, this.diagram, this.column),
    );
  }

  newWalk() {
    const back = button("\u2039 Back", "The step before (key p)", () => this.go(-1));
    const next = button("Next \u203a", "The next step of the walk (key n)", () => this.go(1));
    const step = element("span", { className: "dptx-tour-step" });
    return { node: element("div", { className: "dptx-field dptx-tour-walk" }, back, next, step), back, next, step };
  }

  begin() {
    this.watchSize(this.diagram, () => this.drawLines());
    if (!this.source.about) return;
    this.showDiagram();
    this.showPart();
    this.showShot();
  }

  heard(event) {
    if (super.heard(event)) return true;
    if (event === "tour") this.showDiagram();
    else if (event === "part" && this.source.part !== this.shown) this.showPart();
    else if (event === "part")
      this.showView(); // its controls stay, and with them the focus
    else if (event === "shot") this.showShot();
    return false;
  }

  // --------------------------------------------------------------------------------------------------------- diagram

  showDiagram() {
    const { about } = this.source;
    this.title.textContent = about.title;
    this.shown = null;
    this.nodes.clear();
    const of = (kind) => about.parts.filter((part) => part.kind === kind);
    const node = (part) => this.newNode(part);
    const row = (name, ...children) => element("div", { className: `dptx-tour-row dptx-tour-${name}` }, ...children);
    const byGroup = (kind) => of(kind).sort((one, other) => one.number - other.number);
    const groups = [0, 1, 2, 3].map((group) =>
      element(
        "div",
        { className: "dptx-tour-group" },
        element(
          "div",
          { className: "dptx-tour-blocks" },
          ...of("block")
            .filter((part) => part.group === group)
            .map(node),
        ),
      ),
    );
    this.diagram.replaceChildren(
      this.lines,
      row("way-in", ...["picture", "input", "patches", "embedding", "tokens"].flatMap((kind) => of(kind).map(node))),
      row("encoder", ...groups),
      row("stages", ...byGroup("stage").map(node)),
      row("readout", ...of("readout").map(node)),
      row("maps", ...byGroup("reassembly").map(node)),
      row("maps", ...byGroup("fusion").map(node)),
      row(
        "way-out",
        ...of("head").map(node),
        ...of("depth").map(node),
        element("p", { className: "dptx-tour-legend" }, LEGEND),
      ),
    );
    this.root.style.setProperty("--dptx-tour-aspect", about.aspect);
    this.connect(of, groups);
    this.drawLines();
  }

  newNode(part) {
    const { thumbnails } = this.source;
    const short = part.shapes.at(-1)?.[2] ?? "";
    const block = part.kind === "block";
    const picture =
      part.thumbnail < 0 ? null : element("img", { src: thumbnails[part.thumbnail], alt: "", draggable: false });
    const shape = part.kind === "picture" ? short : short.replace(/^1 \u00d7 /, "");
    const caption = block
      ? element("span", { className: "dptx-tour-name" }, String(part.number))
      : element(
          "span",
          { className: "dptx-tour-caption" },
          element("span", { className: "dptx-tour-name" }, part.title),
          part.kind === "readout" ? null : element("span", { className: "dptx-tour-shape" }, shape),
        );
    const node = element(
      "div",
      {
        className: `dptx-tour-node dptx-tour-kind-${part.kind}`,
        role: "option",
        tabIndex: -1,
        title: block ? part.title : part.why,
        "aria-label": `${part.title}, ${short}`,
        "aria-selected": "false",
        onclick: () => this.choose(part.name),
        onfocus: () => this.choose(part.name),
      },
      part.kind === "readout" ? null : picture,
      caption,
    );
    node.dataset.part = part.name;
    this.nodes.set(part.name, node);
    return node;
  }

  /** What follows what: fusion runs from coarse to fine, right to left. */
  connect(of, groups) {
    const nodes = (kind) =>
      of(kind)
        .sort((one, other) => one.number - other.number)
        .map(({ name }) => this.nodes.get(name));
    const chain = ["picture", "input", "patches", "embedding", "tokens"].flatMap(nodes);
    const [[readout], stages, maps, fused, [head], [depth]] = [
      "readout",
      "stage",
      "reassembly",
      "fusion",
      "head",
      "depth",
    ].map(nodes);
    const found = [];
    for (let n = 1; n < chain.length; n++) found.push([chain[n - 1], chain[n], "right"]);
    found.push([chain.at(-1), groups[0], "down"]);
    for (let s = 0; s < 4; s++) {
      if (s) found.push([groups[s - 1], groups[s], "right"]);
      found.push([groups[s], stages[s], "down"], [stages[s], readout, "to-bar"], [readout, maps[s], "bar"]);
      found.push([maps[s], fused[s], "down"]);
      if (s) found.push([fused[s], fused[s - 1], "left"]);
    }
    found.push([fused[0], head, "down"], [head, depth, "right"]);
    const path = () => document.createElementNS("http://www.w3.org/2000/svg", "path");
    this.links = found.map(([from, to, way]) => ({ from, to, way, line: path(), tip: path() }));
    this.lines.replaceChildren(...this.links.flatMap(({ line, tip }) => [line, tip]));
    for (const { tip } of this.links) tip.setAttribute("class", "dptx-tour-tip");
  }

  drawLines() {
    const whole = this.diagram.getBoundingClientRect();
    if (!whole.width) return;
    this.lines.setAttribute("width", whole.width);
    this.lines.setAttribute("height", whole.height);
    const place = (node) => {
      const box = node.getBoundingClientRect();
      return { left: box.left - whole.left, top: box.top - whole.top, width: box.width, height: box.height };
    };
    for (const { from, to, way, line, tip } of this.links) {
      const [start, end] = [place(from), place(to)];
      const path = linkPath(start, end, way);
      line.setAttribute("d", path);
      const numbers = path.match(/[MHV][^MHV]+/g);
      let [x, y] = [0, 0];
      for (const step of numbers) {
        if (step[0] === "M") [x, y] = step.slice(1).split(" ").map(Number);
        else if (step[0] === "H") x = Number(step.slice(1));
        else y = Number(step.slice(1));
      }
      const turned = { right: [0, -4, 0, 4, 6, 0], left: [0, -4, 0, 4, -6, 0] }[way] ?? [-4, 0, 4, 0, 0, 6];
      const [a, b, c, d, e, f] = turned;
      tip.setAttribute("d", `M${x + a} ${y + b}L${x + c} ${y + d}L${x + e} ${y + f}Z`);
    }
  }

  // ------------------------------------------------------------------------------------------------------------ part

  showPart() {
    const { part } = this.source;
    if (!part) return;
    this.shown = part;
    for (const [name, node] of this.nodes) {
      const chosen = name === part.name;
      node.setAttribute("aria-selected", String(chosen));
      node.tabIndex = chosen ? 0 : -1;
    }
    const own = this.nodes.get(part.name);
    for (const { from, to, line, tip } of this.links) {
      const lit = from === own || to === own || (part.kind === "block" && (from.contains(own) || to.contains(own)));
      for (const piece of [line, tip]) piece.classList.toggle("dptx-tour-lit", lit);
    }
    const steps = this.steps();
    const at = steps.findIndex(([kind]) => kind === part.kind);
    for (const { back, next, step } of this.walks) {
      step.textContent = `Step ${at + 1} of ${steps.length}: ${steps[at][1]}`;
      enable(back, true);
      enable(next, at < steps.length - 1, back);
      enable(back, at > 0, next);
    }
    const views = segmented(
      "Picture of this part",
      part.views.map(([view, name]) => [view, name, `${name} (key v)`]),
      (view) => this.save({ view }),
    );
    this.views = views;
    this.picture = element("img", { className: "dptx-tour-shot", alt: "" });
    this.caption = element("div", { className: "dptx-tour-words" });
    const shapes = part.shapes.map(([name, symbols, here]) =>
      element(
        "tr",
        {},
        element("td", {}, element("code", {}, name)),
        element("td", {}, symbols),
        element("td", { className: "dptx-tour-here" }, here),
      ),
    );
    const held = this.detail.matches(":focus-within"); // by a control that goes now
    const header = ["tensor", "shape", "here"].map((name) => element("th", {}, name));
    this.detail.replaceChildren(
      element("div", { className: "dptx-tour-heading" }, part.title),
      element("p", { className: "dptx-tour-why" }, part.why),
      element("div", { className: "dptx-tour-formula" }, part.formula),
      part.family ? element("p", { className: "dptx-tour-family" }, part.family) : "",
      element(
        "table",
        { className: "dptx-tour-shapes" },
        element("thead", {}, element("tr", {}, ...header)),
        element("tbody", {}, ...shapes),
      ),
      part.views.length > 1 ? views.node : "",
      element("figure", { className: "dptx-tour-figure" }, this.picture, this.caption),
      this.source.about.untrained
        ? element(
            "p",
            { className: "dptx-tour-untrained" },
            "Untrained: weights are random. Shapes, windows and biases are those of the family; what the pictures show is not what a trained model sees.",
          )
        : "",
    );
    if (held) own.focus({ preventScroll: true });
    else if (!this.root.matches(":focus-within")) this.focusOnPage(own);
    this.live.textContent = `${part.title}. ${part.why}`;
    this.showView();
  }

  showView() {
    if (!this.shown) return;
    this.views.set(this.source.view);
    this.root.dataset.state = "waiting";
    this.showShot();
  }

  showShot() {
    const { source } = this;
    const shot = source.part && source.shots.get(`${source.part.name} ${source.view}`);
    if (!shot || !this.picture) return;
    this.picture.src = shot.url;
    this.picture.alt = shot.caption;
    this.caption.textContent = shot.caption;
    Object.assign(this.root.dataset, { part: source.part.name, view: source.view, state: "ready" });
  }

  // --------------------------------------------------------------------------------------------------------- actions

  choose(name) {
    if (name !== this.model.get("part")) this.save({ part: name });
  }

  focusOn(name, preventScroll = false) {
    this.choose(name);
    this.nodes.get(name)?.focus({ preventScroll });
  }

  /** In a narrow place the part is below the diagram. */
  get stacked() {
    return this.column.offsetTop >= this.diagram.offsetTop + this.diagram.offsetHeight;
  }

  /** Kinds of parts that this model has, in order. */
  steps() {
    return STEPS.filter(([kind]) => this.source.about.parts.some((part) => part.kind === kind));
  }

  go(by) {
    if (!this.source.part) return;
    const steps = this.steps();
    const at = steps.findIndex(([kind]) => kind === this.source.part.kind) + by;
    if (at < 0 || at >= steps.length) return;
    const first = this.source.about.parts.find((part) => part.kind === steps[at][0]);
    const { stacked } = this;
    if (this.diagram.contains(this.root.getRootNode().activeElement)) this.focusOn(first.name, stacked);
    else this.choose(first.name);
    if (stacked) this.reveal();
  }

  /** Scrolls to the part, unless it begins in the upper half of the window already. */
  reveal() {
    const { top } = this.column.getBoundingClientRect();
    if (top >= 0 && top < innerHeight / 2) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.column.scrollIntoView({ block: "start", behavior: still ? "instant" : "smooth" });
  }

  /** The nearest part in a direction: what lies aside counts more than what is far. */
  toward(right, down) {
    const own = this.nodes.get(this.model.get("part")).getBoundingClientRect();
    let [best, cost] = [null, Infinity];
    for (const [name, node] of this.nodes) {
      const box = node.getBoundingClientRect();
      const dx = box.left + box.width / 2 - (own.left + own.width / 2);
      const dy = box.top + box.height / 2 - (own.top + own.height / 2);
      const ahead = right ? right * dx : down * dy;
      const apart = right ? Math.abs(dy) : Math.max(0, Math.abs(dx) - Math.max(own.width, box.width) / 2);
      if (ahead < 4 || (right && apart > own.height / 2 + box.height / 2)) continue;
      if (ahead + 3 * apart < cost) [best, cost] = [name, ahead + 3 * apart];
    }
    if (best) this.focusOn(best);
  }

  nextView() {
    const views = this.source.part.views.map(([view]) => view);
    this.save({ view: views[(views.indexOf(this.source.view) + 1) % views.length] });
  }

  python() {
    const { part, about } = this.source;
    if (!part) return "";
    const point = part.points[0];
    if (!point) return `x = ${about.call.replace("model.predict", "model.prepare")}  # (1, 3, h, w)\n`;
    const lines = ["import probes", "", `with probes.capture(model, "${point}") as cap:`, `    ${about.call}`];
    return [...lines, `cap["${point}"]  # ${part.shapes.at(-1)[1]}`].join("\n") + "\n";
  }
}

/** What a key does; false for keys that mean nothing here. */
function act(view, key, shift, target) {
  if (!view.source.part) return false;
  const inside = view.diagram.contains(target);
  const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const names = view.source.about.parts.map((part) => part.name);
  if (key in arrows && inside) view.toward(...arrows[key]);
  else if (key === "Home" && inside) view.focusOn(names[0]);
  else if (key === "End" && inside) view.focusOn(names.at(-1));
  else if (key === "n") view.go(1);
  else if (key === "p") view.go(-1);
  else if (key === "v") view.nextView();
  else return key === "Enter" && inside; // a choice is made already: no cell is to be edited
  return true;
}

export default defineWidget(TourSource, TourView);

// DOM elements.

/**
 * An element. `properties` are DOM properties (className), event handlers (onclick), attributes (role, aria-label), or
 * `dataset`; null and undefined are left out, as children too.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "dataset") Object.assign(node.dataset, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-")) Reflect.set(node, name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/**
 * Sets a node's text if it changes: an unchanged text must not cost a layout on each pointer move.
 *
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * The toolbar: controls, and at its end files, code and help.
 *
 * @param {Node[]} controls
 * @param {...Node} actions
 * @returns {HTMLElement}
 */
export function toolbar(controls, ...actions) {
  const end = element("div", { className: "dptx-actions" }, ...actions);
  return element("div", { className: "dptx-toolbar" }, ...controls, end);
}

/**
 * The main area: the picture with its controls, and beside or below it the rest.
 *
 * @param {(Node | null)[]} left
 * @param {(Node | null)[]} right
 * @returns {HTMLElement}
 */
export function columns(left, right) {
  return element(
    "div",
    { className: "dptx-main" },
    element("div", { className: "dptx-left" }, ...left),
    element("div", { className: "dptx-right" }, ...right),
  );
}

/**
 * Controls in a line.
 *
 * @param {string} className in addition, or ""
 * @param {...(Node | null)} controls
 * @returns {HTMLElement}
 */
export function row(className, ...controls) {
  return element("div", { className: `dptx-row ${className}` }, ...controls);
}

/**
 * The line under a picture: a name, and what the picture shows of it.
 *
 * @returns {{node: HTMLElement, show(name: string, text: string, title?: string): void, readonly text: string}}
 */
export function createReadout() {
  const [name, rest] = [element("strong"), element("span")];
  const node = element("div", { className: "dptx-readout" }, name, rest);
  return {
    node,
    show(called, text, title = "") {
      setText(name, called);
      setText(rest, text);
      if (node.title !== title) node.title = title;
    },
    get text() {
      return node.textContent ?? "";
    },
  };
}

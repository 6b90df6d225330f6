// Colours of the theme, and sizes from the style sheet.

import { penOf } from "./canvas.js";

/**
 * What a saved image takes from the theme.
 *
 * @param {Element} root
 * @returns {{background: string, text: string, muted: string, font: string, outlier: string, pin: string}}
 */
export function themeColours(root) {
  const style = getComputedStyle(root);
  return {
    background: style.backgroundColor,
    text: style.color,
    muted: style.getPropertyValue("--dptx-muted"),
    font: style.fontFamily,
    outlier: style.getPropertyValue("--dptx-error").trim(),
    pin: style.getPropertyValue("--dptx-a").trim(),
  };
}

/**
 * @param {Element} root
 * @returns {boolean} whether the background is dark
 */
export function isDark(root) {
  return isDarkColour(channelsOf(getComputedStyle(root).backgroundColor));
}

/**
 * The width inside an element's padding; 0 while it is not displayed.
 *
 * @param {Element} root
 * @returns {number}
 */
export function widthInside(root) {
  const style = getComputedStyle(root);
  return Math.max(0, root.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)) || 0;
}

/**
 * The largest height of a picture: on a small screen, it leaves room above or below it for a finger that scrolls.
 *
 * @returns {number} pixels
 */
export function tallestPicture() {
  return Math.max(180, 0.7 * document.documentElement.clientHeight); // unlike innerHeight constant while a phone scrolls
}

/** @typedef {[red: number, green: number, blue: number, alpha: number]} Channels 0 .. 255, alpha 0 .. 1 */

/**
 * @param {string} colour as getComputedStyle() gives it: "" outside a document, rgb(), rgba() or, for newer notations,
 *   oklch() and others, which only the browser converts
 * @returns {Channels} white for ""
 */
export function channelsOf(colour) {
  if (!colour || colour.startsWith("rgb")) {
    const [red = 255, green = 255, blue = 255, alpha = 1] = (colour.match(/[\d.]+/g) ?? []).map(Number);
    return [red, green, blue, alpha];
  }
  const pen = penOf(document.createElement("canvas"));
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

/** @param {readonly number[]} channels */
const isDarkColour = ([red, green, blue]) => 0.3 * red + 0.6 * green + 0.1 * blue < 128;

/**
 * An element's parent; of a shadow root, the element that it belongs to (marimo).
 *
 * @param {Element} node
 * @returns {Element | null}
 */
function parentOf(node) {
  if (node.parentElement) return node.parentElement;
  const root = node.getRootNode();
  return root instanceof ShadowRoot ? root.host : null;
}

/**
 * The elements around a node, from its parent to the page's root element.
 *
 * @param {Element} node
 * @returns {Element[]}
 */
export function around(node) {
  const found = [];
  for (let at = parentOf(node); at; at = parentOf(at)) found.push(at);
  return found;
}

/**
 * The colour that a page paints behind a node.
 *
 * @param {readonly Element[]} elements around the node
 * @returns {readonly number[] | null} null if no element paints an opaque one
 */
function backdropOf(elements) {
  /** @type {Channels[]} */
  const sheer = [];
  for (const node of elements) {
    const colour = channelsOf(getComputedStyle(node).backgroundColor);
    if (colour[3] < 1) {
      if (colour[3] > 0) sheer.push(colour);
      continue;
    }
    /** @type {number[]} */
    let seen = colour.slice(0, 3);
    for (const over of sheer.reverse()) seen = seen.map((value, n) => over[n] * over[3] + value * (1 - over[3]));
    return seen;
  }
  return null;
}

// How hosts that paint their background outside our document name their theme: Colab (html[theme]), marimo, Sphinx and
// Quarto (data-theme, data-bs-theme, classes), VS Code (vscode-dark), JupyterLab (data-jp-theme-light).
const THEME_NAMES = ["theme", "data-theme", "data-bs-theme", "data-color-mode", "data-vscode-theme-kind"];
const DARK_WORD = /(^|[\s-])(dark|high-contrast|slate)(?!-light)([\s-]|$)/;
const LIGHT_WORD = /(^|[\s-])light([\s-]|$)/;

/**
 * What an element says about the theme.
 *
 * @param {Element} node
 * @returns {boolean | null} whether it is dark; null if the element says nothing
 */
export function namedDark(node) {
  const jupyter = node.getAttribute("data-jp-theme-light");
  if (jupyter) return jupyter === "false";
  for (const words of [...THEME_NAMES.map((name) => node.getAttribute(name)), node.getAttribute("class")]) {
    if (!words) continue;
    if (DARK_WORD.test(words)) return true;
    if (LIGHT_WORD.test(words)) return false;
  }
  return null;
}

/**
 * Whether the page around a node is dark: by the colour that it paints, else by the theme that it names, else by the
 * colour scheme.
 *
 * @param {Element} node
 * @returns {boolean}
 */
export function isPageDark(node) {
  const elements = around(node);
  const painted = backdropOf(elements);
  if (painted) return isDarkColour(painted);
  for (const one of elements) {
    const dark = namedDark(one);
    if (dark !== null) return dark;
  }
  const scheme = getComputedStyle(document.documentElement).colorScheme;
  if (scheme === "dark" || scheme === "light") return scheme === "dark";
  // A page of its own that supports no scheme is white; a frame shows the page around it, which we cannot see.
  if (scheme === "normal" && window.top === window) return false;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** @returns {ScrollBehavior} of scrolling that follows an action */
export function scrolling() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
}

// A file that the frame of the widget may not let the browser download: it is shown on the page, to be saved by hand.

import { button } from "./controls.js";
import { copyText } from "./download.js";
import { element, row } from "./elements.js";

/** @import { OfferedFile } from "./types.js" */

const LARGEST_DATA_URL = 1_500_000; // characters; Chromium drops longer addresses from its menu
const LARGEST_TEXT = 200_000; // characters that a field shows; the button copies all

/**
 * @typedef {object} Offer
 * @property {HTMLElement} node hidden while it is empty
 * @property {(file: OfferedFile) => Promise<void>} show replaces the file before
 * @property {() => void} close
 */

/** @returns {Offer} */
export function createOffer() {
  const node = element("section", { className: "dptx-offer", "aria-label": "File to save by hand", hidden: true });
  let url = ""; // of a blob
  const close = () => {
    node.hidden = true;
    node.replaceChildren();
    if (url) URL.revokeObjectURL(url);
    url = "";
  };
  return {
    node,
    close,
    async show({ name, blob }) {
      close();
      const short = blob.size < LARGEST_DATA_URL * 0.7; // base64 takes a third more
      const address = short ? await dataUrl(blob) : URL.createObjectURL(blob);
      if (!short) url = address;
      const file = element("a", { href: address, download: name, title: "Right-click to save this file" }, name);
      /** @type {HTMLElement[]} */
      const parts = [element("p", {}, file, ` (${sizeWords(blob.size)}). ${wordsOn(blob.type)}`)];
      if (blob.type.startsWith("image/")) parts.push(element("img", { src: address, alt: name }));
      /** @type {HTMLElement[]} */
      const actions = [button("Close", "Close this box", close)];
      if (isText(blob.type)) {
        const [area, copy] = textParts(name, await blob.text());
        parts.push(area);
        actions.unshift(copy);
      }
      node.replaceChildren(...parts, row("", ...actions));
      node.hidden = false;
      node.scrollIntoView({ block: "nearest" });
    },
  };
}

/**
 * @param {string} name
 * @param {string} text
 * @returns {[area: HTMLElement, copy: HTMLElement]}
 */
function textParts(name, text) {
  const value = text.slice(0, LARGEST_TEXT);
  const area = element("textarea", { value, readOnly: true, "aria-label": name, title: name, rows: 6 });
  const copy = button("Copy all", `Copy the text of ${name}`, async () => {
    copy.textContent = (await copyText(text, copy.parentElement ?? copy)) ? "Copied" : "Could not copy";
  });
  return [area, copy];
}

/**
 * @param {string} type
 * @returns {string}
 */
function wordsOn(type) {
  const link =
    "To save it, right-click the link and choose \u201cSave link as\u201d, or open this page in a tab of its own.";
  if (type.startsWith("image/")) return "To save it, right-click the picture and choose \u201cSave image as\u201d.";
  return isText(type) ? `Copy the text. ${link}` : link;
}

/**
 * @param {string} type
 * @returns {boolean}
 */
function isText(type) {
  return type === "text/csv" || type === "application/json" || type === "text/plain";
}

/**
 * @param {number} bytes
 * @returns {string}
 */
export function sizeWords(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * @param {Blob} blob
 * @returns {Promise<string>}
 */
function dataUrl(blob) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result));
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });
}

// The button that saves the view as a page. The kernel writes the page; a page without a kernel saves itself.

import { download } from "./download.js";
import { sizeWords } from "./offer.js";

/** @import { SaveChoice } from "./download.js" */
/** @import { Source } from "./source.js" */
/** @import { Message, Part } from "./types.js" */

/**
 * The reply to "page".
 *
 * @typedef {Message & {
 *   type: string, extent: string, more: {words: string, bytes: number, payload: object} | null,
 * }} PageMessage extent: which part of the data it holds; more: a larger page that the kernel can write
 */

/**
 * @param {Source<any>} source
 * @param {() => string} nameOf name of the file without its ending; "" while there is nothing to save
 * @returns {SaveChoice}
 */
export function pageChoice(source, nameOf) {
  const title = "Save this view as a page that works without a kernel";
  return ["HTML", title, () => savePage(source, nameOf())];
}

/**
 * @param {Source<any>} source
 * @param {string} name
 * @param {object} [payload] what the page shall hold
 */
function savePage(source, name, payload = {}) {
  const { model, link } = source;
  if (!name) return;
  if (model.pageSource) {
    for (const [trait, value] of Object.entries(source.present)) model.set(trait, value);
    download(link, `${name}.html`, [model.pageSource()], "text/html", "this page, as it looks now");
    return;
  }
  source.pageName = name;
  link.report("Requesting the page", { busy: true });
  // Traits can still be on their way: ipywidgets holds changes back while the kernel is busy.
  link.request("page", { ...payload, state: source.present });
}

/**
 * @param {Source<any>} source
 * @param {PageMessage} message
 * @param {Part[]} parts
 */
export function receivePage(source, { type, extent, more }, parts) {
  const { link, pageName: name } = source;
  const note = extent.charAt(0).toLowerCase() + extent.slice(1);
  download(link, `${name}.html`, /** @type {BlobPart[]} */ (parts), type, note);
  if (!more) return;
  const text = `Save ${more.words} (${sizeWords(more.bytes)})`;
  const run = () => savePage(source, name, more.payload);
  link.report(link.status.text, { ...link.status, more: { text, title: "Save a larger page", run } });
}

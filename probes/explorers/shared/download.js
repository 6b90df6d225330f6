// Files and text that leave the page. Where the frame of the widget forbids downloads, the file is offered on the page.

import { button } from "./controls.js";
import { element } from "./elements.js";
import { downloadsAllowed } from "./frame.js";
import { withTexts } from "./png.js";

/** @import { DownloadsAllowed } from "./frame.js" */
/** @import { Link } from "./link.js" */

const KEPT_FOR = 60_000; // milliseconds; some hosts read the file only when the user has chosen a place for it

/**
 * Downloads a file and says so in the status strip. A browser does not tell whether it blocked a download: where the
 * frame may forbid it, the strip does not claim that the file was saved, and offers it on the page.
 *
 * @param {Link} link
 * @param {string} name
 * @param {BlobPart[]} parts
 * @param {string} [type]
 * @param {string} [note] what the strip adds
 */
export function download(link, name, parts, type = "application/octet-stream", note = "") {
  const blob = new Blob(parts, { type });
  const allowed = downloadsAllowed();
  if (allowed !== "no") startDownload(name, blob);
  const offer = allowed === "yes" ? null : { name, blob };
  link.report(downloadWords(name, allowed, note), { failed: allowed === "no", offer });
}

/**
 * @param {string} name
 * @param {DownloadsAllowed} allowed
 * @param {string} [note]
 * @returns {string}
 */
export function downloadWords(name, allowed, note = "") {
  const more = note ? `: ${note}` : "";
  if (allowed === "yes") return `Saved ${name}${more}`;
  if (allowed === "unknown")
    return `If ${name} does not arrive, this frame forbids downloads. Take it from the box above${more}`;
  return `Could not save ${name}: this frame forbids downloads. Take it from the box above${more}`;
}

/**
 * @param {string} name
 * @param {Blob} blob
 */
function startDownload(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = element("a", { href: url, download: name });
  document.body.append(link); // Firefox ignores clicks on links outside the document
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), KEPT_FOR);
}

/**
 * Downloads a canvas as a PNG.
 *
 * @param {Link} link
 * @param {HTMLCanvasElement} canvas
 * @param {string} name without the ending
 * @param {object} [more]
 * @param {Record<string, string>} [more.texts] that the file contains
 * @param {string} [more.note] what the strip adds
 * @returns {Promise<void>} fails if the browser cannot encode the canvas
 */
export async function downloadCanvas(link, canvas, name, { texts = {}, note } = {}) {
  link.report(`Encoding ${name}.png`, { busy: true }); // seconds for a large one
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  if (!blob) {
    // Browsers limit the area of a canvas, and give no reason.
    throw new RangeError(`the browser cannot encode a picture of ${canvas.width} x ${canvas.height} pixels`);
  }
  const parts = withTexts(new Uint8Array(await blob.arrayBuffer()), texts);
  download(link, `${name}.png`, parts, "image/png", note);
}

/**
 * One button of several that save files.
 *
 * @typedef {readonly [text: string, title: string, save: () => unknown]} SaveChoice `save` may return a promise
 */

/**
 * Buttons side by side that save files. The status strip shows why a file could not be made.
 *
 * @param {Link} link
 * @param {string} label
 * @param {...SaveChoice} choices
 * @returns {HTMLElement}
 */
export function saveButtons(link, label, ...choices) {
  const buttons = choices.map(([text, title, save]) => {
    const press = () => tryToSave(link, text, save);
    return button(text, title, press, { className: "dptx-segment" });
  });
  return element("div", { className: "dptx-segments", role: "group", "aria-label": label }, ...buttons);
}

/**
 * @param {Link} link
 * @param {string} format e.g. "PNG"
 * @param {() => unknown} save
 */
export async function tryToSave(link, format, save) {
  try {
    await save();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    link.report(`Could not save the view as ${format}: ${reason}`, { failed: true });
  }
}

/**
 * Copies a text to the clipboard.
 *
 * @param {string} text
 * @param {Element} near where a selected field may be added for a moment
 * @returns {Promise<boolean>} false if the browser refuses
 */
export async function copyText(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not a secure context, or no permission: the old way needs a selected field.
    const area = element("textarea", { value: text, className: "dptx-offscreen", "aria-hidden": "true" });
    near.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/**
 * A button that copies code and confirms it for a moment. If the browser refuses, the status strip shows the code.
 *
 * @param {() => string} code "" while there is nothing to copy
 * @param {Link} link
 * @returns {HTMLButtonElement}
 */
export function copyButton(code, link) {
  const control = button("Copy Python", "Copy the code that computes this view", async () => {
    const text = code();
    if (!text) return;
    if (await copyText(text, control.parentElement ?? control)) {
      control.textContent = "Copied";
      setTimeout(() => {
        control.textContent = "Copy Python";
      }, 1500);
    } else {
      link.report(`The browser refused access to the clipboard. The code: ${text}`, { failed: true });
    }
  });
  return control;
}

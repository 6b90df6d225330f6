// Files and text that leave the page.

import { button } from "./controls.js";
import { element } from "./elements.js";

/** @import { Link } from "./link.js" */

/**
 * @param {string} name
 * @param {BlobPart[]} parts
 * @param {string} [type]
 */
export function download(name, parts, type = "application/octet-stream") {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const link = element("a", { href: url, download: name });
  document.body.append(link); // Firefox ignores clicks on links outside the document
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/**
 * Downloads a canvas as a PNG.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {string} name without the ending
 */
export function downloadCanvas(canvas, name) {
  canvas.toBlob((blob) => blob && download(`${name}.png`, [blob], "image/png"), "image/png");
}

/**
 * Copies a text to the clipboard.
 *
 * @param {string} text
 * @param {Element} near where a selected field may be added for a moment
 * @returns {Promise<boolean>} false if the browser refuses
 */
async function copyText(text, near) {
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

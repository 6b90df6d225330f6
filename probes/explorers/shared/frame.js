// Whether the frame that holds a widget lets files be downloaded. No browser says so directly.

/**
 * "no": a frame around the widget is sandboxed without allow-downloads. "unknown": a frame around it belongs to another
 * site or to no site, so its sandbox cannot be read. "yes": neither.
 *
 * @typedef {"yes" | "no" | "unknown"} DownloadsAllowed
 */

/**
 * A sandbox also applies to the frames inside it, so the widget's frame and all frames around it count.
 *
 * @param {Window} [view]
 * @returns {DownloadsAllowed}
 */
export function downloadsAllowed(view = window) {
  // VS Code takes clicks on download links itself and asks where to save the file.
  if (view.location.protocol === "vscode-webview:") return "yes";
  let frame = view;
  while (frame.parent !== frame) {
    const holder = holderOf(frame);
    if (!holder) return "unknown";
    if (holder.hasAttribute("sandbox") && !holder.sandbox.contains("allow-downloads")) return "no";
    frame = frame.parent;
  }
  // A server can sandbox a whole page with a Content-Security-Policy: the page then has no origin. Files have none either.
  const withoutOrigin = view.origin === "null" && !["file:", "data:"].includes(view.location.protocol);
  return withoutOrigin ? "unknown" : "yes";
}

/**
 * @param {Window} frame
 * @returns {HTMLIFrameElement | null} null where the page around the frame is another site's
 */
function holderOf(frame) {
  try {
    return /** @type {HTMLIFrameElement | null} */ (frame.frameElement);
  } catch {
    return null; // some browsers raise a SecurityError
  }
}

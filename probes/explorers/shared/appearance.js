// How an explorer looks follows from its page: the theme, and the density of the screen's pixels.

import { around, isDark, isPageDark } from "./theme.js";

/**
 * Chooses the palette for what the page paints around an explorer. Colours of JupyterLab and VS Code win over our own
 * (explorer.css), unless they contradict the page.
 *
 * @param {HTMLElement} root
 * @returns {string} what changes with the palette
 */
function choosePalette(root) {
  const dark = isPageDark(root);
  root.classList.toggle("dptx-dark", dark);
  root.classList.remove("dptx-own");
  if (isDark(root) !== dark) root.classList.add("dptx-own");
  const style = getComputedStyle(root);
  return [style.backgroundColor, style.color, style.getPropertyValue("--dptx-muted")].join();
}

/**
 * Keeps an explorer's palette in step with its page, and calls an action when colours or canvases must be painted again:
 * the theme has changed, or the window has moved to a screen with other pixels. A change while the explorer is hidden
 * is noticed when it is displayed again.
 *
 * @param {HTMLElement} root
 * @param {() => void} action
 * @returns {() => void} stops watching
 */
export function watchAppearance(root, action) {
  let painted = "";
  let frame = 0;
  const check = () => {
    cancelAnimationFrame(frame);
    frame = 0;
    if (!root.isConnected || !root.getClientRects().length) return; // hidden: the observer of its size calls again
    const current = `${choosePalette(root)} ${globalThis.devicePixelRatio}`;
    if (current === painted) return;
    painted = current;
    action();
  };

  const checkSoon = () => {
    frame ||= requestAnimationFrame(check); // once for all changes of a frame, e.g. while a notebook scrolls
  };

  const attributes = new MutationObserver(checkSoon);
  const shown = new ResizeObserver(() => {
    // Only now are the elements around it known: anywidget renders before it attaches.
    attributes.disconnect();
    for (const node of around(root)) attributes.observe(node, { attributes: true });
    check();
  });
  shown.observe(root);
  const sheets = new MutationObserver(checkSoon);
  sheets.observe(document.head, { attributes: true, childList: true, subtree: true });
  const schemes = ["(prefers-color-scheme: dark)", "(forced-colors: active)"].map((query) => matchMedia(query));
  for (const scheme of schemes) scheme.addEventListener("change", checkSoon);
  // JupyterLab announces a theme before its style sheet has loaded. A background may fade to its new colour.
  document.addEventListener("load", checkSoon, true);
  document.addEventListener("transitionend", checkSoon, true);
  // Not every browser reports every change of the density below: it may come with another size of the window.
  window.addEventListener("resize", checkSoon);
  root.addEventListener("pointerenter", checkSoon);

  /** @type {MediaQueryList | null} */
  let density = null;
  const onDensity = () => {
    watchDensity();
    checkSoon();
  };
  const watchDensity = () => {
    density?.removeEventListener("change", onDensity);
    density = matchMedia(`(resolution: ${globalThis.devicePixelRatio}dppx)`);
    density.addEventListener("change", onDensity);
  };
  watchDensity();

  return () => {
    cancelAnimationFrame(frame);
    attributes.disconnect();
    shown.disconnect();
    sheets.disconnect();
    for (const scheme of schemes) scheme.removeEventListener("change", checkSoon);
    document.removeEventListener("load", checkSoon, true);
    document.removeEventListener("transitionend", checkSoon, true);
    window.removeEventListener("resize", checkSoon);
    density?.removeEventListener("change", onDensity);
  };
}

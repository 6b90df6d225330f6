// Colours of the theme, and sizes from the style sheet.

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
  const [red, green, blue] = (getComputedStyle(root).backgroundColor.match(/[\d.]+/g) ?? ["255", "255", "255"]).map(
    Number,
  );
  return 0.3 * red + 0.6 * green + 0.1 * blue < 128;
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
 * Calls an action when the colours of a widget have changed, whatever changed them: for colours that are painted, not
 * styled. It also notices what changed while the widget was hidden or not on the page, once it is displayed again.
 *
 * JupyterLab hides the page for a frame while it changes the theme, and a style sheet may arrive after the attributes
 * that announce it. The colours are therefore compared in the next frame, and when a style sheet has loaded.
 *
 * @param {Element} root
 * @param {() => void} action
 * @returns {() => void} stops watching
 */
export function watchTheme(root, action) {
  let colours = styledColours(root);
  let frame = 0;
  const check = () => {
    const now = styledColours(root);
    if (!now || now === colours) return;
    colours = now;
    action();
  };
  const checkSoon = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(check);
  };
  const marks = new MutationObserver(checkSoon);
  for (const node of [document.documentElement, document.body]) marks.observe(node, { attributes: true });
  const displays = new ResizeObserver(check);
  displays.observe(root);
  const schemes = ["(prefers-color-scheme: dark)", "(forced-colors: active)"].map((query) => matchMedia(query));
  for (const scheme of schemes) scheme.addEventListener("change", checkSoon);
  document.addEventListener("load", checkSoon, true);
  return () => {
    cancelAnimationFrame(frame);
    marks.disconnect();
    displays.disconnect();
    for (const scheme of schemes) scheme.removeEventListener("change", checkSoon);
    document.removeEventListener("load", checkSoon, true);
  };
}

/**
 * @param {Element} root
 * @returns {string} "" while it is not on the page
 */
function styledColours(root) {
  const style = getComputedStyle(root);
  const { backgroundColor, color } = style;
  return backgroundColor && [backgroundColor, color, style.getPropertyValue("--dptx-muted")].join();
}

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
 * Calls an action when the theme of JupyterLab, or of the browser, changes: for colours that are painted, not styled.
 *
 * @param {() => void} action
 * @returns {() => void} stops watching
 */
export function watchTheme(action) {
  const marks = new MutationObserver(action);
  marks.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", action);
  return () => {
    marks.disconnect();
    scheme.removeEventListener("change", action);
  };
}

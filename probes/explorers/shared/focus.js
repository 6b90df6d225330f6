// Keyboard focus: one tab stop for a group of tiles, and focus that is not lost.

/** Keys that moveFocus() understands. */
export const FOCUS_KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

/**
 * Makes one node of a group its tab stop: the one that has the focus, else `chosen`. Arrow keys lead to the others.
 *
 * @param {readonly HTMLElement[]} nodes
 * @param {HTMLElement} chosen
 */
export function setTabStop(nodes, chosen) {
  const own = nodes.find((node) => node.matches(":focus")) ?? chosen;
  for (const node of nodes) node.tabIndex = node === own ? 0 : -1;
}

/**
 * Moves the focus within a group by where its nodes lie on the screen.
 *
 * @param {string} key one of FOCUS_KEYS
 * @param {EventTarget | null} target what has the focus
 * @param {readonly HTMLElement[]} nodes
 * @returns {boolean} false for other keys, and if the focus is not in the group
 */
export function moveFocus(key, target, nodes) {
  const from = nodes.find((node) => node === target);
  if (!from || !FOCUS_KEYS.includes(key)) return false;
  const placed = nodes.map((node) => ({ node, box: node.getBoundingClientRect() }));
  placed.sort((one, other) => one.box.top - other.box.top || one.box.left - other.box.left);
  const at = placed.findIndex(({ node }) => node === from);
  const own = placed[at].box;
  /** @param {{box: DOMRect}} tile */
  const distance = ({ box }) => 4 * Math.abs(box.top - own.top) + Math.abs(box.left - own.left); // the next line first
  /** @param {typeof placed} tiles */
  const nearest = (tiles) => tiles.sort((one, other) => distance(one) - distance(other)).at(0);
  let next = placed[at];
  if (key === "ArrowLeft") next = placed[at - 1];
  else if (key === "ArrowRight") next = placed[at + 1];
  else if (key === "Home") next = placed[0];
  else if (key === "End") next = placed[placed.length - 1];
  else if (key === "ArrowUp") next = nearest(placed.filter(({ box }) => box.bottom <= own.top)) ?? next;
  else next = nearest(placed.filter(({ box }) => box.top >= own.bottom)) ?? next;
  const node = next?.node ?? from;
  node.focus();
  setTabStop(nodes, node);
  return true;
}

/**
 * Makes a change that may hide, remove or disable what has the focus. If it does, `fallback` gets the focus: keys are
 * lost without any.
 *
 * @param {HTMLElement} region
 * @param {() => void} change
 * @param {HTMLElement} fallback
 */
export function keepFocus(region, change, fallback) {
  const hasFocus = () =>
    region.matches(":focus-within") && region.checkVisibility() && !region.querySelector(":focus:disabled");
  const before = hasFocus();
  change();
  if (before && !hasFocus()) fallback.focus({ preventScroll: true });
}

/** @param {Element} node */
const canHaveFocus = (node) => node.isConnected && node.checkVisibility() && !node.matches(":disabled");

/**
 * Notices that what had the focus in an element was removed, hidden or disabled: the browser then gives the keys to the
 * page, where a notebook takes them as commands.
 *
 * @param {HTMLElement} root focusable
 * @returns {() => void} call it after changes: it gives the focus to `root` if it was lost
 */
export function watchFocus(root) {
  let inside = false;
  root.addEventListener("focusin", () => {
    inside = true;
  });
  root.addEventListener("focusout", ({ target, relatedTarget }) => {
    inside = !relatedTarget && !canHaveFocus(/** @type {Element} */ (target)); // else the user went elsewhere
  });
  return () => {
    if (!inside) return;
    const focused = root.matches(":focus") ? root : root.querySelector(":focus");
    if (!focused || !canHaveFocus(focused)) root.focus({ preventScroll: true });
  };
}

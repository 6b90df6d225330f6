// Keys between an explorer and its host: JupyterLab, Notebook, VS Code, marimo. A host's command for cells ("d d" deletes
// one) must not run while the user works inside an explorer.

/** With Ctrl, Alt or Cmd, these letters edit cells in some host: select, copy, merge, paste, cut, redo, undo. */
const EDITING = new Set("acmvxyz");

/**
 * Whether a key press is meant for the whole application: Ctrl+S saves the notebook, Ctrl+Shift+C opens the commands, F1
 * opens the help. All other presses stay in the explorer.
 *
 * @param {Pick<KeyboardEvent, "key" | "shiftKey" | "ctrlKey" | "metaKey" | "altKey">} press
 * @returns {boolean}
 */
export function isForApplication({ key, shiftKey, ctrlKey, metaKey, altKey }) {
  if (/^F\d+$/.test(key)) return true;
  if (!(ctrlKey || metaKey || altKey) || !/^[a-z]$/i.test(key)) return false;
  const letter = key.toLowerCase();
  return !EDITING.has(letter) || (letter === "c" && shiftKey);
}

const SUPPRESS = "data-lm-suppress-shortcuts";

/**
 * Keeps the host from taking key presses inside an explorer as commands.
 *
 * Some hosts listen while the event goes down to the explorer (Notebook 7), so stopping it on its way up is too late.
 * Their command registry, Lumino's, looks for an element that a command is for, from the focused one outwards, up to one
 * with the attribute `data-lm-suppress-shortcuts`. Commands for cells are for "the focused element in a notebook", so
 * that element needs the attribute itself. This listener is on the window and runs before those of the document; it
 * takes the attribute away for presses that are meant for the application.
 *
 * A click on text must not leave the keys to the notebook either: the root element takes the focus that no control takes.
 *
 * @param {HTMLElement} root
 * @returns {() => void} stops listening
 */
export function keepKeys(root) {
  /** @param {KeyboardEvent} event */
  const decide = (event) => {
    const path = event.composedPath(); // event.target would end at a shadow root
    if (!path.includes(root)) return;
    for (const node of root.querySelectorAll(`[${SUPPRESS}]`)) node.removeAttribute(SUPPRESS);
    const keep = !isForApplication(event);
    for (const node of [root, path[0]]) /** @type {Element} */ (node).toggleAttribute(SUPPRESS, keep);
  };
  root.setAttribute(SUPPRESS, "");
  root.tabIndex = -1;
  window.addEventListener("keydown", decide, true);
  return () => window.removeEventListener("keydown", decide, true);
}

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

/**
 * Keeps the host from taking key presses inside an explorer as commands.
 *
 * Some hosts listen while the event goes down to the explorer (Notebook 7), so stopping it on its way up is too late.
 * Their command registry, Lumino's, skips elements with the attribute `data-lm-suppress-shortcuts`. Presses for the
 * application take it away for their own event. This listener is on the window and runs before those of the document.
 *
 * A click on text must not leave the keys to the notebook either: the root element takes the focus that no control takes.
 *
 * @param {HTMLElement} root
 * @returns {() => void} stops listening
 */
export function keepKeys(root) {
  /** @param {KeyboardEvent} event */
  const decide = (event) => {
    if (!event.composedPath().includes(root)) return; // event.target would end at a shadow root
    root.toggleAttribute("data-lm-suppress-shortcuts", !isForApplication(event));
  };
  root.setAttribute("data-lm-suppress-shortcuts", "");
  root.tabIndex = -1;
  window.addEventListener("keydown", decide, true);
  return () => window.removeEventListener("keydown", decide, true);
}

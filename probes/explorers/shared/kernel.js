// What the page around a widget shows of the kernel.

/**
 * Whether a cell of the notebook is running, as far as the page shows it: JupyterLab, Notebook 7 and nbclassic write a
 * star into the prompt of a running or queued cell.
 *
 * @returns {boolean}
 */
export function cellIsRunning() {
  if (typeof document === "undefined") return false;
  const prompts = document.querySelectorAll(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-InputPrompt, .input_prompt");
  return [...prompts].some((prompt) => prompt.textContent?.includes("[*]"));
}

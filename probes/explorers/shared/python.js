// Python that views offer to copy. No DOM.
//
// Whatever the code assigns is called shown_..., so that it overwrites no variable of the notebook. Its first lines, from
// the kernel, load the model and the image, or say in comments what the free names `model` and `image` stand for.

/** @import { PythonCode } from "./types.js" */

/** @typedef {{call: string, opened?: string, code?: PythonCode}} PythonSubject */

/** What a page that was saved before says of its model and image. */
const FREE = { setup: [], model: "model", image: "image" };
const PLAIN = /^[\p{L}\p{N}\p{P}\p{S} ]$/u;

/**
 * A string literal of Python, on one line. What could be invisible or change the direction of text is spelled out.
 *
 * @param {string} text any string, also with lone surrogates
 * @returns {string}
 */
export function pythonString(text) {
  return `"${Array.from(text, pythonCharacter).join("")}"`;
}

/**
 * @param {string} character
 * @returns {string}
 */
function pythonCharacter(character) {
  if (character === '"' || character === "\\") return `\\${character}`;
  if (PLAIN.test(character)) return character;
  const code = character.codePointAt(0) ?? 0;
  const [letter, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${letter}${code.toString(16).padStart(digits, "0")}`;
}

/**
 * Python that leaves in `shown_capture` the capture of a point, by a pass of the model or from a stored run.
 *
 * @param {string} point
 * @param {PythonSubject} subject
 * @returns {string[]} lines
 */
export function capturePython(point, { call, opened, code = FREE }) {
  if (opened) return [`shown_capture = ${opened}`];
  return [`with probes.capture(${code.model}, ${pythonString(point)}) as shown_capture:`, `    ${call}`];
}

/**
 * The whole code: imports, what loads model and image, and the lines of the view.
 *
 * @param {PythonCode | undefined} code
 * @param {readonly string[]} imports
 * @param {readonly string[]} lines
 * @returns {string}
 */
export function pythonCode(code, imports, lines) {
  const { setup } = code ?? FREE;
  const head = [...new Set([...setup.filter((line) => line.startsWith("import ")), ...imports])];
  const rest = setup.filter((line) => !line.startsWith("import "));
  const parts = [head, rest, lines].filter((part) => part.length);
  return `${parts.map((part) => part.join("\n")).join("\n\n")}\n`;
}

/**
 * A number as a float of Python: 2.0, 0.25.
 *
 * @param {number} value
 * @returns {string}
 */
export function pythonFloat(value) {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

// What saved files say about where they come from: in their names, and in what is written inside. No DOM.

/**
 * The model and the image of an explorer, from its first reply.
 *
 * @typedef {object} Origin
 * @property {string} model family, size and name in words
 * @property {string} image name of the image's file; "" if it has none, or if the view needs no image
 * @property {string} software and its version
 */

/** @typedef {Record<string, unknown>} Facts about a view: title, unit, block, patch, colours */

/** @type {Origin} */
export const UNKNOWN_ORIGIN = { model: "", image: "", software: "DPT Workbench" };

const LONGEST = 60; // letters of an image's name in a file name

/**
 * A text as a part of a file name on every system. Letters and digits of any script stay.
 *
 * @param {string} text
 * @returns {string}
 */
export function safeName(text) {
  const safe = text.normalize("NFC").replace(/[^\p{L}\p{N}\p{M}._-]+/gu, "-");
  return Array.from(safe)
    .slice(0, LONGEST)
    .join("")
    .replace(/^[.-]+|[.-]+$/g, "");
}

/**
 * A file name without its ending, with the name of the image.
 *
 * @param {string} stem the state of the view
 * @param {Pick<Origin, "image">} origin
 * @returns {string}
 */
export function namedAfter(stem, { image }) {
  const name = safeName(image.replace(/\.[A-Za-z0-9]{2,5}$/, ""));
  return name ? `${stem}_${name}` : stem;
}

/**
 * What a file says about itself, without empty entries.
 *
 * @param {Origin} origin
 * @param {Facts} facts
 * @returns {Facts}
 */
export function describedBy({ model, image, software }, facts) {
  const all = Object.entries({ ...facts, model, image, software });
  return Object.fromEntries(all.filter(([, value]) => value !== "" && value !== null && value !== undefined));
}

/**
 * Entries of an NPZ file about its origin: the names of the model and the image, and everything as JSON.
 *
 * @param {Origin} origin
 * @param {Facts} facts
 * @returns {Record<"model" | "image" | "meta", [string]>}
 */
export function originArrays(origin, facts) {
  return { model: [origin.model], image: [origin.image], meta: [JSON.stringify(describedBy(origin, facts))] };
}

/**
 * Text chunks of a PNG file about its origin, by their standard keywords.
 *
 * @param {Origin} origin
 * @param {Facts & {title: string}} facts
 * @returns {Record<string, string>}
 */
export function originTexts(origin, facts) {
  const { title, ...rest } = describedBy(origin, facts);
  return { Title: String(title), Software: origin.software, Description: JSON.stringify(rest) };
}

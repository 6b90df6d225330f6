// Which tokens the tiles show, from the pins and the pointer. No DOM.
//
//     pins      A                       B                       the tiles
//     none      under the pointer       -                       follow the pointer
//     one       the pin                 under the pointer       show A, or follow the pointer with B and A - B
//     two       the first pin           the second pin          are frozen
//
// While the tiles do not follow the pointer, it reads values off the maps.

/** @typedef {"a" | "b" | "difference"} Mode */
/** @typedef {{pins: number[], compare: Mode, cursor: number}} Selection */

/**
 * The tokens A and B.
 *
 * @param {Selection} selection
 * @returns {[a: number, b: number]}
 */
export function tokensOf({ pins, cursor }) {
  return [pins[0] ?? cursor, pins[1] ?? cursor];
}

/**
 * What the tiles show.
 *
 * @param {Selection} selection
 * @returns {Mode}
 */
export function modeOf({ pins, compare }) {
  return pins.length ? compare : "a";
}

/**
 * Whether the tiles do not follow the pointer.
 *
 * @param {Selection} selection
 * @returns {boolean}
 */
export function isFrozen(selection) {
  const count = selection.pins.length;
  return count === 2 || (count === 1 && modeOf(selection) === "a");
}

/**
 * The pins after a click on a token: the first click pins A, the second B, a third one moves B. A click on a pin
 * releases it.
 *
 * @param {Selection} selection
 * @param {number} token
 * @returns {{pins: number[], compare: Mode}}
 */
export function withToggledPin({ pins, compare }, token) {
  const next = pins.includes(token) ? pins.filter((pin) => pin !== token) : [...pins.slice(0, 1), token];
  if (next.length < 2) return { pins: next, compare: "a" };
  return { pins: next, compare: pins.length < 2 ? "difference" : compare };
}

// Which labels of a colour bar fit beside each other. No DOM.

/** @typedef {readonly [position: number, text: string]} Tick positions from 0 to 1 */

export const TICK_GAP = 6; // pixels that must stay free between two labels

/**
 * Where a label lies: the labels at the ends stay inside the bar, the others are centred on their ticks.
 *
 * @param {number} position from 0 to 1
 * @param {number} size of the label
 * @param {number} width of the bar
 * @returns {[left: number, right: number]}
 */
function placeOf(position, size, width) {
  const left = position <= 0 ? 0 : position >= 1 ? width - size : position * width - size / 2;
  return [left, left + size];
}

/**
 * The ticks that get a label: all of them, every second one, ..., or both ends, as many as fit without touching. If not
 * even the ends fit, the label of the high end remains.
 *
 * @template {Tick} T
 * @param {readonly T[]} ticks in ascending order
 * @param {(text: string) => number} sizeOf width of a label in pixels
 * @param {number} width of the bar in pixels
 * @returns {T[]}
 */
export function labelledTicks(ticks, sizeOf, width) {
  const places = ticks.map(([position, text]) => placeOf(position, sizeOf(text), width));
  const last = ticks.length - 1;
  for (let stride = 1; stride <= Math.max(1, last); stride++) {
    if (last % stride) continue; // both ends belong to it
    const kept = ticks.map((_, n) => n).filter((n) => n % stride === 0);
    const free = kept.every((n, at) => at === 0 || places[n][0] - places[kept[at - 1]][1] >= TICK_GAP);
    if (free) return kept.map((n) => ticks[n]);
  }
  return ticks.slice(-1);
}

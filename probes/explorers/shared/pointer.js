// Pointer and touch over a node.

/**
 * Where a pointer event is in a node, as fractions of its size; slightly outside 0 .. 1 at its border.
 *
 * @param {Element} node
 * @param {MouseEvent} event
 * @returns {[across: number, down: number]}
 */
export function placeIn(node, event) {
  const box = node.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

/**
 * Watches the spots that a pointer passes. A mouse click and a short tap on one spot count as a tap. A finger that
 * slides only points.
 *
 * @template Spot
 * @param {HTMLElement} node
 * @param {object} actions
 * @param {(event: PointerEvent) => Spot | null} actions.spotOf null while there is nothing to point at
 * @param {(spot: Spot) => void} actions.onPoint
 * @param {(spot: Spot) => void} actions.onTap
 * @param {() => void} [actions.onLeave]
 */
export function watchSpots(node, { spotOf, onPoint, onTap, onLeave }) {
  /** @type {{type: string, spot: Spot, time: number} | null} */
  let touch = null;
  node.addEventListener("pointermove", (event) => {
    const spot = spotOf(event);
    if (spot !== null) onPoint(spot);
  });
  node.addEventListener("pointerdown", (event) => {
    const spot = spotOf(event);
    if (spot === null || event.button !== 0) return;
    onPoint(spot);
    touch = { type: event.pointerType, spot, time: event.timeStamp };
  });
  node.addEventListener("pointerup", (event) => {
    const same = touch && String(touch.spot) === String(spotOf(event));
    if (touch && same && (touch.type === "mouse" || event.timeStamp - touch.time < 300)) onTap(touch.spot);
    touch = null;
  });
  if (onLeave) node.addEventListener("pointerleave", onLeave);
}

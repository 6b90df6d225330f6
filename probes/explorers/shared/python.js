// Python that a view offers to copy. No DOM.

/**
 * Python that leaves in `cap` the capture of a point, by a pass of the model or from a stored run.
 *
 * @param {string} point
 * @param {{call: string, opened?: string}} subject
 * @returns {string[]} lines
 */
export function capturePython(point, { call, opened }) {
  return opened ? [`cap = ${opened}`] : [`with probes.capture(model, "${point}") as cap:`, `    ${call}`];
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

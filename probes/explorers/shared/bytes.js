// Numbers from the binary parts of a message. No DOM.

/** @import { Part } from "./types.js" */

/** @type {Float32Array | null} value of each of the 65536 bit patterns */
let halfTable = null;

/** @returns {Float32Array} */
function buildHalfTable() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}

/**
 * The bytes of a part as an aligned ArrayBuffer. Views are copied: Jupyter passes views into the whole websocket frame,
 * at any offset, and typed arrays need an aligned start.
 *
 * @param {Part} part
 * @returns {ArrayBuffer}
 */
export function alignedBytes(part) {
  if (part instanceof ArrayBuffer) return part;
  if (ArrayBuffer.isView(part)) return part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength);
  throw new TypeError(`expected an ArrayBuffer or a view of one, got ${Object.prototype.toString.call(part)}`);
}

/**
 * IEEE half precision, little endian. Exact: every half is a float.
 *
 * @param {Part} part
 * @returns {Float32Array<ArrayBuffer>}
 */
export function decodeHalf(part) {
  const bytes = alignedBytes(part);
  if (bytes.byteLength % 2) {
    throw new RangeError(`half precision takes 2 bytes per number, got ${bytes.byteLength} bytes`);
  }
  halfTable ??= buildHalfTable();
  const halves = new Uint16Array(bytes);
  const out = new Float32Array(halves.length);
  for (let n = 0; n < halves.length; n++) out[n] = halfTable[halves[n]];
  return out;
}

/**
 * Single precision, little endian.
 *
 * @param {Part} part
 * @returns {Float32Array<ArrayBuffer>}
 */
export function decodeFloat(part) {
  return new Float32Array(alignedBytes(part));
}

/**
 * The float32 or fp16 parts of a message by name, each checked against its expected length.
 *
 * @template {string} Name
 * @param {string} kind of the message, for errors
 * @param {Part[]} parts
 * @param {Record<Name, number>} expected length of each array, in the order of the parts
 * @param {readonly string[]} [halves] names of the arrays that travel as fp16
 * @returns {Record<Name, Float32Array<ArrayBuffer>>}
 */
export function decodeArrays(kind, parts, expected, halves = []) {
  const names = /** @type {Name[]} */ (Object.keys(expected));
  if (parts.length !== names.length) {
    throw new RangeError(`${kind} message: expected ${names.length} parts (${names.join(", ")}), got ${parts.length}`);
  }
  const arrays = /** @type {Record<Name, Float32Array<ArrayBuffer>>} */ ({});
  names.forEach((name, n) => {
    const values = halves.includes(name) ? decodeHalf(parts[n]) : decodeFloat(parts[n]);
    if (values.length !== expected[name]) {
      throw new RangeError(
        `${kind} message: expected ${expected[name]} numbers in ${name} by the header, got ${values.length}`,
      );
    }
    arrays[name] = values;
  });
  return arrays;
}

/**
 * Bytes from base64. Uint8Array.fromBase64 is too new to rely on, and fetch("data:") counts as a request.
 *
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let n = 0; n < letters.length; n++) bytes[n] = letters.charCodeAt(n);
  return bytes;
}

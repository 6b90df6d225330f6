// Files made in the browser, without a kernel: NumPy arrays and tables. No DOM.

import { Zip, ZipPassThrough } from "fflate";

/** @typedef {Float32Array | Int32Array} ArrayData */

/**
 * An npy file (format 1.0).
 *
 * @param {ArrayData | string} data a string becomes a 0-d unicode array
 * @param {readonly number[]} [shape] of an array
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function npy(data, shape = []) {
  let descr = "";
  let body = new Uint8Array();
  if (typeof data === "string") {
    const points = Array.from(data, (letter) => letter.codePointAt(0) ?? 0);
    descr = `<U${Math.max(1, points.length)}`;
    body = new Uint8Array(Uint32Array.from(points.length ? points : [0]).buffer);
    shape = [];
  } else {
    if (data instanceof Float32Array) descr = "<f4";
    else if (data instanceof Int32Array) descr = "<i4";
    else throw new TypeError("npy() takes a Float32Array, an Int32Array or a string");
    if (shape.reduce((a, b) => a * b, 1) !== data.length) {
      throw new RangeError(`an array of shape ${shape.join(" x ")} cannot hold ${data.length} numbers`);
    }
    body = new Uint8Array(data.slice().buffer);
  }
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const padded = `${header}${" ".repeat(63 - ((10 + header.length) % 64))}\n`;
  const out = new Uint8Array(10 + padded.length + body.length);
  out.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8]);
  for (let n = 0; n < padded.length; n++) out[10 + n] = padded.charCodeAt(n);
  out.set(body, 10 + padded.length);
  return out;
}

/**
 * An npz file: numpy.load() reads it. Not compressed, like numpy.savez().
 *
 * @param {Record<string, [data: ArrayData | string, shape?: readonly number[]]>} arrays
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function npz(arrays) {
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const chunks = [];
  const archive = new Zip((error, chunk) => {
    if (error) throw error;
    chunks.push(/** @type {Uint8Array<ArrayBuffer>} */ (chunk));
  });
  for (const [name, [data, shape]] of Object.entries(arrays)) {
    const entry = new ZipPassThrough(`${name}.npy`); // stored: the bundle needs no compressor
    entry.mtime = new Date(1980, 0, 1); // the same view gives the same bytes
    archive.add(entry);
    entry.push(npy(data, shape), true);
  }
  archive.end();
  return joined(chunks);
}

/**
 * @param {Uint8Array<ArrayBuffer>[]} chunks
 * @returns {Uint8Array<ArrayBuffer>}
 */
function joined(chunks) {
  const bytes = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/**
 * A table as CSV, without a heading of comments: pandas and spreadsheets read it as it is.
 *
 * @param {readonly string[]} header
 * @param {readonly (readonly (string | number)[])[]} rows
 * @returns {string}
 */
export function csv(header, rows) {
  return `${[header, ...rows].map((row) => row.map(cell).join(",")).join("\n")}\n`;
}

/**
 * @param {string | number} value
 * @returns {string}
 */
function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// 16-bit grey PNG. A canvas cannot write it: its pixels have 8 bits per channel. Levels and text chunks are those of
// grey_png() in probes/figures/pictures.py, so both files turn back into numbers in the same way. No DOM.

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/** @type {Uint32Array | null} */
let crcTable = null;

/** @returns {Uint32Array} */
function buildCrcTable() {
  return Uint32Array.from({ length: 256 }, (_, n) => {
    let value = n;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
}

/**
 * The checksum of a PNG chunk. fflate has one too, but does not export it.
 *
 * @param {Uint8Array} bytes
 * @returns {number}
 */
export function crc32(bytes) {
  crcTable ??= buildCrcTable();
  let crc = 0xffffffff;
  for (let n = 0; n < bytes.length; n++) crc = crcTable[(crc ^ bytes[n]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/**
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
const letters = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

/**
 * Length, kind and bytes, and the checksum of kind and bytes.
 *
 * @param {string} kind
 * @param {Uint8Array} bytes
 * @returns {Uint8Array<ArrayBuffer>}
 */
function chunk(kind, bytes) {
  const out = new Uint8Array(12 + bytes.length);
  const numbers = new DataView(out.buffer);
  numbers.setUint32(0, bytes.length);
  out.set(letters(kind), 4);
  out.set(bytes, 8);
  numbers.setUint32(8 + bytes.length, crc32(out.subarray(4, 8 + bytes.length)));
  return out;
}

/**
 * A text chunk: tEXt if all letters are Latin-1, else iTXt.
 *
 * @param {string} name Latin-1
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 */
function textChunk(name, text) {
  if (!/[^\n\x20-\x7e\xa1-\xff]/.test(text)) return chunk("tEXt", letters(`${name}\0${text}`));
  // no compression, no language, no translated name
  const utf8 = new TextEncoder().encode(text);
  const head = letters(`${name}\0\0\0\0\0`);
  const body = new Uint8Array(head.length + utf8.length);
  body.set(head);
  body.set(utf8, head.length);
  return chunk("iTXt", body);
}

const AFTER_HEADER = 33; // bytes of the signature and the first chunk

/**
 * A PNG file with texts behind its header, as the parts of a Blob.
 *
 * @param {Uint8Array<ArrayBuffer>} png
 * @param {Record<string, string>} texts
 * @returns {Uint8Array<ArrayBuffer>[]}
 */
export function withTexts(png, texts) {
  const chunks = Object.entries(texts).map(([name, text]) => textChunk(name, text));
  return [png.slice(0, AFTER_HEADER), ...chunks, png.slice(AFTER_HEADER)];
}

/**
 * The PNG of a depth map: depth = depth_min + level / 65535 * (depth_max - depth_min).
 *
 * @param {Float32Array} values (height, width)
 * @param {number} width
 * @param {number} height
 * @param {boolean} metric whether the values are metres
 * @param {Record<string, string>} [texts] more texts
 * @returns {Promise<Uint8Array<ArrayBuffer>[]>} the parts of a Blob
 */
export async function greyPng(values, width, height, metric, texts = {}) {
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
  const gain = high > low ? 65535 / (high - low) : 0;
  const lines = new DataView(new ArrayBuffer(height * (1 + 2 * width))); // each line begins with 0: no filter
  for (let row = 0; row < height; row++) {
    for (let col = 0; col < width; col++) {
      lines.setUint16(row * (1 + 2 * width) + 1 + 2 * col, Math.round((values[row * width + col] - low) * gain));
    }
  }
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 16); // bits; the zeros behind: grey, deflate, the five filters, not interlaced
  const words = {
    depth_min: String(low),
    depth_max: String(high),
    depth_unit: metric ? "metre" : "relative inverse depth",
    ...texts,
  };
  return [
    SIGNATURE,
    chunk("IHDR", new Uint8Array(header.buffer)),
    ...Object.entries(words).map(([name, word]) => textChunk(name, word)),
    chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    chunk("IEND", new Uint8Array()),
  ];
}

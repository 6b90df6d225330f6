// 16-bit grey PNG, which a canvas cannot write: its pixels have 8 bits. Levels and text chunks are those of grey_png in
// probes/pictures.py, so that either file turns back into numbers in the same way. No DOM.

import { crc32 } from "./files.js";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

const letters = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

/** Length, kind and bytes, checksum of kind and bytes. */
function chunk(kind, bytes) {
  const out = new Uint8Array(12 + bytes.length);
  const numbers = new DataView(out.buffer);
  numbers.setUint32(0, bytes.length);
  out.set(letters(kind), 4);
  out.set(bytes, 8);
  numbers.setUint32(8 + bytes.length, crc32(out.subarray(4, 8 + bytes.length)));
  return out;
}

/** The PNG of a map, as the pieces of a Blob: depth = depth_min + level / 65535 * (depth_max - depth_min). */
export async function greyPng(values, width, height, metric) {
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
  const gain = high > low ? 65535 / (high - low) : 0;
  const lines = new DataView(new ArrayBuffer(height * (1 + 2 * width))); // each begins with 0: no filter
  for (let row = 0; row < height; row++) {
    for (let col = 0; col < width; col++) {
      lines.setUint16(row * (1 + 2 * width) + 1 + 2 * col, Math.round((values[row * width + col] - low) * gain));
    }
  }
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 16); // bits; then 0: grey, deflate, the five filters, not interlaced
  const words = {
    depth_min: String(low),
    depth_max: String(high),
    depth_unit: metric ? "metre" : "relative inverse depth",
  };
  return [
    SIGNATURE,
    chunk("IHDR", new Uint8Array(header.buffer)),
    ...Object.entries(words).map(([name, word]) => chunk("tEXt", letters(`${name}\0${word}`))),
    chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    chunk("IEND", new Uint8Array()),
  ];
}

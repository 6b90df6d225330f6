// Files made in the browser, without a kernel: npy arrays in an uncompressed zip (what numpy.savez writes), and CSV.

let crcTable = null;

export function crc32(bytes) {
  if (!crcTable) {
    crcTable = new Uint32Array(256);
    for (let n = 0; n < 256; n++) {
      let value = n;
      for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
      crcTable[n] = value;
    }
  }
  let crc = 0xffffffff;
  for (let n = 0; n < bytes.length; n++) crc = crcTable[(crc ^ bytes[n]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** An npy file (format 1.0): Float32Array, Int32Array, or a string as a 0-d unicode array. */
export function npy(data, shape) {
  let descr;
  let body;
  if (typeof data === "string") {
    const points = Array.from(data, (letter) => letter.codePointAt(0));
    descr = `<U${Math.max(1, points.length)}`;
    body = new Uint8Array(Uint32Array.from(points.length ? points : [0]).buffer);
    shape = [];
  } else {
    if (data instanceof Float32Array) descr = "<f4";
    else if (data instanceof Int32Array) descr = "<i4";
    else throw new TypeError("npy takes Float32Array, Int32Array or a string");
    if (shape.reduce((a, b) => a * b, 1) !== data.length) {
      throw new RangeError(`shape ${shape.join(" x ")} does not hold ${data.length} numbers`);
    }
    body = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const padded = header + " ".repeat(63 - ((10 + header.length) % 64)) + "\n";
  const out = new Uint8Array(10 + padded.length + body.length);
  out.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8]);
  for (let n = 0; n < padded.length; n++) out[10 + n] = padded.charCodeAt(n);
  out.set(body, 10 + padded.length);
  return out;
}

/** An uncompressed zip of {name: bytes}; names in ASCII. */
export function zip(entries) {
  const pieces = [];
  const directory = [];
  let offset = 0;
  for (const [name, bytes] of Object.entries(entries)) {
    const letters = Uint8Array.from(name, (letter) => letter.charCodeAt(0));
    // version 2.0, no flags, stored, 1980-01-01 00:00, crc, sizes, name length, no extra field
    const common = new DataView(new ArrayBuffer(26));
    common.setUint16(0, 20, true);
    common.setUint16(8, 0x21, true);
    common.setUint32(10, crc32(bytes), true);
    common.setUint32(14, bytes.length, true);
    common.setUint32(18, bytes.length, true);
    common.setUint16(22, letters.length, true);
    const fields = new Uint8Array(common.buffer);
    pieces.push(Uint8Array.of(0x50, 0x4b, 3, 4), fields, letters, bytes);
    const tail = new DataView(new ArrayBuffer(14)); // comment length .. external attributes: 0; then the offset
    tail.setUint32(10, offset, true);
    directory.push(Uint8Array.of(0x50, 0x4b, 1, 2, 20, 0), fields, new Uint8Array(tail.buffer), letters);
    offset += 4 + 26 + letters.length + bytes.length;
  }
  const size = directory.reduce((sum, piece) => sum + piece.length, 0);
  const end = new DataView(new ArrayBuffer(22));
  const count = Object.keys(entries).length;
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, count, true);
  end.setUint16(10, count, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  const all = [...pieces, ...directory, new Uint8Array(end.buffer)];
  const out = new Uint8Array(offset + size + 22);
  let at = 0;
  for (const piece of all) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}

/** numpy.load(...) reads it: {name: [data, shape]} as name.npy entries. */
export function npz(arrays) {
  return zip(
    Object.fromEntries(Object.entries(arrays).map(([name, [data, shape]]) => [`${name}.npy`, npy(data, shape)])),
  );
}

/** Rows of cells (numbers or plain words) under a header. */
export function csv(header, rows) {
  return [header, ...rows].map((row) => row.join(",")).join("\n") + "\n";
}

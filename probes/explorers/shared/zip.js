// A zip archive without compression. No DOM.

import { crc32 } from "./png.js";

const LOCAL = 0x04034b50; // signatures
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const VERSION = 20; // of zip that a reader needs
const UTF8_NAMES = 0x0800;
const DATE = (1 << 5) | 1; // 1 January 1980: the same files give the same bytes, so no entry carries its time of writing

/** Little-endian numbers and bytes, one after the other. */
class Writer {
  /** @param {number} size */
  constructor(size) {
    this.bytes = new Uint8Array(size);
    this.numbers = new DataView(this.bytes.buffer);
    this.at = 0;
  }

  /** @param {...number} values of two bytes */
  shorts(...values) {
    for (const value of values) {
      this.numbers.setUint16(this.at, value, true);
      this.at += 2;
    }
  }

  /** @param {...number} values of four bytes */
  longs(...values) {
    for (const value of values) {
      this.numbers.setUint32(this.at, value, true);
      this.at += 4;
    }
  }

  /** @param {Uint8Array} bytes */
  copy(bytes) {
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }
}

/**
 * @param {readonly (readonly [name: string, bytes: Uint8Array])[]} files less than 4 GiB together
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function zip(files) {
  const entries = files.map(([name, bytes]) => ({
    name: new TextEncoder().encode(name),
    bytes,
    crc: crc32(bytes),
    offset: 0,
  }));
  const out = new Writer(entries.reduce((sum, { name, bytes }) => sum + 76 + 2 * name.length + bytes.length, 22));
  /** @param {(typeof entries)[number]} entry */
  const describe = ({ name, bytes, crc }) => {
    out.shorts(VERSION, UTF8_NAMES, 0, 0, DATE); // 0: stored, midnight
    out.longs(crc, bytes.length, bytes.length);
    out.shorts(name.length, 0); // 0: no extra field
  };
  for (const entry of entries) {
    entry.offset = out.at;
    out.longs(LOCAL);
    describe(entry);
    out.copy(entry.name);
    out.copy(entry.bytes);
  }
  const directory = out.at;
  for (const entry of entries) {
    out.longs(CENTRAL);
    out.shorts(VERSION);
    describe(entry);
    out.shorts(0, 0, 0); // no comment, first disk, binary
    out.longs(0, entry.offset);
    out.copy(entry.name);
  }
  const length = out.at - directory;
  out.longs(END);
  out.shorts(0, 0, entries.length, entries.length);
  out.longs(length, directory);
  out.shorts(0);
  return out.bytes;
}

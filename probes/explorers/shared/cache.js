// A cache bounded by bytes.

/**
 * Drops the least recently used entries first. The newest entry always stays.
 *
 * @template Value
 */
export class ByteCache {
  /** @param {number} limit bytes */
  constructor(limit) {
    this.limit = limit;
    /** @type {Map<string | number, {value: Value, bytes: number}>} */
    this.entries = new Map();
    this.bytes = 0;
  }

  /** Drops everything. */
  clear() {
    this.entries.clear();
    this.bytes = 0;
  }

  /**
   * @param {string | number} key
   * @returns {Value | undefined}
   */
  get(key) {
    const entry = this.entries.get(key);
    if (!entry) return undefined;
    this.entries.delete(key);
    this.entries.set(key, entry);
    return entry.value;
  }

  /**
   * @param {string | number} key
   * @param {Value} value
   * @param {number} bytes
   */
  put(key, value, bytes) {
    this.bytes += bytes - (this.entries.get(key)?.bytes ?? 0);
    this.entries.delete(key);
    this.entries.set(key, { value, bytes });
    for (const [old, entry] of this.entries) {
      if (this.bytes <= this.limit || this.entries.size === 1) break;
      this.entries.delete(old);
      this.bytes -= entry.bytes;
    }
  }
}

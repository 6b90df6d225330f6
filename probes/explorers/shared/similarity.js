// Cosines of token vectors that are stored channel by channel: values[channel * tokens + token]. No DOM.

/**
 * What cosines need of an array of tokens.
 *
 * @typedef {object} Frame
 * @property {Float64Array} mean of each channel, subtracted first; zeros if not centred
 * @property {Float64Array} inverse one over each token's length after that; 0 for a token of length 0
 */

/**
 * @param {Float32Array} values (channels, tokens)
 * @param {number} channels
 * @param {number} tokens
 * @param {number} first the mean is over tokens from this one
 * @param {boolean} centred whether to subtract the mean
 * @returns {Frame}
 */
export function frameOf(values, channels, tokens, first, centred) {
  const mean = new Float64Array(channels);
  const squares = new Float64Array(tokens);
  for (let c = 0; c < channels; c++) {
    const from = c * tokens;
    if (centred) {
      for (let n = first; n < tokens; n++) mean[c] += values[from + n];
      mean[c] /= tokens - first;
    }
    for (let n = 0; n < tokens; n++) squares[n] += (values[from + n] - mean[c]) ** 2;
  }
  return { mean, inverse: squares.map(inverseLength) };
}

/**
 * @param {number} square of a length
 * @returns {number} one over the length; 0 for a length of 0
 */
export function inverseLength(square) {
  return square > 1e-24 ? 1 / Math.sqrt(square) : 0;
}

/**
 * A token's vector in a frame, of length 1.
 *
 * @param {Float32Array} values (channels, tokens)
 * @param {Frame} frame
 * @param {number} token
 * @returns {Float64Array} (channels)
 */
export function directionOf(values, { mean, inverse }, token) {
  return mean.map((m, c) => (values[c * inverse.length + token] - m) * inverse[token]);
}

/**
 * Cosines of a direction with every token.
 *
 * @param {Float32Array} values (channels, tokens)
 * @param {Frame} frame
 * @param {Float64Array} direction (channels), of length 1
 * @param {Float32Array} out (tokens)
 */
export function cosinesTo(values, { mean, inverse }, direction, out) {
  const [channels, tokens] = [mean.length, inverse.length];
  const own = new Float64Array(channels + 3); // three zeros at the end: four channels share each load and store of out
  own.set(direction);
  out.fill(0, 0, tokens);
  for (let c = 0; c < channels; c += 4) {
    const [o0, o1, o2, o3] = own.subarray(c, c + 4);
    const [v0, v1, v2, v3] = [0, 1, 2, 3].map((k) => Math.min(c + k, channels - 1) * tokens);
    const common = o0 * mean[c] + o1 * (mean[c + 1] ?? 0) + o2 * (mean[c + 2] ?? 0) + o3 * (mean[c + 3] ?? 0);
    for (let n = 0; n < tokens; n++) {
      out[n] += o0 * values[v0 + n] + o1 * values[v1 + n] + o2 * values[v2 + n] + o3 * values[v3 + n] - common;
    }
  }
  for (let n = 0; n < tokens; n++) out[n] *= inverse[n];
}

// Cosines of token vectors that lie channel by channel: values[channel * tokens + token]. No DOM in here.

/**
 * What cosines need: each channel's mean (over tokens from `first` on, or 0), and one over each token's length without
 * it; 0 for a token of no length.
 */
export function frameOf(values, channels, tokens, first, centred) {
  const mean = new Float64Array(channels);
  const lengths = new Float64Array(tokens);
  for (let c = 0; c < channels; c++) {
    const from = c * tokens;
    if (centred) {
      for (let n = first; n < tokens; n++) mean[c] += values[from + n];
      mean[c] /= tokens - first;
    }
    for (let n = 0; n < tokens; n++) lengths[n] += (values[from + n] - mean[c]) ** 2;
  }
  return { mean, inverse: lengths.map(inverseLength) };
}

export function inverseLength(square) {
  return square > 1e-24 ? 1 / Math.sqrt(square) : 0;
}

/** A token's vector in a frame, of length 1: (channels). */
export function directionOf(values, { mean, inverse }, at) {
  return mean.map((m, c) => (values[c * inverse.length + at] - m) * inverse[at]);
}

/** Cosines of a direction with every token, into out[0 .. tokens). */
export function cosinesTo(values, { mean, inverse }, direction, out) {
  const [channels, tokens] = [mean.length, inverse.length];
  const own = new Float64Array(channels + 3); // three zeros behind: four channels at once share each load and store of out
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

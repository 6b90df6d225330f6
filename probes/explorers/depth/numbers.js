// What the depth explorer does to a map, by the rules of probes/depth.py: nearness, thresholds, plane, contrast. No DOM.
//
// A map is {width, height, values: Float32Array, low, high, metric}.

/** A map from a message and its part; throws when they disagree. */
export function decodeDepth({ width, height, metric, name }, part) {
  const bytes =
    part instanceof ArrayBuffer ? new Uint8Array(part) : new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
  if (bytes.length !== 4 * width * height) {
    throw new RangeError(`${name}: ${bytes.length} bytes are not ${width} x ${height} numbers`);
  }
  const values = new Float32Array(bytes.slice().buffer);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { name, width, height, metric, values, low, high };
}

/** 0 at the map's farthest value, 1 at its nearest. */
export function nearnessOf(map, value) {
  if (!(map.high > map.low)) return 0;
  const unit = (value - map.low) / (map.high - map.low);
  return map.metric ? 1 - unit : unit;
}

/** Metres from nearness, given those of the nearest and the farthest: 1/z is linear in it. */
export function metresAt(nearness, nearest, farthest) {
  return 1 / (nearness * (1 / nearest - 1 / farthest) + 1 / farthest);
}

/** Uint8Array, 1 where far <= nearness <= near; the same for flat maps as in Python. */
export function maskOf(map, far, near) {
  const mask = new Uint8Array(map.values.length);
  for (let n = 0; n < mask.length; n++) {
    const unit = Math.fround(nearnessOf(map, map.values[n]));
    mask[n] = unit >= Math.fround(far) && unit <= Math.fround(near) ? 1 : 0;
  }
  return mask;
}

/** How many pixels have which nearness: Uint32Array of so many bins. */
export function histogramOf(map, bins) {
  const counts = new Uint32Array(bins);
  for (const value of map.values) counts[Math.min(bins - 1, Math.floor(nearnessOf(map, value) * bins))]++;
  return counts;
}

/**
 * [a, b, c] of the plane a x + b y + c (x, y from -1/2 to 1/2) that fits the masked pixels best by least squares; null
 * where they fix none.
 */
export function planeOf(map, mask) {
  const { width, height, values } = map;
  const sums = new Float64Array(9); // 1, x, y, xx, xy, yy, v, xv, yv
  for (let row = 0, n = 0; row < height; row++) {
    const y = row / height - 0.5;
    for (let col = 0; col < width; col++, n++) {
      if (!mask[n]) continue;
      const x = col / width - 0.5;
      const v = values[n];
      sums[0] += 1;
      sums[1] += x;
      sums[2] += y;
      sums[3] += x * x;
      sums[4] += x * y;
      sums[5] += y * y;
      sums[6] += v;
      sums[7] += x * v;
      sums[8] += y * v;
    }
  }
  const [count, sx, sy, sxx, sxy, syy, sv, sxv, syv] = sums;
  if (count < 3) return null;
  const [mx, my, mv] = [sx / count, sy / count, sv / count];
  const [xx, xy, yy] = [sxx - mx * sx, sxy - mx * sy, syy - my * sy];
  const [xv, yv] = [sxv - mx * sv, syv - my * sv];
  const determinant = xx * yy - xy * xy;
  if (!(determinant > 1e-9 * xx * yy)) return null;
  const a = (xv * yy - yv * xy) / determinant;
  const b = (yv * xx - xv * xy) / determinant;
  return [a, b, mv - a * mx - b * my];
}

/** The map without a plane: Float32Array. */
export function levelled(map, [a, b, c]) {
  const { width, height, values } = map;
  const out = new Float32Array(values.length);
  for (let row = 0, n = 0; row < height; row++) {
    const base = b * (row / height - 0.5) + c;
    for (let col = 0; col < width; col++, n++) out[n] = values[n] - (a * (col / width - 0.5) + base);
  }
  return out;
}

const LEVELS = 65536;

/** Of each masked value the share of masked values below it, 0 to 1, in 65536 levels of their range. Float32Array. */
export function equalisedShares(values, mask) {
  const shares = new Float32Array(values.length);
  let [low, high] = [Infinity, -Infinity];
  for (let n = 0; n < values.length; n++) {
    if (!mask[n]) continue;
    if (values[n] < low) low = values[n];
    if (values[n] > high) high = values[n];
  }
  if (!(high > low)) return shares;
  const gain = (LEVELS - 1) / (high - low);
  const below = new Uint32Array(LEVELS + 1); // [level + 1]: how many are of it, then how many are up to it
  for (let n = 0; n < values.length; n++) if (mask[n]) below[Math.floor((values[n] - low) * gain) + 1]++;
  for (let level = 1; level <= LEVELS; level++) below[level] += below[level - 1];
  const top = below[LEVELS - 1]; // below the highest level, which holds the largest value
  for (let n = 0; n < values.length; n++) if (mask[n]) shares[n] = below[Math.floor((values[n] - low) * gain)] / top;
  return shares;
}

/** A map under the settings: {mask, shown: Float32Array, low, high: of shown inside the mask, count: of its pixels, plane}. */
export function processed(map, { far, near, plane, equalise }) {
  const mask = maskOf(map, far, near);
  const fitted = plane ? planeOf(map, mask) : null;
  let shown = fitted ? levelled(map, fitted) : map.values;
  if (equalise) shown = equalisedShares(shown, mask);
  let [low, high, count] = [Infinity, -Infinity, 0];
  for (let n = 0; n < mask.length; n++) {
    if (!mask[n]) continue;
    count += 1;
    if (shown[n] < low) low = shown[n];
    if (shown[n] > high) high = shown[n];
  }
  if (!count) [low, high] = [0, 0];
  return { mask, shown, low, high, count, plane: fitted };
}

/** Python that computes the map on display with the public API. */
export function depthPython({ far, near, plane, equalise, nearest, farthest }, metric, call) {
  const opened = call.startsWith("probes.") ? ["import probes"] : []; // from a run
  const lines = [...opened, "from probes import depth as numbers", "", `depth = ${call}`];
  lines.push(`mask = numbers.within(depth, far=${far}, near=${near}${metric ? ", metric=True" : ""})`);
  if (plane) lines.push("depth = depth - numbers.plane(depth, mask)");
  if (equalise) lines.push("depth = numbers.equalise(depth, mask)");
  if (!metric && !plane && !equalise) lines.push(`metres = numbers.metres(depth, near=${nearest}, far=${farthest})`);
  return lines.join("\n") + "\n";
}

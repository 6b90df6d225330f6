// Numbers for people. No DOM.

export const MINUS = "\u2212";

/**
 * Three significant digits: 0.0123, 4.56, 78.9, 1234, −7.8e-5.
 *
 * @param {number} value
 * @param {number} [digits] significant digits; whole numbers below 100000 keep all of theirs
 * @returns {string}
 */
export function formatNumber(value, digits = 3) {
  const size = Math.abs(value);
  const sign = value < 0 ? MINUS : "";
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return `${sign}${size.toExponential(1)}`;
  return `${sign}${size >= 10 ** (digits - 1) ? size.toFixed(0) : size.toPrecision(digits)}`;
}

/**
 * A fixed number of decimals: 0.50, 12.3. The minus is a hyphen.
 *
 * @param {number} value
 * @param {number} decimals
 * @returns {string}
 */
export function formatFixed(value, decimals) {
  return value.toFixed(decimals);
}

/**
 * A whole number with its sign: +2, 0, −1.
 *
 * @param {number} value
 * @returns {string}
 */
export function formatOffset(value) {
  return value > 0 ? `+${value}` : value < 0 ? `${MINUS}${-value}` : "0";
}

/**
 * A share as a percentage: 12 %, 3.4 %, 0.56 %, 7.8e-5 %.
 *
 * @param {number} value 1 is 100 %
 * @returns {string}
 */
export function formatPercent(value) {
  const hundredths = Math.abs(value) * 100;
  const sign = value < 0 ? MINUS : "";
  if (hundredths === 0) return "0 %";
  if (hundredths >= 9.95) return `${sign}${hundredths.toFixed(0)} %`;
  if (hundredths >= 0.995) return `${sign}${hundredths.toFixed(1)} %`;
  if (hundredths >= 0.00995) return `${sign}${hundredths.toFixed(hundredths >= 0.0995 ? 2 : 3)} %`;
  return `${sign}${hundredths.toExponential(1)} %`;
}

/**
 * A share as a percentage in little space: nothing finer than a hundredth of a percent.
 *
 * @param {number} value 1 is 100 %
 * @returns {string}
 */
export function formatShortPercent(value) {
  const size = Math.abs(value);
  if (value !== 0 && size < 0.995e-4) return value > 0 ? "<0.01 %" : "~0 %";
  return size < 0.995e-3 ? `${value < 0 ? MINUS : ""}${(size * 100).toFixed(2)} %` : formatPercent(value);
}

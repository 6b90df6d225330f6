// Colour tables. No DOM.

/** @import { ColourTable } from "./types.js" */

// 256 x RGB as in matplotlib. Differences: RdBu_r, white in the middle, red above, blue below; on dark themes berlin,
// which is black in the middle.
/** @type {Record<string, string>} */
const TABLES = {
  viridis:
    "RAFURAJWRQRXRQVZRgdaRghcRgpdRgteRw1gRw5hRxBjRxFkRxNlSBRnSBZoSBdpSBhqSBpsSBttSBxuSB1vSB9wSCBxSCFzSCN0SCR1SCV2SCZ3SCh4SCl5Ryp6Ryx6Ry17Ry58Ry99RjB+RjJ+RjN/RjSARTWBRTeBRTiCRDmDRDqDRDuEQz2EQz6FQj+FQkCGQkGGQUKHQUSHQEWIQEaIP0eIP0iJPkmJPkqJPkyKPU2KPU6KPE+KPFCLO1GLO1KLOlOLOlSMOVWMOVaMOFiMOFmMN1qMN1uNNlyNNl2NNV6NNV+NNGCNNGGNM2KNM2ONMmSOMmWOMWaOMWeOMWiOMGmOMGqOL2uOL2yOLm2OLm6OLm+OLXCOLXGOLHGOLHKOLHOOK3SOK3WOKnaOKneOKniOKXmOKXqOKXuOKHyOKH2OJ36OJ3+OJ4COJoGOJoKOJoKOJYOOJYSOJYWOJIaOJIeOI4iOI4mOI4qNIouNIoyNIo2NIY6NIY+NIZCNIZGMIJKMIJKMIJOMH5SMH5WLH5aLH5eLH5iLH5mKH5qKHpuKHpyJHp2JH56JH5+IH6CIH6GIH6GHH6KHIKOGIKSGIaWFIaaFIqeFIqiEI6mDJKqDJauCJayCJq2BJ62BKK6AKa9/KrB/LLF+LbJ9LrN8L7R8MbV7MrZ6NLZ5Nbd5N7h4OLl3Orp2O7t1Pbx0P7xzQL1yQr5xRL9wRsBvSMFuSsFtTMJsTsNrUMRqUsVpVMVoVsZnWMdlWshkXMhjXsliYMpgY8tfZcteZ8xcac1bbM1abs5YcM9Xc9BWddBUd9FTetFRfNJQf9NOgdNNhNRLhtVJidVIi9ZGjtZFkNdDk9dBldhAmNg+m9k8ndk7oNo5oto3pds2qNs0qtwyrdwwsN0vst0ttd4ruN4put4ovd8mwN8lwt8jxeAhyOAgyuEfzeEd0OEc0uIb1eIa2OIZ2uMZ3eMY3+MY4uQY5eQZ5+QZ6uUa7OUb7+Uc8eUd9OYe9uYg+OYh++cj/ecl",
  cividis:
    "ACJOACNPACRRACVTACVUACZWACdYAChZAChbACldACpfACphACtiACxkACxmAC1oAC5qAC5sAC9tADBvADBwADFwADFxATJxBTNxCDNwDDRwDzVwEjVwFDZwFjdwGDdvGjhvHDlvHjpvIDpvITtuIzxuJDxuJj1uJz5uKT9uKj9tK0BtLUFtLkFtL0JtMUNtMkNtM0RtNEVsNUVsNkZsOEdsOUhsOkhsO0lsPEpsPUpsPktsP0xsQExsQU1sQk5sQ05sRE9sRVBsRlFsR1FsSFJsSVNsSlNsS1RsTFVsTVVsTlZsT1dsUFdsUVhtUlltU1ptVFptVVttVVxtVlxtV11tWF5tWV5uWl9uW2BuXGFuXWFuXmJuXmNvX2NvYGRvYWVvYmVvY2ZwZGdwZWhwZWhwZmlwZ2pxaGpxaWtxamxxa21ybG1ybG5ybW9ybm9zb3BzcHFzcXJ0cnJ0cnN0c3R1dHR1dXV1dnZ2d3d2d3d3eHh3eXl3enp4e3p4fHt4fXx4fnx4fn14f354gH94gX94goB5g4F5hIJ5hYJ5hoN5h4R4iIV4iYV4ioZ4i4d4jIh4jYh4jol4j4p4kIt4kYt4kox4ko14k454lI53lY93lpB3l5F3mJJ3mZJ3mpN2m5R2nJV2nZV2npZ2n5d1oJh1oZl1opl1o5p0pJt0pZx0ppx0p51zqJ5zqZ9zqqBzq6ByrKFyraJyrqNxr6RxsKVxsaVws6ZwtKdvtahvtqlvt6luuKpuuattuqxtu61tvK5sva5svq9rv7BrwLFqwbJqwrNpw7NpxLRoxbVoxrZnx7dnyLhmyblly7llzLpkzbtjzrxjz71i0L5i0b9h0sBg08Bf1MFf1cJe1sNd18Rc2cVc2sZb28da3MhZ3chY3slY38pX4MtW4cxV4s1U5M5T5c9S5tBR59FQ6NJP6dNO6tNM69RL7dVK7tZJ79dI8NhG8dlF8tpE89tC9dxB9t0/994++N88+eA6++E4/OI2/eM0/uQ0/uU1/uY2/ug4",
  magma:
    "AAAEAQAFAQEGAQEIAgEJAgILAgINAwMPAwMSBAQUBQQWBgUYBgUaBwYcCAceCQcgCggiCwkkDAkmDQopDgsrEAstEQwvEg0xEw00FA42FQ44Fg87GA89GRA/GhBCHBBEHRFHHhFJIBFLIRFOIhFQJBJTJRJVJxJYKRFaKhFcLBFfLRFhLxFjMRFlMxBnNBBpNhBrOBBsOQ9uOw9wPQ9xPw9yQA90Qg91RA92RRB3RxB4SRB4ShB5TBF6ThF7TxJ7URJ8UhN8VBN9VhR9VxV+WRV+WhZ+XBZ/XRd/Xxh/YBiAYhmAZBqAZRqAZxuAaByBahyBax2BbR2Bbh6BcB+Bch+BcyCBdSGBdiGBeCKBeSKCeyOCfCOCfiSCgCWCgSWBgyaBhCaBhieBiCeBiSiBiymBjCmBjiqBkCqBkSuBkyuAlCyAliyAmC2AmS2Amy5/nC5/ni9/oC9/oTB+ozB+pTF+pjF9qDJ9qjN9qzN8rTR8rjR7sDV7sjV7szZ6tTZ6tzd5uDd5ujh4vDl4vTl3vzp3wDp2wjt1xDx1xTx0xz1zyD5zyj5yzD9xzUBxz0Bw0EFv0kJv00Nu1URt1kVs2EVs2UZr20dq3Ehp3klo30po4Exn4k1m405l5E9k5VBk51Jj6FNi6VRi6lZh61dg7Fhg7Vpf7lte711e8F9e8WBd8mJd8mRc82Vc9Gdc9Glc9Wtc9mxc9m5c93Bc93Jc+HRc+HZc+Xhd+Xld+Xtd+n1e+n9e+oFf+4Nf+4Vg+4dh/Ilh/Ipi/Ixj/I5k/JBl/ZJm/ZRn/ZZo/Zhp/Zpq/Ztr/p1s/p9t/qFu/qNv/qVx/qdy/qlz/qp0/qx2/q53/rB4/rJ6/rR7/rZ8/rd+/rl//ruB/r2C/r+E/sGF/sKH/sSI/saK/siM/sqN/syP/s2Q/s+S/tGU/tOV/tWX/teZ/tia/dqc/dye/d6g/eCh/eKj/eOl/eWn/eep/emq/eus/Oyu/O6w/PCy/PK0/PS2/Pa4/Pe5/Pm7/Pu9/P2/",
  difference:
    "BTBhBjJkBzRnCDZqCThtCjtwDD1zDT92DkF5D0N7EEV+EUeBEkmEE0yHFE6KFVCNF1KQGFSTGVaWGliZG1qcHFyfHV+iHmGlH2OoIGWrImesI2mtJGquJmyvJ26wKHCxKnGyK3OzLHW0Lne1L3m1MHq2Mny3M364NIC5NoG6N4O7OIW8Ooe9O4i+PIq+Poy/P47AQI/BQpHCQ5PDRpXESZfFTJnGT5vHUp3IVp/JWaHKXKPLX6XNYqfOZanPaKvQa6zRbq7ScbDTdbLUeLTVe7bWfrjXgbrYhLzZh77aisDbjcLckMTdk8belsffmMjgm8ngncvhoMzios3jpc7jp9DkqdHlrNLlrtPmsdXns9bottfouNjpu9rqvdvqwNzrwt3sxd/sx+DtyuHuzOLvz+Tv0eXw0ubw1Obx1efx1+jx2Onx2uny2+ry3evy3uvy4Ozz4e3z4+3z5O705u/05/D06fD06vH17PL17fL17/P18PT28vX28/X29fb39vf39/b29/X0+PTy+PPw+PLv+PHt+fDr+e/p+e7n+e3l+evj+urh+unf+uje+ufc++ba++XY++TW++PU/OLS/ODQ/N/P/N7N/d3L/dzJ/dvH/dnE/NfC/NW//NO8+9C5+863+8y0+sqx+siv+cas+cSp+cKn+L+k+L2h+Lue97mc97eZ97WW9rOU9rGR9q+O9ayL9aqJ9aiG9KaD86SB8qF/8Z598Jx775l57pZ37JN065Fy6o5w6Ytu6Ils5oZq5YNo5IBm435k4nti4Xhg33Ze3nNc3XBZ3G5X22tV2mhT2GVR12NP1mBN1V1M01pK0lhJ0FVIz1JGzk9FzExEy0lCyUdByERAxkE+xT49xDs8wjg6wTY5vzM4vjA2vS01uyo0uigyuCUxtyIwth8utBwtsxkssRgrrhcqqxYqqBUppRQpohMonxIonBEnmRAnlg8nkw4mkA0mjQwligslhwokhAkkgQgjfwgjfAcieQYidgUhcwQhcAMgbQIgagEfZwAf",
  "difference-dark":
    "nrD/nLD+mrD9mK/8la/7k6/6ka75jq73jK72iq71h630ha3zgq3ygKzxfqzwe6zueavtdqvsdKrrcarpb6nobKnmaqjlZ6jjZafiYqbgYKXfXaXdW6TbWKPZVqLXVKDVUZ/TT57RTZ3PS5vNSJrKRpjIRJfGQ5XDQZTBP5K+PpC8PI65O423OYu0OImyN4evNoWtNYSqM4KoMoCmMn6jMXyhMHqeL3icLnaZLXWXLHOULHGSK2+PKm2NKWuLKWmIKGiGJ2aDJ2SBJmJ/JWB8JF56JF14I1t1IllzIldxIVVuIFRsIFJqH1BoHk5lHk1jHUthHElfHEdcG0ZaGkRYGkJWGUFTGT9RGD1PFzxNFzpLFjhJFjdHFTVEFTNCFDJAFDA+Ey88Ey06Eiw4Eio2Eik0EScyESYwESQuESMsESEqESAoEB8mEB0lEBwjERshERogERkeERgcERYbERUZERQYERMXEhIVEhIUExESFBARFA8QFQ4OFg4NFw0LGAwKGQwJGgwIGwsHHAsGHQsFHgsEIAsEIQsDIgwCIwwCJAwCJQwBJg0BJw0BKA0BKg4BKw4BLA4ALQ4ALw4AMA8AMQ8AMw8ANA8ANRAANxAAOBAAOREAOxEAPBEBPhIBPxIBQRIBQhMBRBMBRRQBRxQBSBUCShUCSxYCTRYCTxcDUBgDUhgEVBkFVhoFVxsGWRwHWx0IXR4JXx8KYSALYyEMZSMOaCQPaiUQbCcRbigTcCoUcysWdS0Xdy8ZeTAbezIcfTQegDYggjcihDkkhjsmiD0oij8qjEAsjkIukEQwkkYylEg0lko2mEw5mk07nE89nlE/oFNBolVEpFdGpllIqFpKqlxMrF5PrmBRsGJTsmRVtGZYtmhauGpcumtfvG1hvm9jwHFlwnNoxHVqxndsyHlvyntxzH1zzn920IF40oN61YV914d/2YmC24uE3Y2G34+J4ZGL45OO5ZWQ55eS6pmV7JuX7p2a8J+c8qGf9KOh9qWj+aem+6mo/aur/62t",
};

/** Names of the tables that a user can choose. */
export const COLORMAPS = ["viridis", "cividis", "magma", "grey"];

/** @type {Map<string, ColourTable>} */
const lookups = new Map();

/**
 * A table by name: one of COLORMAPS, "difference" or "difference-dark". Colours are packed little endian, like every
 * browser's machine.
 *
 * @param {string} name
 * @returns {ColourTable}
 */
export function lookup(name) {
  const known = lookups.get(name);
  if (known) return known;
  const table = new Uint32Array(256);
  if (name === "grey") {
    for (let n = 0; n < 256; n++) table[n] = (0xff000000 | (n << 16) | (n << 8) | n) >>> 0;
  } else if (Object.hasOwn(TABLES, name)) {
    const bytes = atob(TABLES[name]);
    for (let n = 0; n < 256; n++) {
      const [r, g, b] = [0, 1, 2].map((c) => bytes.charCodeAt(3 * n + c));
      table[n] = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
    }
  } else {
    const names = [...COLORMAPS, "difference", "difference-dark"].join(", ");
    throw new RangeError(`the colormap must be one of ${names}, got ${JSON.stringify(name)}`);
  }
  lookups.set(name, table);
  return table;
}

/**
 * The name of the table for values with a sign, 0 in the middle.
 *
 * @param {boolean} dark whether the theme is
 * @returns {string}
 */
export function signedColours(dark) {
  return dark ? "difference-dark" : "difference";
}

/**
 * A colour of a table for CSS.
 *
 * @param {ColourTable} table
 * @param {number} index
 * @returns {string}
 */
export function cssColour(table, index) {
  const packed = table[index];
  return `rgb(${packed & 255}, ${(packed >> 8) & 255}, ${(packed >> 16) & 255})`;
}

/** @type {WeakMap<ColourTable, Map<boolean, ColourTable>>} */
const overlays = new WeakMap();

/**
 * A table for an overlay: the image shows through where values are low, or near 0 if they have a sign.
 *
 * @param {ColourTable} table
 * @param {boolean} signed
 * @returns {ColourTable}
 */
export function overlayColours(table, signed) {
  const made = overlays.get(table) ?? new Map();
  overlays.set(table, made);
  if (!made.has(signed)) {
    made.set(
      signed,
      table.map((colour, n) => {
        const strength = signed ? 1.2 * Math.abs(n / 127.5 - 1) : 0.3 + (0.9 * n) / 255;
        return ((colour & 0xffffff) | (Math.round(255 * Math.min(1, strength)) << 24)) >>> 0;
      }),
    );
  }
  return /** @type {ColourTable} */ (made.get(signed));
}

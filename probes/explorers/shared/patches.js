// Tokens on a picture: what they are called, where they lie, how tiles of them share a space. No DOM.
//
// A grid is {rows, cols, prefix}: tokens before the patches (class token, registers), then the patches row by row.

/** Tokens before the patches: the class token, then registers. */
export function prefixName(index) {
  return index === 0 ? "cls" : `r${index}`;
}

export function tokenName(grid, token) {
  if (token < grid.prefix) return prefixName(token);
  const patch = token - grid.prefix;
  return `(${Math.floor(patch / grid.cols)}, ${patch % grid.cols})`;
}

/** The patch under a point given as fractions of the picture; outside points go to the nearest patch. */
export function patchAt(grid, x, y) {
  const col = Math.min(grid.cols - 1, Math.max(0, Math.floor(x * grid.cols)));
  const row = Math.min(grid.rows - 1, Math.max(0, Math.floor(y * grid.rows)));
  return grid.prefix + row * grid.cols + col;
}

/** The token one step away on the grid; from a prefix token every arrow leads to the first patch. */
export function stepToken(grid, token, down, right) {
  if (token < grid.prefix) return grid.prefix;
  const patch = token - grid.prefix;
  const row = Math.min(grid.rows - 1, Math.max(0, Math.floor(patch / grid.cols) + down));
  const col = Math.min(grid.cols - 1, Math.max(0, (patch % grid.cols) + right));
  return grid.prefix + row * grid.cols + col;
}

/** The token of one grid that holds the centre of another grid's over the same picture; prefix tokens stay. */
export function sameSpot(grid, other, token) {
  if (token < other.prefix) return token;
  const patch = token - other.prefix;
  // Centres are halves of a patch: whole numbers of half patches divide without rounding, as in the kernel.
  const row = Math.floor(((2 * Math.floor(patch / other.cols) + 1) * grid.rows) / (2 * other.rows));
  const col = Math.floor(((2 * (patch % other.cols) + 1) * grid.cols) / (2 * other.cols));
  return grid.prefix + row * grid.cols + col;
}

/**
 * {columns, tile}: how `count` tiles of an aspect (height / width), each with a caption line, get as wide as possible
 * within width x height. Where that is less than `smallest`, they get that, and more height.
 */
export function tileLayout(count, width, height, aspect, gap, caption, smallest) {
  let best = { columns: 1, tile: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const lines = Math.ceil(count / columns);
    const across = (width - gap * (columns - 1)) / columns;
    const down = ((height - gap * (lines - 1)) / lines - caption) / aspect;
    const tile = Math.floor(Math.min(across, down));
    if (tile > best.tile) best = { columns, tile };
  }
  if (best.tile >= smallest) return best;
  const columns = Math.min(count, Math.max(1, Math.floor((width + gap) / (smallest + gap))));
  return { columns, tile: Math.max(1, Math.floor((width - gap * (columns - 1)) / columns)) };
}

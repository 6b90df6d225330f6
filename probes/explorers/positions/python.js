// Python that computes what is shown with the public API. No DOM.

/**
 * @param {object} shot
 * @param {{encoding: string, native: readonly number[]}} shot.about
 * @param {{height: number, width: number, block?: number}} shot.data
 * @param {readonly number[]} shot.cell (row, col)
 * @param {boolean} [shot.centred] table
 * @param {number | null} shot.image the enlarged one
 * @returns {string}
 */
export function positionPython({ about, data, cell, centred = false, image }) {
  const size = [data.height, data.width];
  const native = size.join() === about.native.join();
  const call = `probes.positions(model${native ? "" : `, size=(${size.join(", ")})`})`;
  const place = `(${cell.join(", ")})`;
  const lines = ["import probes", ""];
  if (about.encoding === "table") {
    lines.push(`positions = ${call}`);
    lines.push("positions.table  # (channel, row, col)");
    lines.push(`positions.similarity(${place}${centred ? ", centred=True" : ""})  # (row, col)`);
    lines.push(
      image === null ? `positions.spectrum().mean("channel")  # (down, right)` : `positions.spectrum()[${image}]`,
    );
  } else {
    const head = image === null || image < 0 ? `.mean("head")` : `[${image}]`;
    lines.push(`biases = ${call}`);
    lines.push(`biases[${data.block}]  # (head, down, right): where the key lies from the query`);
    lines.push(`biases.from_query(${data.block}, ${place})${head}  # (row, col)`);
  }
  return `${lines.join("\n")}\n`;
}

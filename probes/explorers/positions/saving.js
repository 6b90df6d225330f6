// Buttons that save the view or copy its code.

import { copyButton, download, downloadCanvas, saveButtons } from "#shared/download.js";
import { pageChoice } from "#shared/save_page.js";
import { fileStem, positionNpz } from "./arrays.js";
import { positionPython } from "./python.js";
import { titleOf } from "./readout.js";
import { snapshotImage } from "./snapshot_image.js";

/** @import { themeColours } from "#shared/theme.js" */
/** @import { Board } from "./board.js" */

/**
 * @param {Board} board
 * @param {() => ReturnType<typeof themeColours>} colours
 * @returns {{files: HTMLElement, copy: HTMLElement}}
 */
export function createSaving(board, colours) {
  const { source, about, settings, actions } = board;
  const { link } = source;
  const saveImage = () => {
    const { gridLook } = board;
    const look = board.barTile?.look;
    if (!gridLook || !look) return null;
    const tiles = [...board.enlarged.list, ...board.tiles.list].filter(({ node }) => !node.hidden);
    const image = snapshotImage(
      {
        title: titleOf(gridLook, source.cell, `${about.family} ${about.variant}`),
        grid: { canvas: board.grid.canvas, look: gridLook, cell: source.cell },
        images: tiles.map(({ canvas, name }) => ({ canvas, name: name.textContent ?? "" })),
        look,
      },
      colours(),
    );
    return downloadCanvas(link, image, fileStem(gridLook.data, source.cell));
  };
  const saveArrays = () => {
    const { data, cell } = source;
    if (data) download(link, `${fileStem(data, cell)}.npz`, [positionNpz(data, cell, settings.get("centred"))]);
  };
  const python = () => {
    const { data, cell } = source;
    if (!data) return "";
    return positionPython({ about, data, cell, centred: settings.get("centred"), image: actions.image });
  };
  return {
    files: saveButtons(
      link,
      "Save",
      ["PNG", "Save this view as an image", saveImage],
      ["NPZ", "Save the numbers as NumPy arrays (numpy.load)", saveArrays],
      pageChoice(source, () => (source.data ? fileStem(source.data, source.cell) : "")),
    ),
    copy: copyButton(python, link),
  };
}

// Buttons that save the view or copy its code.

import { copyButton, download, downloadCanvas, saveButtons } from "#shared/download.js";
import { namedAfter, originTexts } from "#shared/origin.js";
import { pageChoice } from "#shared/save_page.js";
import { fileStem, positionNpz } from "./arrays.js";
import { imageName } from "./data.js";
import { positionPython } from "./python.js";
import { titleOf, unitOf } from "./readout.js";
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
    const title = titleOf(gridLook, source.cell);
    const shared = settings.get("scale") === "shared";
    const image = snapshotImage(
      {
        title,
        grid: { canvas: board.grid.canvas, look: gridLook, cell: source.cell },
        images: tiles.map(({ canvas, name }) => ({ canvas, name: name.textContent ?? "" })),
        look,
        looked: imageName(look.data, look.index),
        shared,
        origin: about.origin,
      },
      colours(),
    );
    const facts = { title, unit: unitOf(gridLook, true), colour_range: settings.get("scale") };
    const name = namedAfter(fileStem(gridLook.data, source.cell), about.origin);
    return downloadCanvas(link, image, name, { texts: originTexts(about.origin, facts) });
  };
  const saveArrays = () => {
    const { data, cell } = source;
    const { gridLook } = board;
    if (!data || !gridLook) return;
    const unit = data.kind === "bias" ? "bias, added to the logit" : "value of the position table; similarity: cosine";
    const facts = { title: titleOf(gridLook, cell), unit };
    const file = positionNpz(data, cell, settings.get("centred"), about.origin, facts);
    download(link, `${namedAfter(fileStem(data, cell), about.origin)}.npz`, [file]);
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
      pageChoice(source, () => {
        const { about, data, cell } = source;
        return about && data ? namedAfter(fileStem(data, cell), about.origin) : "";
      }),
    ),
    copy: copyButton(python, link),
  };
}

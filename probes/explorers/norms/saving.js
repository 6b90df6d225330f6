// Buttons that save the view or copy its code.

import { copyButton, download, downloadCanvas, saveButtons } from "#shared/download.js";
import { pageChoice } from "#shared/save_page.js";
import { normsCsv, normsNpz } from "./arrays.js";
import { mapPython } from "./python.js";
import { snapshotImage } from "./snapshot_image.js";

/** @import { PictureStage } from "#shared/picture_stage.js" */
/** @import { Settings } from "#shared/settings.js" */
/** @import { themeColours } from "#shared/theme.js" */
/** @import { Display } from "./display.js" */
/** @import { NormSource, NormTraits } from "./source.js" */
/** @import { Tiles } from "./tiles.js" */

/**
 * @param {object} options
 * @param {Settings<NormTraits>} options.settings
 * @param {NormSource} options.source
 * @param {Display} options.display
 * @param {PictureStage} options.stage
 * @param {Tiles} options.tiles
 * @param {HTMLCanvasElement} options.outline of the outliers on the picture
 * @param {() => ReturnType<typeof themeColours>} options.colours
 * @returns {{files: HTMLElement, copy: HTMLElement}}
 */
export function createSaving({ settings, source, display, stage, tiles, outline, colours }) {
  const { link } = source;
  const fileName = () => {
    const { map } = display;
    if (!map) return "";
    const name = { norm: "norms", channel: `channel${map.channel}`, similarity: `similarity${map.anchor}` }[map.what];
    return `${name}_block${map.block.block}`;
  };
  const saveImage = () => {
    const { map } = display;
    if (!map) return null;
    const image = snapshotImage(
      {
        map,
        picture: stage.canvas,
        overlay: stage.overlay.canvas,
        outline,
        opacity: settings.get("opacity"),
        tiles: tiles.list.map(({ block, canvas }) => ({
          block,
          canvas,
          outliers: display.outliersIn(block).tokens.length,
        })),
      },
      colours(),
    );
    return downloadCanvas(link, image, fileName());
  };
  const saveArrays = () => {
    const { blocks, outliers, k, map } = display;
    if (map) download(link, "norms.npz", [normsNpz({ blocks, outliers, k, map })]);
  };
  const saveTable = () => {
    const { blocks, outliers } = display;
    if (blocks.length) download(link, "norms.csv", [normsCsv(blocks, outliers)], "text/csv");
  };
  const python = () => {
    const { map, k } = display;
    const { about } = source;
    return about && map ? mapPython(map, { call: about.call, opened: about.opened, k }) : "";
  };
  return {
    files: saveButtons(
      link,
      "Save",
      ["PNG", "Save this view as an image", saveImage],
      ["NPZ", "Save all norms, and the channel or similarity shown, as NumPy arrays (numpy.load)", saveArrays],
      ["CSV", "Save all norms as a table: block, token, row, column, norm, outlier", saveTable],
      pageChoice(source, fileName),
    ),
    copy: copyButton(python, link),
  };
}

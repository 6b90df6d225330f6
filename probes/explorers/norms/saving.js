// Buttons that save the view or copy its code.

import { copyButton, download, downloadCanvas, saveButtons } from "#shared/download.js";
import { namedAfter, originTexts } from "#shared/origin.js";
import { pageChoice } from "#shared/save_page.js";
import { normsCsv, normsNpz } from "./arrays.js";
import { mapPython } from "./python.js";
import { unitOf } from "./shown_map.js";
import { snapshotImage, snapshotTitle } from "./snapshot_image.js";

/** @import { PictureStage } from "#shared/picture_stage.js" */
/** @import { Settings } from "#shared/settings.js" */
/** @import { themeColours } from "#shared/theme.js" */
/** @import { Display } from "./display.js" */
/** @import { ShownMap } from "./shown_map.js" */
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
  /** @param {ShownMap} map */
  const stateOf = ({ what, channel, anchor, block }) =>
    `${{ norm: "norms", channel: `channel${channel}`, similarity: `similarity${anchor}` }[what]}_block${block.block}`;
  /** @param {ShownMap} map */
  const factsOf = (map) => ({
    title: snapshotTitle(map),
    unit: unitOf(map),
    block: map.block.block,
    k: display.k,
    colour_range: settings.get("scale"),
  });
  const fileName = () => {
    const { map } = display;
    return map && source.about ? namedAfter(stateOf(map), source.about.origin) : "";
  };
  const saveImage = () => {
    const { map } = display;
    const { about } = source;
    if (!map || !about) return null;
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
        shared: settings.get("scale") !== "block",
        origin: about.origin,
      },
      colours(),
    );
    const texts = originTexts(about.origin, factsOf(map));
    return downloadCanvas(link, image, fileName(), { texts });
  };
  const saveArrays = () => {
    const { blocks, outliers, k, map } = display;
    const { about } = source;
    if (!map || !about) return;
    const stem = map.what === "norm" ? "norms" : `norms_${stateOf(map)}`;
    const file = normsNpz({ blocks, outliers, k, map }, about.origin, factsOf(map));
    download(link, `${namedAfter(stem, about.origin)}.npz`, [file]);
  };
  const saveTable = () => {
    const { blocks, outliers } = display;
    const { about } = source;
    if (!blocks.length || !about) return;
    const file = normsCsv(blocks, outliers, about.origin);
    download(link, `${namedAfter("norms", about.origin)}.csv`, [file], "text/csv");
  };
  const python = () => {
    const { map, k } = display;
    const { about } = source;
    return about && map ? mapPython(map, { call: about.call, opened: about.opened, code: about.code, k }) : "";
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

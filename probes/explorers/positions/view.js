// The position explorer's view: the grid with the position (or query) under the pointer, and beside it the channels of the
// table, or the offset images of a block's heads.
//
// Images are painted when data or a setting changes. A pointer move paints the grid and moves the marks; nothing travels.
// PositionSource belongs to the widget model and is shared by its views; PositionView is one display.
//
// For tests, on the root element: data-state, data-place ("row,col"), data-size, data-block, data-image of the last paint;
// canvases carry data-tile: "stage", "spectrum", an image's number or "mean"; enlarged "big", "big-native", "big-spectrum".

import { columns, row, toolbar } from "#shared/elements.js";
import { createHelp } from "#shared/help.js";
import { themeColours } from "#shared/theme.js";
import { defineWidget, View } from "#shared/widget.js";
import { Board } from "./board.js";
import { noteOf } from "./keys.js";
import { createSaving } from "./saving.js";
import { PositionSource } from "./source.js";

/** @import { AnyModel } from "#shared/types.js" */
/** @import { PositionTraits } from "./source.js" */

/** @type {(keyof PositionTraits)[]} */
const WATCHED = ["pinned", "order", "scale", "colormap", "first", "channel", "view", "centred", "head"];

/** @extends {View<PositionTraits, PositionSource>} */
class PositionView extends View {
  /**
   * @param {AnyModel<PositionTraits>} model
   * @param {HTMLElement} el
   * @param {PositionSource} source
   */
  constructor(model, el, source) {
    super(model, el, source, "positions");
    /** @type {Board | null} null before the first reply */
    this.board = null;
    this.root.dataset.state = "waiting";
    this.root.append(this.waiting.node, this.status.node, this.live);
  }

  /** @override */
  connect() {
    const sync = () => this.board?.sync();
    this.watch(WATCHED, sync);
    this.watchSize(this.root, sync);
    this.watchTheme(sync);
    if (this.source.about) this.build();
    if (this.source.data) this.board?.showData();
  }

  /**
   * @override
   * @param {string} event
   */
  onEvent(event) {
    if (event === "about") this.build();
    else if (event === "requested") this.board?.showRequested();
    else if (event === "data") this.board?.showData();
    else if (event === "native") this.board?.sync();
    else if (event === "place") this.schedule();
  }

  /** Builds the board, once it is known whether the model has a table or biases. */
  build() {
    const { settings, source, root } = this;
    const { about } = source;
    if (this.board || !about) return;
    const board = new Board({
      settings,
      source,
      about,
      root,
      schedule: () => this.schedule(),
      announce: () => this.announce(() => this.board?.readout.text ?? ""),
    });
    this.board = board;
    const { keys, controls } = board;
    const help = createHelp(keys, noteOf(source.biased));
    const { files, copy } = createSaving(board, () => themeColours(root));
    this.mount(
      keys,
      help,
      toolbar(controls.toolbar, files, copy, help.opener),
      columns(
        [board.grid.node, board.readout.node, board.gridBar.node, controls.similarity, ...board.aside],
        [row("dptx-options", ...controls.options), board.enlarged.node, board.tiles.node, board.imageBar.node],
      ),
    );
    board.showRequested();
    this.focusOnPage(board.grid.node);
  }

  /** @override */
  paint() {
    this.board?.paint();
  }
}

export default defineWidget(PositionSource, PositionView);

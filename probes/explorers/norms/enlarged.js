// The enlarged block: its map, what the map shows, a histogram and facts.

import { createMark, putMark } from "#shared/canvas.js";
import { button, numberField, segmented, slider, symbolButton, toggleButton } from "#shared/controls.js";
import { element, row } from "#shared/elements.js";
import { cellOf } from "#shared/patches.js";
import { createHistogram } from "./histogram.js";
import { createOutline, paintOutline } from "./outline.js";
import { factsOf } from "./readout.js";
import { QUANTITIES } from "./shown_map.js";
import { MapCanvas } from "./tiles.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { NormActions } from "./actions.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { NormKeys } from "./keys.js" */
/** @import { Outliers } from "./outliers.js" */
/** @import { Quantity, ShownMap } from "./shown_map.js" */
/** @import { NormTraits } from "./source.js" */
/** @import { MapPointer } from "./tiles.js" */

/** The map of the enlarged block. The second mark is that of the pinned patch. */
class LargeMap extends MapCanvas {
  /**
   * @param {NormBlock} block
   * @param {MapPointer} pointer
   */
  constructor(block, pointer) {
    const [outline, kept] = [createOutline(), createMark("kept")];
    super(block, "large", pointer, outline, kept);
    this.outline = outline;
    this.kept = kept;
    this.frame.classList.add("dptx-large");
  }
}

/**
 * What the controls show.
 *
 * @typedef {object} EnlargedState
 * @property {NormBlock} block
 * @property {Quantity} what
 * @property {string} missing why the block has no channels, in short; "" if it has
 * @property {string} why the same in full
 * @property {(region: HTMLElement, change: () => void) => void} keepFocus
 */

/** The part of the widget that shows one block in detail. */
export class EnlargedBlock {
  /**
   * @param {object} options
   * @param {Settings<NormTraits>} options.settings
   * @param {NormKeys} options.keys
   * @param {MapPointer} options.pointer
   * @param {NormActions} options.actions
   * @param {() => void} options.onClose
   */
  constructor({ settings, keys, actions, pointer, onClose }) {
    this.settings = settings;
    this.actions = actions;
    this.pointer = pointer;
    this.onClose = onClose;
    this.what = segmented(
      "What is shown of the block",
      [
        ["norm", "Norm", keys.titled("The length of each token", "quantity")],
        ["channel", "Channel", keys.titled("One channel of each token", "quantity")],
        [
          "similarity",
          "Similarity",
          keys.titled("Cosine of each token with the patch under the pointer, or the pinned one", "quantity"),
        ],
      ],
      (what) => settings.save({ what, enlarged: true }),
    );
    this.channelSlider = slider("Channel", keys.titled("Channel", "previousChannel", "nextChannel"), (channel) =>
      actions.goToChannel(channel),
    );
    this.channelNumber = numberField("Number of the channel", (text) => actions.goToChannel(Number(text)), {
      min: 0,
      title: "Number of the channel",
    });
    this.strongest = button(
      "Largest here",
      keys.titled("The channel that is largest in magnitude at the patch", "strongest"),
      () => actions.goToStrongest(),
    );
    this.channelControls = element(
      "div",
      { className: "dptx-field" },
      this.channelSlider,
      this.channelNumber,
      this.strongest,
    );
    this.centred = toggleButton(
      "Subtract mean",
      keys.titled("Subtract the mean of all patches first: similarity of what differs between them", "centred"),
      () => actions.toggleCentred(),
    );
    this.missing = element("span", { className: "dptx-hint" });
    this.title = element("strong", { className: "dptx-large-title" });
    this.host = element("div", { className: "dptx-large-host" });
    this.histogram = createHistogram();
    this.facts = element("div", { className: "dptx-facts" });
    this.factsShown = "";
    /** @type {LargeMap | null} */
    this.map = null;
    const close = symbolButton(
      "\u00d7",
      "Close the enlarged block",
      keys.titled("Back to all blocks", "clear"),
      onClose,
    );
    this.node = element(
      "div",
      { className: "dptx-enlarged-block", hidden: true },
      row("dptx-large-head", this.title, this.what.node, this.channelControls, this.centred.node, this.missing, close),
      element(
        "div",
        { className: "dptx-large-body" },
        this.host,
        element("div", { className: "dptx-large-side" }, this.histogram.node, this.facts),
      ),
    );
  }

  /**
   * Sets the controls.
   *
   * @param {EnlargedState} state
   */
  sync({ block, what, missing, why, keepFocus }) {
    const { settings, channelSlider, channelNumber } = this;
    const { channel } = this.actions;
    const available = missing === "";
    this.what.set(what);
    keepFocus(this.channelControls, () => this.channelControls.classList.toggle("dptx-idle", what !== "channel"));
    keepFocus(this.centred.node, () => {
      this.centred.node.hidden = what !== "similarity";
    });
    this.centred.set(settings.get("centred"));
    for (const control of [channelSlider, channelNumber]) {
      control.max = String(block.channels - 1);
      control.value = String(channel);
      control.disabled = !available;
    }
    this.strongest.disabled = !available;
    this.missing.hidden = available;
    this.missing.textContent = missing;
    this.missing.title = why;
    keepFocus(this.what.node, () => {
      for (const quantity of QUANTITIES) if (quantity !== "norm") this.what.disable(quantity, why);
    });
    keepFocus(this.node, () => {
      this.node.hidden = !settings.get("enlarged");
    });
    if (this.map?.block !== block) {
      this.map = new LargeMap(block, this.pointer);
      this.map.frame.addEventListener("click", this.onClose);
      this.host.replaceChildren(this.map.frame);
    }
    this.title.textContent = `Block ${block.block}`;
    this.map.canvas.setAttribute(
      "aria-label",
      `Block ${block.block}, ${what === "channel" ? `channel ${channel}` : what}`,
    );
  }

  /** Whether the pointer is on the map. */
  get hovered() {
    return Boolean(this.map?.frame.matches(":hover"));
  }

  /**
   * @param {ShownMap} map
   * @param {Outliers} outliers of its block
   */
  paint(map, outliers) {
    if (!this.map) return;
    this.map.paintPatches(map.patches, map.scale, map.table);
    const facts = factsOf(map, outliers);
    const key = facts.join("|");
    if (key === this.factsShown) return;
    this.factsShown = key;
    this.facts.replaceChildren(
      ...facts.flatMap(([name, value]) => [element("span", {}, name), element("span", {}, value)]),
    );
  }

  /**
   * @param {NormBlock} block
   * @param {Outliers | null} outliers null to draw no outline
   */
  paintOutline(block, outliers) {
    if (this.map) paintOutline(this.map.outline, block, outliers);
  }

  /**
   * Moves the marks, and paints the histogram.
   *
   * @param {ShownMap} map
   * @param {Outliers} outliers
   * @param {number} token of the block
   * @param {number | null} kept the pinned token, if it is another one
   */
  paintPointer(map, outliers, token, kept) {
    if (!this.map) return;
    this.map.markToken(token);
    putMark(this.map.kept, kept === null ? null : cellOf(map.block, kept));
    if (this.settings.get("enlarged")) this.histogram.paint(map, outliers.threshold, token);
  }
}

// What one view displays, computed from the norms, the channels and the settings: outliers, scales, and the map of the
// chosen block. No DOM.

import { lookup } from "#shared/colours.js";
import { outliersOf } from "./outliers.js";
import { channelMap, normMap, normScales, similarityMap } from "./shown_map.js";

/** @import { Settings } from "#shared/settings.js" */
/** @import { ColourTable, Scale } from "#shared/types.js" */
/** @import { NormActions } from "./actions.js" */
/** @import { NormBlock } from "./blocks.js" */
/** @import { Outliers } from "./outliers.js" */
/** @import { ShownMap } from "./shown_map.js" */
/** @import { NormSource, NormTraits } from "./source.js" */

export class Display {
  /**
   * @param {Settings<NormTraits>} settings
   * @param {NormSource} source
   * @param {NormActions} actions
   */
  constructor(settings, source, actions) {
    this.settings = settings;
    this.source = source;
    this.actions = actions;
    /** @type {readonly NormBlock[]} the blocks that outliers and scales belong to */
    this.blocks = [];
    this.k = NaN;
    /** @type {Outliers[]} of each block */
    this.outliers = [];
    /** @type {Scale[]} of the norm map of each block */
    this.scales = [];
    /** @type {ShownMap | null} the map that is enlarged and laid over the picture */
    this.map = null;
  }

  /** @returns {ColourTable} of the norm maps */
  get table() {
    return lookup(this.settings.get("colormap"));
  }

  /** Finds the outliers of all blocks, if blocks or threshold have changed. */
  findOutliers() {
    const { blocks } = this.source;
    const k = this.settings.get("k");
    if (this.blocks === blocks && this.k === k) return;
    this.blocks = blocks;
    this.k = k;
    this.outliers = blocks.map((block) => outliersOf(block, k));
  }

  computeScales() {
    this.scales = normScales(this.blocks, this.settings.get("scale"));
  }

  /**
   * @param {NormBlock} block
   * @returns {Outliers}
   */
  outliersIn(block) {
    return this.outliers[this.blocks.indexOf(block)];
  }

  /**
   * @param {NormBlock} block
   * @returns {Scale} of its norm map
   */
  scaleOf(block) {
    return this.scales[this.blocks.indexOf(block)];
  }

  /**
   * Computes the map of the chosen block: its norms, or once the channels have arrived, what is chosen.
   *
   * @param {NormBlock} block
   * @param {string} signedTable colours of values with a sign
   * @returns {ShownMap}
   */
  computeMap(block, signedTable) {
    const { settings, actions } = this;
    const { channels } = this.source;
    const { what } = this.source;
    if (channels && what === "channel") this.map = channelMap(block, channels, actions.channel, signedTable);
    else if (channels && what === "similarity") {
      const centred = settings.get("centred");
      this.map = similarityMap(block, channels, actions.anchorIn(block), centred, signedTable, this.table);
    } else this.map = normMap(block, this.scaleOf(block), this.table);
    return this.map;
  }

  /**
   * Whether the map is the similarity with another token than the chosen one.
   *
   * @param {NormBlock} block
   * @returns {boolean}
   */
  followsPointer(block) {
    return this.map?.what === "similarity" && this.map.anchor !== this.actions.anchorIn(block);
  }
}

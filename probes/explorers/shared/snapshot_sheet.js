// The sheet that a view is saved on as an image: a title, lines about model and image, panels, and colour bars.

import { penOf } from "./canvas.js";
import { cssColour } from "./colours.js";
import { element } from "./elements.js";
import { labelledTicks } from "./ticks.js";

/** @import { Origin } from "./origin.js" */
/** @import { themeColours } from "./theme.js" */
/** @import { Tick } from "./ticks.js" */
/** @import { ColourTable } from "./types.js" */

/** @typedef {{x: number, y: number, width: number, height: number}} Box */

/** @typedef {{table: ColourTable, ticks: readonly Tick[], note: string}} BarContent note: the quantity and its unit */

/** @typedef {{size?: number, weight?: number, colour?: string, align?: CanvasTextAlign, width?: number}} TextStyle */

export const MARGIN = 24;
export const BAR_HEIGHT = 52; // a bar with its labels and its note

const TITLE_SIZE = 20;
const LINE_SIZE = 13;

/** A canvas with a heading. The content lies between `top` and the lower margin. */
export class SnapshotSheet {
  /**
   * @param {object} options
   * @param {string} options.title
   * @param {Origin} options.origin
   * @param {number} options.width of the content
   * @param {number} options.height of the content
   * @param {ReturnType<typeof themeColours>} options.colours
   */
  constructor({ title, origin, width, height, colours }) {
    this.colours = colours;
    this.canvas = element("canvas", { width: 1, height: 1 });
    this.pen = penOf(this.canvas);
    const inside = Math.max(width, 320);
    const about = [origin.model, origin.image].filter(Boolean).join(" \u00b7 ");
    const heading = this.broken(title, inside, TITLE_SIZE, 600);
    const lines = about ? this.broken(about, inside, LINE_SIZE) : [];
    this.top = MARGIN + heading.length * (TITLE_SIZE + 6) + lines.length * (LINE_SIZE + 5) + 10;
    this.canvas.width = inside + 2 * MARGIN; // also clears the pen's state
    this.canvas.height = this.top + height + MARGIN;
    this.pen.fillStyle = colours.background;
    this.pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.pen.textBaseline = "top";
    let y = MARGIN;
    for (const line of heading) {
      this.write(line, MARGIN, y, { size: TITLE_SIZE, weight: 600 });
      y += TITLE_SIZE + 6;
    }
    for (const line of lines) {
      this.write(line, MARGIN, y, { colour: colours.muted });
      y += LINE_SIZE + 5;
    }
  }

  /**
   * @param {number} size
   * @param {number} weight
   */
  setFont(size, weight) {
    this.pen.font = `${weight} ${size}px ${this.colours.font}`;
  }

  /**
   * A text in lines of at most a width. A word that is wider stands alone.
   *
   * @param {string} text
   * @param {number} width
   * @param {number} size
   * @param {number} [weight]
   * @returns {string[]}
   */
  broken(text, width, size, weight = 400) {
    this.setFont(size, weight);
    /** @type {string[]} */
    const lines = [];
    for (const word of text.split(" ")) {
      const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
      if (lines.length && this.pen.measureText(longer).width <= width) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines;
  }

  /**
   * @param {string} text
   * @param {number} x
   * @param {number} y of the upper edge
   * @param {TextStyle} [style] width: a longer text is condensed
   */
  write(text, x, y, { size = LINE_SIZE, weight = 400, colour = this.colours.text, align = "left", width } = {}) {
    this.setFont(size, weight);
    this.pen.fillStyle = colour;
    this.pen.textAlign = align;
    this.pen.fillText(text, x, y, width);
  }

  /**
   * A map or an image. Few pixels keep their squares.
   *
   * @param {CanvasImageSource} image
   * @param {Box} box
   * @param {{smooth?: boolean, opacity?: number}} [how]
   */
  drawPanel(image, { x, y, width, height }, { smooth = false, opacity = 1 } = {}) {
    const { pen } = this;
    pen.imageSmoothingEnabled = smooth;
    pen.imageSmoothingQuality = "high";
    pen.globalAlpha = opacity;
    pen.drawImage(image, x, y, width, height);
    pen.globalAlpha = 1;
  }

  /**
   * A frame that shows on every colour.
   *
   * @param {Box} box
   * @param {number} line
   * @param {string} colour
   */
  drawFrame({ x, y, width, height }, line, colour) {
    for (const [thick, ink] of /** @type {[number, string][]} */ ([
      [2 * line, "rgba(0, 0, 0, 0.65)"],
      [line, colour],
    ])) {
      this.pen.lineWidth = thick;
      this.pen.strokeStyle = ink;
      this.pen.strokeRect(x, y, width, height);
    }
  }

  /**
   * A colour bar with labelled ticks, as many as fit, and its note below.
   *
   * @param {BarContent} bar
   * @param {Pick<Box, "x" | "y" | "width">} place
   */
  drawBar({ table, ticks, note }, { x, y, width }) {
    const { pen, colours } = this;
    for (let n = 0; n < 256; n++) {
      pen.fillStyle = cssColour(table, n);
      pen.fillRect(x + (n * width) / 256, y, Math.min(width / 256 + 1, width - (n * width) / 256), 12);
    }
    this.setFont(12, 400);
    const labelled = labelledTicks(ticks, (text) => pen.measureText(text).width, width);
    for (const tick of ticks) {
      const [position, text] = tick;
      const isLabelled = labelled.includes(tick);
      pen.fillStyle = colours.muted;
      pen.fillRect(x + Math.min(width - 1, Math.max(0, position * width - 0.5)), y + 12, 1, isLabelled ? 4 : 2);
      if (!isLabelled) continue;
      const align = position <= 0 ? "left" : position >= 1 ? "right" : "center";
      this.write(text, x + position * width, y + 18, { size: 12, align });
    }
    if (note) this.write(note, x, y + 35, { size: 12, colour: colours.muted, width });
  }
}

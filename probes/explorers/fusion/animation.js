// The animation of the fusion explorer: two settings, the way between them, and films of it.

import { button, field, slider } from "#shared/controls.js";
import { saveButtons } from "#shared/download.js";
import { element, row } from "#shared/elements.js";
import { settingWords } from "./readout.js";
import { numberEntry } from "./scale_row.js";
import { inOrder } from "./setting.js";

/** @import { Link } from "#shared/link.js" */
/** @import { NamedScales } from "./setting.js" */

/** @typedef {"start" | "end"} End */

const FRAME_MS = 50;
const FRAMES = { min: 2, max: 500 };

/**
 * @typedef {object} Animation
 * @property {HTMLElement} node
 * @property {(points: readonly string[], ends: Record<End, NamedScales>, frames: number) => void} show
 * @property {() => void} stop
 */

/**
 * @param {Link} link
 * @param {object} events
 * @param {(end: End) => void} events.onKeep the sliders become an end of the animation
 * @param {(frames: number) => void} events.onFrames
 * @param {(share: number) => void} events.onMove to a share of the way
 * @param {(format: "gif" | "mp4") => void} events.onSave
 * @param {Record<End, string>} titles tooltips of the buttons that set the ends
 * @returns {Animation}
 */
export function createAnimation(link, { onKeep, onFrames, onMove, onSave }, titles) {
  let playing = 0; // counts the plays, so a stopped one ends; 0 while none runs
  let plays = 0;
  let shownFrames = FRAMES.min;

  const between = slider("From the first setting to the last", "From setting A to setting B", onMove, {
    className: "dptx-slider dptx-wide",
    max: 1,
    step: 0.01,
    value: 0,
  });
  const play = button("Play", "From A to B and back, as fast as maps arrive", () => (playing ? stop() : start()));
  const frames = numberEntry("Frames from A to B", { ...FRAMES }, (text) => {
    const wanted = Math.round(Number(text));
    if (wanted >= FRAMES.min && wanted <= FRAMES.max) onFrames(wanted);
    else frames.value = String(shownFrames);
  });
  const notes = {
    start: element("span", { className: "dptx-hint" }),
    end: element("span", { className: "dptx-hint" }),
  };
  const lineOfEnd = (/** @type {End} */ end, /** @type {string} */ text) =>
    row(
      "",
      button(text, titles[end], () => onKeep(end)),
      notes[end],
    );
  const files = saveButtons(
    link,
    "Save the animation",
    ["GIF", "Save the way from A to B and back as a GIF in these colours", () => onSave("gif")],
    ["MP4", "Save it as a film; the kernel needs PyAV", () => onSave("mp4")],
  );

  const moveTo = (/** @type {number} */ share) => {
    between.value = String(share);
    onMove(share);
  };
  const stop = () => {
    playing = 0;
    play.textContent = "Play";
  };
  const start = () => {
    plays += 1;
    const own = plays;
    playing = own;
    play.textContent = "Stop";
    const began = performance.now();
    const length = shownFrames * FRAME_MS; // the file takes as long
    const tick = () => {
      if (playing !== own) return;
      const phase = ((performance.now() - began) / length) % 2;
      moveTo(Math.round(100 * (phase < 1 ? phase : 2 - phase)) / 100);
      requestAnimationFrame(tick);
    };
    tick();
  };

  return {
    node: element(
      "details",
      { className: "dptx-fold" },
      element("summary", {}, "Animation"),
      element(
        "div",
        { className: "dptx-fold-body" },
        lineOfEnd("start", "Set A"),
        lineOfEnd("end", "Set B"),
        element("div", { className: "dptx-between" }, "A", between, "B", play),
        row("", field("Frames", frames), field("Save as", files)),
      ),
    ),
    show(points, ends, count) {
      shownFrames = count;
      frames.value = String(count);
      notes.start.textContent = settingWords(points, inOrder(points, ends.start));
      notes.end.textContent = settingWords(points, inOrder(points, ends.end));
    },
    stop,
  };
}

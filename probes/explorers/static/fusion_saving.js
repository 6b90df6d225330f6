// Taking things out of the fusion explorer without asking the kernel: the picture on display, and Python.

import { settingName, settingPython } from "./depth_map.js";
import { copyText, download } from "./shell.js";

/** Downloads what is on display, at the picture's own size and without decoration. */
export function savePng(view) {
  const { about, picture, scales } = view.source;
  const show = view.get("show");
  const shown = show === "picture" ? picture : view.canvas;
  if (!view.painted || !shown) return;
  const canvas = document.createElement("canvas");
  canvas.width = about.width;
  canvas.height = about.height;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(shown, 0, 0, canvas.width, canvas.height);
  const name = { scaled: settingName(about.points, scales), unscaled: "depth_unscaled", picture: "picture" }[show];
  const file = `${name ?? settingName(about.points, scales).replace("depth", "difference")}.png`;
  canvas.toBlob((blob) => download(file, [blob], "image/png"), "image/png");
}

/** Copies the code of this map; the button says so for a moment. */
export async function copyPython(view, control) {
  const { about, map, scales } = view.source;
  if (!map) return;
  const code = settingPython(about.points, scales, map.about.call);
  if (await copyText(code, view.root)) {
    control.textContent = "Copied";
    setTimeout(() => (control.textContent = "Copy Python"), 1500);
  } else {
    view.source.link.say(`The browser refused the clipboard. The code: ${code}`, { failed: true });
  }
}

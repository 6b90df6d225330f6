// Builds one script and one style sheet a widget into bundles/, where Python reads them.
//
//   node build.mjs          writes bundles/
//   node build.mjs --check  exits 1 if bundles/ differs from what it would write
//
// A bundle serves two places: anywidget imports it and takes the default export; a page written by to_html() embeds it,
// and the call to startPage() starts the widgets that the page describes.

import { readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const FOLDER = fileURLToPath(new URL(".", import.meta.url));
export const WIDGETS = ["attention", "depth", "fusion", "norms", "positions", "tour"];

/** @param {string} widget */
const entry = (widget) => `
import widget from "./${widget}/view.js";
import { startPage } from "./shared/page.js";
startPage("${widget}", widget);
export default widget;
`;

/** @param {string} widget @returns {Promise<Map<string, Uint8Array>>} files of bundles/ by name */
async function bundle(widget) {
  const common = {
    bundle: true,
    minify: true,
    write: false,
    target: "es2022",
    legalComments: "none",
    absWorkingDir: FOLDER,
  };
  const script = await build({
    ...common,
    stdin: { contents: entry(widget), resolveDir: FOLDER, sourcefile: `${widget}.entry.js` },
    format: "esm",
    charset: "ascii", // a page or a proxy that guesses another encoding must not break it
  });
  const style = await build({ ...common, entryPoints: [`${widget}/view.css`] });
  return new Map([
    [`${widget}.js`, script.outputFiles[0].contents],
    [`${widget}.css`, style.outputFiles[0].contents],
  ]);
}

const files = new Map((await Promise.all(WIDGETS.map(bundle))).flatMap((built) => [...built]));
const target = new URL("bundles/", import.meta.url);
const found = new Set(await readdir(target).catch(() => []));

if (process.argv.includes("--check")) {
  const stale = [...found].filter((name) => !files.has(name));
  for (const [name, contents] of files) {
    if (!found.has(name) || !Buffer.from(contents).equals(await readFile(new URL(name, target)))) stale.push(name);
  }
  if (stale.length) {
    console.error(`bundles/ is out of date: ${stale.sort().join(", ")}. Run: make bundles`);
    process.exit(1);
  }
} else {
  for (const [name, contents] of files) await writeFile(new URL(name, target), contents);
}

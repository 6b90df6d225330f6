// Builds one script and one style sheet per widget into bundles/, where Python reads them.
//
//   node build.mjs          writes bundles/, and deletes other files there
//   node build.mjs --check  exits with 1 if bundles/ differs from what it would write
//
// A script serves two places. anywidget imports it and takes the default export. A page written by to_html() embeds it;
// the call of startPage() starts the widgets that the page describes.

import { readdir, readFile, unlink, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const FOLDER = fileURLToPath(new URL(".", import.meta.url));
const WIDGETS = ["attention", "depth", "fusion", "norms", "positions", "tour", "upload"];

/**
 * @param {string} widget
 * @returns {string} the module that a bundle starts from
 */
const entry = (widget) => `
import widget from "./${widget}/view.js";
import { startPage } from "./shared/page.js";
startPage("${widget}", widget);
export default widget;
`;

/**
 * @param {import("esbuild").BuildOptions} options
 * @returns {Promise<Uint8Array>} the one file that esbuild writes
 */
async function buildOne(options) {
  const { outputFiles = [] } = await build({
    bundle: true,
    minify: true,
    write: false,
    target: "es2022",
    legalComments: "none",
    absWorkingDir: FOLDER,
    ...options,
  });
  return outputFiles[0].contents;
}

/**
 * @param {string} widget
 * @returns {Promise<[name: string, contents: Uint8Array][]>} files of bundles/
 */
async function bundle(widget) {
  const script = await buildOne({
    stdin: { contents: entry(widget), resolveDir: FOLDER, sourcefile: `${widget}.entry.js` },
    format: "esm",
    charset: "ascii", // a page or a proxy that guesses another encoding must not break it
  });
  const style = await buildOne({ entryPoints: [`${widget}/view.css`] });
  return [
    [`${widget}.js`, script],
    [`${widget}.css`, style],
  ];
}

/** @type {Map<string, Uint8Array>} */
const files = new Map();
for (const built of await Promise.allSettled(WIDGETS.map(bundle))) {
  if (built.status === "rejected")
    process.exitCode = 1; // esbuild has printed why; the other widgets are built
  else for (const [name, contents] of built.value) files.set(name, contents);
}
const target = new URL("bundles/", import.meta.url);
const found = new Set(await readdir(target).catch(() => /** @type {string[]} */ ([])));

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
  // After a failed build, a file that was not built may still be needed.
  const stale = process.exitCode ? [] : [...found].filter((name) => !files.has(name));
  for (const name of stale) await unlink(new URL(name, target));
}

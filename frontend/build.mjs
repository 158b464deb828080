// SPDX-License-Identifier: Apache-2.0
// Bundle the page: node build.mjs OUTPUT-DIRECTORY. Writes page.js, page.css and the licences of
// what is in them, which also stand at the head of page.js, because each page is a copy.
import { build } from "esbuild";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "dist");
mkdirSync(out, { recursive: true });

const common = { bundle: true, minify: true, write: false, charset: "ascii", legalComments: "none", logLevel: "warning" };
const script = await build({
  ...common,
  entryPoints: [join(here, "src/main.ts")],
  format: "iife",
  target: ["es2021"],
  metafile: true,
});
const style = await build({ ...common, entryPoints: [join(here, "src/page.css")] });

const packages = new Set();
for (const input of Object.keys(script.metafile.inputs)) {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (found) packages.add(found[1]);
}
const byText = new Map();
for (const name of [...packages].sort()) {
  const folder = join(here, "node_modules", name);
  const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[sc]e/i.test(each));
  if (!file) throw new Error(`${name} comes without a licence`);
  const text = readFileSync(join(folder, file), "utf8").trim();
  byText.set(text, [...(byText.get(text) ?? []), `${name} ${about.version} (${about.license})`]);
}
const licences = [...byText].map(([text, names]) => `${names.join(", ")}\n\n${text}`).join("\n\n---\n\n");
const code = script.outputFiles[0].text.replace(/<\/(script)/gi, "<\\/$1").replace(/<!--/g, "<\\!--");
const banner = `/*! The page of leakscope, Apache-2.0. It contains:\n\n${licences.replace(/\*\//g, "* /").replace(/<\//g, "< /")}\n*/\n`;
writeFileSync(join(out, "page.js"), banner + code);
writeFileSync(join(out, "page.css"), style.outputFiles[0].text);
writeFileSync(join(out, "page-licences.txt"), licences + "\n");

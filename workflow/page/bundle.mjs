// Bundles src into dist/page.html: one file in which a study fills in title, data and Vega.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const here = new URL(".", import.meta.url);
const read = (name) => readFileSync(new URL(name, here), "utf8");

/** SHA-256 over names and contents of the sources; tests/unit/page/test_bundle.py computes the same. */
function sourcesHash() {
  const hash = createHash("sha256");
  const names = readdirSync(new URL("src/", here)).sort().map((name) => `src/${name}`);
  for (const name of [...names, "bundle.mjs", "package-lock.json"]) hash.update(`${name}\n${read(name)}\n`);
  return hash.digest("hex");
}

async function bundled(entry) {
  const options = { bundle: true, minify: true, write: false, target: "es2022", charset: "utf8", format: "iife" };
  const result = await build({ ...options, entryPoints: [new URL(entry, here).pathname] });
  return result.outputFiles[0].text.trim();
}

const script = await bundled("src/main.js");
// Only this script may run: text of a document that got into the page as markup would stay inert.
const allowed = `sha256-${createHash("sha256").update(script).digest("base64")}`;
const filled = {
  "%SOURCES%": sourcesHash(),
  "%SCRIPT_HASH%": allowed,
  "%STYLE%": await bundled("src/style.css"),
  "%SCRIPT%": script,
};
let page = read("src/page.html");
for (const [place, text] of Object.entries(filled)) page = page.replace(place, () => text);
writeFileSync(new URL("dist/page.html", here), page);

/** A view in a frame: its title, what it says, its rows as CSV and as a table, its picture as SVG. */

import { h } from "./dom.js";
import { csv, save } from "./files.js";
import { counted } from "./quantities.js";
import { draw, toSvg } from "./vega.js";

/** @typedef {import("./types.js").Row} Row */

const TABLE_ROWS = 50;

/**
 * @param {string} name of the files
 * @param {() => Row[]} rows
 * @param {() => string | Promise<string>} picture the view as SVG
 * @param {string} what the view, for those who hear the buttons
 */
export function downloads(name, rows, picture, what) {
  const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => any} */ onclick) =>
    h("button", { type: "button", class: "quiet", "aria-label": label, title: label, onclick }, text);
  return h("div", { class: "downloads" },
    button("CSV", `Download the rows of ${what} as CSV`, () => save(`${name}.csv`, "text/csv", csv(rows()))),
    button("SVG", `Download the picture of ${what} as SVG`, async () => save(`${name}.svg`, "image/svg+xml", await picture())),
  );
}

/**
 * A card with any body.
 * @param {{title: string, name: string, note?: any, rows: Row[], picture: () => string | Promise<string>, wide?: boolean}} of
 * @param {...any} body
 */
export function card({ title, name, note, rows, picture, wide }, ...body) {
  return h("section", { class: wide ? "card wide" : "card", "aria-label": title },
    h("header", {}, h("h4", {}, title), downloads(name, () => rows, picture, title)),
    body,
    note ? h("p", { class: "note" }, note) : null,
  );
}

/** A card that says why there is nothing to show. @param {string} title @param {string} why */
export function emptyCard(title, why) {
  return h("section", { class: "card empty", "aria-label": title }, h("header", {}, h("h4", {}, title)), h("p", { class: "note" }, why));
}

/**
 * A card with a chart and its rows as a table that opens.
 * @param {{title: string, name: string, note?: any, rows: Row[], label: string, spec: (colours: any) => object,
 *   choose?: (datum: any) => void}} of
 */
export function chartCard({ spec, label, choose, ...of }) {
  const place = h("div", { class: "chart", role: "img", "aria-label": label });
  queueMicrotask(() => requestAnimationFrame(() => draw(place, spec, choose)));
  return card({ ...of, picture: () => toSvg(spec) }, place, tableOf(of.rows, of.title));
}

/**
 * Rows as a table, made when it is opened.
 * @param {Row[]} rows
 * @param {string} title
 */
function tableOf(rows, title) {
  const body = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Rows of ${title}` });
  return h("details", { class: "rows", ontoggle: () => body.childElementCount || body.append(...filled(rows)) },
    h("summary", {}, `${counted(rows.length)} ${rows.length === 1 ? "row" : "rows"}`), body);
}

/** @param {Row[]} rows */
function filled(rows) {
  const names = Object.keys(rows[0] ?? {});
  const head = h("tr", {}, names.map((name) => h("th", { scope: "col" }, name.replaceAll("_", " "))));
  const lines = rows.slice(0, TABLE_ROWS).map((row) => h("tr", {}, names.map((name) => h("td", {}, row[name] ?? "missing"))));
  const more = rows.length > TABLE_ROWS ? [h("p", { class: "note" }, `The first ${TABLE_ROWS}; the CSV has all.`)] : [];
  return [h("table", { class: "plain" }, h("thead", {}, head), h("tbody", {}, lines)), ...more];
}

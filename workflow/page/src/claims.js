/** The claims: a table by models, and behind each claim its rule, numbers and figure. */

import { chartCard, downloads, emptyCard } from "./card.js";
import * as charts from "./charts.js";
import { orNull, rowsOf } from "./data.js";
import { controlTag, factList, h, scrolling } from "./dom.js";
import { counted, withInterval } from "./quantities.js";
import { toSvg } from "./vega.js";

/** @typedef {import("./types.js").StudyData} StudyData */
/** @typedef {import("./types.js").Row} Row */

/** @type {Record<string, string>} */
const SYMBOLS = { supported: "✓", undecided: "?", "not supported": "✗" };

/**
 * @param {StudyData} study
 * @param {string | null} open the claim whose details are shown
 * @param {(claim: string | null) => void} choose
 */
export function claimsView(study, open, choose) {
  const claims = rowsOf(study.claims);
  const over = rowsOf(study.over_models);
  const titles = study.models.map(({ title }) => title);
  const ids = [...new Set(claims.map((row) => String(row.id)))];
  const several = titles.length > 1;
  const head = h("tr", {}, h("th", { scope: "col" }, "Claim of the paper"),
    study.models.map((model) => h("th", { scope: "col" }, model.title, controlTag(model))),
    several ? h("th", { scope: "col" }, "Supported on") : null);
  const lines = ids.map((id) => {
    const of = claims.filter((row) => row.id === id);
    const tally = over.find((row) => row.id === id);
    const line = h("tr", { class: id === open ? "open" : null },
      h("th", { scope: "row" }, opener(id, String(of[0].claim), id === open, choose)),
      titles.map((title) => cell(of.find((row) => row.model === title))),
      several ? h("td", {}, tally ? `${tally.n_supported ?? "–"} of ${tally.n_models}` : "") : null);
    return id === open ? [line, details(study, of, titles.length + (several ? 2 : 1))] : [line];
  });
  const rest = over.filter((row) => !ids.includes(String(row.id)));
  return [
    h("p", { class: "how" }, "✓ supported, ? undecided, ✗ not supported: the whole 95 % bootstrap interval over prompts lies where the claim holds, some of it, none of it. Choose a claim for its rule, numbers and figure."),
    scrolling("Claims by models", h("table", { class: "claims" }, h("thead", {}, head), h("tbody", {}, lines))),
    several && rest.length ? overModels(study, rest, open, choose) : null,
    downloads(`${study.study}-claims`, () => claims, () => toSvg(allClaims(ids, claims)), "all claims"),
  ];
}

/** @param {string} id @param {string} text @param {boolean} open @param {(claim: string | null) => void} choose */
function opener(id, text, open, choose) {
  return h("button", { type: "button", class: "opener", "data-claim": id, "aria-expanded": String(open), onclick: () => choose(open ? null : id) }, text);
}

/** @param {Row | undefined} row */
function cell(row) {
  if (!row) return h("td", {}, "–");
  const [value, interval] = estimate(row).split(" [");
  return h("td", {}, h("b", { class: "number" }, value), interval ? h("small", { class: "number" }, `[${interval}`) : null, verdictOf(row));
}

/** @param {Row} row */
function verdictOf(row) {
  const verdict = String(row.verdict);
  return h("span", { class: `verdict ${verdict.replaceAll(" ", "-")}` }, `${SYMBOLS[verdict] ?? ""} ${verdict}`);
}

/** @param {Row} row */
const isMeasured = (row) => orNull(row.value) !== null;

/** @param {Row} row */
const estimate = (row) => withInterval(orNull(row.value), orNull(row.low), orNull(row.high), String(row.unit));

/** @param {StudyData} study @param {Row[]} rows of one claim @param {number} columns */
function details(study, rows, columns) {
  const first = rows[0];
  const unit = String(first.unit);
  const numbers = rows.map((row) => ({ model: row.model, value: row.value, low: row.low, high: row.high, unit, by_paper: row.clipped, n_prompts: row.n_prompts, n_tokens: row.n_tokens, counted: row.counted, verdict: row.verdict }));
  const clipped = rows.filter((row) => orNull(row.clipped) !== null);
  const facts = [
    ["Holds if", first.rule], ["Measured", first.measured], ["In the paper", first.source],
    ["Rests on", rows.map((row) => `${row.model}: ${counted(Number(row.n_prompts))} prompts, ${counted(Number(row.n_tokens))} ${row.counted}`).join("; ")],
    clipped.length ? ["By the paper's definition", clipped.map((row) => `${row.model}: ${withInterval(orNull(row.clipped), orNull(row.clipped_low), orNull(row.clipped_high), unit)}`).join("; ")] : null,
  ].filter((fact) => fact !== null);
  return h("tr", { class: "details" }, h("td", { colspan: columns }, h("div", { class: "claim" },
    factList(facts),
    rows.some(isMeasured) ? chartCard({
      title: "Value and 95 % interval", name: `${study.study}-${first.id}`, rows: numbers, spec: charts.claimValues(numbers, unit),
      label: rows.map((row) => `${row.model}: ${estimate(row)}, ${row.verdict}`).join("; "),
    }) : emptyCard("Value and 95 % interval", "What this claim is about was not measured of any model."),
    figures(study, String(first.figure)))));
}

/** The figure files that lie beside the page. @param {StudyData} study @param {string} key */
function figures(study, key) {
  const picture = study.formats.includes("svg") ? "svg" : study.formats.includes("png") ? "png" : null;
  const link = study.formats.includes("html") ? "html" : picture ?? study.formats[0];
  /** @type {Map<string, string>} path by the words for it; a figure of the study is one for all models */
  const found = new Map();
  for (const model of study.models) {
    const path = study.figures[model.key]?.[key];
    if (path && ![...found.values()].includes(path)) found.set(path.includes("/") ? `${key}, ${model.title}` : key, path);
  }
  return h("div", { class: "figures" }, [...found].map(([title, path]) => figure(title, path, picture, link)));
}

/** @param {string} title @param {string} path @param {string | null} picture @param {string} link */
function figure(title, path, picture, link) {
  const caption = h("figcaption", {}, h("a", { href: `${path}.${link}` }, `Figure ${title}`));
  if (!picture) return h("figure", {}, caption);
  const image = h("img", { src: `${path}.${picture}`, alt: `Figure ${title}`, loading: "lazy", onerror: () => image.remove() });
  return h("figure", {}, image, caption);
}

/** @param {StudyData} study @param {Row[]} rows @param {string | null} open @param {(claim: string | null) => void} choose */
function overModels(study, rows, open, choose) {
  const lines = rows.flatMap((row) => {
    const id = String(row.id);
    const facts = [["Holds if", row.rule], ["Measured", row.measured], ["In the paper", row.source], row.remark ? ["To be known", row.remark] : null].filter((fact) => fact !== null);
    const line = h("tr", { class: id === open ? "open" : null }, h("th", { scope: "row" }, opener(id, String(row.claim), id === open, choose)),
      h("td", {}, h("b", { class: "number" }, row.value === null ? "–" : estimate(row)), verdictOf(row)));
    if (id !== open) return [line];
    return [line, h("tr", { class: "details" }, h("td", { colspan: 2 }, h("div", { class: "claim" },
      factList(facts), figures(study, String(row.figure)))))];
  });
  return [h("h3", {}, "Of all models together"), scrolling("Claims about all models together", h("table", { class: "claims" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Claim"), h("th", { scope: "col" }, "Value and verdict"))), h("tbody", {}, lines)))];
}

/** All claims as one picture. @param {string[]} ids @param {Row[]} claims @returns {charts.Spec} */
function allClaims(ids, claims) {
  return (colours) => ({
    vconcat: ids.filter((id) => claims.some((row) => row.id === id && isMeasured(row))).map((id) => {
      const rows = claims.filter((row) => row.id === id);
      return { ...charts.claimValues(rows, String(rows[0].unit))(colours), width: 420, title: { text: String(rows[0].claim), fontSize: 12 } };
    }),
  });
}


/** What was run: a line per model, the rest of its facts behind it, and the sources of text. */

import { height, value } from "./data.js";
import { controlTag, factList, h, scrolling } from "./dom.js";
import { counted } from "./quantities.js";

/** @typedef {import("./types.js").StudyData} StudyData */
/** @typedef {import("./types.js").ModelData} ModelData */

/** @param {StudyData} study */
export function leadOf(study) {
  const controls = study.models.filter((model) => model.control_of).length;
  const own = study.models.length - controls;
  const models = `${own} ${own === 1 ? "model" : "models"}${controls ? ` and ${controls} control${controls === 1 ? "" : "s"}` : ""}`;
  const heads = study.models.reduce((sum, model) => sum + model.layers * model.heads_per_layer, 0);
  const ablated = study.models.reduce((sum, model) => sum + ablatedHeads(model), 0);
  const which = ablated === heads ? `every attention head of ${models}, ${counted(heads)} in all`
    : `${counted(ablated)} of the ${counted(heads)} attention heads of ${models}`;
  return `Study “${study.study}”: ${which}, ablated one at a time, and what later parts make up for.`;
}

/** How many heads the sweeps did not leave out. @param {ModelData} model */
function ablatedHeads({ heads }) {
  const rows = Array.from({ length: height(heads) }, (_, row) => row).filter((row) => value(heads, "n_tokens", row) !== null);
  return new Set(rows.map((row) => `${value(heads, "layer", row)}.${value(heads, "head", row)}`)).size;
}

/** @param {StudyData} study */
export function runView(study) {
  const columns = ["Model", "Heads", "Ranked", "Ablated", "Seed", "Measured with", "Commit"];
  return [
    scrolling("Models", h("table", { class: "plain run" },
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, study.models.map(modelRow)))),
    h("p", { class: "sources" }, h("span", { class: "label" }, "Text "), study.text.map((row, at) =>
      [at ? "; " : "", h("b", {}, row.source), ` (${counted(row.documents)} documents; ${row.licence})`])),
    h("details", {}, h("summary", {}, "All facts"), h("div", { class: "models" }, study.models.map(allFacts))),
  ];
}

/** @param {ModelData} model */
function modelRow(model) {
  const about = Object.fromEntries(model.about);
  return h("tr", {},
    h("th", { scope: "row" }, h("b", {}, model.title), controlTag(model), model.notes.map((note) => h("small", {}, note))),
    h("td", {}, `${model.layers} layers × ${model.heads_per_layer}`),
    h("td", {}, about["prompts ranked"]), h("td", {}, about["prompts ablated"]), h("td", {}, about.seed),
    h("td", {}, about.versions), h("td", { class: "mono" }, (about["commit of the measurement"] ?? "–").slice(0, 10)));
}

/** @param {ModelData} model */
function allFacts(model) {
  return h("section", { class: "card", "aria-label": model.title }, h("h4", {}, model.title), factList(model.about));
}

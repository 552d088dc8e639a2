/** The explorer: what to look at, a map of each model, the sorted heads, and the heads chosen. */

import { colourOf } from "./colours.js";
import { downloads } from "./card.js";
import * as charts from "./charts.js";
import { headName, modelOf } from "./data.js";
import { h, segments, select } from "./dom.js";
import { headCards, keyNumbers } from "./head.js";
import { headList, markListed, sortedHeads } from "./list.js";
import { headsOf, legend, markChosen, modelMap, scaleFor, valueOf } from "./map.js";
import { quantityOf, shown, unitName } from "./quantities.js";
import { choicesOf, ORDERS } from "./state.js";
import { toSvg } from "./vega.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {import("./types.js").ModelData} ModelData */
/** @typedef {import("./types.js").StudyData} StudyData */
/** @typedef {(change: Partial<State>) => void} Change */

const PICTURED = 40;

/**
 * Controls, maps and list.
 * @param {StudyData} study
 * @param {State} state
 * @param {Change} change
 */
export function overviewOf(study, state, change) {
  const models = study.models.filter(({ key }) => state.shown.includes(key));
  const quantity = quantityOf(state.quantity);
  const entries = sortedHeads(models, state);
  const scale = scaleFor(entries.map(({ value }) => value), state);
  const choose = chooser(change);
  const name = `${study.study}-${state.quantity}-${state.ablation}-${state.tokens}`;
  const rows = () => entries.map(({ model, layer, head, value, low, high, tokens }) =>
    ({ model, layer, head, quantity: state.quantity, unit: quantity.unit, ablation: state.ablation, selection: state.tokens, value, low, high, n_tokens: tokens }));
  return h("div", {}, toolbar(study, state, change),
    h("p", { class: "says" }, h("b", {}, quantity.title), `: ${quantity.says}. Mean over ${state.tokens === "top" ? "top tokens" : "all tokens"} of each head, ${state.ablation} ablation.`),
    h("div", { class: "overview" },
      h("div", { class: "card" },
        h("header", {}, legend(scale, quantity.unit), downloads(`${name}-map`, rows, () => toSvg(mapPicture(models, state, { ...scale, dark: false })), "the map")),
        h("div", { class: models.length > 1 ? "map-list several" : "map-list" }, models.map((model) => modelMap(model, state, scale, choose))),
        h("p", { class: "note" }, "Choose a head with the pointer, or with the arrow keys, Home, End and Enter.")),
      h("div", { class: "card side" },
        h("header", {}, select("Sorted", ORDERS, state.order, (order) => change({ order })),
          downloads(`${name}-heads`, rows, () => toSvg(listPicture(entries, state)), "the sorted heads")),
        headList(entries, state, scale, study.models.length > 1, choose))));
}

/** @param {Change} change */
const chooser = (change) => (/** @type {Place} */ { model, layer, head }) => change({ place: { model, layer, head }, token: null });

/** @param {StudyData} study @param {State} state @param {Change} change */
function toolbar(study, state, change) {
  const { quantities, ablations, tokens, models } = choicesOf(study);
  const options = quantities.map(({ name, title, group }) => ({ value: name, text: title, group }));
  const toggle = (/** @type {string} */ key) => {
    const next = models.filter((each) => (each === key) !== state.shown.includes(each));
    if (next.length) change({ shown: next });
  };
  return h("div", { class: "toolbar" },
    select("Quantity", options, state.quantity, (quantity) => change({ quantity })),
    segments("Ablation", ablations.map((value) => ({ value, text: value })), state.ablation, (ablation) => change({ ablation })),
    segments("Tokens", tokens.map((value) => ({ value, text: value })), state.tokens, (chosen) => change({ tokens: chosen })),
    models.length > 1 ? segments("Models shown", study.models.map(({ key, title }) => ({ value: key, text: title })), state.shown, toggle) : null);
}

/**
 * Mark the heads chosen in the overview that is there.
 * @param {HTMLElement} root
 * @param {State} state
 */
export function markOverview(root, state) {
  markChosen(root, state);
  markListed(root, state);
}

/**
 * The heads chosen, side by side if they are two.
 * @param {StudyData} study
 * @param {State} state
 * @param {Change} change
 */
export function detailsOf(study, state, change) {
  const places = [state.place, state.beside].filter((place) => place !== null);
  if (!places.length) return h("p", { class: "card empty hint" }, "Choose a head in a map or in the list to see what was measured of it.");
  return h("div", { class: places.length > 1 ? "panels two" : "panels" }, places.map((place) => panel(study, place, place === state.beside, state, change)));
}

/** @param {StudyData} study @param {Place} place @param {boolean} beside @param {State} state @param {Change} change */
function panel(study, place, beside, state, change) {
  const model = modelOf(study, place.model);
  const choose = { place: chooser(change), token: (/** @type {string | null} */ token) => change({ token }) };
  const buttons = beside
    ? [h("button", { type: "button", onclick: () => change({ beside: null }) }, "Put away")]
    : [
        h("button", { type: "button", title: "Then choose another head to compare it with", onclick: () => change({ beside: place }) }, state.beside ? "Keep this one beside" : "Keep beside another"),
        h("button", { type: "button", onclick: () => change({ place: state.beside, beside: null, token: null }) }, "Put away"),
      ];
  const label = `${model.title} ${headName(place)}`;
  return h("section", { class: "panel", "aria-label": label, "data-head": headName(place) },
    h("header", { class: "panel-head" }, h("h3", {}, h("span", { class: "of" }, model.title), " ", headName(place)), h("div", { class: "buttons" }, buttons)),
    h("p", { class: "where" }, `Layer ${place.layer} of ${model.layers}, head ${place.head} of ${model.heads_per_layer}; ${state.ablation} ablation, ${state.tokens === "top" ? "top tokens" : "all tokens"}`),
    keyNumbers(model, place, state),
    h("div", { class: "cards" }, headCards(model, place, state, choose)));
}

/** @param {ModelData[]} models @param {State} state @param {import("./map.js").Scale} scale */
function mapPicture(models, state, scale) {
  const { title, unit } = quantityOf(state.quantity);
  const of = models.map((model) => ({
    model: model.title, layers: model.layers, heads: model.heads_per_layer,
    cells: headsOf(model).flatMap((head) => {
      const { value } = valueOf(model, head, state);
      return value === null ? [] : [{ ...head, colour: colourOf(value, scale) }];
    }),
  }));
  const bar = Array.from({ length: 21 }, (_, at) => {
    const share = at / 20;
    const value = scale.signed ? (2 * share - 1) * scale.limit : share * scale.limit;
    return { colour: colourOf(value, scale), label: at % 10 === 0 ? shown(value, unit) : "" };
  });
  return charts.maps(of, { title: `${title}${unit === "share" ? "" : ` (${unitName(unit)})`}`, subtitle: [`${state.ablation} ablation, ${state.tokens} tokens; cells left white are missing`], scale: bar });
}

/** @param {ReturnType<typeof sortedHeads>} entries @param {State} state */
function listPicture(entries, state) {
  const { title, unit } = quantityOf(state.quantity);
  const several = new Set(entries.map(({ model }) => model)).size > 1;
  const rows = entries.slice(0, PICTURED).map((entry) => ({ name: several ? `${headName(entry)}, ${entry.title}` : headName(entry), value: entry.value, low: entry.low, high: entry.high }));
  return charts.ranked(rows, `${title}: ${rows.length} heads, ${ORDERS.find(({ value }) => value === state.order)?.text}`, unit);
}

/** What a listener hears when a head is chosen. @param {StudyData} study @param {State} state */
export function spoken(study, state) {
  if (!state.place) return "No head chosen";
  const model = modelOf(study, state.place.model);
  const { value } = valueOf(model, state.place, state);
  const { title, unit } = quantityOf(state.quantity);
  return `${model.title} ${headName(state.place)}: ${title.toLowerCase()} ${shown(value, unit)}. Its details are below the map.`;
}


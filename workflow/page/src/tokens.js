/** The tokens of a head as text in context, the one chosen first. */

import { card, emptyCard } from "./card.js";
import { scaleOf, theme } from "./colours.js";
import { headName, matching } from "./data.js";
import { h, select } from "./dom.js";
import { legend } from "./map.js";
import { counted, shown } from "./quantities.js";
import { inContext, line, textPicture } from "./text.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {import("./types.js").ModelData} ModelData */
/** @typedef {{token: string, prompt: number, position: number, direct_effect: any, delta_logit: any, self_repair: any, text: string}} TokenRow */

const AT_ONCE = 10;
const ORDERS = [
  { value: "direct_effect", text: "direct effect" },
  { value: "self_repair", text: "self-repair" },
  { value: "-self_repair", text: "self-repair, lowest" },
];

/**
 * @param {ModelData} model
 * @param {Place} place
 * @param {State} state
 * @param {{token: (token: string | null) => void}} choose
 * @param {TokenRow[]} tokens
 * @param {string} name
 */
export function tokenCard(model, place, state, choose, tokens, name) {
  const title = state.tokens === "top" ? "Its top tokens in text" : "Its random tokens in text";
  if (!tokens.length) return emptyCard(title, `No single tokens were kept under ${state.ablation} ablation.`);
  const scale = { ...scaleOf(tokens.map((row) => row.self_repair), "logits"), signed: true, dark: theme().dark };
  const neurons = topNeurons(model, place);
  const rows = tokens.map((row) => ({ ...row, context: inContext(model, row.prompt, row.position), neuron: neurons.get(row.token) ?? null }));
  const list = h("ol", { class: "tokens" });
  const more = h("button", { type: "button", class: "more", onclick: () => show(AT_ONCE) });
  let order = ORDERS[0].value;
  let sorted = rows;

  function sort() {
    const [column, sign] = order.startsWith("-") ? [order.slice(1), 1] : [order, -1];
    const key = (/** @type {any} */ row) => (row[column] === null ? Infinity : sign * row[column]);
    sorted = rows.toSorted((a, b) => Number(b.token === state.token) - Number(a.token === state.token) || key(a) - key(b));
    list.replaceChildren();
    show(AT_ONCE);
  }

  /** @param {number} count */
  function show(count) {
    const from = list.childElementCount;
    list.append(...sorted.slice(from, from + count).map((row) => item(row, state, choose, scale)));
    const left = sorted.length - list.childElementCount;
    more.textContent = `Show ${Math.min(left, AT_ONCE)} more of ${counted(sorted.length)}`;
    more.hidden = !left;
  }

  sort();
  const flat = sorted.map(({ context, neuron, text, ...row }) => ({
    ...row, before: context?.before ?? null, target: context?.target ?? null, top_neuron: neuron,
    source: context?.source ?? null, document: context?.document ?? null, licence: context?.licence ?? null,
  }));
  const lines = () => sorted.slice(0, list.childElementCount).flatMap(({ context, ...row }) =>
    context ? [{ context, value: row.self_repair, numbers: `self-repair ${shown(row.self_repair, "logits")}, direct effect ${shown(row.direct_effect, "logits")}` }] : []);
  return card({
    title, name: `${name}-text`, rows: flat, wide: true,
    picture: () => textPicture(`${model.title} ${headName(place)}: ${title.toLowerCase()}`, lines(), scale),
    note: "The target is marked in the colour of its self-repair; ⏎ is a new line. About a dozen tokens before it, a few after it.",
  }, h("div", { class: "token-bar" }, select("Order", ORDERS, order, (chosen) => { order = chosen; sort(); }), legend(scale, "logits")), list, more);
}

/**
 * @param {any} row
 * @param {State} state
 * @param {{token: (token: string | null) => void}} choose
 * @param {{limit: number, signed: boolean, dark: boolean}} scale
 */
function item(row, state, choose, scale) {
  const { context, token, neuron } = row;
  const chosen = token === state.token;
  const number = (/** @type {string} */ what, /** @type {number | null} */ value) => h("span", {}, `${what} `, h("b", {}, shown(value, "logits")));
  return h("li", { class: chosen ? "chosen" : null },
    context ? line(context, row.self_repair, scale) : h("p", { class: "context" }, "(its text is not in the tables)"),
    h("p", { class: "facts" },
      h("button", { type: "button", class: "quiet", "aria-pressed": String(chosen), title: "Mark this token in the charts", onclick: () => choose.token(chosen ? null : token) }, `prompt ${row.prompt}, position ${row.position}`),
      number("self-repair", row.self_repair), number("direct effect", row.direct_effect), number("change", row.delta_logit),
      neuron ? h("span", {}, "top neuron ", h("b", {}, neuron)) : null),
    context ? h("p", { class: "origin" }, `${context.source} · ${context.document} · ${context.licence}`) : null);
}

/** The most repairing neuron on each token, of the last MLP measured. @param {ModelData} model @param {Place} place */
function topNeurons(model, { layer, head }) {
  const rows = matching(model.top_neurons, { layer, head });
  const last = Math.max(...rows.map((row) => Number(row.mlp_layer)));
  return new Map(rows.filter((row) => row.mlp_layer === last).map((row) => [`${row.prompt}.${row.position}`, `MLP ${last} · ${row.neuron}`]));
}

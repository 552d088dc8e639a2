/** What is chosen, as the address says it: `#model=smollm2&head=L28H7&quantity=from_norm&with=gemma3-270m:L10H3`. */

import { headName, levels } from "./data.js";
import { QUANTITIES } from "./quantities.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {import("./types.js").StudyData} StudyData */

export const ORDERS = [
  { value: "largest", text: "largest first" },
  { value: "smallest", text: "smallest first" },
  { value: "strongest", text: "largest size first" },
];
const ORDER = ORDERS.map(({ value }) => value);

/** @param {StudyData} study */
export function choicesOf(study) {
  const of = (/** @type {string} */ name) => [...new Set(study.models.flatMap((model) => levels(model.heads, name)))];
  const first = (/** @type {string[]} */ names, /** @type {string} */ name) => names.sort((a, b) => Number(b === name) - Number(a === name));
  return {
    quantities: QUANTITIES.filter(({ name }) => study.models.some((model) => model.heads[name])),
    ablations: first(of("ablation"), "resample"),
    tokens: first(of("selection"), "top"),
    models: study.models.map(({ key }) => key),
  };
}

/**
 * The state that an address says; what it does not say, or says wrongly, is as at the start.
 * @param {string} hash
 * @param {StudyData} study
 * @returns {State}
 */
export function parse(hash, study) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const { quantities, ablations, tokens, models } = choicesOf(study);
  const one = (/** @type {string} */ name, /** @type {string[]} */ allowed) => {
    const value = said.get(name) ?? "";
    return allowed.includes(value) ? value : allowed[0];
  };
  const shown = (said.get("shown") ?? "").split(",").filter((key) => models.includes(key));
  return {
    quantity: one("quantity", quantities.map(({ name }) => name)),
    ablation: one("ablation", ablations),
    tokens: one("tokens", tokens),
    order: one("order", ORDER),
    shown: shown.length ? models.filter((key) => shown.includes(key)) : models,
    place: placeOf(`${said.get("model") ?? models[0]}:${said.get("head") ?? ""}`, study),
    beside: placeOf(said.get("with") ?? "", study),
    token: /^\d+\.\d+$/.test(said.get("token") ?? "") ? said.get("token") : null,
    claim: said.get("claim"),
  };
}

/**
 * `model:L10H3`; null if there is no such head.
 * @param {string} text
 * @param {StudyData} study
 * @returns {Place | null}
 */
function placeOf(text, study) {
  const [, key, layer, head] = /^(.*):L(\d+)H(\d+)$/.exec(text) ?? [];
  const model = study.models.find((each) => each.key === key);
  if (!model || +layer >= model.layers || +head >= model.heads_per_layer) return null;
  return { model: key, layer: +layer, head: +head };
}

/**
 * The address of a state, without what is as at the start.
 * @param {State} state
 * @param {StudyData} study
 */
export function format(state, study) {
  const start = parse("", study);
  const said = new URLSearchParams();
  if (state.place) {
    said.set("model", state.place.model);
    said.set("head", headName(state.place));
  }
  if (state.beside) said.set("with", `${state.beside.model}:${headName(state.beside)}`);
  for (const name of /** @type {const} */ (["quantity", "ablation", "tokens", "order"])) {
    if (state[name] !== start[name]) said.set(name, state[name]);
  }
  if (state.shown.length < start.shown.length) said.set("shown", state.shown.join());
  if (state.token) said.set("token", state.token);
  if (state.claim) said.set("claim", state.claim);
  return `#${said.toString().replaceAll("%3A", ":").replaceAll("%2C", ",")}`;
}

/** @param {Place | null} one @param {Place | null} other */
export function samePlace(one, other) {
  return one?.model === other?.model && one?.layer === other?.layer && one?.head === other?.head;
}

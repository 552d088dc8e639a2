/** All that was measured of one head: a card per view. */

import { chartCard, emptyCard } from "./card.js";
import * as charts from "./charts.js";
import { headName, headRow, levels, matching, number, orNull, rowOf, rowsWith } from "./data.js";
import { h } from "./dom.js";
import { counted, shown, withInterval } from "./quantities.js";
import { inContext, visible } from "./text.js";
import { tokenCard } from "./tokens.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {import("./types.js").Row} Row */
/** @typedef {import("./types.js").ModelData} ModelData */
/** @typedef {{place: (place: Place) => void, token: (token: string | null) => void}} Choose */

/** What the decomposition shows: column, its words, and whether it is the sum or one of its terms. */
const PARTS = [
  ["direct_effect", "Direct effect", "effect"],
  ["ablated_direct_effect", "left after ablation", "effect"],
  ["delta_logit", "Change of the logit", "effect"],
  ["self_repair", "Self-repair", "repair"],
  ["from_heads", "from later heads", "term"],
  ["from_mlps", "from MLPs", "term"],
  ["from_post_norms", "from post-norms", "term"],
  ["from_norm", "from the final norm", "term"],
];
const TOP_NEURONS = 10;
const REPAIRERS = 5;
/** @type {Record<string, string>} */
const KINDS = { mlp: "MLP", "attention norm": "Norm after attention", "mlp norm": "Norm after MLP", "final norm": "Final norm", "other heads": "Other heads" };

/**
 * @param {ModelData} model
 * @param {Place} place
 * @param {State} state
 * @param {Choose} choose
 */
export function headCards(model, place, state, choose) {
  const tokens = tokenRows(model, place, state);
  const name = `${model.key}-${headName(place)}-${state.ablation}`;
  return [
    decompositionCard(model, place, state, name),
    scatterCard(model, place, state, choose, tokens, name),
    repairCard(model, place, state, choose, name),
    ...neuronCards(model, place, state, choose, name),
    ratioCard(model, place, name),
    tokenCard(model, place, state, choose, tokens, name),
  ];
}

/**
 * The numbers that a reader looks for first.
 * @param {ModelData} model
 * @param {Place} place
 * @param {State} state
 */
export function keyNumbers(model, place, state) {
  const row = headRow(model, place, state);
  if (row === null) return h("p", { class: "note" }, `No ${state.tokens === "top" ? "top" : "random"} tokens were measured under ${state.ablation} ablation.`);
  if (number(model.heads, "n_tokens", row) === null) return h("p", { class: "note" }, "Not measured: the sweeps of this study left this head out.");
  const of = (/** @type {string} */ column, /** @type {string} */ unit) =>
    withInterval(number(model.heads, column, row), number(model.heads, `${column}_low`, row), number(model.heads, `${column}_high`, row), unit);
  const facts = [
    ["self-repair", `${of("self_repair", "logits")} logits`],
    ["restored", of("restored_share", "share")],
    ["over-corrected", of("over_corrected_share", "share")],
    ["tokens", `${counted(number(model.heads, "n_tokens", row) ?? 0)} in ${counted(number(model.heads, "n_prompts", row) ?? 0)} prompts`],
  ];
  return h("dl", { class: "key" }, facts.map(([what, text]) => h("div", {}, h("dt", {}, what), h("dd", {}, text))));
}

/** @param {ModelData} model @param {Place} place @param {State} state @param {string} name */
function decompositionCard(model, place, state, name) {
  const title = "What becomes of its effect";
  const row = headRow(model, place, state);
  if (row === null) return emptyCard(title, `Not measured under ${state.ablation} ablation on these tokens.`);
  const read = (/** @type {string} */ column) => number(model.heads, column, row);
  const rows = PARTS.filter(([column]) => model.heads[column]).map(([column, part, kind]) => ({
    part, value: read(column), low: read(`${column}_low`), high: read(`${column}_high`), unit: "logits", kind,
  }));
  const label = rows.map(({ part, value, low, high }) => `${part} ${withInterval(value, low, high, "logits")}`).join("; ");
  return chartCard({
    title, name: `${name}-decomposition`, rows, spec: charts.decomposition(rows), label: `Bars in logits: ${label}`,
    note: "Means over its measured tokens with 95 % intervals over prompts. The green parts add up to self-repair.",
  });
}

/**
 * The measured tokens of a head in the selection chosen.
 * @param {ModelData} model
 * @param {Place} place
 * @param {State} state
 */
function tokenRows(model, { layer, head }, { ablation, tokens }) {
  const wanted = tokens === "top" ? "top" : "random";
  return rowsWith(model.tokens, { ablation, layer, head })
    .filter((row) => number(model.tokens, wanted, row) === 1)
    .map((row) => {
      const { top, direct_effect, delta_logit, self_repair, ...of } = rowOf(model.tokens, row);
      const [prompt, position] = [Number(of.prompt), Number(of.position)];
      return { token: `${prompt}.${position}`, prompt, position, drawn: top ? "top token" : "any token", direct_effect, delta_logit, self_repair, text: textOf(model, prompt, position) };
    });
}

/** The end of the context and the target, for a tooltip. @param {ModelData} model @param {number} prompt @param {number} position */
function textOf(model, prompt, position) {
  const context = inContext(model, prompt, position);
  return context ? `… ${visible(context.before).slice(-32)}[${visible(context.target)}]` : "";
}

/** @param {ModelData} model @param {Place} place @param {State} state @param {Choose} choose @param {ReturnType<typeof tokenRows>} rows @param {string} name */
function scatterCard(model, place, state, choose, rows, name) {
  const title = "Token by token";
  if (!rows.length) return emptyCard(title, `No single tokens were kept under ${state.ablation} ablation.`);
  const more = chosenTokens(model, place, state, rows.length);
  return chartCard({
    title, name: `${name}-tokens`, rows, spec: charts.tokenScatter(rows, state.token),
    label: `Scatter of ${rows.length} tokens: direct effect against change of the logit. The tokens are listed below.`,
    choose: (datum) => datum.token && choose.token(datum.token === state.token ? null : datum.token),
    note: `On the dashed line nothing is repaired, at 0 all of it; above 0 it is over-corrected. ${counted(rows.length)} tokens${more}. Choose one to find its text.`,
  });
}

/** Whether the experiments drew tokens of this head besides the sweep. @param {ModelData} model @param {Place} place @param {State} state @param {number} all */
function chosenTokens(model, place, state, all) {
  const row = headRow(model, place, state);
  const swept = row === null ? 0 : (number(model.heads, "n_tokens", row) ?? 0);
  return all > swept && state.tokens === "top" ? `, ${counted(swept)} of the sweep, whose means are above, and more of the experiments on chosen heads` : "";
}

/** @param {ModelData} model @param {Place} place @param {State} state @param {Choose} choose @param {string} name */
function repairCard(model, place, state, choose, name) {
  const title = "Who repairs it";
  const { layer, head } = place;
  /** @type {Row[]} */
  const rows = matching(model.repair_map, { ablation: state.ablation, layer, head }).map((row) => ({ name: partName(row), ...row }));
  if (!rows.length) {
    const maps = levels(model.repair_map, "ablation");
    if (maps.includes(state.ablation)) return emptyCard(title, "The map has no token of this head.");
    return emptyCard(title, maps.length ? `There is a map under ${maps.join(" and ")} ablation, not under ${state.ablation}.` : "This study keeps no map of this model.");
  }
  const size = (/** @type {Row} */ row) => -Math.abs(Number(row.mean));
  const repairers = rows.filter(({ kind }) => kind === "head").sort((a, b) => size(a) - size(b)).slice(0, REPAIRERS);
  const repaired = matching(model.repair_map, { ablation: state.ablation, kind: "head", component_layer: layer, component_head: head })
    .sort((a, b) => size(a) - size(b)).slice(0, REPAIRERS);
  const rest = rows.filter(({ kind }) => kind === "final norm" || kind === "other heads")
    .map((row) => `${row.name} ${withInterval(Number(row.mean), orNull(row.low), orNull(row.high), "logits")}`);
  const made = chartCard({
    title, name: `${name}-repair-map`, rows, spec: charts.repairMap(rows, layer, model.layers),
    label: `Change of the direct effect of later parts by layer. ${rows.length} parts; ${rest.join("; ")}`,
    note: ["Mean change on its top tokens, in logits; positive makes up for the head. Not by layer: ", rest.join("; "), "."],
  });
  const link = (/** @type {number} */ at, /** @type {number} */ of, /** @type {Row} */ row) =>
    h("button", { type: "button", class: "chip", onclick: () => choose.place({ model: model.key, layer: at, head: of }) },
      headName({ layer: at, head: of }), h("small", {}, shown(Number(row.mean), "logits")));
  made.append(
    linked("Later heads that change most", repairers.map((row) => link(Number(row.component_layer), Number(row.component_head), row))),
    linked("It changes most for", repaired.map((row) => link(Number(row.layer), Number(row.head), row))),
  );
  return made;
}

/** @param {string} label @param {HTMLElement[]} chips */
function linked(label, chips) {
  return h("p", { class: "chips" }, h("span", { class: "label" }, label), chips.length ? chips : h("span", { class: "none" }, "none of 0.02 logits"));
}

/** @param {Row} row */
function partName({ kind, component_layer: layer, component_head: head, n_components: count }) {
  if (kind === "head") return headName({ layer: Number(layer), head: Number(head) });
  const name = KINDS[String(kind)] ?? String(kind);
  if (kind === "other heads") return `${name} (${counted(Number(count))})`;
  return layer === null ? name : `${name} ${layer}`;
}

/** @param {ModelData} model @param {Place} place @param {State} state @param {Choose} choose @param {string} name */
function neuronCards(model, { layer, head }, state, choose, name) {
  const counts = matching(model.neuron_counts, { layer, head });
  const tops = matching(model.top_neurons, { layer, head });
  if (!counts.length) return [emptyCard("Its most repairing neurons", "Neurons were measured for a few chosen heads; this is none of them.")];
  const mlps = [...new Set(counts.map((row) => Number(row.mlp_layer)))].sort((a, b) => b - a);
  return mlps.flatMap((mlp) => {
    const rows = counts.filter((row) => row.mlp_layer === mlp).sort((a, b) => Number(b.instances) - Number(a.instances)).slice(0, TOP_NEURONS)
      .map((row) => ({ name: `MLP ${mlp} · ${row.neuron}`, ...row, share: Number(row.instances) / Number(row.n_tokens) }));
    const points = tops.filter((row) => row.mlp_layer === mlp)
      .map((row) => ({ name: `MLP ${mlp} · ${row.neuron}`, token: `${row.prompt}.${row.position}`, ...row, text: textOf(model, Number(row.prompt), Number(row.position)) }));
    return [
      chartCard({
        title: `Most repairing neurons of MLP ${mlp}`, name: `${name}-neurons-mlp${mlp}`, rows, spec: charts.neuronCounts(rows),
        label: `Neurons by the share of tokens on which they are among the ten that repair most: ${rows.map((row) => `${row.name} ${shown(row.share, "share")}`).join("; ")}`,
        note: "How often a neuron is among the ten that repair most, resample ablation.",
      }),
      points.length ? chartCard({
        title: `Top neuron of MLP ${mlp} on each token`, name: `${name}-top-neuron-mlp${mlp}`, rows: points, spec: charts.topNeurons(points, state.token),
        label: `Scatter of ${points.length} tokens: the direct effect of the most repairing neuron, clean against ablated`,
        choose: (datum) => datum.token && choose.token(datum.token === state.token ? null : datum.token),
        note: "A neuron below 0 that rises is anti-erasure: it lowers the logit less once the head is gone.",
      }) : null,
    ].filter((card) => card !== null);
  });
}

/** @param {ModelData} model @param {Place} place @param {string} name */
function ratioCard(model, { layer, head }, name) {
  const title = "The final norm's scale";
  const rows = matching(model.scale_ratios, { layer, head });
  if (!rows.length) return emptyCard(title, "Scale ratios were measured for a few heads of the last layer; this is none of them.");
  const shares = levels(model.scale_ratios, "ablation").map((ablation) => {
    const of = rows.filter((row) => row.ablation === ablation);
    return `${ablation} ${shown(of.filter((row) => Number(row.ratio) > 1).length / of.length, "share")}`;
  });
  return chartCard({
    title, name: `${name}-scale-ratios`, rows, spec: charts.scaleRatios(rows), label: `S by S′ of each token, by ablation. Above 1: ${shares.join(", ")}`,
    note: `Above 1 the norm magnifies what is left: ${shares.join(", ")} of its tokens. The thick tick is the median.`,
  });
}

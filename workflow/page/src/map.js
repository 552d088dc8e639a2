/** A map of each model, heads by layers, as a grid that the arrow keys walk; and the legend of its colours. */

import { colourOf, rampOf, scaleOf, theme } from "./colours.js";
import { headName, headRow, number } from "./data.js";
import { controlTag, h } from "./dom.js";
import { quantityOf, shown, unitName, withInterval } from "./quantities.js";
import { samePlace } from "./state.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {import("./types.js").ModelData} ModelData */
/** @typedef {{limit: number, cut: boolean, signed: boolean, dark: boolean}} Scale */

/**
 * A head's value with its interval, as the state has it.
 * @param {ModelData} model
 * @param {{layer: number, head: number}} head
 * @param {State} state
 */
export function valueOf(model, head, state) {
  const row = headRow(model, head, state);
  const read = (/** @type {string} */ name) => (row === null ? null : number(model.heads, name, row));
  const { quantity } = state;
  return { value: read(quantity), low: read(`${quantity}_low`), high: read(`${quantity}_high`), tokens: read("n_tokens") };
}

/** @param {ModelData} model */
export function headsOf(model) {
  const { layers, heads_per_layer: heads } = model;
  return Array.from({ length: layers * heads }, (_, at) => ({ layer: Math.floor(at / heads), head: at % heads }));
}

/**
 * One scale for all values shown.
 * @param {(number | null)[]} values
 * @param {State} state
 * @returns {Scale}
 */
export function scaleFor(values, state) {
  const { signed, unit } = quantityOf(state.quantity);
  return { ...scaleOf(values, unit), signed, dark: theme().dark };
}

/**
 * @param {Scale} scale
 * @param {string} unit
 */
export function legend(scale, unit) {
  const { limit, cut, signed } = scale;
  const [low, high] = [signed ? -limit : 0, limit].map((end) => shown(end, unit));
  return h("div", { class: "legend", "aria-label": `Colours from ${low} to ${high} ${unitName(unit)}`, role: "img" },
    h("span", {}, signed && cut ? `≤ ${low}` : low),
    h("span", { class: "ramp", style: `background: linear-gradient(90deg, ${rampOf(signed, scale.dark).join(",")})` }),
    h("span", {}, cut ? `≥ ${high}` : high),
    unit === "share" ? null : h("span", { class: "unit" }, unitName(unit)),
    h("span", {}, h("i", { class: "swatch missing" }), "missing"),
  );
}

/**
 * The map of one model.
 * @param {ModelData} model
 * @param {State} state
 * @param {Scale} scale
 * @param {(place: Place) => void} choose
 */
export function modelMap(model, state, scale, choose) {
  const { layers, heads_per_layer: heads } = model;
  const quantity = quantityOf(state.quantity);
  const rows = Array.from({ length: heads }, (_, head) =>
    h("div", { role: "row", class: "row", "aria-rowindex": head + 1 },
      h("span", { role: "rowheader", class: "tick-y", "aria-label": `head ${head}` }, heads <= 16 || head % 4 === 0 ? head : ""),
      Array.from({ length: layers }, (_, layer) => cell(model, { layer, head }, state, scale, quantity.unit)),
    ),
  );
  const step = layers <= 12 ? 1 : layers <= 40 ? 5 : 10;
  const ticks = Array.from({ length: layers }, (_, layer) => h("span", { class: "tick-x" }, layer % step === 0 ? layer : ""));
  const grid = h("div", {
    role: "grid", class: "grid", "data-model": model.key, "aria-rowcount": heads, "aria-colcount": layers,
    "aria-label": `${quantity.title} of the heads of ${model.title}: layers across, heads down`,
    onclick: (/** @type {Event} */ event) => pick(event, choose),
    onkeydown: (/** @type {KeyboardEvent} */ event) => walk(event, model, choose),
  }, rows);
  const at = state.place?.model === model.key ? state.place : { layer: layers - 1, head: 0 };
  cellAt(grid, at)?.setAttribute("tabindex", "0");
  return h("section", { class: "map", "aria-label": `Map of ${model.title}` },
    h("h4", {}, model.title, controlTag(model)),
    h("div", { class: "map-scroll" }, h("div", { class: "map-frame", style: `--layers: ${layers}` }, h("span", { class: "axis-y", "aria-hidden": "true" }, "head"), grid,
      h("div", { class: "ticks", "aria-hidden": "true" }, h("span"), ticks),
      h("span", { class: "axis-x", "aria-hidden": "true" }, "layer"))),
  );
}

/**
 * @param {ModelData} model
 * @param {{layer: number, head: number}} head
 * @param {State} state
 * @param {Scale} scale
 * @param {string} unit
 */
function cell(model, head, state, scale, unit) {
  const { value, low, high } = valueOf(model, head, state);
  const label = `${headName(head)}: ${withInterval(value, low, high, unit)}`;
  const of = { model: model.key, ...head };
  const chosen = samePlace(state.place, of) || samePlace(state.beside, of);
  return h("div", {
    role: "gridcell", tabindex: "-1", "data-layer": head.layer, "data-head": head.head, "aria-label": label, title: label,
    "aria-selected": String(chosen), class: value === null ? "cell missing" : "cell",
    style: value === null ? null : `background-color: ${colourOf(value, scale)}`,
  });
}

/** @param {HTMLElement} grid @param {{layer: number, head: number}} at @returns {HTMLElement | null} */
export const cellAt = (grid, { layer, head }) => grid.querySelector(`[data-layer="${layer}"][data-head="${head}"]`);

/** @param {Element | null} element @returns {Place | null} */
function placeOf(element) {
  const found = /** @type {HTMLElement | null} */ (element?.closest(".cell"));
  const grid = /** @type {HTMLElement | null} */ (found?.closest(".grid"));
  if (!found || !grid) return null;
  return { model: grid.dataset.model ?? "", layer: Number(found.dataset.layer), head: Number(found.dataset.head) };
}

/** @param {Event} event @param {(place: Place) => void} choose */
function pick(event, choose) {
  const place = placeOf(/** @type {Element} */ (event.target));
  if (place) choose(place);
}

/**
 * Arrow keys, Home and End (with Ctrl: of the whole grid) move; Enter and space choose.
 * @param {KeyboardEvent} event
 * @param {ModelData} model
 * @param {(place: Place) => void} choose
 */
function walk(event, model, choose) {
  const place = placeOf(/** @type {Element} */ (event.target));
  if (!place) return;
  const last = { layer: model.layers - 1, head: model.heads_per_layer - 1 };
  /** @type {Record<string, {layer: number, head: number}>} */
  const moves = {
    ArrowLeft: { ...place, layer: place.layer - 1 }, ArrowRight: { ...place, layer: place.layer + 1 },
    ArrowUp: { ...place, head: place.head - 1 }, ArrowDown: { ...place, head: place.head + 1 },
    Home: { layer: 0, head: event.ctrlKey ? 0 : place.head }, End: { layer: last.layer, head: event.ctrlKey ? last.head : place.head },
  };
  if (event.key === "Enter" || event.key === " ") choose(place);
  else if (!moves[event.key]) return;
  else move(/** @type {HTMLElement} */ (event.currentTarget), moves[event.key]);
  event.preventDefault();
}

/** @param {HTMLElement} grid @param {{layer: number, head: number}} to */
function move(grid, to) {
  const next = cellAt(grid, to);
  if (!next) return;
  grid.querySelector('.cell[tabindex="0"]')?.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

/**
 * Mark what is chosen in maps that are there already.
 * @param {HTMLElement} root
 * @param {State} state
 */
export function markChosen(root, state) {
  for (const old of root.querySelectorAll('.cell[aria-selected="true"]')) old.setAttribute("aria-selected", "false");
  for (const place of [state.place, state.beside]) {
    const grid = place && /** @type {HTMLElement | null} */ (root.querySelector(`.grid[data-model="${CSS.escape(place.model)}"]`));
    if (!grid) continue;
    cellAt(grid, place)?.setAttribute("aria-selected", "true");
    if (place !== state.place) continue;
    grid.querySelector('.cell[tabindex="0"]')?.setAttribute("tabindex", "-1");
    cellAt(grid, place)?.setAttribute("tabindex", "0");
  }
}

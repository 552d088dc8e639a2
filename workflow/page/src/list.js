/** The heads of all models shown, sorted by the quantity chosen. */

import { colourOf } from "./colours.js";
import { headName } from "./data.js";
import { h } from "./dom.js";
import { headsOf, valueOf } from "./map.js";
import { counted, quantityOf, shown, withInterval } from "./quantities.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Place} Place */
/** @typedef {import("./types.js").ModelData} ModelData */
/** @typedef {Place & {title: string, value: number | null, low: number | null, high: number | null, tokens: number | null}} Entry */

const AT_ONCE = 60;

/**
 * Heads with a value in the order chosen; those without come last.
 * @param {ModelData[]} models
 * @param {State} state
 * @returns {Entry[]}
 */
export function sortedHeads(models, state) {
  const entries = models.flatMap((model) =>
    headsOf(model).map((head) => ({ model: model.key, title: model.title, ...head, ...valueOf(model, head, state) })),
  );
  /** @type {Record<string, (value: number) => number>} */
  const keys = { largest: (value) => -value, smallest: (value) => value, strongest: (value) => -Math.abs(value) };
  const key = (/** @type {Entry} */ { value }) => (value === null ? Infinity : keys[state.order](value));
  // Infinity - Infinity is not a number: two without a value are equal.
  return entries.sort((a, b) => key(a) - key(b) || 0);
}

/**
 * @param {Entry[]} entries
 * @param {State} state
 * @param {{limit: number, signed: boolean, dark: boolean}} scale
 * @param {boolean} severalModels
 * @param {(place: Place) => void} choose
 */
export function headList(entries, state, scale, severalModels, choose) {
  const { unit } = quantityOf(state.quantity);
  const list = h("ol", { class: "heads", tabindex: "-1", "aria-label": "Heads, sorted", "data-chosen": nameOf(state.place) });
  const more = h("button", { type: "button", class: "more", onclick: () => show(AT_ONCE) });
  const filter = /** @type {HTMLInputElement} */ (h("input", {
    type: "search", placeholder: severalModels ? "Find: L28H7, Gemma …" : "Find: L28H7", "aria-label": "Find heads by name", autocomplete: "off",
    oninput: () => { list.replaceChildren(); show(AT_ONCE); },
  }));
  const largest = Math.max(...entries.map(({ value }) => Math.abs(value ?? 0))) || 1;
  const named = entries.map((entry, rank) => ({ entry, rank, name: entry.title.toLowerCase(), head: headName(entry).toLowerCase() }));

  /** @param {number} count how many to add */
  function show(count) {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = named.filter(({ name, head }) => words.every((word) => (/^l\d/.test(word) ? head === word || head.startsWith(`${word.replace(/h$/, "")}h`) : name.includes(word))));
    const from = list.childElementCount;
    list.append(...found.slice(from, from + count).map(({ entry, rank }) => item(entry, rank)));
    mark(list);
    const left = found.length - list.childElementCount;
    more.textContent = left ? `Show ${counted(Math.min(left, AT_ONCE))} more of ${counted(found.length)}` : found.length ? "" : "No head has this name";
    more.hidden = !left && found.length > 0;
    /** @type {any} */ (more).disabled = !left;
  }

  /** @param {Entry} entry @param {number} rank */
  function item(entry, rank) {
    const { value, low, high } = entry;
    const width = value === null ? 0 : (100 * Math.abs(value)) / largest;
    return h("li", { value: rank + 1 },
      h("button", { type: "button", class: "head", "data-place": nameOf(entry), onclick: () => choose(entry) },
        h("span", { class: "rank" }, rank + 1),
        h("span", { class: "name" }, h("b", {}, headName(entry)), severalModels ? h("span", { class: "of" }, entry.title) : null),
        h("span", { class: "bar", "aria-hidden": "true" }, value === null ? null : h("i", { style: `width: ${width.toFixed(1)}%; background: ${colourOf(value, scale)}` })),
        h("span", { class: "number", title: withInterval(value, low, high, unit) }, shown(value, unit)),
      ));
  }

  show(AT_ONCE);
  return h("div", { class: "list" }, filter, list, more);
}

/**
 * Mark what is chosen in a list that is there already.
 * @param {HTMLElement} root
 * @param {State} state
 */
export function markListed(root, state) {
  const list = /** @type {HTMLElement} */ (root.querySelector("ol.heads"));
  list.dataset.chosen = nameOf(state.place) ?? "";
  mark(list);
}

/** Mark the head that the list says is chosen; what is added to the list later asks it again. @param {HTMLElement} list */
function mark(list) {
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (list.querySelectorAll("button.head"))) {
    if (button.dataset.place === list.dataset.chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

/** @param {Place | null} place */
const nameOf = (place) => place && `${place.model}:${headName(place)}`;

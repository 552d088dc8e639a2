/** Elements, whose text is always a text node: whatever a document or a title holds stays text. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes, listeners (`onclick: …`) and children.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] null, undefined and false are left out
 * @param {...any} children elements, text, null, or lists of them
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

/**
 * The same in SVG.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...any} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return element;
}

/** @param {Element} element @param {Record<string, any>} attributes @param {any[]} children */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/**
 * A row of buttons of which one is pressed, or any number, if `chosen` is a list.
 * @param {string} label
 * @param {{value: string, text: string}[]} choices
 * @param {string | string[]} chosen
 * @param {(value: string) => void} choose
 */
export function segments(label, choices, chosen, choose) {
  const several = Array.isArray(chosen);
  const pressed = (/** @type {string} */ value) => (several ? chosen.includes(value) : value === chosen);
  const buttons = choices.map(({ value, text }) =>
    h("button", { type: "button", "aria-pressed": String(pressed(value)), onclick: () => choose(value) }, text),
  );
  const group = h("div", { class: several ? "segments toggles" : "segments", role: "group", "aria-label": label }, buttons);
  return h("div", { class: "field" }, h("span", { class: "label" }, label), group);
}

/**
 * A list to choose from.
 * @param {string} label
 * @param {{value: string, text: string, group?: string}[]} choices
 * @param {string} chosen
 * @param {(value: string) => void} choose
 */
export function select(label, choices, chosen, choose) {
  const option = (/** @type {{value: string, text: string}} */ { value, text }) => h("option", { value, selected: value === chosen }, text);
  const groups = [...new Set(choices.map(({ group }) => group))];
  const options = groups.map((group) => {
    const members = choices.filter((choice) => choice.group === group).map(option);
    return group ? h("optgroup", { label: group }, members) : members;
  });
  const element = /** @type {HTMLSelectElement} */ (h("select", { onchange: () => choose(element.value) }, options));
  return h("label", { class: "field" }, h("span", { class: "label" }, label), element);
}

/** A table in a frame, which scrolls where it is wider. @param {string} label @param {HTMLElement} table */
export const scrolling = (label, table) => h("div", { class: "scroll framed", tabindex: "0", role: "region", "aria-label": label }, table);

/** Facts as a list: what, and its text. @param {any[][]} facts */
export const factList = (facts) => h("dl", { class: "facts" }, facts.map(([what, text]) => [h("dt", {}, what), h("dd", {}, text)]));

/** What stands beside the title of a control. @param {{control_of: string | null}} model */
export const controlTag = (model) => (model.control_of ? h("span", { class: "tag" }, "control") : null);

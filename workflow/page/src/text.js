/** A head's tokens in their text: the prompt cut into tokens, and a few of them before the target. */

import { colourOf, textOn } from "./colours.js";
import { h, svg } from "./dom.js";

/** @typedef {import("./types.js").ModelData} ModelData */

const BEFORE = 12;

/** @type {WeakMap<ModelData, Map<number, {at: number, characters: string[], starts: number[], ends: number[]}>>} */
const cut = new WeakMap();

/**
 * Where the tokens of a prompt stand in its text. Characters are code points, as spans count them.
 * @param {ModelData} model
 * @param {number} prompt
 */
function tokensOf(model, prompt) {
  let known = cut.get(model);
  if (!known) cut.set(model, (known = new Map()));
  const before = known.get(prompt);
  if (before) return before;
  const at = model.prompts.prompt.indexOf(prompt);
  if (at < 0) return null;
  /** @type {number[]} */
  const starts = [];
  /** @type {number[]} */
  const ends = [];
  let end = 0;
  model.prompts.skips[at].forEach((skip, token) => {
    starts.push(end + skip);
    end += skip + model.prompts.lengths[at][token];
    ends.push(end);
  });
  const found = { at, characters: Array.from(model.prompts.text[at]), starts, ends };
  known.set(prompt, found);
  return found;
}

/**
 * The text before the target of a token, the target, and where it is from.
 * @param {ModelData} model
 * @param {number} prompt
 * @param {number} position the token that predicts: the target is the next one
 */
export function inContext(model, prompt, position) {
  const tokens = tokensOf(model, prompt);
  if (!tokens || position + 1 >= tokens.starts.length) return null;
  const { at, characters, starts, ends } = tokens;
  const first = Math.max(0, position + 1 - BEFORE);
  const text = (/** @type {number} */ from, /** @type {number} */ to) => characters.slice(from, to).join("");
  const { source, document, licence } = model.prompts;
  return {
    more: first > 0 && starts[first] > 0,
    before: text(starts[first], starts[position + 1]),
    target: text(starts[position + 1], ends[position + 1]),
    after: text(ends[position + 1], ends[Math.min(ends.length - 1, position + 4)]),
    source: source[at],
    document: document[at],
    licence: licence[at],
  };
}

/** White space that a reader would not see. @param {string} text */
export const visible = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");

/**
 * The text as a line, its target coloured.
 * @param {NonNullable<ReturnType<typeof inContext>>} context
 * @param {number | null} value
 * @param {{limit: number, signed: boolean, dark: boolean}} scale
 */
export function line({ more, before, target, after }, value, scale) {
  const colour = value === null ? null : colourOf(value, scale);
  return h("p", { class: "context", dir: "auto" }, more ? "… " : "", visible(before),
    h("mark", { class: colour ? null : "missing", style: colour ? `background-color: ${colour}; color: ${textOn(colour)}` : null }, visible(target)),
    h("span", { class: "after" }, visible(after)));
}

/**
 * Lines of text as a picture.
 * @param {string} title
 * @param {{context: NonNullable<ReturnType<typeof inContext>>, value: number | null, numbers: string}[]} lines
 * @param {{limit: number, signed: boolean}} scale
 */
export function textPicture(title, lines, scale) {
  const step = 40;
  const style = { "xml:space": "preserve", "font-family": "monospace", "font-size": 12 };
  const drawn = lines.map(({ context, value, numbers }, at) => {
    const colour = value === null ? "#cccccc" : colourOf(value, { ...scale, dark: false });
    return [
      svg("text", { x: 12, y: 52 + at * step, ...style },
        visible(context.before),
        svg("tspan", { fill: "#000000", stroke: colour, "stroke-width": 3, "paint-order": "stroke", "font-weight": "bold" }, visible(context.target))),
      svg("text", { x: 12, y: 66 + at * step, "font-family": "sans-serif", "font-size": 10, fill: "#555555" }, `${numbers}, ${context.source}, ${context.document}`),
    ];
  });
  const size = { width: 900, height: 60 + step * lines.length };
  const picture = svg("svg", { ...size, viewBox: `0 0 ${size.width} ${size.height}` },
    svg("rect", { ...size, fill: "white" }),
    svg("text", { x: 12, y: 24, "font-family": "sans-serif", "font-size": 14, "font-weight": "bold" }, title), drawn);
  return new XMLSerializer().serializeToString(picture);
}

/** Reading what is packed into the page: its data, tables by rows. */

/** @typedef {import("./types.js").Table} Table */
/** @typedef {import("./types.js").Row} Row */
/** @typedef {import("./types.js").StudyData} StudyData */
/** @typedef {import("./types.js").ModelData} ModelData */

/**
 * The text of an element that holds gzip in base64.
 * @param {string} id
 * @returns {Promise<string>}
 */
export async function unpacked(id) {
  const packed = atob(document.getElementById(id)?.textContent ?? "");
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** @param {Table} table */
export function height(table) {
  const first = Object.values(table)[0];
  if (!first) return 0;
  return Array.isArray(first) ? first.length : first.codes.length;
}

/**
 * A value of a table; null if it is missing.
 * @param {Table} table
 * @param {string} name
 * @param {number} row
 * @returns {string | number | null}
 */
export function value(table, name, row) {
  const column = table[name];
  if (!column) return null;
  if (Array.isArray(column)) return column[row] ?? null;
  return column.levels[column.codes[row]] ?? null;
}

/** @param {Table} table @param {string} name @param {number} row @returns {number | null} */
export function number(table, name, row) {
  return orNull(value(table, name, row));
}

/** A number as it is, null in place of text. @param {string | number | null} value */
export const orNull = (value) => (typeof value === "number" ? value : null);

/** @param {Table} table @param {number} row @returns {Row} */
export function rowOf(table, row) {
  return Object.fromEntries(Object.keys(table).map((name) => [name, value(table, name, row)]));
}

/** @param {Table} table @returns {Row[]} */
export function rowsOf(table) {
  return Array.from({ length: height(table) }, (_, row) => rowOf(table, row));
}

/** @type {WeakMap<Table, Map<string, Map<string, number[]>>>} */
const found = new WeakMap();

/**
 * The numbers of the rows that have these values, found by an index that is made once.
 * @param {Table} table
 * @param {Record<string, string | number>} keys
 * @returns {number[]}
 */
export function rowsWith(table, keys) {
  const names = Object.keys(keys);
  let indices = found.get(table);
  if (!indices) found.set(table, (indices = new Map()));
  let index = indices.get(names.join());
  if (!index) {
    index = new Map();
    const count = height(table);
    for (let row = 0; row < count; row++) {
      const key = names.map((name) => value(table, name, row)).join("|");
      const rows = index.get(key);
      if (rows) rows.push(row);
      else index.set(key, [row]);
    }
    indices.set(names.join(), index);
  }
  return index.get(Object.values(keys).join("|")) ?? [];
}

/** The rows that have these values. @param {Table} table @param {Record<string, string | number>} keys @returns {Row[]} */
export function matching(table, keys) {
  return rowsWith(table, keys).map((row) => rowOf(table, row));
}

/** @param {Table} table @param {string} name @returns {string[]} the values that occur in a column of text */
export function levels(table, name) {
  const column = table[name];
  return column && !Array.isArray(column) ? column.levels : [];
}

/** @param {StudyData} study @param {string} key @returns {ModelData} */
export function modelOf(study, key) {
  const model = study.models.find((each) => each.key === key);
  if (!model) throw new Error(`no model ${key}`);
  return model;
}

/** @param {{layer: number, head: number}} head */
export const headName = ({ layer, head }) => `L${layer}H${head}`;

/**
 * The row of a head in a model's table of heads, null where it has none.
 * @param {ModelData} model
 * @param {{layer: number, head: number}} head
 * @param {{ablation: string, tokens: string}} of
 */
export function headRow(model, { layer, head }, { ablation, tokens }) {
  return rowsWith(model.heads, { ablation, selection: tokens, layer, head })[0] ?? null;
}

/** Files that a reader takes away: the rows of a view as CSV, its picture as SVG. */

/** @typedef {import("./types.js").Row} Row */

/**
 * Rows as CSV; a missing value is empty.
 * @param {Row[]} rows
 */
export function csv(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const lines = rows.map((row) => names.map((name) => field(row[name])).join(","));
  return [names.map(field).join(","), ...lines, ""].join("\r\n");
}

/** @param {string | number | null | undefined} value */
function field(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  // A spreadsheet would run a text that begins like a formula.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/**
 * Let the browser save a file.
 * @param {string} name
 * @param {string} type
 * @param {string} text
 */
export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name.replace(/[^\w.-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

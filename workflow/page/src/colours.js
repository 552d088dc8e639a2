/** Colours of the page and of its charts: orange below 0, blue above, which readers with a colour vision deficiency tell apart. */

/** @typedef {{dark: boolean, ink: string, soft: string, faint: string, paper: string, accent: string, below: string, second: string, third: string}} Theme */

/** @type {Record<string, {below: string[], middle: string, above: string[]}>} */
const RAMPS = {
  light: { below: ["#f7cfa6", "#e58a3c", "#b4500a", "#6e2c00"], middle: "#f1f1ee", above: ["#b3d3ea", "#5ba3d3", "#1f6dab", "#0a3b66"] },
  dark: { below: ["#5c3a1e", "#a05a1f", "#e08c3e", "#ffd8ad"], middle: "#2a2f36", above: ["#274a66", "#2f75ab", "#5fb0ea", "#c9e7ff"] },
};

/** @returns {Theme} */
export function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return dark ? DARK : LIGHT;
}

/** @type {Theme} */
export const LIGHT = {
  dark: false, ink: "#1c2127", soft: "#565e69", faint: "#e4e6ea", paper: "#ffffff",
  accent: "#1f6dab", below: "#c45f12", second: "#009e73", third: "#8a5a83",
};
/** @type {Theme} */
const DARK = {
  dark: true, ink: "#e7eaee", soft: "#a7b0bb", faint: "#333a43", paper: "#1a1e24",
  accent: "#5fb0ea", below: "#e9984d", second: "#4fc7a1", third: "#cf9cc7",
};

/**
 * The limit of a colour scale: its ends are at -limit (signed) or 0, and limit. A few far values would leave the
 * rest without colour, so the limit is that of all but the outermost 2 % (of ratios, which have no bound, 10 %), and of
 * shares at most 100 %; `cut` says whether any is beyond.
 * @param {(number | null)[]} values
 * @param {string} unit
 * @returns {{limit: number, cut: boolean}}
 */
export function scaleOf(values, unit) {
  const sizes = values.filter((value) => value !== null).map((value) => Math.abs(/** @type {number} */ (value))).sort((a, b) => a - b);
  if (!sizes.length || !sizes[sizes.length - 1]) return { limit: 1, cut: false };
  const inner = unit === "ratio" ? 0.9 : 0.98;
  const found = nice(sizes[Math.floor(inner * (sizes.length - 1))] || sizes[sizes.length - 1]);
  const limit = unit === "share" ? Math.min(found, 1) : found;
  return { limit, cut: sizes[sizes.length - 1] > limit };
}

/** @param {number} size the next number of one or two digits that is easy to read */
function nice(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  const step = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((each) => each * power >= size * 0.9999) ?? 10;
  return Number((step * power).toPrecision(3));
}

/**
 * The colours of a scale from its lower to its upper end.
 * @param {boolean} signed
 * @param {boolean} dark
 */
export function rampOf(signed, dark) {
  const { below, middle, above } = RAMPS[dark ? "dark" : "light"];
  return signed ? [...below.toReversed(), middle, ...above] : [middle, ...above];
}

/**
 * The colour of a value.
 * @param {number} value
 * @param {{limit: number, signed: boolean, dark: boolean}} scale
 */
export function colourOf(value, { limit, signed, dark }) {
  const ramp = rampOf(signed, dark);
  const share = signed ? (value / limit + 1) / 2 : value / limit;
  const at = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
  const from = Math.min(Math.floor(at), ramp.length - 2);
  return mixed(ramp[from], ramp[from + 1], at - from);
}

/** @param {string} one @param {string} other @param {number} share */
function mixed(one, other, share) {
  const parts = [1, 3, 5].map((at) => {
    const [a, b] = [one, other].map((colour) => parseInt(colour.slice(at, at + 2), 16));
    return Math.round(a + (b - a) * share).toString(16).padStart(2, "0");
  });
  return `#${parts.join("")}`;
}

/** @param {string} colour whether black or white text is read better on it */
export function textOn(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
}

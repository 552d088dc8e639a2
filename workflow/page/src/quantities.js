/** The quantities of a head: what they are called, their unit, and how a number of them is written. */

/**
 * @typedef {{name: string, title: string, unit: "logits" | "share" | "ratio", signed: boolean, group: string,
 *   says: string}} Quantity
 */

const LOGITS = "Logits";
const SHARES = "Shares";
const SPREAD = "Spread over tokens";
const OF_EFFECT = "as a share of the head's direct effect (ratio of means)";

/** @type {[string, string, "logits" | "share" | "ratio", boolean, string, string][]} */
const ROWS = [
  ["self_repair", "Self-repair", "logits", true, LOGITS, "change of the target's logit beyond the change of the head's own direct effect"],
  ["direct_effect", "Direct effect", "logits", true, LOGITS, "what the head's output adds to the target's logit before any ablation"],
  ["delta_logit", "Change of the logit", "logits", true, LOGITS, "the target's logit once the head is ablated, less before"],
  ["ablated_direct_effect", "Effect left after ablation", "logits", true, LOGITS, "what the replaced output still adds"],
  ["from_heads", "From later heads", "logits", true, LOGITS, "the part of self-repair that other heads do"],
  ["from_mlps", "From MLPs", "logits", true, LOGITS, "the part of self-repair that MLPs do"],
  ["from_post_norms", "From post-norms", "logits", true, LOGITS, "the part of self-repair that norms after sublayers do"],
  ["from_norm", "From the final norm", "logits", true, LOGITS, "the part of self-repair that the final norm's scale does"],
  ["restored_share", "Restored share", "share", true, SHARES, "self-repair as a share of the effect that the ablation removed (ratio of means)"],
  ["self_repair_share", "Self-repair share", "share", true, SHARES, `self-repair ${OF_EFFECT}`],
  ["from_heads_share", "Share from later heads", "share", true, SHARES, OF_EFFECT],
  ["from_mlps_share", "Share from MLPs", "share", true, SHARES, OF_EFFECT],
  ["from_post_norms_share", "Share from post-norms", "share", true, SHARES, OF_EFFECT],
  ["from_norm_share", "Share from the final norm", "share", true, SHARES, OF_EFFECT],
  ["over_corrected_share", "Over-corrected share", "share", false, SHARES, "tokens whose logit rises, of those with a positive direct effect"],
  ["self_repair_sd", "Standard deviation", "logits", false, SPREAD, "of self-repair over tokens"],
  ["self_repair_noise", "Noise", "ratio", false, SPREAD, "standard deviation of self-repair divided by its absolute mean"],
];

/** @type {Quantity[]} */
export const QUANTITIES = ROWS.map(([name, title, unit, signed, group, says]) => ({ name, title, unit, signed, group, says }));

/** @param {string} name @returns {Quantity} */
export function quantityOf(name) {
  return QUANTITIES.find((each) => each.name === name) ?? QUANTITIES[0];
}

const MINUS = "−";

/**
 * A number as people read it, "missing" for none.
 * @param {number | null | undefined} number
 * @param {string} unit
 */
export function shown(number, unit) {
  if (number === null || number === undefined) return "missing";
  const scaled = unit === "share" ? 100 * number : number;
  const places = unit === "share" ? (Math.abs(scaled) < 10 ? 1 : 0) : Math.abs(scaled) < 100 ? 2 : 0;
  const text = scaled.toFixed(places).replace("-", MINUS);
  return (Number(scaled.toFixed(places)) === 0 ? text.replace(MINUS, "") : text) + (unit === "share" ? " %" : "");
}

/**
 * The same with its 95 % interval.
 * @param {number | null | undefined} number
 * @param {number | null | undefined} low
 * @param {number | null | undefined} high
 * @param {string} unit
 */
export function withInterval(number, low, high, unit) {
  const missing = low === null || low === undefined || high === null || high === undefined;
  if (missing || number === null || number === undefined) return shown(number, unit);
  const bound = (/** @type {number} */ end) => shown(end, unit).replace(" %", "");
  return `${shown(number, unit)} [${bound(low)}, ${bound(high)}]`;
}

/** @param {string} unit how a unit stands on an axis or legend */
export const unitName = (unit) => ({ share: "%", ratio: "ratio" })[unit] ?? unit;

/** @param {number} count */
export const counted = (count) => count.toLocaleString("en-US");

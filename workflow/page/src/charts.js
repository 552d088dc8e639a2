/** The charts as Vega-Lite specifications: functions of rows and colours, nothing else. */

/** @typedef {import("./types.js").Row} Row */
/** @typedef {import("./colours.js").Theme} Theme */
/** @typedef {(colours: Theme) => object} Spec */

const NUMBER = ".3~f";
const tip = (/** @type {string} */ field, /** @type {string} */ title, /** @type {string} */ format = NUMBER) => ({ field, title, type: "quantitative", format });
const named = (/** @type {string} */ field, /** @type {string} */ title) => ({ field, title, type: "nominal" });
const zero = (/** @type {Theme} */ colours, /** @type {"x" | "y"} */ axis) => ({
  data: { values: [{ at: 0 }] },
  mark: { type: "rule", color: colours.soft, strokeWidth: 1 },
  encoding: { [axis]: { field: "at", type: "quantitative" } },
});

/** Names of lines, in their order. @param {string} field @param {number} labelLimit */
const lines = (field, labelLimit) => ({ field, type: "nominal", sort: null, title: null, axis: { labelLimit, domain: false, ticks: false, labelPadding: 8 } });
const PART = lines("part", 190);

/**
 * What a head's direct effect is, what becomes of it, and what repairs it, with intervals.
 * @param {Row[]} rows part, value, low, high, kind
 * @returns {Spec}
 */
export const decomposition = (rows) => (colours) => ({
  data: { values: rows },
  height: 26 * rows.length,
  layer: [
    {
      mark: { type: "bar", height: 13 },
      encoding: {
        y: PART, x: { field: "value", type: "quantitative", title: "logits", axis: { tickCount: 5 } },
        color: { field: "kind", type: "nominal", legend: null, scale: { domain: ["effect", "repair", "term"], range: [colours.soft, colours.accent, colours.second] } },
        tooltip: [named("part", "part"), tip("value", "logits"), tip("low", "95 % low"), tip("high", "95 % high")],
      },
    },
    ...layer(bounded(rows), { type: "rule", color: colours.ink, strokeWidth: 1.5 }, { y: PART, x: { field: "low", type: "quantitative" }, x2: { field: "high" } }),
    zero(colours, "x"),
  ],
});

/** A layer of a chart; none without rows, of which Vega cannot find the limits. @param {Row[]} values @param {object} mark @param {object} encoding */
const layer = (values, mark, encoding) => (values.length ? [{ data: { values }, mark, encoding }] : []);

/** The rows that have an interval. @param {Row[]} rows */
const bounded = (rows) => rows.filter((row) => row.low !== null && row.high !== null);

/** A ring around the token chosen. @param {Row[]} rows @param {string | null} chosen @param {Theme} colours @param {object} encoding */
const ringed = (rows, chosen, colours, encoding) =>
  layer(rows.filter((row) => row.token === chosen), { type: "point", size: 190, strokeWidth: 2, color: colours.ink }, encoding);

/**
 * Direct effect against change of the logit, a point per token; on the dashed line nothing is repaired.
 * @param {Row[]} rows token, direct_effect, delta_logit, self_repair, drawn, text
 * @param {string | null} chosen a token
 * @returns {Spec}
 */
export const tokenScatter = (rows, chosen) => (colours) => {
  const effects = rows.map((row) => Number(row.direct_effect));
  const ends = [Math.min(0, ...effects), Math.max(0, ...effects)].map((x) => ({ x, y: -x }));
  const point = {
    x: { field: "direct_effect", type: "quantitative", title: "direct effect (logits)" },
    y: { field: "delta_logit", type: "quantitative", title: "change of the logit" },
    tooltip: [named("text", "token"), tip("direct_effect", "direct effect"), tip("delta_logit", "change"), tip("self_repair", "self-repair"), named("token", "prompt.position")],
  };
  return {
    height: 250,
    layer: [
      zero(colours, "y"),
      { data: { values: ends }, mark: { type: "line", strokeDash: [4, 4], color: colours.soft, strokeWidth: 1 }, encoding: { x: { field: "x", type: "quantitative" }, y: { field: "y", type: "quantitative" } } },
      {
        data: { values: rows },
        mark: { type: "point", filled: true, size: 46, opacity: 0.75, cursor: "pointer" },
        encoding: { ...point, color: { field: "drawn", type: "nominal", title: null, scale: { domain: ["top token", "any token"], range: [colours.accent, colours.below] } } },
      },
      ...ringed(rows, chosen, colours, { x: point.x, y: point.y }),
    ],
  };
};

/**
 * S / S' of each token, a line of ticks per ablation.
 * @param {Row[]} rows ablation, ratio, direct_effect
 * @returns {Spec}
 */
export const scaleRatios = (rows) => (colours) => ({
  data: { values: rows },
  height: 44 * new Set(rows.map((row) => row.ablation)).size,
  layer: [
    { data: { values: [{ at: 1 }] }, mark: { type: "rule", color: colours.soft }, encoding: { x: { field: "at", type: "quantitative" } } },
    {
      mark: { type: "tick", thickness: 1.5, bandSize: 24, opacity: 0.45, color: colours.accent },
      encoding: {
        y: lines("ablation", 120),
        x: { field: "ratio", type: "quantitative", title: "S / S′, clean by ablated scale", scale: { zero: false } },
        tooltip: [named("ablation", "ablation"), tip("ratio", "S / S′", ".4~f"), tip("direct_effect", "direct effect")],
      },
    },
    { mark: { type: "tick", thickness: 3, bandSize: 34, color: colours.ink }, encoding: { y: lines("ablation", 120), x: { aggregate: "median", field: "ratio", type: "quantitative" } } },
  ],
});

/**
 * In how many tokens each neuron is among the ten that repair most.
 * @param {Row[]} rows name, share, instances, n_tokens
 * @returns {Spec}
 */
export const neuronCounts = (rows) => (colours) => ({
  data: { values: rows },
  height: 22 * rows.length,
  mark: { type: "bar", height: 12, color: colours.accent },
  encoding: {
    y: lines("name", 150),
    x: { field: "share", type: "quantitative", title: "share of tokens", axis: { format: ".0%", tickCount: 5 }, scale: { domainMin: 0 } },
    tooltip: [named("name", "neuron"), tip("instances", "tokens with it among the ten", ",d"), tip("n_tokens", "of", ",d"), tip("prompts", "prompts", ",d")],
  },
});

/**
 * Direct effect of the most repairing neuron before and after: above the dashed line it repairs.
 * @param {Row[]} rows name, direct_effect, ablated_direct_effect, region, token
 * @param {string | null} chosen a token
 * @returns {Spec}
 */
export const topNeurons = (rows, chosen) => (colours) => {
  const all = rows.flatMap((row) => [Number(row.direct_effect), Number(row.ablated_direct_effect)]);
  const ends = [Math.min(0, ...all), Math.max(0, ...all)].map((at) => ({ at }));
  const x = { field: "direct_effect", type: "quantitative", title: "neuron's direct effect, clean (logits)" };
  const y = { field: "ablated_direct_effect", type: "quantitative", title: "with the head ablated" };
  return {
    height: 240,
    layer: [
      { data: { values: ends }, mark: { type: "line", strokeDash: [4, 4], color: colours.soft, strokeWidth: 1 }, encoding: { x: { field: "at", type: "quantitative" }, y: { field: "at", type: "quantitative" } } },
      {
        data: { values: rows },
        mark: { type: "point", filled: true, size: 36, opacity: 0.7, cursor: "pointer" },
        encoding: {
          x, y,
          color: {
            field: "region", type: "nominal", title: null, legend: { columns: 2 },
            scale: { domain: ["erases less", "erasure reversed", "adds more or less", "erases more"], range: [colours.accent, colours.second, colours.third, colours.below] },
          },
          tooltip: [named("name", "neuron"), named("text", "token"), tip("direct_effect", "clean"), tip("ablated_direct_effect", "ablated"), named("region", "region")],
        },
      },
      ...ringed(rows, chosen, colours, { x, y }),
    ],
  };
};

/**
 * What later parts do more once the head is gone: MLPs as bars, heads as points, by their layer.
 * @param {Row[]} rows name, kind, component_layer, mean, low, high
 * @param {number} first the head's own layer
 * @param {number} layers of the model
 * @returns {Spec}
 */
export const repairMap = (rows, first, layers) => (colours) => {
  const x = {
    field: "component_layer", type: "ordinal", title: "layer of the later part",
    scale: { domain: Array.from({ length: layers - first }, (_, at) => first + at) }, axis: { labelAngle: 0, labelOverlap: true },
  };
  /** @type {Record<string, string>} */
  const ranges = { mlp: colours.accent, head: colours.below, "attention norm": colours.second, "mlp norm": colours.third };
  const kinds = Object.keys(ranges).filter((kind) => rows.some((row) => row.kind === kind));
  const colour = { field: "kind", type: "nominal", title: null, scale: { domain: kinds, range: kinds.map((kind) => ranges[kind]) } };
  const tooltip = [named("name", "part"), tip("mean", "mean change (logits)"), tip("low", "95 % low"), tip("high", "95 % high")];
  const y = { field: "mean", type: "quantitative", title: "change of direct effect (logits)" };
  const bars = rows.filter((row) => row.kind === "mlp");
  const points = rows.filter((row) => row.kind !== "mlp" && row.component_layer !== null);
  const point = { type: "point", filled: true, size: 42, opacity: 0.85, stroke: colours.paper, strokeWidth: 0.7 };
  return {
    height: 240,
    layer: [
      ...layer(bars, { type: "bar", opacity: 0.8, width: { band: Math.min(0.7, (layers - first) / 10) } }, { x, y, color: colour, tooltip }),
      ...layer(bounded(bars), { type: "rule", color: colours.ink }, { x, y: { ...y, field: "low" }, y2: { field: "high" } }),
      ...layer(points, point, { x, y, color: colour, tooltip }),
      zero(colours, "y"),
    ],
  };
};

/** @param {Theme} colours */
const verdicts = (colours) => ({ domain: ["supported", "undecided", "not supported"], range: [colours.second, colours.soft, colours.below] });

/**
 * A claim's value with its interval, a line per model.
 * @param {Row[]} rows model, value, low, high, verdict
 * @param {string} unit
 * @returns {Spec}
 */
export const claimValues = (rows, unit) => (colours) => {
  const share = unit === "share";
  const x = { type: "quantitative", title: share ? "share" : unit, axis: { format: share ? ".0%" : "~g", tickCount: 5 }, scale: { zero: true } };
  const line = { y: lines("model", 160), color: { field: "verdict", type: "nominal", legend: null, scale: verdicts(colours) } };
  return {
    data: { values: rows },
    height: 26 * rows.length,
    layer: [
      zero(colours, "x"),
      ...layer(bounded(rows), { type: "rule", strokeWidth: 2 }, { ...line, x: { ...x, field: "low" }, x2: { field: "high" } }),
      { mark: { type: "point", filled: true, size: 80, opacity: 1 }, encoding: { ...line, x: { ...x, field: "value" }, tooltip: [named("model", "model"), tip("value", unit), tip("low", "95 % low"), tip("high", "95 % high"), named("verdict", "verdict")] } },
    ],
  };
};

/**
 * The map of each model, for a picture of it.
 * @param {{model: string, layers: number, heads: number, cells: {layer: number, head: number, colour: string}[]}[]} maps
 * @param {{title: string, subtitle: string[], scale: {colour: string, label: string}[]}} of
 * @returns {Spec}
 */
export const maps = (maps, { title, subtitle, scale }) => (colours) => ({
  title: { text: title, subtitle },
  spacing: 26,
  vconcat: [
    ...maps.map(({ model, layers, heads, cells }) => ({
      title: { text: model, fontSize: 12, fontWeight: "normal" },
      width: layers * 16,
      height: heads * 16,
      data: { values: cells },
      mark: { type: "rect", stroke: colours.paper, strokeWidth: 1 },
      encoding: {
        x: { field: "layer", type: "ordinal", title: "layer", axis: { labelAngle: 0, labelOverlap: true }, scale: { domain: [...Array(layers).keys()] } },
        y: { field: "head", type: "ordinal", title: "head", scale: { domain: [...Array(heads).keys()] } },
        color: { field: "colour", type: "nominal", scale: null },
      },
    })),
    {
      width: 15 * scale.length, height: 12,
      data: { values: scale.map((step, at) => ({ ...step, at })) },
      mark: "rect",
      encoding: {
        x: { field: "at", type: "ordinal", title: null, axis: { labelExpr: `[${scale.map(({ label }) => JSON.stringify(label)).join()}][datum.value]`, labelAngle: 0, domain: false, ticks: false, labelOverlap: false } },
        color: { field: "colour", type: "nominal", scale: null },
      },
    },
  ],
});

/**
 * The sorted heads, for a picture of the list.
 * @param {Row[]} rows name, value, low, high
 * @param {string} title
 * @param {string} unit
 * @returns {Spec}
 */
export const ranked = (rows, title, unit) => (colours) => ({
  title: { text: title },
  data: { values: rows },
  height: 16 * rows.length,
  layer: [
    zero(colours, "x"),
    ...layer(bounded(rows), { type: "rule", color: colours.accent, strokeWidth: 1.5 }, { y: lines("name", 320), x: { field: "low", type: "quantitative" }, x2: { field: "high" } }),
    { mark: { type: "point", filled: true, size: 45, opacity: 1, color: colours.accent }, encoding: { y: lines("name", 320), x: { field: "value", type: "quantitative", title: unit } } },
  ],
});

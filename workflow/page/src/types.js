/**
 * What the page's data looks like: selfrepair.page.data makes it.
 *
 * @typedef {{levels: string[], codes: number[]}} Coded text: the place of each row's value among its levels, -1 for none
 * @typedef {(number | null)[] | Coded} Column
 * @typedef {Record<string, Column>} Table
 * @typedef {Record<string, string | number | null>} Row
 * @typedef {{prompt: number[], source: string[], document: string[], licence: string[], text: string[],
 *   skips: number[][], lengths: number[][]}} Prompts
 * @typedef {{key: string, title: string, control_of: string | null, notes: string[], about: [string, string][],
 *   layers: number, heads_per_layer: number, heads: Table, tokens: Table, prompts: Prompts, scale_ratios: Table,
 *   neuron_counts: Table, top_neurons: Table, repair_map: Table}} ModelData
 * @typedef {{study: string, text: {source: string, licence: string, documents: number}[], claims: Table,
 *   over_models: Table, figures: Record<string, Record<string, string>>, formats: string[],
 *   models: ModelData[]}} StudyData
 *
 * A head of a model, and what is chosen on the page:
 * @typedef {{layer: number, head: number}} Head
 * @typedef {{model: string, layer: number, head: number}} Place
 * @typedef {{quantity: string, ablation: string, tokens: string, shown: string[], order: string, place: Place | null,
 *   beside: Place | null, token: string | null, claim: string | null}} State
 */
export {};

/** Charts by Vega-Lite. Vega is unpacked when the first chart is drawn, not before the page shows. */

import { LIGHT, theme } from "./colours.js";
import { unpacked } from "./data.js";
import { h } from "./dom.js";

/** @typedef {import("./colours.js").Theme} Theme */

const FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif";

/** @type {Promise<any> | null} */
let loading = null;

/** @returns {Promise<any>} the function that draws a specification into an element */
function loaded() {
  loading ??= unpacked("vega").then((text) => {
    new Function(text)();
    return /** @type {any} */ (window).vegaEmbed;
  });
  return loading;
}

/** @param {Theme} colours */
function configOf(colours) {
  return {
    background: "transparent",
    font: FONT,
    aria: false,
    view: { stroke: null },
    axis: {
      labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal", labelColor: colours.soft, titleColor: colours.ink,
      gridColor: colours.faint, domainColor: colours.faint, tickColor: colours.faint, titlePadding: 8,
    },
    header: { labelFontSize: 12, labelColor: colours.ink, titleColor: colours.ink },
    legend: { labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", labelColor: colours.ink, titleColor: colours.soft, orient: "top", symbolSize: 60 },
    title: { color: colours.ink, subtitleColor: colours.soft, anchor: "start", fontSize: 14, subtitleFontSize: 11, font: FONT },
    text: { fontSize: 11, color: colours.ink },
  };
}

/**
 * Draw a chart into an element.
 * @param {HTMLElement} place
 * @param {(colours: Theme) => object} specOf
 * @param {(datum: any) => void} [choose] called with the row of a mark that is clicked
 */
export async function draw(place, specOf, choose) {
  const embed = await loaded();
  if (!place.isConnected) return;
  const colours = theme();
  const sized = { width: "container", autosize: { type: "fit-x", contains: "padding" }, ...specOf(colours) };
  const result = await embed(place, sized, { actions: false, renderer: "svg", config: configOf(colours), tooltip: showTip });
  // Its element is an image with words of its own; the marks would be read out one by one.
  place.querySelector("svg")?.setAttribute("aria-hidden", "true");
  if (choose) result.view.addEventListener("click", (/** @type {any} */ _, /** @type {any} */ item) => item?.datum && choose(item.datum));
}

/**
 * A chart as SVG, in the colours of a white page.
 * @param {(colours: Theme) => object} specOf
 * @returns {Promise<string>}
 */
export async function toSvg(specOf) {
  const embed = await loaded();
  const config = { ...configOf(LIGHT), background: "white", padding: 12 };
  const result = await embed(h("div"), { width: 560, ...specOf(LIGHT) }, { actions: false, renderer: "svg", config });
  const picture = await result.view.toSVG();
  result.finalize();
  return picture;
}

/** @type {HTMLElement | null} */
let tip = null;

/**
 * What Vega calls when the pointer is on a mark: values as text nodes, beside the pointer.
 * @param {any} _
 * @param {MouseEvent} event
 * @param {any} __
 * @param {Record<string, string> | null | undefined} values
 */
function showTip(_, event, __, values) {
  tip?.remove();
  tip = null;
  if (!values) return;
  const lines = Object.entries(values).map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]);
  tip = h("div", { class: "tip", "aria-hidden": "true" }, h("dl", {}, lines));
  document.body.append(tip);
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 14 + width > innerWidth ? event.clientX - width - 10 : event.clientX + 14;
  const top = event.clientY + 14 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

export function hideTip() {
  tip?.remove();
  tip = null;
}

/** The page: reads its data, shows what the address says, and says in the address what is chosen. */

import { claimsView } from "./claims.js";
import { unpacked } from "./data.js";
import { byId } from "./dom.js";
import { detailsOf, markOverview, overviewOf, spoken } from "./explorer.js";
import { leadOf, runView } from "./run.js";
import { format, parse, samePlace } from "./state.js";
import { hideTip } from "./vega.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").StudyData} StudyData */

/** What each part of the page follows: it is made again when one of these changes. @type {Record<string, (keyof State)[]>} */
const FOLLOWS = {
  claims: ["claim"],
  overview: ["quantity", "ablation", "tokens", "shown", "order"],
  details: ["place", "beside", "ablation", "tokens", "token"],
};

async function start() {
  /** @type {StudyData} */
  const study = JSON.parse(await unpacked("data"));
  byId("lead").textContent = leadOf(study);
  byId("run-body").replaceChildren(...runView(study));
  byId("foot").textContent = "Intervals are 95 % bootstrap intervals over prompts. Missing values are shown as missing. Definitions: docs/method.md of the software.";
  followAnchors();

  /** @type {State | null} */
  let before = null;
  const change = (/** @type {Partial<State>} */ part) => {
    const next = format({ ...parse(location.hash, study), ...part }, study);
    if (next !== location.hash) location.hash = next;
  };
  const show = () => {
    const state = parse(location.hash, study);
    render(study, state, before, change);
    before = state;
  };
  addEventListener("hashchange", show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { before = null; show(); });
  show();
  document.documentElement.dataset.ready = "true";
}

/** @param {StudyData} study @param {State} state @param {State | null} before @param {(change: Partial<State>) => void} change */
function render(study, state, before, change) {
  const differs = (/** @type {string} */ part) => !before || FOLLOWS[part].some((name) => JSON.stringify(state[name]) !== JSON.stringify(before[name]));
  hideTip();
  if (differs("claims")) refill("claims-body", () => claimsView(study, state.claim, (claim) => change({ claim })));
  if (differs("overview")) refill("explorer-body", () => [overviewOf(study, state, change)]);
  else markOverview(byId("explorer-body"), state);
  if (differs("details")) refill("details", () => [detailsOf(study, state, change)]);
  if (!before || !samePlace(before.place, state.place)) {
    byId("status").textContent = before ? spoken(study, state) : "";
    if (!before && state.place) byId("explorer").scrollIntoView();
  }
}

/**
 * Fill a part of the page anew, and keep the focus where it was.
 * @param {string} id
 * @param {() => any[]} make
 */
function refill(id, make) {
  const part = byId(id);
  const path = pathTo(part, document.activeElement);
  part.replaceChildren(...make().flat(Infinity).filter(Boolean));
  if (path) /** @type {HTMLElement | null} */ (part.querySelector(path))?.focus({ preventScroll: true });
}

/** How the focused element is found again. @param {HTMLElement} part @param {Element | null} element */
function pathTo(part, element) {
  if (!element || !part.contains(element)) return null;
  const claim = element.getAttribute("data-claim");
  if (claim) return `[data-claim="${CSS.escape(claim)}"]`;
  const steps = [];
  for (let at = element; at !== part && at.parentElement; at = at.parentElement) {
    steps.unshift(`${at.tagName.toLowerCase()}:nth-child(${[...at.parentElement.children].indexOf(at) + 1})`);
  }
  return `:scope > ${steps.join(" > ")}`;
}

/** Links to parts of the page move the view and leave the address to the state. */
function followAnchors() {
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest('a[href^="#"]');
    const part = link && document.getElementById(link.getAttribute("href")?.slice(1) ?? "");
    if (!part) return;
    event.preventDefault();
    part.scrollIntoView();
    part.focus({ preventScroll: true });
  });
}

start().catch((error) => {
  byId("lead").textContent = `This page could not read its data (${error.message}). It needs a browser of 2023 or later.`;
  throw error;
});

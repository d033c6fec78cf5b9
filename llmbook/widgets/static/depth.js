// The lower half of the block's explorer: what becomes of the vectors when the block is applied again and again.
import { format, h, plot, s, scientific, setAttributes, slider } from "./base.js";
import { block, dot } from "./forward.js";

export const NORMS = ["pre", "post", "none"];
export const TIMES = 8; // most applications, as in Python
const LEAST = 1e-9; // length that is drawn

const output = (steps) => steps.at(-1).made[0].m;
const mean = (xs) => xs.reduce((sum, x) => sum + x, 0) / xs.length;
export const length = (x) => Math.sqrt(dot(x, x));
const MEASURES = {
  lengths: (xs) => mean(xs.map(length)),
  /** The mean cosine between the vectors of different tokens; no number where there is one token. */
  cosines: (xs) => mean(xs.flatMap((u, i) => xs.slice(i + 1).map((v) => dot(u, v) / (length(u) * length(v))))),
};

/** x, and what the block makes of it when applied once, twice, …, for one norm, with residual connections or without. */
export function repeated({ x, weights, ...options }) {
  const states = [x];
  while (states.length <= TIMES) states.push(output(block(states.at(-1), weights, options)));
  return states;
}

/** Lengths and cosines over the number of applications: a curve for each norm, with residual connections and without. */
export function depth(text, paths, state, set) {
  const go = (k) => set({ times: Math.min(TIMES, Math.max(1, Math.round(k))) });
  const input = slider({ label: text.times, min: 1, max: TIMES, step: 1, digits: 0, get: () => state().times, set: go });
  const plots = Object.keys(MEASURES).map((name) => curves(text, name, paths, go));
  const keys = [...NORMS.map((norm) => h("span", { class: `llm-key llm-${norm}` }, text.key(text[norm]))), h("span", {}, text.dashed)];
  const words = h("p", { "aria-live": "polite" });
  const node = h("div", { class: "llm-depth" }, h("h4", {}, text.again), h("p", { class: "llm-help" }, text.ask), input.node,
    h("div", { class: "llm-planes" }, ...plots.map((p) => p.node)), h("p", { class: "llm-legend" }, ...keys), words);
  const update = (path) => {
    const now = { ...state(), path }, said = text.after(now.times, ...Object.values(MEASURES).map((f) => format(f(path.states[now.times]))));
    [input, ...plots].forEach((part) => part.update(now));
    if (words.textContent !== said) words.textContent = said; // what is as it was is not said again
  };
  return { node, update };
}

/** One measure over the number of applications: a curve for each path; that of the block as it stands is heavy and marked. */
function curves(text, name, paths, go) {
  const f = MEASURES[name], log = name === "lengths";
  const heights = paths.map(({ states }) => states.map((xs) => (log ? Math.log10(Math.max(f(xs), LEAST)) : f(xs))));
  const seen = heights.flat().filter(Number.isFinite); // none, if there is one token and therefore no cosine
  const low = log ? Math.floor(Math.min(...seen)) : Math.min(0, ...seen), high = log ? Math.max(Math.ceil(Math.max(...seen)), low + 1) : 1;
  const powers = Array.from({ length: log ? high - low + 1 : 0 }, (_, i) => [low + i, high - low > 6 && i % 2 ? "" : scientific(10 ** (low + i))]);
  const numbers = Array.from({ length: TIMES + 1 }, (_, k) => k);
  const { node, svg, at, draw } = plot({ title: ({ path, times }) => text.read(text[name], format(f(path.states[times]))), alt: () => text.alt(text[name]),
    axis: { x: { range: [0, TIMES], ticks: numbers.map((k) => [k, String(k)]) }, y: { range: [low, high], ticks: log ? powers : [0, 0.5, 1].map((y) => [y, String(y)]) } },
    steps: numbers.slice(0, seen.length), pick: go,
    curves: paths.map(({ norm, residual }, i) => [`llm-${norm}${residual ? "" : " llm-without"}`, (_, k) => Math.min(heights[i][k], high)]) });
  const lines = svg.querySelectorAll(".llm-curve"), mark = svg.appendChild(s("circle", { r: 5 }));
  const update = (now) => {
    const i = paths.indexOf(now.path), [cx, cy] = at([now.times, heights[i][now.times]]);
    draw(now);
    lines.forEach((line, j) => line.classList.toggle("llm-now", i === j));
    svg.append(lines[i], mark); // above the others
    setAttributes(mark, { cx, cy: Number.isFinite(cy) ? cy : 0, class: `llm-${now.norm}`, visibility: Number.isFinite(cy) ? "visible" : "hidden" });
  };
  return { node, update };
}

import { button, figure, format, h, language, number, plot, slider, store, toggle } from "./base.js";
import { softmax } from "./forward.js";

const TEXT = {
  en: {
    name: "Softmax explorer: why the scores are divided by √d_k", d_k: "width d_k", scaled: "divide by √d_k", reset: "Reset",
    score: "score z", scoreOf: (key) => `score of ${key}`, weights: "weights", plain: "q·k", divided: "q·k / √d_k",
    spread: "standard deviation of the scores", most: "largest weight", keys: "effective number of keys", slope: "largest slope w(1 − w)",
    over: (what) => `${what[0].toUpperCase()}${what.slice(1)} over d_k`,
    alt: (what) => `${what} over d_k from 1 to 1024: undivided, and divided by √d_k`,
    say: (scaled, d, spread, key, share, slope) => `${scaled ? "Divided by √d_k" : "Not divided"}, d_k = ${d}: the scores have standard deviation ${spread}, “${key}” takes ${share}% of the weight, and the largest slope is ${slope}.`,
    help: "Move d_k, or drag in a plot. Undivided (orange), the scores spread and one key takes all; divided (blue), nothing moves. A key's own slider changes its score.",
  },
  zh: {
    name: "softmax 探索器：为什么要除以 √d_k", d_k: "键的维数 d_k", scaled: "除以 √d_k", reset: "复位",
    score: "得分 z", scoreOf: (key) => `${key} 的得分`, weights: "权重", plain: "q·k", divided: "q·k / √d_k",
    spread: "得分的标准差", most: "最大权重", keys: "有效键数", slope: "最大斜率 w(1 − w)",
    over: (what) => `随 d_k 变化的${what}`,
    alt: (what) => `${what}随 d_k 从 1 到 1024 的变化：不除，以及除以 √d_k`,
    say: (scaled, d, spread, key, share, slope) => `${scaled ? "除以 √d_k" : "不除以 √d_k"}，d_k = ${d}：得分的标准差为 ${spread}，“${key}”占去 ${share}% 的权重，最大斜率为 ${slope}。`,
    help: "改变 d_k，或在曲线图上拖动。不除（橙色）时得分越来越分散，权重集中到一个键上；除以 √d_k（蓝色）之后一切不变。每个键的滑块改变它自己的得分。",
  },
};
const WIDEST = 1024; // d_k, as in Python
const REACH = 3; // of a score's slider, unless one given is larger
const BIG = 100; // what may be typed for a score
const FINE = 4; // points of a curve for each doubling of d_k
const SIDES = ["plain", "divided"]; // without the division, and with it
const MEASURES = { spread: 2, most: 3, keys: 2, slope: 4 }; // and their digits

/** What becomes of `scores` with unit variance when the raw dot products √d_k·z go into the softmax, or z itself. */
function measure(scores, d_k, side) {
  const raw = scores.map((z) => z * (side === "plain" ? Math.sqrt(d_k) : 1));
  const weights = softmax(raw, raw.map(() => true));
  const mean = raw.reduce((sum, x) => sum + x, 0) / raw.length;
  const spread = Math.sqrt(raw.reduce((sum, x) => sum + (x - mean) ** 2, 0) / raw.length);
  const entropy = -weights.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);
  return { weights, spread, most: Math.max(...weights), keys: Math.exp(entropy), slope: Math.max(...weights.map((p) => p * (1 - p))) };
}

const both = (scores, d_k) => Object.fromEntries(SIDES.map((side) => [side, measure(scores, d_k, side)]));

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["scores", "tokens", "d_k", "scaled"]);
  const first = state();

  function shape() {
    const { scores, tokens } = state();
    return scores.length === tokens.length ? JSON.stringify(tokens) : null;
  }

  function build(root) {
    const widen = (d) => set({ d_k: Math.min(WIDEST, Math.max(1, Math.round(d))) });
    const inputs = controls(text, state, set, widen, () => set({ ...first }));
    const parts = [table(text, state, set), measured(text, "keys", [0, 1, state().tokens.length], widen), measured(text, "slope", [0, 0.25], widen)];
    const said = h("p", { class: "llm-words", "aria-live": "polite" });
    const [rows, ...plots] = parts.map((part) => part.node);
    root.append(h("div", { class: "llm-controls" }, ...inputs.nodes), rows, said,
      h("div", { class: "llm-planes" }, ...plots), h("p", { class: "llm-help" }, text.help));
    return () => {
      const now = state(), result = both(now.scores, now.d_k);
      root.dataset.shown = now.scaled ? "divided" : "plain";
      inputs.update();
      parts.forEach((part) => part.draw(now, result));
      const words = sentence(text, now, result[root.dataset.shown]);
      if (said.textContent !== words) said.textContent = words; // what is as it was is not said again
    };
  }
  return figure({ model, el, className: "llm-softmax", label: text.name, shape, build });
}

function sentence(text, { tokens, d_k, scaled }, { weights, spread, most, slope }) {
  return text.say(scaled, d_k, format(spread, 1), tokens[weights.indexOf(most)], format(100 * most, 0), format(slope, 3));
}

function controls(text, state, set, widen, reset) {
  const width = slider({ label: text.d_k, min: 0, max: Math.log2(WIDEST), step: 1, at: Math.log2, from: (x) => 2 ** x, digits: 0,
    get: () => state().d_k, set: widen });
  const scaled = toggle({ label: text.scaled, get: () => state().scaled, set: (value) => set({ scaled: value }) });
  return {
    nodes: [width.node, h("div", { class: "llm-row" }, scaled.node, button(text.reset, reset))],
    update: () => [width, scaled].forEach((input) => input.update()),
  };
}

/** One row a key: its score, a bar and a weight for either side; below them the measures, side by side too. */
function table(text, state, set) {
  const { scores, tokens } = state();
  const reach = Math.max(REACH, ...scores.map((z) => Math.ceil(Math.abs(z))));
  const cell = (side, child) => h("span", { role: "cell", class: `llm-${side}` }, child);
  const keys = tokens.map((token, i) => {
    const input = slider({ label: token, min: -reach, max: reach, step: 0.1, limits: [-BIG, BIG],
      get: () => state().scores[i], set: (z) => set({ scores: state().scores.map((old, j) => (j === i ? z : old)) }) });
    input.node.querySelectorAll("input").forEach((field) => field.setAttribute("aria-label", text.scoreOf(token)));
    const bars = SIDES.map((side) => h("div", { class: `llm-bar llm-${side}` }));
    const weights = SIDES.map(() => number(3, "llm-weight"));
    const row = h("div", { role: "row" }, h("div", { role: "rowheader" }, input.node), h("div", { role: "cell", class: "llm-bars" }, ...bars),
      ...SIDES.map((side, k) => cell(side, weights[k].node)));
    return { row, input, bars, weights };
  });
  const measures = Object.entries(MEASURES).map(([name, digits]) => {
    const numbers = SIDES.map(() => number(digits, `llm-${name}`));
    const row = h("div", { role: "row", class: "llm-measure" }, h("span", { role: "rowheader" }, text[name]), ...SIDES.map((side, k) => cell(side, numbers[k].node)));
    return { row, name, numbers };
  });
  const head = [["", text.score], ["llm-bars", text.weights], ...SIDES.map((side) => [`llm-${side}`, text[side]])];
  const node = h("div", { role: "table", class: "llm-table", "aria-label": text.weights },
    h("div", { role: "row", class: "llm-head" }, ...head.map(([className, label]) => h("span", { role: "columnheader", class: className }, label))),
    ...keys.map((key) => key.row), ...measures.map((m) => m.row));
  const draw = (_, result) => SIDES.forEach((side, k) => {
    keys.forEach(({ input, bars, weights }, i) => {
      input.update();
      bars[k].style.width = `${(100 * result[side].weights[i]).toFixed(2)}%`;
      weights[k].show(result[side].weights[i]);
    });
    measures.forEach(({ name, numbers }) => numbers[k].show(result[side][name]));
  });
  return { node, draw };
}

/** One measure over d_k, undivided and divided, each with a mark at the d_k of now. */
function measured(text, name, ticks, widen) {
  const doublings = Math.log2(WIDEST), title = () => text.over(text[name]);
  return plot({ title, alt: () => text.alt(text[name]), pick: (x) => widen(2 ** Math.round(x)),
    steps: Array.from({ length: doublings * FINE + 1 }, (_, j) => j / FINE),
    curves: SIDES.map((side) => [`llm-${side}`, ({ scores }, x) => measure(scores, 2 ** x, side)[name]]),
    marks: ({ d_k }) => [["llm-now", Math.log2(d_k)]],
    axis: { size: [320, 150], x: { range: [0, doublings], ticks: [1, 32, WIDEST].map((d) => [Math.log2(d), String(d)]) },
      y: { range: [0, ticks.at(-1)], ticks: ticks.map((y) => [y, String(y)]) } } });
}

export default { render };

import { axes, button, draggable, figure, format, h, language, number, s, scientific, select, setAttributes, slider, store } from "./base.js";

const TEXT = {
  en: {
    name: "Scale explorer", parameters: "parameters N, billions", tokens: "tokens D, billions", unit: 1e9, model: "model", none: "none",
    best: "Best size for this compute", reset: "Reset", point: "your model", N: "parameters N", D: "training tokens D", rule: "20 tokens a parameter",
    names: { flops: "compute C = 6 N D, operations", days: (tera) => `GPU-days at ${tera} TFLOP/s a GPU`, ratio: "tokens for each parameter", memory: "weights in 16 bits, GB",
      bestN: "best for this compute: N", bestD: "and D" }, words: ["", "thousand", "million", "billion", "trillion", "quadrillion"], base: 1000,
    help: "Drag the point, or focus it and use the arrow keys. Along the dashed line the compute stays the same; where it meets the solid line is the best size for it.",
    alt: "Parameters and training tokens on logarithmic scales: lines of equal compute, the compute-optimal line, and models",
    amount: (x, word) => `${x} ${word}`.trim(), at: (n, d) => `${n} parameters, ${d} tokens`,
    said: (name, ratio) => `The nearest model is ${name}, with ${ratio} tokens for each parameter.`,
  },
  zh: {
    name: "规模探索器", parameters: "参数量 N（亿）", tokens: "词元数 D（亿）", unit: 1e8, model: "模型", none: "无",
    best: "取这份计算量下的最优规模", reset: "复位", point: "你的模型", N: "参数量 N", D: "训练词元数 D", rule: "每个参数 20 个词元",
    names: { flops: "计算量 C = 6 N D（次运算）", days: (tera) => `GPU 天数（每块每秒 ${tera} 万亿次）`, ratio: "每个参数的词元数", memory: "16 位权重占用（GB）",
      bestN: "这份计算量的最优 N", bestD: "最优 D" }, words: ["", "万", "亿", "万亿", "亿亿"], base: 10000,
    help: "拖动圆点，或选中它之后用方向键移动。虚线上计算量处处相同；它与实线相交之处，就是这份计算量的最优规模。",
    alt: "对数坐标下的参数量与训练词元数：等计算量线、计算最优线，以及已发表的模型",
    amount: (x, word) => `${x}${word && ` ${word}`}`, at: (n, d) => `参数 ${n}，词元 ${d}`,
    said: (name, ratio) => `最近的模型是 ${name}，每个参数 ${ratio} 个词元。`,
  },
};
const LIMITS = { parameters: [1e6, 1e13], tokens: [2e7, 2e14] }; // as in Python
const TOKENS_PER_PARAMETER = 20;
const DAY = 86400; // seconds
const LEVELS = [17, 19, 21, 23, 25]; // powers of ten of the lines of equal compute
const { log10 } = Math;

/** What training N parameters on D tokens takes, and the best that could be done with it. */
function cost({ parameters, tokens, throughput }) {
  const flops = 6 * parameters * tokens, bestN = Math.sqrt(flops / 6 / TOKENS_PER_PARAMETER);
  return { flops, days: flops / throughput / DAY, ratio: tokens / parameters, memory: (2 * parameters) / 1e9, bestN, bestD: TOKENS_PER_PARAMETER * bestN };
}

function nearest({ parameters, tokens, models }) {
  const distance = ([, n, d]) => Math.hypot(log10(n / parameters), log10(d / tokens));
  return models.reduce((best, model) => (distance(model) < distance(best) ? model : best));
}

/** Within the limits, and to four digits. */
const limit = (name, x) => Math.min(LIMITS[name][1], Math.max(LIMITS[name][0], Number(x.toPrecision(4))));
/** Three digits, or a power of ten where that would be long. */
const short = (x) => (x >= 1e5 || x < 1e-2 ? scientific(x, 1) : x >= 100 ? Math.round(x).toLocaleString("en") : String(Number(x.toPrecision(3))));

/** A large number in words: 175 billion, 1750 亿. */
function words(text, x) {
  const k = Math.max(0, Math.min(text.words.length - 1, Math.floor(Math.log(x * 1.0005) / Math.log(text.base))));
  return text.amount(Number((x / text.base ** k).toPrecision(3)), text.words[k]);
}

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["parameters", "tokens", "throughput", "models"]);
  const first = state();
  const move = (parameters, tokens) => set({ parameters: limit("parameters", parameters), tokens: limit("tokens", tokens) });
  const shape = () => JSON.stringify([state().models, state().throughput]);

  function build(root) {
    const inputs = controls(text, state, set, move, () => set({ ...first }));
    const parts = [plane(text, state(), state, move), numbers(text, state().throughput)];
    root.append(h("div", { class: "llm-controls" }, ...inputs.nodes), h("div", { class: "llm-view" }, ...parts.map((part) => part.node)));
    return () => {
      const now = state();
      inputs.update();
      parts.forEach((part) => part.draw(now, cost(now)));
    };
  }
  return figure({ model, el, className: "llm-scale", label: text.name, shape, build });
}

function controls(text, state, set, move, reset) {
  const sliders = Object.entries(LIMITS).map(([name, [low, high]]) => slider({ label: text[name], min: log10(low / text.unit), max: log10(high / text.unit), step: 0.01,
    at: log10, from: (x) => Number((10 ** x).toPrecision(3)), limits: [low / text.unit, high / text.unit], get: () => state()[name] / text.unit,
    set: (x) => set({ [name]: limit(name, x * text.unit) }) }));
  const found = () => state().models.findIndex(([, n, d]) => n === state().parameters && d === state().tokens);
  const model = select({ label: text.model, options: [["-1", text.none], ...state().models.map(([name], i) => [String(i), name])], get: () => String(found()),
    set: (i) => { if (i >= 0) set({ parameters: state().models[i][1], tokens: state().models[i][2] }); else model.update(); } });
  const best = button(text.best, () => { const { bestN, bestD } = cost(state()); move(bestN, bestD); });
  const inputs = [...sliders, model];
  return { nodes: [...sliders.map((input) => input.node), h("div", { class: "llm-row" }, model.node, best, button(text.reset, reset))],
    update: () => inputs.forEach((input) => input.update()) };
}

/** The ends of the part of a line D = c N^power that lies within the limits. */
function ends(c, power) {
  const [n, d] = [LIMITS.parameters, LIMITS.tokens], at = (x) => (x / c) ** (1 / power), crossings = d.map(at).sort((a, b) => a - b);
  return [Math.max(n[0], crossings[0]), Math.min(n[1], crossings[1])].map((x) => [x, c * x ** power]);
}

/** Labels beside their points: the first of four places that is free. */
function label(svg, taken, [x, y], name) {
  const width = 6.6 * [...name].length, places = [[8, 4, "start", 0], [-8, 4, "end", -width], [0, -9, "middle", -width / 2], [0, 18, "middle", -width / 2]];
  const box = ([dx, dy, , left]) => [x + dx + (dx ? Math.min(left, 0) : left), y + dy - 10, width, 12];
  const meets = ([a, b, w, t], [p, q, u, v]) => a < p + u && p < a + w && b < q + v && q < b + t;
  const place = places.find((p) => !taken.some((other) => meets(box(p), other))) ?? places[0];
  taken.push(box(place));
  svg.append(s("text", { x: x + place[0], y: y + place[1], "text-anchor": place[2] }, name));
}

function plane(text, { models }, state, move) {
  const svg = s("svg", { role: "group", "aria-label": text.alt }), range = (name) => LIMITS[name].map(log10);
  const tick = (power) => [power, scientific(10 ** power)];
  const { at, from } = axes(svg, { size: [460, 400], margin: [24, 18, 40, 48], x: { range: range("parameters"), ticks: [6, 7, 8, 9, 10, 11, 12, 13].map(tick) },
    y: { range: range("tokens"), ticks: [[range("tokens")[0], ""], ...[8, 9, 10, 11, 12, 13, 14].map(tick)] } });
  const spot = ([n, d]) => at([log10(n), log10(d)]);
  const line = (className, points) => s("polyline", { class: className, points: points.map(spot).join(" ") });
  const along = (n, d, slope, words, className) => { // on a line, a little above it
    const [[x, y], [x1, y1]] = [spot([n, d]), spot([10 * n, d * 10 ** slope])], turn = (Math.atan2(y1 - y, x1 - x) * 180) / Math.PI;
    svg.append(s("text", { transform: `translate(${x} ${y}) rotate(${turn})`, y: -4, "text-anchor": "middle", class: className }, words));
  };
  for (const power of LEVELS) {
    const n = Math.sqrt(10 ** power / 6 / TOKENS_PER_PARAMETER) / 10, d = 10 ** power / 6 / n; // a tenth of the best size
    svg.append(line("llm-level", ends(10 ** power / 6, -1)));
    along(n, d, -1, `C = ${scientific(10 ** power)}`, "llm-small");
  }
  along(3e8, 6e9, 1, text.rule, "llm-rule");
  const dots = models.map(([, n, d]) => spot([n, d])), taken = dots.map(([x, y]) => [x - 4, y - 4, 8, 8]);
  svg.append(line("llm-curve llm-rule", ends(TOKENS_PER_PARAMETER, 1)), s("text", { x: 230, y: 393, "text-anchor": "middle" }, text.N), s("text", { x: 48, y: 16 }, text.D),
    ...dots.map(([cx, cy]) => s("circle", { class: "llm-dot llm-rule", cx, cy, r: 4 })));
  models.forEach(([name], i) => label(svg, taken, dots[i], name));
  const same = svg.appendChild(s("polyline", { class: "llm-curve llm-same" })), best = svg.appendChild(s("circle", { class: "llm-best", r: 6 }));
  const point = svg.appendChild(s("circle", { class: "llm-dot llm-same", r: 7, tabindex: 0, role: "slider", "aria-label": text.point, "aria-valuemin": 6, "aria-valuemax": 13 }));
  const board = h("div", { class: "llm-board" }, svg);
  draggable(svg, (u, v) => move(...from(u, v).map((x) => 10 ** x)));
  point.addEventListener("keydown", (event) => {
    const [right, up] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [];
    if (right === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const step = event.shiftKey ? 0.25 : 0.05, { parameters, tokens } = state();
    move(parameters * 10 ** (step * right), tokens * 10 ** (step * up));
  });
  const draw = ({ parameters, tokens }, { flops, bestN, bestD }) => {
    const [cx, cy] = spot([parameters, tokens]), [x, y] = spot([bestN, bestD]);
    setAttributes(point, { cx, cy, "aria-valuenow": log10(parameters).toFixed(2), "aria-valuetext": text.at(words(text, parameters), words(text, tokens)) });
    setAttributes(best, { cx: x, cy: y });
    same.setAttribute("points", ends(flops / 6, -1).map(spot).join(" "));
  };
  return { node: h("figure", { class: "llm-plane" }, board, h("p", {}, text.help)), draw };
}

/** The numbers beside the plane, and the nearest model. */
function numbers(text, throughput) {
  const write = { flops: (x) => scientific(x, 2), bestN: (x) => words(text, x), bestD: (x) => words(text, x) };
  const rows = Object.entries(text.names).map(([name, label]) => [name, label, number(0, `llm-${name}`, write[name] ?? short)]);
  const here = h("p", { class: "llm-here" }), said = h("p", { class: "llm-said", "aria-live": "polite" });
  const list = rows.map(([, label, { node }]) => h("div", {}, h("span", {}, typeof label === "string" ? label : label(short(throughput / 1e12))), node));
  const draw = (now, found) => {
    const [name, n, d] = nearest(now), sentence = text.said(name, short(d / n));
    here.textContent = text.at(words(text, now.parameters), words(text, now.tokens));
    rows.forEach(([key, , { show }]) => show(found[key]));
    if (said.textContent !== sentence) said.textContent = sentence;
  };
  return { node: h("div", {}, here, h("div", { class: "llm-list" }, ...list), said), draw };
}

export default { render };

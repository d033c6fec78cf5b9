import { axes, button, draggable, figure, h, language, number, s, scientific, setAttributes, slider, store, toggle } from "./base.js";

const TEXT = {
  en: {
    name: "Gradient explorer", w: "recurrent weight w", forget: "forget gate f", length: "length T", tanh: "tanh in the recurrent network", reset: "Reset",
    recurrent: "recurrent", memory: "memory", attention: "attention", chart: "Slope of the last output by the input at each distance",
    chartAlt: "Three curves on a logarithmic scale: the slope of the last output by an input, over their distance", axis: "distance T − t", help: "Drag to choose the length.",
    far: "slope at the far end", halves: (n) => `halves every ${n} steps`, doubles: (n) => `doubles every ${n} steps`, same: "stays the same", gone: "is 0 at once",
    rules: { tanh: "each step: × w (1 − h²)", linear: "each step: × w", memory: "each step: × f", attention: "one step: 1 / T" },
    said: (d, [a, b, c]) => `At distance ${d} the slope is ${a} in the recurrent network, ${b} in the memory, ${c} in attention.`,
  },
  zh: {
    name: "梯度探索器", w: "循环权重 w", forget: "遗忘门 f", length: "长度 T", tanh: "循环网络带 tanh", reset: "复位",
    recurrent: "循环网络", memory: "记忆单元", attention: "注意力", chart: "最后的输出对各个距离上的输入的斜率",
    chartAlt: "对数坐标下的三条曲线：最后的输出对一个输入的斜率，随两者的距离变化", axis: "距离 T − t", help: "拖动可选择长度。",
    far: "最远处的斜率", halves: (n) => `每 ${n} 步减半`, doubles: (n) => `每 ${n} 步翻倍`, same: "不变", gone: "立刻为 0",
    rules: { tanh: "每一步：× w (1 − h²)", linear: "每一步：× w", memory: "每一步：× f", attention: "只有一步：1 / T" },
    said: (d, [a, b, c]) => `距离为 ${d} 时，斜率在循环网络中是 ${a}，在记忆单元中是 ${b}，在注意力中是 ${c}。`,
  },
};
const NETWORKS = ["recurrent", "memory", "attention"];
const LIMITS = { w: 1.5, forget: 1 }; // as in Python
const [FLOOR, CEILING, STEP] = [-15, 18, 3]; // of the drawing, in powers of ten, and from label to label

/** ∂o_T/∂x_t of the three networks at the distances 0, 1, …, T − 1. */
function slopes({ w, forget, length, linear, x }) {
  const states = [];
  for (let t = 0, before = 0; t < length; t++) {
    const sum = w * before + x[t];
    states.push(before = linear ? sum : Math.tanh(sum));
  }
  let product = 1;
  const recurrent = states.reverse().map((state) => {
    const own = linear ? 1 : 1 - state * state; // the slope of tanh
    const slope = product * own;
    product *= w * own;
    return slope;
  });
  return { recurrent, memory: states.map((_, d) => forget ** d), attention: states.map(() => 1 / length) };
}

/** In how many steps the slope halves, on average from the nearest input to the farthest; below 0 where it doubles. */
function halfLife(slope) {
  const ratio = Math.log(slope[0] / slope.at(-1));
  return Math.abs(ratio) < 1e-12 ? Infinity : ((slope.length - 1) * Math.LN2) / ratio;
}

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["w", "forget", "length", "linear", "x"]);
  const first = state();

  function shape() {
    const { x, length } = state();
    return length <= x.length ? x.length : null;
  }

  function build(root) {
    const n = state().x.length;
    const inputs = controls(text, n, state, set, () => set({ ...first }));
    const parts = [chart(text, n, set), table(text)];
    root.append(h("div", { class: "llm-controls" }, ...inputs.nodes), h("div", { class: "llm-view" }, ...parts.map((part) => part.node)));
    return () => {
      const now = state(), all = slopes(now);
      inputs.update();
      parts.forEach((part) => part.draw(now, all));
    };
  }
  return figure({ model, el, className: "llm-gradient", label: text.name, shape, build });
}

function controls(text, n, state, set, reset) {
  const sliders = ["w", "forget"].map((name) => slider({ label: text[name], min: 0, max: LIMITS[name], step: 0.01, get: () => state()[name], set: (value) => set({ [name]: value }) }));
  const length = slider({ label: text.length, min: 2, max: n, step: 1, digits: 0, get: () => state().length, set: (value) => set({ length: Math.round(value) }) });
  const squash = toggle({ label: text.tanh, get: () => !state().linear, set: (on) => set({ linear: !on }) });
  const inputs = [...sliders, length, squash];
  return { nodes: [...inputs.slice(0, 3).map((input) => input.node), h("div", { class: "llm-row" }, squash.node, button(text.reset, reset))],
    update: () => inputs.forEach((input) => input.update()) };
}

/** The powers of ten from `low` to `high`, as ticks. */
function powers(low, high) {
  const step = high - low > 4 * STEP ? 2 * STEP : STEP;
  return Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, i) => [low + i * step, scientific(10 ** (low + i * step))]);
}

/** The slopes over the distance; the range of powers follows them. */
function chart(text, n, set) {
  const svg = s("svg", { role: "img", "aria-label": text.chartAlt });
  const far = n - 1, every = far > 100 ? 40 : far > 20 ? 20 : far > 5 ? 5 : 1;
  const distances = Array.from({ length: Math.floor(far / every) + 1 }, (_, i) => [i * every, String(i * every)]);
  const curves = NETWORKS.map((name) => [s("polyline", { class: `llm-curve llm-${name}` }), s("circle", { r: 4.5, class: `llm-dot llm-${name}` })]);
  let from = () => [0];
  draggable(svg, (u, v) => set({ length: Math.min(n, Math.max(2, Math.round(from(u, v)[0]) + 1)) }));
  const draw = ({ length }, all) => {
    const sizes = Object.values(all).flat().filter((slope) => slope > 0).map(Math.log10);
    const low = Math.max(FLOOR, Math.min(-STEP, STEP * Math.floor(Math.min(...sizes) / STEP)));
    const high = Math.min(CEILING, Math.max(0, STEP * Math.ceil(Math.max(...sizes) / STEP - 1e-9)));
    const plane = axes(svg, { size: [460, 260], margin: [14, 16, 40, 44], x: { range: [0, far], ticks: distances }, y: { range: [low, high], ticks: powers(low, high) } });
    from = plane.from;
    svg.append(s("text", { x: 244, y: 253, "text-anchor": "middle" }, text.axis), ...curves.flat());
    NETWORKS.forEach((name, i) => {
      const points = all[name].map((slope, d) => [d, Math.log10(slope)]).filter(([, y]) => y >= low);
      const [cx, cy] = plane.at([length - 1, Math.log10(all[name].at(-1))]);
      curves[i][0].setAttribute("points", points.map(plane.at).join(" "));
      setAttributes(curves[i][1], points.length === length ? { cx, cy, visibility: "visible" } : { visibility: "hidden" });
    });
  };
  return { node: h("figure", { class: "llm-plane llm-chart" }, h("figcaption", {}, text.chart), svg, h("p", {}, text.help)), draw };
}

/** A row a network: what one step does to the slope; the slope at the far end, and in how many steps it halves. */
function table(text) {
  const change = (x) => (x === 0 ? text.gone : Number.isFinite(x) ? (x > 0 ? text.halves : text.doubles)(Math.abs(x).toFixed(1)) : text.same);
  const rows = NETWORKS.map((name) => ({ name, rule: h("small"), far: number(1, "llm-far", scientific), half: number(1, "llm-half", change) }));
  const said = h("p", { class: "llm-said", "aria-live": "polite" });
  const node = h("div", {}, h("table", {}, h("thead", {}, h("tr", {}, ...["", text.far].map((word) => h("th", { scope: "col" }, word)))),
    h("tbody", {}, ...rows.map(({ name, rule, far, half }) => h("tr", {},
      h("th", { scope: "row" }, h("span", { class: `llm-key llm-${name}` }, text[name]), rule), h("td", {}, far.node, half.node))))), said);
  const draw = ({ linear, length }, all) => {
    rows.forEach(({ name, rule, far, half }) => {
      rule.textContent = text.rules[name] ?? text.rules[linear ? "linear" : "tanh"];
      far.show(all[name].at(-1));
      half.show(halfLife(all[name]));
    });
    const sentence = text.said(length - 1, NETWORKS.map((name) => scientific(all[name].at(-1), 1)));
    if (said.textContent !== sentence) said.textContent = sentence;
  };
  return { node, draw };
}

export default { render };

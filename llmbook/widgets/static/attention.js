import { button, draggable, figure, format, h, language, number, s, setAttributes, slider, store, toggle, vector } from "./base.js";
import { softmax } from "./forward.js";

const TEXT = {
  en: {
    name: "Attention explorer", query: "query", components: "components", temperature: "temperature τ", scaled: "divide by √d_k", reset: "Reset",
    key: "key", score: "score", weight: "weight", value: "value", output: "output", attend: "may attend to",
    plane: "Query and keys", hull: "Values and output",
    planeHelp: "Drag the query. Each dashed line drops a key onto the query's direction: the further out it lands, the higher the score.",
    hullHelp: "The output never leaves the shape spanned by the values; a larger dot is a larger weight.",
    planeAlt: "The query and the keys as arrows in a plane", hullAlt: "The values, and the output among them",
  },
  zh: {
    name: "注意力探索器", query: "查询", components: "个分量", temperature: "温度 τ", scaled: "除以 √d_k", reset: "复位",
    key: "键", score: "得分", weight: "权重", value: "值", output: "输出", attend: "可以关注",
    plane: "查询与键", hull: "值与输出",
    planeHelp: "拖动查询向量试试。虚线是各个键在查询方向上的投影：落点越远，得分越高。",
    hullHelp: "输出始终落在各个值围成的区域之内；点越大，权重越大。",
    planeAlt: "平面上的查询向量与键向量", hullAlt: "各个值，以及位于其间的输出",
  },
};
const BIG = 1e4; // what may be typed for a component of the query
const FEW = 4; // sliders for a longer query are folded away
const RANGE = 3; // reach of the query's sliders, unless the query given is longer

/** Scaled dot-product attention of one query: scores, weights, output. */
function attend({ q, K, V, mask, temperature, scaled }) {
  const divisor = temperature * (scaled ? Math.sqrt(q.length) : 1);
  const scores = K.map((k) => k.reduce((sum, x, j) => sum + x * q[j], 0) / divisor);
  const weights = softmax(scores, mask);
  const output = V[0].map((_, j) => weights.reduce((sum, w, i) => sum + w * V[i][j], 0));
  return { scores, weights, output };
}

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["tokens", "q", "K", "V", "mask", "temperature", "scaled"]);
  const first = state();

  function shape() {
    const { tokens, q, K, V, mask } = state();
    const whole = [tokens, V, mask].every((x) => x.length === K.length) && K.every((k) => k.length === q.length);
    return whole ? JSON.stringify([tokens, K, V]) : null;
  }

  function build(root) {
    const { q, K, V } = state();
    const parts = [table(text, state(), set, state)];
    if (q.length === 2) parts.push(plane(text, K, set, first.q));
    if (V[0].length === 2) parts.push(hull(text, V));
    const inputs = controls(text, q, set, state, () => set({ ...first }));
    root.append(
      h("div", { class: "llm-controls" }, ...inputs.nodes),
      h("div", { class: "llm-view" }, parts[0].node, h("div", { class: "llm-planes" }, ...parts.slice(1).map((p) => p.node))),
    );
    return () => {
      const now = state();
      const result = attend(now);
      inputs.update();
      parts.forEach((part) => part.draw(now, result));
    };
  }
  return figure({ model, el, className: "llm-attention", label: text.name, shape, build });
}

function controls(text, q, set, state, reset) {
  const reach = Math.max(RANGE, ...q.map((x) => Math.ceil(Math.abs(x))));
  const inputs = q.map((_, j) => slider({
    label: q.length === 1 ? text.query : `${text.query} q${subscript(j + 1)}`,
    min: -reach, max: reach, step: 0.05, limits: [-BIG, BIG],
    get: () => state().q[j],
    set: (x) => set({ q: state().q.map((old, i) => (i === j ? x : old)) }),
  }));
  const temperature = slider({ label: text.temperature, min: 0.05, max: 5, step: 0.05, limits: [0.01, 1000],
    get: () => state().temperature, set: (value) => set({ temperature: value }) });
  const scaled = toggle({ label: text.scaled, get: () => state().scaled, set: (value) => set({ scaled: value }) });
  const sliders = inputs.map((input) => input.node);
  const many = h("details", {}, h("summary", {}, `${text.query}: ${q.length} ${text.components}`), ...sliders);
  return {
    nodes: [...(q.length > FEW ? [many] : sliders), temperature.node,
      h("div", { class: "llm-row" }, scaled.node, button(text.reset, reset))],
    update: () => [...inputs, temperature, scaled].forEach((input) => input.update()),
  };
}

const subscript = (n) => String(n).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);

/** One row a key: may the query attend to it, its score, its weight as heat and as a bar, its value; then the output. */
function table(text, { tokens, K, V }, set, state) {
  const rows = tokens.map((token, i) => {
    const box = h("input", { type: "checkbox", "aria-label": `${text.attend} ${token}`,
      onchange: () => set({ mask: state().mask.map((old, j) => (j === i ? box.checked : old)) }) });
    const score = number(3, "llm-score"), weight = number(3, "llm-weight");
    const heat = h("td", { class: "llm-heat" }, weight.node), bar = h("div", { class: "llm-bar" });
    const row = h("tr", {}, h("th", { scope: "row" }, h("label", {}, box, h("span", {}, token))),
      h("td", { class: "llm-wide" }, vector(K[i])), h("td", {}, score.node), heat,
      h("td", { class: "llm-bars" }, bar), h("td", { class: "llm-wide" }, vector(V[i])));
    return { row, box, score, weight, heat, bar };
  });
  const outputs = V[0].map(() => number(3, "llm-output"));
  const node = h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, text.key), h("th", { scope: "col", class: "llm-wide" }, "k"),
      h("th", { scope: "col" }, text.score), h("th", { scope: "col", colspan: 2 }, text.weight),
      h("th", { scope: "col", class: "llm-wide" }, `${text.value} v`))),
    h("tbody", {}, ...rows.map((r) => r.row)),
    h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, text.output),
      h("td", { colspan: 5 }, h("span", { class: "llm-vector" }, ...outputs.map((o) => o.node))))));
  const draw = ({ mask }, { scores, weights, output }) => {
    rows.forEach(({ row, box, score, weight, heat, bar }, i) => {
      box.checked = mask[i];
      row.classList.toggle("llm-masked", !mask[i]);
      score.show(scores[i]);
      weight.show(weights[i]);
      heat.style.setProperty("--w", `${(55 * weights[i]).toFixed(2)}%`); // at most so dark that the number can be read on it
      bar.style.width = `${(100 * weights[i]).toFixed(2)}%`;
    });
    outputs.forEach((o, j) => o.show(output[j]));
  };
  return { node: h("div", { class: "llm-scroll" }, node), draw };
}

const SIZE = 220; // side of a plane, in SVG units

/** A square SVG with axes over [x0 − r, x0 + r] × [y0 − r, y0 + r]; `at` maps data to SVG units. */
function square(title, alt, help, [x0, y0], r) {
  const at = ([x, y]) => [SIZE / 2 + ((x - x0) / r) * (SIZE / 2), SIZE / 2 - ((y - y0) / r) * (SIZE / 2)];
  const svg = s("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": alt });
  const step = 10 ** Math.floor(Math.log10(r)) * (r / 10 ** Math.floor(Math.log10(r)) > 4 ? 2 : 1);
  for (let g = Math.ceil((Math.min(x0, y0) - r) / step) * step; g <= Math.max(x0, y0) + r; g += step) {
    const [x, y] = at([g, g]), axis = Math.abs(g) < step / 2 ? "llm-axis" : "llm-grid";
    svg.append(s("line", { x1: x, x2: x, y1: 0, y2: SIZE, class: axis }), s("line", { x1: 0, x2: SIZE, y1: y, y2: y, class: axis }));
  }
  const node = h("figure", { class: "llm-plane" }, h("figcaption", {}, title), svg, h("p", {}, help));
  return { node, svg, at };
}

/** Put a label above right of a point; below it on request, or where above or the right has no room. */
function place(label, text, x, y, gap, below = false) {
  const width = [...text].reduce((sum, c) => sum + (c > "\u2e80" ? 12 : 7), 0);
  const tight = x + gap + width > SIZE;
  const under = (below || tight || y < 24) && y < SIZE - 24;
  setAttributes(label, { x: tight ? SIZE - 3 : x + gap, y: under ? y + gap + 9 : y - gap, "text-anchor": tight ? "end" : "start" });
  label.textContent = text;
}

function plane(text, K, set, q0) {
  const r = 1.25 * Math.max(...[...K, q0].flat().map(Math.abs), 0.5);
  const { node, svg, at } = square(text.plane, text.planeAlt, text.planeHelp, [0, 0], r);
  const arrow = (className, below = false) => {
    const line = s("line", { class: className }), dot = s("circle", { r: 4, class: className });
    const label = s("text", { class: className });
    svg.append(line, dot, label);
    return (to, name) => {
      const [x0, y0] = at([0, 0]), [x, y] = at(to);
      setAttributes(line, { x1: x0, y1: y0, x2: x, y2: y });
      setAttributes(dot, { cx: x, cy: y });
      place(label, name, x, y, 7, below);
    };
  };
  const drops = K.map(() => svg.appendChild(s("line", { class: "llm-drop" })));
  const keys = K.map(() => arrow("llm-key")), query = arrow("llm-query", true);
  draggable(svg, (x, y) => {
    const round = (z) => Math.round((z * 2 - 1) * r * 20) / 20;
    set({ q: [round(x), -round(y) || 0] });
  });
  const draw = ({ q, tokens }) => {
    const norm = q[0] ** 2 + q[1] ** 2;
    K.forEach((k, i) => {
      const along = norm > 0 ? (k[0] * q[0] + k[1] * q[1]) / norm : 0;
      const [x1, y1] = at(k), [x2, y2] = at([along * q[0], along * q[1]]);
      setAttributes(drops[i], { x1, y1, x2, y2 });
      keys[i](k, K.length > 8 ? "" : tokens[i]);
    });
    query(q, "q");
  };
  return { node, draw };
}

function hull(text, V) {
  const [xs, ys] = [V.map((v) => v[0]), V.map((v) => v[1])];
  const middle = [xs, ys].map((z) => (Math.min(...z) + Math.max(...z)) / 2);
  const r = 0.75 * Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 0.5);
  const { node, svg, at } = square(text.hull, text.hullAlt, text.hullHelp, middle, r);
  svg.append(s("polygon", { class: "llm-hull", points: convexHull(V).map(at).join(" ") }));
  const dots = V.map((v) => {
    const [cx, cy] = at(v);
    return svg.appendChild(s("circle", { cx, cy, class: "llm-value" }));
  });
  const labels = V.map(() => svg.appendChild(s("text", { class: "llm-value" })));
  const mark = svg.appendChild(s("circle", { r: 5, class: "llm-out" }));
  const draw = ({ tokens }, { weights, output }) => {
    const [cx, cy] = at(output);
    setAttributes(mark, { cx, cy });
    mark.replaceChildren(s("title", {}, `${text.output} ${vector(output, 3)}`));
    dots.forEach((dot, i) => dot.setAttribute("r", (3 + 11 * Math.sqrt(weights[i])).toFixed(2)));
    if (V.length <= 8) labels.forEach((label, i) => place(label, `${tokens[i]} ${format(weights[i], 2)}`, ...at(V[i]), 10));
  };
  return { node, draw };
}

/** The corners of the convex hull of points in the plane, in order (Andrew's monotone chain). */
function convexHull(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const half = (list) => {
    const chain = [];
    for (const p of list) {
      while (chain.length > 1 && turn(chain.at(-2), chain.at(-1), p) <= 0) chain.pop();
      chain.push(p);
    }
    return chain.slice(0, -1);
  };
  const turn = (a, b, c) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
  return sorted.length < 2 ? sorted : [...half(sorted), ...half(sorted.reverse())];
}

export default { render };

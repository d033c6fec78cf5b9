import { button, figure, format, h, language, number, plot, roving, s, setAttributes, slider, store } from "./base.js";

const TEXT = {
  en: {
    name: "Positions explorer", kind: "kind", sinusoidal: "Sinusoidal", rotary: "Rotary", reset: "Reset", query: "position m", key: "position n", pair: "pair i",
    shift: "shift both", less: "Shift both back by one", more: "Shift both on by one",
    map: "Position vectors PE: a column each", mapAlt: "Position vectors as a map: a column for each position, a row for each component; dark is 1, light is −1",
    wave: (i, turn) => `Pair ${i}: sine (solid), cosine (dashed); one turn in ${turn} positions`,
    dots: "PEₘ · PEₙ for every n", dotsAlt: "The dot product of position vector m with each position vector n, over n",
    large: (i) => `Pair ${i}, turned by mω and nω`, all: "All pairs, the fastest first", pairAt: (i, turn) => `pair ${i}, one turn in ${turn} positions`,
    scores: "Score for every distance m − n; thin: the pair's part", scoresAlt: "The score over the distance m − n, and what the chosen pair contributes to it",
    score: { sinusoidal: "PEₘ · PEₙ", rotary: "score" }, part: "the chosen pair's part", plain: { sinusoidal: "at distance 0", rotary: "without positions, q · k" },
    distance: "distance m − n", omega: "frequency ω of the pair", turn: "positions for one turn",
    say: { sinusoidal: (m, n, d, x) => `Positions ${m} and ${n}, distance ${d}: the dot product is ${x}.`, rotary: (m, n, d, x) => `Query at ${m}, key at ${n}, distance ${d}: the score is ${x}.` },
    help: { sinusoidal: "Choose a column of the map for m (orange) and a row for the pair; drag in the lowest plot for n (blue). Then shift both: the vectors change, their dot product does not.",
      rotary: "Move m: the query's arrows (orange) turn, fast pairs first; n turns the key's (blue). Then shift both: all arrows turn, no angle between query and key changes, and the score stays." },
  },
  zh: {
    name: "位置编码探索器", kind: "种类", sinusoidal: "正弦", rotary: "旋转", reset: "复位", query: "位置 m", key: "位置 n", pair: "分量对 i",
    shift: "一起移动", less: "两个位置都退一步", more: "两个位置都进一步",
    map: "位置向量 PE：每列一个", mapAlt: "位置向量图：每列一个位置，每行一个分量；深色为 1，浅色为 −1",
    wave: (i, turn) => `分量对 ${i}：正弦（实线）与余弦（虚线），每 ${turn} 个位置转一圈`,
    dots: "各个 n 处的 PEₘ · PEₙ", dotsAlt: "位置向量 m 与每个位置向量 n 的点积随 n 的变化",
    large: (i) => `分量对 ${i}，转过 mω 与 nω`, all: "全部分量对，从快到慢", pairAt: (i, turn) => `分量对 ${i}，每 ${turn} 个位置转一圈`,
    scores: "各个距离 m − n 处的得分；细线：选定的一对", scoresAlt: "得分随距离 m − n 的变化，以及选定的分量对所占的部分",
    score: { sinusoidal: "PEₘ · PEₙ", rotary: "得分" }, part: "其中选定的一对", plain: { sinusoidal: "距离为 0 时", rotary: "不加位置时的 q · k" },
    distance: "距离 m − n", omega: "这一对的频率 ω", turn: "转一圈所需的位置数",
    say: { sinusoidal: (m, n, d, x) => `位置 ${m} 与 ${n}，距离 ${d}：点积为 ${x}。`, rotary: (m, n, d, x) => `查询在 ${m}，键在 ${n}，距离 ${d}：得分为 ${x}。` },
    help: { sinusoidal: "在图上点一列选 m（橙色），点一行选分量对；在最下面的曲线上拖动选 n（蓝色）。然后让两者一起移动：向量变了，点积不变。",
      rotary: "移动 m，查询的箭头（橙色）随之转动，靠前的分量对转得快；n 转动键的箭头（蓝色）。然后让两者一起移动：箭头都在转，查询与键的夹角不变，得分也不变。" },
  },
};
const VIEWS = { sinusoidal: [map, wave, dots], rotary: [large, pairs, scores] };
const SHADES = 20; // of the map
const FINE = 4; // points of a wave for each position

const frequency = ({ d_model, base }, i) => base ** ((-2 * i) / d_model);
const turn = (state, i) => format((2 * Math.PI) / frequency(state, i), 1);
const range = (n) => Array.from({ length: n }, (_, i) => i);
const clamp = (x, n) => Math.min(n - 1, Math.max(0, x));

/** The pair (x[2i], x[2i+1]) of a query or key, turned by its position. */
function turned(state, x, i, position) {
  const [a, b] = [x[2 * i], x[2 * i + 1]], angle = position * frequency(state, i);
  return [a * Math.cos(angle) - b * Math.sin(angle), a * Math.sin(angle) + b * Math.cos(angle)];
}

/** The pair (PE[t, 2i], PE[t, 2i+1]) of a position vector. */
const encoded = (state, i, t) => [Math.sin(t * frequency(state, i)), Math.cos(t * frequency(state, i))];

/** What pair i contributes to PE_m · PE_n, or to the score of the query at m and the key at n. */
function part(state, i, m, n) {
  const pair = (x, t) => (state.kind === "sinusoidal" ? encoded(state, i, t) : turned(state, x, i, t));
  const [[x, y], [u, v]] = [pair(state.q, m), pair(state.k, n)];
  return x * u + y * v;
}

const score = (state, m, n) => range(state.d_model / 2).reduce((sum, i) => sum + part(state, i, m, n), 0);

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["kind", "d_model", "positions", "query", "key", "pair", "q", "k", "base"]);
  const first = state();

  function shape() {
    const { d_model, positions, query, key, pair, q, k, base } = state();
    const whole = q.length === d_model && k.length === d_model && Math.max(query, key) < positions && pair < d_model / 2;
    return whole ? JSON.stringify([d_model, positions, q, k, base]) : null;
  }

  function build(root) {
    const inputs = controls(text, state(), state, set, () => set({ ...first })), numbers = measures(text);
    const views = Object.entries(VIEWS).map(([kind, makers]) => {
      const drawn = makers.map((make) => make(text, { ...state(), kind }, set, state));
      return { kind, drawn, node: h("div", { class: `llm-figures llm-${kind}` }, ...drawn.map((d) => d.node)) };
    });
    const help = h("p", { class: "llm-help" });
    root.append(h("div", { class: "llm-controls" }, ...inputs.nodes), h("div", { class: "llm-view" }, ...views.map((v) => v.node), numbers.node), help);
    return () => {
      const now = state();
      views.forEach(({ kind, node }) => { node.hidden = kind !== now.kind; });
      help.textContent = text.help[now.kind];
      [inputs, numbers, ...views.find(({ kind }) => kind === now.kind).drawn].forEach((each) => each.draw(now));
    };
  }
  return figure({ model, el, className: "llm-positions", label: text.name, shape, build });
}

function controls(text, { positions, d_model }, state, set, reset) {
  const kinds = Object.keys(VIEWS).map((kind) => [kind, button(text[kind], () => set({ kind }))]);
  const number = (name, n) => slider({ label: text[name], min: 0, max: n - 1, step: 1, digits: 0,
    get: () => state()[name], set: (x) => set({ [name]: Math.round(x) }) });
  const sliders = [number("query", positions), number("key", positions), number("pair", d_model / 2)];
  const free = (step) => [state().query, state().key].every((t) => clamp(t + step, positions) === t + step);
  const steps = [[-1, "\u2212", text.less], [1, "+", text.more]].map(([step, sign, label]) => [step,
    button(sign, () => free(step) && set({ query: state().query + step, key: state().key + step }), { "aria-label": label })]);
  const shift = h("div", { class: "llm-row" }, h("span", { class: "llm-shift" }, text.shift, ...steps.map(([, node]) => node)), button(text.reset, reset));
  return {
    nodes: [h("div", { class: "llm-row" }, h("div", { class: "llm-switch", role: "group", "aria-label": text.kind }, ...kinds.map(([, node]) => node))), shift, ...sliders.map((x) => x.node)],
    draw: (now) => {
      kinds.forEach(([kind, node]) => node.setAttribute("aria-pressed", kind === now.kind));
      sliders.forEach((x) => x.update());
      steps.forEach(([step, node]) => node.setAttribute("aria-disabled", !free(step))); // not disabled: that would take the focus away
    },
  };
}

/** The decisive numbers, and one sentence for those who do not see them. */
function measures(text) {
  const digits = { score: 3, part: 3, plain: 3, distance: 0, omega: 5, turn: 1 };
  const rows = Object.entries(digits).map(([name, n]) => ({ name, label: h("span", {}), ...number(n, `llm-${name}`) }));
  const words = h("p", { class: "llm-words", "aria-live": "polite" });
  const draw = (state) => {
    const { kind, query: m, key: n, pair } = state, omega = frequency(state, pair), x = score(state, m, n);
    const values = { score: x, part: part(state, pair, m, n), plain: score(state, 0, 0), distance: m - n, omega, turn: (2 * Math.PI) / omega };
    rows.forEach(({ name, label, show }) => {
      label.textContent = text[name][kind] ?? text[name];
      show(values[name]);
    });
    const said = text.say[kind](m, n, format(m - n, 0), format(x));
    if (words.textContent !== said) words.textContent = said; // what is as it was is not said again
  };
  return { node: h("div", { class: "llm-measures" }, ...rows.map(({ label, node }) => h("div", {}, label, node)), words), draw };
}

const chosen = ({ query, key }) => [["llm-key", key], ["llm-query", query]];

/** Axes over the places from `first` to `last`, with room for a whole one at either end. */
const over = ([first, last], height, range, ticks) => ({
  size: [360, height], margin: [10, 10, 22, 34], y: { range, ticks: [...new Set(ticks)].map((y) => [y, format(y, y % 1 ? 1 : 0)]) },
  x: { range: [first - 0.5, last + 0.5], ticks: [...new Set([first, 0, last])].map((x) => [x, format(x, 0)]) },
});

/** PE as a map: a column a position, a row a component; the columns m and n and the rows of the pair are framed. */
function map(text, state, set) {
  const { positions, d_model } = state, place = (x, n) => clamp(Math.round(x), n);
  const axis = over([0, positions - 1], 32 + 4 * Math.max(24, d_model), [d_model - 0.5, -0.5], [0, d_model - 1]);
  const p = plot({ title: () => text.map, alt: () => text.mapAlt, axis, pick: (t, c) => set({ query: place(t, positions), pair: place(c, d_model) >> 1 }) });
  const shades = range(SHADES + 1).map(() => []);
  for (const t of range(positions)) range(d_model).forEach((c) => {
    shades[Math.round(((encoded(state, c >> 1, t)[c % 2] + 1) / 2) * SHADES)].push(`M${t} ${c}h1v1h-1z`);
  });
  const [[x0, y0], [x1, y1]] = [p.at([-0.5, -0.5]), p.at([0.5, 0.5])], [w, tall] = [x1 - x0, y1 - y0]; // of a cell
  const paths = shades.map((cells, k) => s("path", { d: cells.join(""), "fill-opacity": 0.9 * (k / SHADES) })).slice(1);
  p.svg.append(s("g", { class: "llm-cells", transform: `translate(${x0} ${y0}) scale(${w} ${tall})` }, ...paths));
  const frames = ["llm-pair", "llm-key", "llm-query"].map((name) => p.svg.appendChild(s("rect", { class: name })));
  const draw = (now) => {
    p.draw(now);
    setAttributes(frames[0], { x: x0 - 4, y: y0 + 2 * now.pair * tall, width: positions * w + 8, height: 2 * tall });
    chosen(now).forEach(([, t], k) => setAttributes(frames[k + 1], { x: x0 + t * w, y: y0 - 4, width: w, height: d_model * tall + 8 }));
  };
  return { node: p.node, draw };
}

/** Sine and cosine of the chosen pair over the positions. */
function wave(text, { positions: n }, set) {
  return plot({ title: (now) => text.wave(now.pair, turn(now, now.pair)), axis: over([0, n - 1], 110, [-1, 1], [0, -1, 1]),
    steps: range((n - 1) * FINE + 1).map((j) => j / FINE), marks: chosen, pick: (t) => set({ query: clamp(Math.round(t), n) }),
    curves: ["", "llm-dashed"].map((name, j) => [name, (now, t) => encoded(now, now.pair, t)[j]]) });
}

/** PEₘ · PEₙ over n. */
function dots(text, state, set) {
  const { positions: n, d_model } = state, low = Math.min(0, ...range(n).map((t) => score(state, t, 0)));
  return plot({ title: () => text.dots, alt: () => text.dotsAlt, axis: over([0, n - 1], 130, [low, d_model / 2], [0, d_model / 2]),
    steps: range(n), marks: chosen, pick: (t) => set({ key: clamp(Math.round(t), n) }), curves: [["llm-all", (now, t) => score(now, now.query, t)]] });
}

/** The score over the distance, and the chosen pair's part of it. */
function scores(text, state, set, get) {
  const n = state.positions, distances = range(2 * n - 1).map((j) => j - n + 1);
  const at = (value) => (now, d) => value(now, Math.max(0, d), Math.max(0, -d)); // the first two positions so far apart
  const own = (i) => at((now, ...both) => part(now, i, ...both)), all = at(score);
  const values = distances.flatMap((d) => [all(state, d), ...range(state.d_model / 2).map((i) => own(i)(state, d))]);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const pick = (x) => {
    const d = clamp(Math.round(x) + n - 1, 2 * n - 1) - n + 1, key = Math.min(Math.max(get().key, -d), n - 1 - Math.max(0, d));
    set({ key, query: key + d });
  };
  return plot({ title: () => text.scores, alt: () => text.scoresAlt, axis: over([1 - n, n - 1], 150, [low, high > low ? high : 1], [0, high]),
    steps: distances, marks: ({ query, key }) => [["llm-now", query - key]], pick,
    curves: [["llm-own", (now, d) => own(now.pair)(now, d)], ["llm-all", all]] });
}

const RADIUS = 46; // of a dial of 100 by 100 units, the longest pair

/** A dial with the arrows of pair i of key and query, turned; `traces` has where they pointed at position 0. */
function dial(state, traces) {
  const norm = (x) => Math.max(...range(x.length / 2).map((i) => Math.hypot(x[2 * i], x[2 * i + 1])));
  const scale = RADIUS / (Math.max(norm(state.q), norm(state.k)) || 1);
  const svg = s("svg", { viewBox: "-50 -50 100 100" }, s("circle", { r: RADIUS, class: "llm-rim" }));
  const arrow = (className) => svg.appendChild(s("path", { class: className }));
  const point = (node, [x, y]) => { // up is the second component
    const [u, v] = [x * scale, -y * scale], back = (sine) => `L${u - 0.16 * u + sine * v} ${v - 0.16 * v - sine * u}`;
    node.setAttribute("d", `M0 0L${u} ${v}${back(0.09)}M${u} ${v}${back(-0.09)}`);
  };
  const ghosts = traces ? ["llm-key", "llm-query"].map((name) => arrow(`${name} llm-dashed`)) : [];
  const arrows = ["llm-key", "llm-query"].map(arrow);
  const draw = (now, i) => [["k", "key"], ["q", "query"]].forEach(([x, position], j) => {
    point(arrows[j], turned(now, now[x], i, now[position]));
    if (ghosts[j]) point(ghosts[j], turned(now, now[x], i, 0));
  });
  return { svg, draw };
}

/** The chosen pair in large. */
function large(text, state) {
  const { svg, draw: turnTo } = dial(state, true), caption = h("figcaption", {});
  svg.setAttribute("role", "img");
  const draw = (now) => {
    caption.textContent = text.large(now.pair);
    svg.setAttribute("aria-label", text.large(now.pair));
    turnTo(now, now.pair);
  };
  return { node: h("figure", { class: "llm-plane llm-large" }, caption, svg), draw };
}

/** All pairs in small, to choose from. */
function pairs(text, state, set) {
  const dials = range(state.d_model / 2).map(() => dial(state, false));
  const nodes = dials.map(({ svg }, i) => {
    svg.setAttribute("aria-hidden", "true");
    return button(svg, () => set({ pair: i }), { class: "llm-dial", "aria-label": text.pairAt(i, turn(state, i)), title: text.pairAt(i, turn(state, i)) });
  });
  const list = h("div", { class: "llm-dials", role: "group", "aria-label": text.all }, ...nodes);
  const stop = roving(list, [nodes], (_, pair) => set({ pair }));
  const draw = (now) => {
    stop(0, now.pair);
    dials.forEach((each, i) => each.draw(now, i));
    nodes.forEach((node, i) => node.setAttribute("aria-pressed", i === now.pair));
  };
  return { node: h("figure", { class: "llm-plane llm-every" }, h("figcaption", {}, text.all), list), draw };
}

export default { render };

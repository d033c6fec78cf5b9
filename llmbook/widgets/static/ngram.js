import { axes, button, draggable, editor, figure, format, h, language, number, s, select, setAttributes, slider, store, uniform } from "./base.js";
import { fit, perplexity, pieces, predictor, sparsity, tail } from "./counts.js";

const TEXT = {
  en: {
    name: "N-gram explorer", order: "n", text: "text so far", draws: "draw from", none: "counts, c / C", "kneser-ney": "Kneser–Ney",
    likeliest: "Likeliest word", draw: "Draw a word", more: "Draw 20", back: "One word back", reset: "Reset",
    word: "next word", count: "count c", others: (k) => `${k} others`, add: (word) => `Append ${word}`, quote: (words) => `“${words}”`,
    seen: (h, c, k) => `${h ? `After ${h}` : "In the text"}: ${c} ${c === 1 ? "word" : "words"} counted, ${k} different.`,
    unseen: (h, V) => `${h} was never seen: the counts say nothing, 0/0. Each of the ${V} words gets the same.`,
    written: "Outlined: the n − 1 words that the model looks at. Each bar starts a new piece that stands in the counted text just so.",
    chart: "What n costs", chartAlt: "Two curves over n: n-grams of the held-out part never counted, and contexts seen once",
    chartHelp: "Drag to choose n.", novel: "held-out n-grams never counted", once: "contexts seen once only", perplexity: "perplexity, held-out part",
    pieces: "pieces copied", length: "words a piece",
  },
  zh: {
    name: "n 元模型探索器", order: "n", text: "已有的文字", draws: "抽样依据", none: "计数 c / C", "kneser-ney": "Kneser–Ney",
    likeliest: "最可能的词", draw: "抽一个词", more: "抽 20 个", back: "退回一个词", reset: "复位",
    word: "下一个词", count: "计数 c", others: (k) => `其余 ${k} 个`, add: (word) => `接上“${word}”`, quote: (words) => `“${words}”`,
    seen: (h, c, k) => `${h ? `${h}之后` : "文本中"}数到 ${c} 个词，共 ${k} 种。`,
    unseen: (h, V) => `${h}从未出现，计数无话可说（0/0）：${V} 个词概率相同。`,
    written: "带框的是模型看得到的 n − 1 个词。每条竖线之后另起一段，每一段都原样出现在计数所用的文本里。",
    chart: "n 变大的代价", chartAlt: "随 n 变化的两条曲线：留出部分中从未数到的 n 元组，以及只见过一次的上下文",
    chartHelp: "拖动可选择 n。", novel: "留出部分中从未数到的 n 元组", once: "只见过一次的上下文", perplexity: "留出部分的困惑度",
    pieces: "抄来的片段", length: "每段的词数",
  },
};
const ORDERS = 5; // as in Python
const LONGEST = 100; // words written, as in Python
const TOP = 8; // words that the table names
const NAMES = ["words", "order", "context", "smoothing", "held_out", "seed"];

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, NAMES);
  const first = state();
  let held = {};

  /** The text is large: it is told apart by being another object. */
  function shape() {
    const { words, held_out } = state();
    if (held.words !== words || held.held_out !== held_out) held = { words, held_out };
    return held;
  }

  function build(root) {
    const { words, held_out } = state();
    const counted = fit(words, held_out);
    const known = (list) => list.map((word) => counted.id.get(word) ?? -1);
    const predict = ({ order, smoothing, context }) => predictor(counted, order, smoothing, known(context));
    const put = (context, more = {}) => set({ context: tail(context, LONGEST), ...more });
    const append = (word) => put([...state().context, word]);
    const inputs = controls(text, words, state, set, put);
    const parts = [chips(text, counted, known), continuation(text, counted, known, append), chart(text, counted, set)];
    const next = (times, choose) => () => {
      let { context, seed, ...rest } = state();
      for (let i = 0; i < times; i++) {
        const p = predict({ ...rest, context }), all = counted.vocabulary.map((_, w) => p(w));
        context = tail([...context, counted.vocabulary[choose(all, uniform(seed))]], LONGEST);
        seed = choose === draw ? (seed + 1) % 2 ** 31 : seed;
      }
      put(context, { seed });
    };
    const buttons = [button(text.likeliest, next(1, likeliest)), button(text.draw, next(1, draw)), button(text.more, next(20, draw)),
      button(text.back, () => put(state().context.slice(0, -1))), button(text.reset, () => set({ ...first }))];
    root.append(h("div", { class: "llm-controls" }, ...inputs.nodes), parts[0].node, h("div", { class: "llm-buttons" }, ...buttons),
      h("div", { class: "llm-view" }, parts[1].node, parts[2].node));
    return () => {
      inputs.update();
      parts.forEach((part) => part.draw(state()));
    };
  }
  return figure({ model, el, className: "llm-ngram", label: text.name, shape, build });
}

const likeliest = (p) => p.indexOf(Math.max(...p));

/** The word at which the sum of the probabilities passes u. */
function draw(p, u) {
  let sum = 0;
  const found = p.findIndex((x) => (sum += x) > u);
  return found < 0 ? likeliest(p) : found; // rounding may leave the sum just below u
}

/** Words in one string: characters stand side by side, longer words apart; and back. */
const joint = (words) => (words.every((word) => [...word].length === 1) ? "" : " ");
const cut = (string, gap) => (gap ? string.split(/\s+/) : [...string.replace(/\s+/g, "")]).filter(Boolean);

function controls(text, words, state, set, put) {
  const gap = joint(words);
  const order = slider({ label: text.order, min: 1, max: ORDERS, step: 1, digits: 0, get: () => state().order, set: (n) => set({ order: Math.round(n) }) });
  const smoothing = select({ label: text.draws, options: ["none", "kneser-ney"].map((name) => [name, text[name]]),
    get: () => state().smoothing, set: (name) => set({ smoothing: name }) });
  const typed = editor({ label: text.text, longest: 1000, rows: 1, get: () => state().context.join(gap), set: (string) => put(cut(string, gap)) });
  return { nodes: [h("div", {}, order.node, smoothing.node), typed.node], update: () => [order, smoothing, typed].forEach((input) => input.update()) };
}

/** What is written: the context outlined, the pieces that were copied apart; their number and mean length. */
function chips(text, counted, known) {
  const line = h("p", { class: "llm-written" }), numbers = [number(0, "llm-pieces"), number(1, "llm-length")];
  const node = h("div", {}, line, h("p", { class: "llm-help" }, text.written),
    h("p", { class: "llm-counts" }, ...["pieces", "length"].map((name, i) => h("span", {}, text[name], " ", numbers[i].node))));
  const draw = ({ context, order }) => {
    const begins = pieces(known(context), counted.ids), looked = context.length - order + 1;
    line.replaceChildren(...context.flatMap((word, i) => [h("span", { class: `llm-chip${i >= looked ? " llm-looked" : ""}${begins.includes(i) ? " llm-begins" : ""}` }, h("bdi", {}, word)), "\u200b"]));
    numbers[0].show(begins.length);
    numbers[1].show(context.length / begins.length);
  };
  return { node, draw };
}

/** The words that may follow: counts and both probabilities, the chosen one first; a click appends a word. */
function continuation(text, counted, known, append) {
  const said = h("p", { class: "llm-said", "aria-live": "polite" }), body = h("tbody");
  const heads = ["none", "kneser-ney"].map((name) => h("th", { scope: "col" }, text[name]));
  const node = h("figure", { class: "llm-plane" }, h("figcaption", {}, said),
    h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, text.word), h("th", { scope: "col" }, text.count), ...heads)), body));
  const row = (head, count, ps, chosen) => h("tr", {}, h("th", { scope: "row" }, head), h("td", {}, String(count)), ...ps.map((p, i) => {
    const shown = number(3, i ? "llm-kn" : "llm-ml");
    shown.show(p);
    return h("td", { class: `llm-p${i === chosen ? " llm-chosen" : ""}`, style: `--w: ${(100 * p).toFixed(2)}%` }, shown.node);
  }));
  const draw = ({ order, smoothing, context }) => {
    const ids = known(context), seen = tail(ids, order - 1), found = counted.plain[seen.length].contexts.get(seen.join(" "));
    const chosen = smoothing === "none" ? 0 : 1, c = (w) => found?.a.get(w) ?? 0;
    const [ml, kn] = ["none", "kneser-ney"].map((name) => predictor(counted, order, name, ids));
    const all = counted.vocabulary.map((word, w) => ({ word, c: c(w), p: [ml(w), kn(w)] })), by = (x) => x.p[chosen];
    const top = [...all].sort((x, y) => by(y) - by(x) || y.c - x.c || y.p[1] - x.p[1]).slice(0, TOP), rest = all.filter((x) => !top.includes(x));
    const sum = (f) => rest.reduce((total, x) => total + f(x), 0), words = tail(context, order - 1).join(joint(counted.vocabulary));
    body.replaceChildren(...top.map(({ word, c, p }) => row(button(word, () => append(word), { "aria-label": text.add(word) }), c, p, chosen)),
      row(text.others(rest.length), sum((x) => x.c), [sum((x) => x.p[0]), sum((x) => x.p[1])], chosen));
    heads.forEach((head, i) => head.classList.toggle("llm-chosen", i === chosen));
    const sentence = found ? text.seen(words && text.quote(words), found.A, found.N) : text.unseen(text.quote(words), counted.V);
    if (said.textContent !== sentence) said.textContent = sentence; // what is as it was is not said again
  };
  return { node, draw };
}

/** Both shares over n, and below them the numbers at the chosen n. */
function chart(text, counted, set) {
  const all = Array.from({ length: ORDERS }, (_, i) => sparsity(counted, i + 1)), kept = {};
  const svg = s("svg", { role: "img", "aria-label": text.chartAlt });
  const { at, from } = axes(svg, { x: { range: [1, ORDERS], ticks: all.map((_, i) => [i + 1, `${i ? "" : "n = "}${i + 1}`]) },
    y: { range: [0, 1], ticks: [[0, "0%"], [0.5, "50%"], [1, "100%"]] } });
  const curves = ["novel", "once"].map((name) => {
    const points = all.map((shares, i) => [i + 1, shares[name]]).filter((point) => !Number.isNaN(point[1]));
    svg.append(s("polyline", { class: `llm-curve llm-${name}`, points: points.map(at).join(" ") }));
    return { name, mark: svg.appendChild(s("circle", { r: 5, class: `llm-dot llm-${name}` })) };
  });
  draggable(svg, (u, v) => set({ order: Math.min(ORDERS, Math.max(1, Math.round(from(u, v)[0]))) }));
  const numbers = { novel: number(1, "llm-novel-share", percent), once: number(1, "llm-once-share", percent), perplexity: number(1, "llm-perplexity") };
  const list = Object.entries(numbers).map(([name, { node }]) => h("div", {}, h("span", { class: `llm-key llm-${name}` }, text[name]), node));
  const draw = ({ order, smoothing }) => {
    curves.forEach(({ name, mark }) => {
      const [cx, cy] = at([order, all[order - 1][name] || 0]);
      setAttributes(mark, { cx, cy, visibility: Number.isNaN(all[order - 1][name]) ? "hidden" : "visible" });
    });
    kept[order + smoothing] ??= perplexity(counted, order, smoothing);
    Object.entries({ ...all[order - 1], perplexity: kept[order + smoothing] }).forEach(([name, x]) => numbers[name].show(x));
  };
  return { node: h("figure", { class: "llm-plane" }, h("figcaption", {}, text.chart), svg, h("div", { class: "llm-list" }, ...list), h("p", {}, text.chartHelp)), draw };
}

const percent = (x, digits) => (Number.isNaN(x) ? format(x) : `${format(100 * x, digits)}%`);

export default { render };

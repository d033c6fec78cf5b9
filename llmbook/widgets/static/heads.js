import { button, choice, figure, format, grid, h, language, number, roving, s, select, store } from "./base.js";

const TEXT = {
  en: {
    name: "Attention heads explorer", heads: "All heads", headAt: (l, a) => `layer ${l}, head ${a}`, layer: "layer", head: "head",
    beside: " (shown beside)", matrix: "Matrix", lines: "Lines", view: "view", compare: "compare with", query: "query token", none: "none",
    headsHelp: "One small map a head: layers down, heads across, numbered from 0. Click one or use the arrow keys; with Shift it is shown beside.",
    matrixHelp: "Rows are queries, columns are keys. Point at a cell for its weight; click it to choose its query.",
    linesHelp: "From queries, left, to keys, right: the stronger a line, the larger its weight. Click a query to choose it.",
    matrixAlt: (head) => `Weights of ${head}: rows are queries, columns are keys`, linesAlt: (head) => `Weights of ${head} as lines from queries to keys`,
    self: "mean weight on the token itself", previous: "mean weight on the token before", next: "mean weight on the token after", keys: "mean effective number of keys",
    most: (query, keys) => `${query} attends most to ${keys.join(", ")}.`, quote: (token) => `“${token}”`, weigh: (token, w) => `${token} (${w})`,
  },
  zh: {
    name: "注意力头探索器", heads: "所有的头", headAt: (l, a) => `层 ${l}，头 ${a}`, layer: "层", head: "头",
    beside: "（对比）", matrix: "矩阵", lines: "连线", view: "画法", compare: "对比的头", query: "查询词元", none: "无",
    headsHelp: "每个头一幅小图：从上到下是层，从左到右是头，都从 0 开始编号。点击或用方向键选择；按住 Shift 则放在旁边对比。",
    matrixHelp: "行是查询，列是键。指向一个格子可看它的权重；点击则选定它的查询。",
    linesHelp: "从左边的查询到右边的键：线越醒目，权重越大。点击可选定一个查询。",
    matrixAlt: (head) => `${head} 的权重：行是查询，列是键`, linesAlt: (head) => `${head} 的权重：从查询到键的连线`,
    self: "对自身的平均权重", previous: "对前一个词元的平均权重", next: "对后一个词元的平均权重", keys: "平均有效键数",
    most: (query, keys) => `${query}最关注${keys.join("、")}。`, quote: (token) => `“${token}”`, weigh: (token, w) => `${token}（${w}）`,
  },
};
const MEASURES = ["self", "previous", "next", "keys"];
const SHADES = 10; // of a cell in a small map
const TOP = 3; // keys that are named
const LEAST = 0.005; // weight that is written beside a key

const mean = (xs) => xs.reduce((sum, x) => sum + x, 0) / xs.length;

/** The entropy of a row of weights in nats; what rounding took from the sum is given back. */
function entropy(row) {
  const sum = row.reduce((a, b) => a + b, 0);
  return -row.reduce((total, w) => (w > 0 ? total + (w / sum) * Math.log(w / sum) : total), 0);
}

/** Means over the rows of one head (T, T): the weight on the token itself, before, after; and exp(entropy). */
function measure(map) {
  const beside = (step) => mean(map.flatMap((row, i) => row[i + step] ?? []));
  return { self: beside(0), previous: beside(-1), next: beside(1), keys: mean(map.map((row) => Math.exp(entropy(row)))) };
}

/** The places of the largest weights of a row, none of them 0, the first of equals first. */
const largest = (row) => row.map((_, j) => j).filter((j) => row[j] > 0).sort((a, b) => row[b] - row[a] || a - b).slice(0, TOP);

/** Names by which tokens can be told apart: one that stands there twice gets its number. */
const names = (tokens) => tokens.map((token, i) => (tokens.indexOf(token) === tokens.lastIndexOf(token) ? token : `${token}[${i}]`));

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["weights", "tokens", "layer", "head", "compare", "view", "query"]);
  let held = {};

  /** Weights and tokens are large: they are told apart by being other objects, not by what they hold. */
  function shape() {
    const { weights, tokens, layer, head, compare, query } = state();
    const there = ([l, a]) => l < weights.length && a < weights[0].length;
    const n = weights[0][0].length;
    if (tokens.length !== n || !there([layer, head]) || (compare && !there(compare)) || query >= n) return null;
    if (held.weights !== weights || held.tokens !== tokens) held = { weights, tokens };
    return held;
  }

  function build(root) {
    const { weights, tokens } = state();
    const choose = (query) => set({ query: query === state().query ? null : query });
    const point = (i, j) => panels.forEach((panel) => panel.point(i, j));
    const inputs = controls(text, weights, names(tokens), state, set);
    const all = overview(text, weights, set);
    const panels = ["llm-first", "llm-second"].map((name) => panel(text, tokens, name, choose, point));
    const view = h("div", { class: "llm-view" }, all.node, ...panels.map((p) => p.node));
    root.append(h("div", { class: "llm-controls" }, ...inputs.nodes), view);
    return () => {
      const now = state();
      inputs.update();
      all.draw(now);
      view.classList.toggle("llm-compared", Boolean(now.compare));
      [[now.layer, now.head], now.compare].forEach((place, i) => panels[i].draw(now, place));
    };
  }
  return figure({ model, el, className: "llm-heads", label: text.name, shape, build });
}

function controls(text, weights, tokens, state, set) {
  const view = choice({ label: text.view, options: ["matrix", "lines"].map((name) => [name, text[name]]), get: () => state().view, set: (name) => set({ view: name }) });
  const heads = weights.flatMap((layer, l) => layer.map((_, a) => [`${l},${a}`, text.headAt(l, a)]));
  const compare = select({ label: text.compare, options: [["", text.none], ...heads], get: () => String(state().compare ?? ""),
    set: (value) => set({ compare: value ? value.split(",").map(Number) : null }) });
  const query = select({ label: text.query, options: [["", text.none], ...tokens.map((token, i) => [String(i), token])],
    get: () => String(state().query ?? ""), set: (value) => set({ query: value ? Number(value) : null }) });
  const inputs = [view, compare, query];
  return { nodes: inputs.map((input) => input.node), update: () => inputs.forEach((input) => input.update()) };
}

/** A small map of every head; the one shown large is marked, and so is the one beside it. */
function overview(text, weights, set) {
  const pick = (l, a, beside) => set(beside ? { compare: [l, a] } : { layer: l, head: a });
  const cells = weights.map((layer, l) => layer.map((map, a) =>
    h("div", { role: "gridcell", class: "llm-small", title: text.headAt(l, a), onclick: (event) => pick(l, a, event.shiftKey) }, small(map))));
  const numbers = (what, role, n) => Array.from({ length: n }, (_, i) => h("span", { role, "aria-label": `${text[what]} ${i}` }, String(i)));
  const { node } = grid(text.heads, numbers("head", "columnheader", weights[0].length), numbers("layer", "rowheader", weights.length), cells);
  node.style.setProperty("--columns", weights[0].length);
  const stop = roving(node, cells, (l, a, event) => pick(l, a, event.shiftKey));
  const draw = ({ layer, head, compare }) => {
    stop(layer, head);
    cells.forEach((row, l) => row.forEach((cell, a) => {
      const beside = compare?.[0] === l && compare[1] === a;
      cell.setAttribute("aria-selected", l === layer && a === head);
      cell.setAttribute("aria-label", text.headAt(l, a) + (beside ? text.beside : ""));
      cell.classList.toggle("llm-beside", beside);
    }));
  };
  const caption = h("figcaption", {}, text.heads), help = h("p", {}, text.headsHelp);
  return { node: h("figure", { class: "llm-plane llm-overview" }, caption, node, help), draw };
}

/** One head in small: its cells as a path a shade. */
function small(map) {
  const shades = Array.from({ length: SHADES + 1 }, () => []);
  map.forEach((row, i) => row.forEach((w, j) => shades[Math.round(w * SHADES)].push(`M${j} ${i}h1v1h-1z`)));
  const paths = shades.map((cells, k) => s("path", { d: cells.join(""), "fill-opacity": k / SHADES })).slice(1);
  return s("svg", { viewBox: `0 0 ${map.length} ${map.length}`, "aria-hidden": "true" }, ...paths);
}

/** One head in large: its name, matrix or lines, what the chosen query attends to (or how to choose), and the measures. */
function panel(text, tokens, className, choose, point) {
  const title = h("span", {}), words = h("p", { class: "llm-words", "aria-live": "polite" });
  const views = { matrix: matrix(text, tokens, choose, point), lines: lines(text, tokens, choose) };
  const caption = h("figcaption", {}, title, views.matrix.value);
  const numbers = Object.fromEntries(MEASURES.map((name) => [name, number(name === "keys" ? 1 : 3, "llm-measure")]));
  const list = h("div", { class: "llm-measures" }, ...MEASURES.map((name) => h("div", {}, h("span", {}, text[name]), numbers[name].node)));
  const node = h("figure", { class: `llm-plane llm-panel ${className}` }, caption, ...Object.values(views).map((v) => v.node), words, list);
  const draw = ({ weights, view, query }, place) => {
    node.hidden = !place;
    if (!place) return;
    const map = weights[place[0]][place[1]], head = text.headAt(...place);
    title.textContent = head;
    Object.values(views).forEach((v) => { v.node.hidden = v !== views[view]; });
    views[view].draw(map, query, head);
    const said = query === null ? text[`${view}Help`] : sentence(text, tokens, map[query], query);
    if (words.textContent !== said) words.textContent = said; // what is as it was is not said again
    for (const [name, x] of Object.entries(measure(map))) numbers[name].show(x);
  };
  return { node, draw, point: views.matrix.point };
}

function sentence(text, tokens, row, query) {
  const named = names(tokens).map(text.quote);
  return text.most(named[query], largest(row).map((j) => text.weigh(named[j], format(row[j]))));
}

/** The weights as shaded cells; the one under pointer or focus is told in numbers. A click chooses its query. */
function matrix(text, tokens, choose, point) {
  const named = names(tokens);
  let map, query, at = []; // what is drawn, and the cell pointed at
  const cell = (i, j) => h("div", { role: "gridcell", class: "llm-heat", onclick: () => i !== query && choose(i),
    onpointerenter: () => point(i, j), onfocus: () => point(i, j) });
  const cells = tokens.map((_, i) => tokens.map((_, j) => cell(i, j)));
  const columns = tokens.map((token) => h("span", { role: "columnheader", title: token }, h("bdi", {}, token)));
  const heads = tokens.map((token, i) => h("span", { role: "rowheader", title: token, onclick: () => choose(i) }, h("bdi", {}, token)));
  const { node, rows } = grid("", columns, heads, cells);
  node.style.setProperty("--columns", tokens.length);
  node.style.setProperty("--label", `${Math.min(7, Math.max(...tokens.map(width)) + 0.6)}em`);
  roving(node, cells);
  ["pointerleave", "focusout"].forEach((event) => node.addEventListener(event, () => point()));
  const value = h("span", { class: "llm-readout", "aria-hidden": "true" });
  const show = (...now) => {
    cells[at[0]]?.[at[1]].classList.remove("llm-pointed");
    at = now;
    const [i, j] = at;
    cells[i]?.[j].classList.add("llm-pointed");
    value.textContent = i === undefined ? "" : `${named[i]} \u2192 ${named[j]}: ${format(map[i][j])}`;
  };
  const draw = (weights, chosen, head) => {
    [map, query] = [weights, chosen];
    node.setAttribute("aria-label", text.matrixAlt(head));
    cells.forEach((row, i) => row.forEach((shade, j) => {
      shade.style.setProperty("--w", `${(100 * map[i][j]).toFixed(1)}%`);
      shade.setAttribute("aria-label", `${named[i]} \u2192 ${named[j]}: ${format(map[i][j])}`);
    }));
    rows.forEach((row, i) => mark(row, i, query));
    show(...at);
  };
  return { node: h("div", { class: "llm-scroll" }, node), value, draw, point: show };
}

/** How wide a token is, in em, more or less. */
const width = (token) => [...token].reduce((sum, c) => sum + (c > "\u2e80" ? 1 : 0.58), 0);

/** Make what belongs to the chosen query stand out, and the rest stand back. */
function mark(element, i, query) {
  element.classList.toggle("llm-chosen", i === query);
  element.classList.toggle("llm-faded", query !== null && i !== query);
}

/** Two columns of tokens, and a line from each query to each key as strong as its weight. */
function lines(text, tokens, choose) {
  const n = tokens.length;
  const queries = tokens.map((token, i) => button(token, () => choose(i), { class: "llm-token", title: token }));
  const keys = tokens.map((token) => ({ token: h("span", { class: "llm-token", title: token }, token), weight: h("span", { class: "llm-number" }) }));
  const strokes = tokens.map((_, i) => tokens.map((_, j) => s("line", { x1: 0, y1: i + 0.5, x2: 100, y2: j + 0.5 })));
  const bundles = strokes.map((row) => s("g", {}, ...row));
  const svg = s("svg", { viewBox: `0 0 100 ${n}`, preserveAspectRatio: "none", role: "img" }, ...bundles);
  const column = h("div", {}, ...queries);
  roving(column, queries.map((query) => [query]));
  const node = h("div", { class: "llm-lines" }, column, svg, h("div", {}, ...keys.map((k) => h("div", {}, k.token, k.weight))));
  const draw = (map, query, head) => {
    svg.setAttribute("aria-label", text.linesAlt(head));
    strokes.forEach((row, i) => row.forEach((line, j) => line.setAttribute("stroke-opacity", map[i][j])));
    [...queries, ...bundles].forEach((element, k) => mark(element, k % n, query));
    queries.forEach((element, i) => element.setAttribute("aria-pressed", i === query));
    keys.forEach(({ weight }, j) => { weight.textContent = map[query]?.[j] >= LEAST ? format(map[query][j], 2) : ""; });
  };
  return { node, draw };
}

export default { render };

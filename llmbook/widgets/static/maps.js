// Attention maps: every head in small, and one in large as a matrix or as lines. An explorer that shows maps imports from
// here and gives its root element the class "llm-maps" besides its own. Weights come when something is drawn, as
// weights[layer][head][query][key], in plain or typed arrays, of which each row sums to 1 or is all 0; new weights have to be
// new arrays (a map that is the same array is not drawn again). The numbers of layers, heads and tokens are known when built.
import { button, format, grid, h, number, roving, s } from "./base.js";

/** The words that the maps need, by language: an explorer adds its own. */
export const MAP_TEXT = {
  en: {
    heads: "All heads", headAt: (l, a) => `layer ${l}, head ${a}`, layer: "layer", head: "head",
    beside: " (shown beside)", isCut: " (cut)", cut: "Cut this head", restore: "Restore this head", matrix: "Matrix", lines: "Lines", masked: "masked",
    headsHelp: "One small map a head: layers down, heads across, numbered from 0. Click one or use the arrow keys; with Shift it is shown beside.",
    cutHelp: "A double click or the Delete key cuts a head; once more restores it.",
    matrixHelp: "Rows are queries, columns are keys. Point at a cell for its weight; click it to choose its query.",
    linesHelp: "From queries, left, to keys, right: the stronger a line, the larger its weight. Click a query to choose it.",
    matrixAlt: (head) => `Weights of ${head}: rows are queries, columns are keys`, linesAlt: (head) => `Weights of ${head} as lines from queries to keys`,
    self: "mean weight on the token itself", previous: "mean weight on the token before", next: "mean weight on the token after", keys: "mean effective number of keys",
    most: (query, keys) => `${query} attends most to ${keys.join(", ")}.`, nowhere: (query) => `${query} attends to no key.`,
    quote: (token) => `“${token}”`, weigh: (token, w) => `${token} (${w})`,
  },
  zh: {
    heads: "所有的头", headAt: (l, a) => `层 ${l}，头 ${a}`, layer: "层", head: "头",
    beside: "（对比）", isCut: "（已切除）", cut: "切除这个头", restore: "恢复这个头", matrix: "矩阵", lines: "连线", masked: "被掩码遮住",
    headsHelp: "每个头一幅小图：从上到下是层，从左到右是头，都从 0 开始编号。点击或用方向键选择；按住 Shift 则放在旁边对比。",
    cutHelp: "双击一个头，或按 Delete 键，把它切除；再做一次则恢复。",
    matrixHelp: "行是查询，列是键。指向一个格子可看它的权重；点击则选定它的查询。",
    linesHelp: "从左边的查询到右边的键：线越醒目，权重越大。点击可选定一个查询。",
    matrixAlt: (head) => `${head} 的权重：行是查询，列是键`, linesAlt: (head) => `${head} 的权重：从查询到键的连线`,
    self: "对自身的平均权重", previous: "对前一个词元的平均权重", next: "对后一个词元的平均权重", keys: "平均有效键数",
    most: (query, keys) => `${query}最关注${keys.join("、")}。`, nowhere: (query) => `${query}不关注任何键。`,
    quote: (token) => `“${token}”`, weigh: (token, w) => `${token}（${w}）`,
  },
};
const MAP_SHADES = 10; // of a cell in a small map
const LARGE_SHADES = 50; // and in a large one
const MOST_BLOCKS = 32; // of a small map, along either side
const MOST_LARGE = 32; // tokens that are written in the usual size beside a matrix
const MAP_STEPS = 1000; // weights that are the same to three decimals have one name
const TOP_KEYS = 3; // keys that are named
const LEAST_SHOWN = 0.005; // weight that is written beside a key

const average = (xs) => xs.reduce((total, x) => total + x, 0) / xs.length;

/** The effective number of keys exp(entropy) of a row of weights; what rounding took from the sum is given back. */
function effectiveKeys(row) {
  const sum = row.reduce((a, b) => a + b, 0);
  return Math.exp(-row.reduce((total, w) => (w > 0 ? total + (w / sum) * Math.log(w / sum) : total), 0));
}

/** Means over the rows of one head (T_q, T_k) that are not all 0: the weight on the token itself, before, after; exp(entropy). */
function headMeasures(map) {
  const rows = Array.from(map, (row, i) => [row, i]).filter(([row]) => row.some((w) => w > 0));
  const beside = (step) => average(rows.flatMap(([row, i]) => row[i + step] ?? []));
  return { self: beside(0), previous: beside(-1), next: beside(1), keys: average(rows.map(([row]) => effectiveKeys(row))) };
}

/** The places of the largest weights of a row, none of them 0, the first of equals first. */
const topKeys = (row) => Array.from(row.keys()).filter((j) => row[j] > 0).sort((a, b) => row[b] - row[a] || a - b).slice(0, TOP_KEYS);

/** Names by which tokens can be told apart: one that stands there twice gets its number. */
export const toldApart = (tokens) => tokens.map((token, i) => (tokens.indexOf(token) === tokens.lastIndexOf(token) ? token : `${token}[${i}]`));

const samePlace = (a, b) => Boolean(a && b) && a[0] === b[0] && a[1] === b[1];

/**
 * A small map of every head. `pick(layer, head, beside)` hears which is chosen, and whether with Shift. Given
 * `onCut(layer, head)`, which hears what is to be cut or restored, there are a double click, a key and a button for it.
 * `draw` takes { weights, layer, head }, the place beside, `compare` [layer, head], and what is `cut`, a list of places.
 */
export function headsOverview({ text, layers, heads, pick, onCut, causal = false }) {
  const places = Array.from({ length: layers }, (_, l) => Array.from({ length: heads }, (_, a) => [l, a]));
  const smalls = places.map((row) => row.map(() => smallMap(causal)));
  const cells = places.map((row) => row.map(([l, a]) =>
    h("div", { role: "gridcell", class: "llm-small", title: text.headAt(l, a), onclick: (event) => pick(l, a, event.shiftKey),
      ondblclick: () => onCut?.(l, a) }, smalls[l][a].node)));
  const numbers = (what, role, n) => Array.from({ length: n }, (_, i) => h("span", { role, "aria-label": `${text[what]} ${i}` }, String(i)));
  const { node } = grid(text.heads, numbers("head", "columnheader", heads), numbers("layer", "rowheader", layers), cells);
  node.style.setProperty("--columns", heads);
  const stop = roving(node, cells, (l, a, event) => pick(l, a, event.shiftKey));
  const cutter = onCut && cutting(text, node, cells, places, onCut);
  const draw = ({ weights, layer, head, compare = null, cut = [] }) => {
    stop(layer, head);
    places.flat().forEach(([l, a]) => {
      const beside = samePlace(compare, [l, a]), gone = cut.some((place) => samePlace(place, [l, a])), cell = cells[l][a];
      smalls[l][a].draw(weights[l][a]);
      cell.setAttribute("aria-selected", l === layer && a === head);
      cell.setAttribute("aria-label", text.headAt(l, a) + (gone ? text.isCut : "") + (beside ? text.beside : ""));
      cell.classList.toggle("llm-beside", beside);
      cell.classList.toggle("llm-cut", gone);
    });
    cutter?.draw([layer, head], cut);
  };
  const caption = h("figcaption", {}, text.heads), help = [h("p", {}, text.headsHelp)];
  if (onCut) help.push(h("p", {}, text.cutHelp), cutter.node);
  return { node: h("figure", { class: "llm-plane llm-overview" }, caption, node, ...help), draw };
}

/** The button that cuts or restores the chosen head; Delete and Backspace do the same for the one with the focus. */
function cutting(text, node, cells, places, onCut) {
  let chosen;
  const press = button(text.cut, () => onCut(...chosen));
  const where = new Map(places.flat().map(([l, a]) => [cells[l][a], [l, a]]));
  node.addEventListener("keydown", (event) => {
    const place = where.get(event.target);
    if (!place || (event.key !== "Delete" && event.key !== "Backspace")) return;
    event.preventDefault();
    onCut(...place);
  });
  const draw = (place, cut) => {
    chosen = place;
    press.textContent = cut.some((other) => samePlace(other, place)) ? text.restore : text.cut;
  };
  return { node: press, draw };
}

/** A coarser map, of blocks `size` queries high and `size` keys wide: the share of their weight that the queries give to the keys. */
function coarser(map, size) {
  if (size === 1) return map;
  return Array.from({ length: Math.ceil(map.length / size) }, (_, i) => {
    const queries = map.slice(size * i, size * (i + 1)), sums = new Array(Math.ceil(map[0].length / size)).fill(0);
    queries.forEach((row) => row.forEach((w, j) => { sums[Math.floor(j / size)] += w; }));
    return sums.map((sum) => sum / queries.length);
  });
}

/** Cells of weights, `size` wide and high, a path for each of so many shades: thousands are drawn at once. */
function shadedCells(steps) {
  const paths = Array.from({ length: steps }, (_, k) => s("path", { "fill-opacity": (k + 1) / steps }));
  const draw = (map, size = 1) => {
    const shades = Array.from({ length: steps + 1 }, () => []);
    map.forEach((row, i) => row.forEach((w, j) => shades[Math.round(w * steps)].push(`M${size * j} ${size * i}h${size}v${size}h-${size}z`)));
    paths.forEach((path, k) => path.setAttribute("d", shades[k + 1].join("")));
  };
  return { paths, draw };
}

/** One head in small, and what a causal mask hides in it. */
function smallMap(causal) {
  const cells = shadedCells(MAP_SHADES), hidden = s("path", { class: "llm-masked" });
  const node = s("svg", { "aria-hidden": "true" }, ...(causal ? [hidden] : []), ...cells.paths);
  let drawn;
  const draw = (map) => {
    if (map === drawn) return;
    drawn = map;
    const [rows, columns, size] = [map.length, map[0].length, Math.ceil(Math.max(map.length, map[0].length) / MOST_BLOCKS)];
    cells.draw(coarser(map, size), size);
    node.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    hidden.setAttribute("d", `M1 0${"v1h1".repeat(rows - 1)}V0z`);
  };
  return { node, draw };
}

/**
 * One head in large: its name, matrix or lines, what the chosen query attends to (or how to choose), and the measures.
 * `choose(query)` hears a query that is clicked; `point(query, key)` the cell under pointer or focus, or nothing: hand it
 * to the `point` of every panel. `keys` are the tokens of the keys if they are others; `causal` greys what a query may
 * not see. `draw` takes { weights, view: "matrix" or "lines", query: a number or null, cut } and the place [layer, head],
 * without which the panel is hidden.
 */
export function headPanel({ text, tokens, keys = tokens, className = "", choose, point = () => {}, causal = false }) {
  const named = { queries: toldApart(tokens), keys: toldApart(keys) };
  const title = h("span", {}), words = h("p", { class: "llm-words", "aria-live": "polite" });
  const readout = h("span", { class: "llm-readout", "aria-hidden": "true" });
  const measures = keys !== tokens ? ["keys"] : ["self", "previous", ...(causal ? [] : ["next"]), "keys"];
  const numbers = measures.map((name) => number(name === "keys" ? 1 : 3, "llm-measure"));
  const list = h("div", { class: "llm-measures" }, ...measures.map((name, i) => h("div", {}, h("span", {}, text[name]), numbers[i].node)));
  const node = h("figure", { class: `llm-plane llm-panel ${className}` }, h("figcaption", {}, title, readout), words, list);
  const make = {
    matrix: () => matrixView({ text, tokens, keys, named, readout, choose, point, causal }),
    lines: () => linesView({ text, tokens, keys, choose }),
  };
  const views = {}; // made when first shown: each has an element for every weight
  const viewOf = (name) => {
    if (!views[name]) words.before((views[name] = make[name]()).node);
    return views[name];
  };
  const draw = ({ weights, view, query, cut = [] }, place) => {
    node.hidden = !place;
    if (!place) return;
    const map = weights[place[0]][place[1]], head = text.headAt(...place), shown = viewOf(view);
    title.textContent = head + (cut.some((other) => samePlace(other, place)) ? text.isCut : "");
    Object.values(views).forEach((other) => { other.node.hidden = other !== shown; });
    shown.draw(map, query, head);
    const said = query === null ? text[`${view}Help`] : mostAttended(text, named, map[query], query);
    if (words.textContent !== said) words.textContent = said; // what is as it was is not said again
    const found = headMeasures(map);
    measures.forEach((name, i) => numbers[i].show(found[name]));
  };
  return { node, draw, point: (i, j) => views.matrix?.point(i, j) };
}

function mostAttended(text, named, row, query) {
  const [name, top] = [text.quote(named.queries[query]), topKeys(row)];
  return top.length ? text.most(name, top.map((j) => text.weigh(text.quote(named.keys[j]), format(row[j])))) : text.nowhere(name);
}

/**
 * The weights as cells, with their shades behind them; the one under pointer or focus is told in numbers. A click chooses its
 * query. The row of the chosen query is drawn apart from the rest, which stands back.
 */
function matrixView({ text, tokens, keys, named, readout, choose, point, causal }) {
  let map, query, at = []; // what is drawn, and the cell pointed at
  const masked = (i, j) => causal && j > i;
  const cell = (i, j) => h("div", { role: "gridcell", class: masked(i, j) ? "llm-heat llm-masked" : "llm-heat",
    onclick: () => i !== query && choose(i), onpointerenter: () => point(i, j), onfocus: () => point(i, j) });
  const cells = tokens.map((_, i) => keys.map((_, j) => cell(i, j)));
  const columns = keys.map((token) => h("span", { role: "columnheader", title: token }, h("bdi", {}, token)));
  const heads = tokens.map((token, i) => h("span", { role: "rowheader", title: token, onclick: () => choose(i) }, h("bdi", {}, token)));
  const { node, rows } = grid("", columns, heads, cells), [rest, own] = [shadedCells(LARGE_SHADES), shadedCells(LARGE_SHADES)];
  const behind = s("g", {}, ...rest.paths), viewBox = `0 0 ${keys.length} ${tokens.length}`;
  node.append(h("div", { role: "rowgroup" }, s("svg", { viewBox, preserveAspectRatio: "none", "aria-hidden": "true" }, behind, ...own.paths), ...rows));
  node.classList.toggle("llm-dense", Math.max(tokens.length, keys.length) > MOST_LARGE);
  node.style.setProperty("--columns", keys.length);
  node.style.setProperty("--label", `${Math.min(7, Math.max(...tokens.map(emWidth)) + 0.6)}em`);
  roving(node, cells);
  ["pointerleave", "focusout"].forEach((event) => node.addEventListener(event, () => point()));
  const say = (i, j) => `${named.queries[i]} \u2192 ${named.keys[j]}: ${masked(i, j) ? text.masked : format(map[i][j])}`;
  const show = (...now) => {
    cells[at[0]]?.[at[1]].classList.remove("llm-pointed");
    at = now;
    const [i, j] = at;
    cells[i]?.[j].classList.add("llm-pointed");
    readout.textContent = i === undefined ? "" : say(i, j);
  };
  const written = cells.map((row) => row.map(() => -1)); // what the name of each cell says, in steps
  const draw = (weights, chosen, head) => {
    if (map !== weights || query !== chosen) {
      const only = (mine) => weights.map((row, i) => ((i === chosen) === mine ? row : []));
      rest.draw(only(false));
      own.draw(only(true));
    }
    [map, query] = [weights, chosen];
    node.setAttribute("aria-label", text.matrixAlt(head));
    cells.forEach((row, i) => row.forEach((one, j) => {
      const step = Math.round(MAP_STEPS * map[i][j]);
      if (step === written[i][j]) return;
      written[i][j] = step;
      one.setAttribute("aria-label", say(i, j));
    }));
    behind.classList.toggle("llm-faded", query !== null);
    rows.forEach((row, i) => row.classList.toggle("llm-chosen", i === query));
    show(...at);
  };
  return { node: h("div", { class: "llm-scroll" }, node), draw, point: show };
}

/** How wide a token is, in em, more or less. */
const emWidth = (token) => [...token].reduce((sum, c) => sum + (c > "\u2e80" ? 1 : 0.58), 0);

/** Make what belongs to the chosen query stand out, and the rest stand back. */
function standOut(element, i, query) {
  element.classList.toggle("llm-chosen", i === query);
  element.classList.toggle("llm-faded", query !== null && i !== query);
}

/** Two columns of tokens, and a line from each query to each key as strong as its weight. */
function linesView({ text, tokens, keys, choose }) {
  const queries = tokens.map((token, i) => button(token, () => choose(i), { class: "llm-token", title: token }));
  const ends = keys.map((token) => ({ token: h("span", { class: "llm-token", title: token }, token), weight: h("span", { class: "llm-number" }) }));
  const strokes = tokens.map((_, i) => keys.map((_, j) => s("line", { x1: 0, y1: i + 0.5, x2: 100, y2: j + 0.5 })));
  const bundles = strokes.map((row) => s("g", {}, ...row));
  const svg = s("svg", { viewBox: `0 0 100 ${Math.max(tokens.length, keys.length)}`, preserveAspectRatio: "none", role: "img" }, ...bundles);
  const column = h("div", {}, ...queries);
  roving(column, queries.map((query) => [query]));
  const node = h("div", { class: "llm-lines" }, column, svg, h("div", {}, ...ends.map((end) => h("div", {}, end.token, end.weight))));
  const written = strokes.map((row) => row.map(() => -1));
  const draw = (map, query, head) => {
    svg.setAttribute("aria-label", text.linesAlt(head));
    strokes.forEach((row, i) => row.forEach((line, j) => {
      if (map[i][j] === written[i][j]) return;
      written[i][j] = map[i][j];
      line.setAttribute("stroke-opacity", map[i][j]);
    }));
    [queries, bundles].forEach((elements) => elements.forEach((element, i) => standOut(element, i, query)));
    queries.forEach((element, i) => element.setAttribute("aria-pressed", i === query));
    ends.forEach(({ weight }, j) => { weight.textContent = map[query]?.[j] >= LEAST_SHOWN ? format(map[query][j], 2) : ""; });
  };
  return { node, draw };
}

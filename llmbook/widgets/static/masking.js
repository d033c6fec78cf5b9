import { axes, button, figure, format, h, language, number, s, slider, store, toggle, uniform } from "./base.js";

const TEXT = {
  en: {
    name: "Masking explorer", p: "rate p", mask: "[MASK]", random: "random", kept: "kept", again: "Draw again", many: "Draw 100 times", reset: "Reset",
    quota: "a fixed number in every row, as mask_tokens does",
    original: "original", input: "model sees", label: "label",
    what: { mask: "becomes [MASK]", random: "becomes a random token", kept: "is chosen, and stays", "": "is not chosen" },
    said: (d, k, n, [m, r, o]) => `Draw ${d}: ${k} of ${n} tokens chosen; [MASK] ${m}, random ${r}, kept ${o}.`,
    legend: "Coloured tokens were chosen. Only they have a label, and only they carry loss; −100 marks the rest. Grey ones are special and never chosen.",
    counts: "Counts", now: "this draw", all: (d) => (d === 1 ? "all draws: 1" : `all ${d} draws`), share: "share", chosen: "chosen", expected: "In small: what is expected, ± its standard deviation.",
    countsAlt: "How many tokens were chosen, and what became of them",
    sizes: "Number chosen in a draw", help: "Bars: the share of the draws so far; the last is orange. Rings: what is expected.", axis: "tokens chosen",
    alt: "Bars: how many of the draws chose 0, 1, 2 … tokens; rings: the expected shares",
  },
  zh: {
    name: "掩码探索器", p: "选取比例 p", mask: "[MASK]", random: "随机", kept: "不变", again: "再抽一次", many: "抽 100 次", reset: "复位",
    quota: "每行选取的个数固定（mask_tokens 的做法）",
    original: "原文", input: "模型所见", label: "标签",
    what: { mask: "换成 [MASK]", random: "换成随机词元", kept: "选中但不变", "": "未选中" },
    said: (d, k, n, [m, r, o]) => `第 ${d} 次：${n} 个词元中选取了 ${k} 个，其中 [MASK] ${m} 个，随机词元 ${r} 个，不变 ${o} 个。`,
    legend: "彩色的词元是选中的。只有它们有标签，也只有它们计入损失；其余记作 −100。灰色的是特殊词元，不会选取。",
    counts: "计数", now: "这一次", all: (d) => `共 ${d} 次`, share: "比例", chosen: "选取", expected: "小字：期望值 ± 标准差。",
    countsAlt: "选取了多少词元，各自变成了什么",
    sizes: "每次选取的个数", help: "柱：已抽各次所占的比例，橙色是最后一次；圆圈：期望的比例。", axis: "选取的词元数",
    alt: "柱：选取 0、1、2……个词元的次数各占多少；圆圈：期望的比例",
  },
};
const KINDS = ["mask", "random", "kept"];
const NAMES = ["tokens", "vocabulary", "special", "p", "mask", "random", "quota", "seed", "draws"];
const MOST = 2000; // draws, and LONGEST tokens: as in Python
const LONGEST = 64;

const ordinary = ({ tokens, special }) => tokens.map((_, i) => i).filter((i) => !special.includes(i));

/** One draw: the places chosen, each with what becomes of it, and a function that names its random token. */
function draw({ p, mask, random, quota, vocabulary }, places, seed) {
  const u = (place) => uniform(seed, place), fate = (i) => u(3 * i + 1);
  const chosen = quota
    ? places.map((i) => [u(3 * i), i]).sort((a, b) => a[0] - b[0]).slice(0, Math.floor(p * places.length + u(3 * LONGEST))).map(([, i]) => i)
    : places.filter((i) => u(3 * i) < p);
  const kinds = new Map(chosen.map((i) => [i, fate(i) < mask ? "mask" : fate(i) < mask + random ? "random" : "kept"]));
  return { kinds, other: (i) => vocabulary[Math.floor(u(3 * i + 2) * vocabulary.length)] };
}

const count = (kinds) => KINDS.map((kind) => [...kinds.values()].filter((x) => x === kind).length);

/** All draws so far: how many of them chose k tokens, and how many tokens became what. */
function tally(now, places) {
  const sizes = new Array(places.length + 1).fill(0), total = [0, 0, 0];
  for (let d = 0; d < now.draws; d++) {
    const { kinds } = draw(now, places, now.seed + d);
    sizes[kinds.size] += 1;
    count(kinds).forEach((x, k) => { total[k] += x; });
  }
  return { sizes, total };
}

/** The probability that 0, 1, … n tokens are chosen: binomial, or p·n rounded down or up. */
function distribution({ p, quota }, n) {
  if (quota) return Array.from({ length: n + 1 }, (_, k) => Math.max(0, 1 - Math.abs(k - p * n)));
  let row = [1]; // of no tokens; each one more is chosen with p
  for (let i = 0; i < n; i++) row = [...row, 0].map((x, k) => x * (1 - p) + (k > 0 ? row[k - 1] * p : 0));
  return row;
}

/** Mean and variance of the number chosen in one draw, and of the number of one kind, a `share` of them. */
function moments(row, share) {
  const mean = row.reduce((sum, x, k) => sum + x * k, 0);
  const variance = row.reduce((sum, x, k) => sum + x * (k - mean) ** 2, 0);
  return { mean: mean * share, variance: mean * share * (1 - share) + variance * share ** 2 };
}

const rest = ({ mask, random }) => Math.max(0, 1 - mask - random);
const round = (x) => Math.round(x * 1e4) / 1e4;

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, NAMES);
  const first = state();

  function shape() {
    const { tokens, vocabulary, special } = state();
    return special.every((i) => i < tokens.length) ? JSON.stringify([tokens, vocabulary, special]) : null;
  }

  function build(root) {
    const places = ordinary(state());
    const inputs = controls(text, state, set, () => set({ ...first }));
    const parts = [sentence(text, state()), counts(text, places), histogram(text, places.length)];
    root.append(...inputs.nodes, parts[0].node,
      h("div", { class: "llm-planes" }, parts[1].node, parts[2].node));
    let seen = {};
    return () => {
      const now = state(), key = JSON.stringify([now.p, now.mask, now.random, now.quota, now.seed, now.draws]);
      if (seen.key !== key) seen = { key, ...tally(now, places), row: distribution(now, places.length), last: draw(now, places, now.seed + now.draws - 1) };
      inputs.update();
      parts.forEach((part) => part.draw(now, seen));
    };
  }
  return figure({ model, el, className: "llm-masking", label: text.name, shape, build });
}

function controls(text, state, set, reset) {
  const bar = (label, get, put) => slider({ label, min: 0, max: 1, step: 0.01, limits: [0, 1], get, set: put });
  // the three sum to 1: what a share gains another loses, "kept" first, then [MASK] or the random tokens
  const share = (name, get, put) => bar(text[name], get, (x) => {
    const [mask, random] = put(round(x), state());
    set({ mask: round(mask), random: round(random) });
  });
  const inputs = [
    bar(text.p, () => state().p, (p) => set({ p })),
    share("mask", () => state().mask, (x, { random }) => [x, Math.min(random, 1 - x)]),
    share("random", () => state().random, (x, { mask }) => [Math.min(mask, 1 - x), x]),
    share("kept", () => rest(state()), (x, { random }) => [Math.max(0, 1 - x - random), Math.min(random, 1 - x)]),
  ];
  const quota = toggle({ label: text.quota, get: () => state().quota, set: (value) => set({ quota: value }) });
  inputs.slice(1).forEach((input, k) => input.node.classList.add(`llm-${KINDS[k]}`));
  const go = (n) => () => set({ draws: Math.min(MOST, state().draws + n) });
  const more = [button(text.again, go(1), { class: "llm-button llm-primary" }), button(text.many, go(100))];
  return {
    nodes: [h("div", { class: "llm-controls" }, ...inputs.map((input) => input.node)),
      h("div", { class: "llm-row" }, quota.node, h("span", { class: "llm-steps" }, ...more, button(text.reset, reset)))],
    update: () => {
      [...inputs, quota].forEach((input) => input.update());
      more.forEach((node) => node.setAttribute("aria-disabled", state().draws === MOST)); // not disabled: that takes the focus
    },
  };
}

/** The tokens in columns: the original, what the model sees, the label. */
function sentence(text, { tokens, special }) {
  const said = h("p", { class: "llm-said", "aria-live": "polite" });
  const columns = tokens.map((token, i) => {
    const input = h("bdi", { class: "llm-input" }), label = h("bdi", { class: "llm-label" });
    const node = h("li", { class: special.includes(i) ? "llm-special" : "" }, h("bdi", {}, token), input, label);
    return { node, input, label };
  });
  const heads = h("li", { class: "llm-names", "aria-hidden": "true" }, ...["original", "input", "label"].map((row) => h("span", {}, text[row])));
  const node = h("div", { class: "llm-sentence" }, said, h("ol", {}, heads, ...columns.map((c) => c.node)), h("p", { class: "llm-legend" }, text.legend));
  const show = (now, { last }) => {
    columns.forEach(({ node, input, label }, i) => {
      const kind = last.kinds.get(i) ?? "";
      input.textContent = { mask: "[MASK]", random: kind === "random" && last.other(i) }[kind] || tokens[i];
      label.textContent = kind ? tokens[i] : "\u2212100";
      node.dataset.kind = kind;
      node.title = `${tokens[i]} ${kind ? `\u2192 ${input.textContent} ` : ""}(${text.what[kind]})`;
      node.setAttribute("aria-label", node.title);
    });
    const words = text.said(now.draws, last.kinds.size, tokens.length - new Set(special).size, count(last.kinds));
    if (said.textContent !== words) said.textContent = words;
  };
  return { node, draw: show };
}

/** A table: this draw, all draws, the shares; beneath each number what is expected, ± its standard deviation. */
function counts(text, places) {
  const cell = (digits, name) => {
    const shown = number(digits, `llm-${name}`), note = h("small", { class: "llm-expected" });
    return { node: h("td", {}, shown.node, note), show: (x, words) => { shown.show(x); note.textContent = words; } };
  };
  const rows = ["chosen", ...KINDS].map((kind) => {
    const cells = [cell(0, "now"), cell(0, "all"), cell(1, "share")];
    return { cells, node: h("tr", { class: `llm-${kind}` }, h("th", { scope: "row" }, text[kind]), ...cells.map((c) => c.node)) };
  });
  const all = h("th", { scope: "col" });
  const heads = h("tr", {}, h("td"), h("th", { scope: "col" }, text.now), all, h("th", { scope: "col" }, `${text.share} %`));
  const node = h("figure", { class: "llm-plane llm-counts" }, h("figcaption", {}, text.counts),
    h("table", { "aria-label": text.countsAlt }, h("thead", {}, heads), h("tbody", {}, ...rows.map((r) => r.node))), h("p", {}, text.expected));
  const show = (now, { last, total, row }) => {
    all.textContent = text.all(now.draws);
    const sum = (xs) => xs.reduce((a, b) => a + b, 0), mine = count(last.kinds);
    const of = [places.length * now.draws, sum(total), sum(total), sum(total)], shares = [1, now.mask, now.random, rest(now)];
    [sum(total), ...total].forEach((x, k) => {
      const { mean, variance } = moments(row, shares[k]), [one, many, share] = rows[k].cells;
      const words = (n, digits) => `${format(mean * n, digits)} ± ${format(Math.sqrt(variance * n), digits)}`;
      one.show([sum(mine), ...mine][k], words(1, 2));
      many.show(x, words(now.draws, 1));
      share.show((100 * x) / of[k], format(100 * (k ? shares[k] : now.p), 1));
    });
  };
  return { node, draw: show };
}

const WIDTH = 320, HEIGHT = 200, MARGIN = [12, 8, 42, 36]; // of the histogram, in SVG units

function histogram(text, n) {
  const svg = s("svg", { role: "img", "aria-label": text.alt });
  const node = h("figure", { class: "llm-plane" }, h("figcaption", {}, text.sizes), svg, h("p", {}, text.help));
  const show = ({ draws }, { sizes, last, row }) => {
    const seen = sizes.map((x) => x / draws), top = Math.max(...seen, ...row);
    const places = sizes.flatMap((_, k) => (seen[k] > 0 || row[k] > 1e-3 ? [k] : []));
    const from = Math.max(0, places[0] - 1), to = Math.min(n, places.at(-1) + 1), every = Math.ceil((to - from + 1) / 12);
    const ks = Array.from({ length: to - from + 1 }, (_, i) => from + i);
    const ticks = ks.filter((k) => k % every === 0).map((k) => [k, String(k)]);
    const { at } = axes(svg, { size: [WIDTH, HEIGHT], margin: MARGIN, x: { range: [from - 0.5, to + 0.5], ticks: [[from - 0.5, ""], ...ticks] },
      y: { range: [0, top], ticks: [[0, "0"], [top, format(top, 2)]] } });
    svg.append(
      ...ks.map((k) => {
        const [x, y] = at([k - 0.38, seen[k]]), [end, bottom] = at([k + 0.38, 0]);
        return s("rect", { class: k === last.kinds.size ? "llm-now" : "llm-bar", x, y, width: end - x, height: bottom - y });
      }),
      ...ks.map((k) => s("circle", { class: "llm-ring", cx: at([k, 0])[0], cy: at([k, row[k]])[1], r: Math.min(4, 80 / ks.length) })),
      s("text", { x: WIDTH / 2 + 14, y: HEIGHT - 6, "text-anchor": "middle" }, text.axis),
    );
  };
  return { node, draw: show };
}

export default { render };

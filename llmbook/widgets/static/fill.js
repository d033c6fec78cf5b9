import { button, choice, editor, format, frame, h, language, number, roving, scientific, select, store } from "./base.js";
import { gate, soon } from "./live.js";
import { headPanel, headsOverview, MAP_TEXT, toldApart } from "./maps.js";
import { head, maps, run } from "./network.js";

const TEXT = {
  en: {
    name: "Masked language model explorer", sentence: "Sentence", examples: "example", own: "your own", reset: "Reset",
    click: "Click a token to hide it", showAll: "Show all", special: "Special tokens cannot be hidden.", literal: "This [MASK] stands in the text: it has no true token.",
    cutOff: (read, n, room) => `The first ${read} of ${n} tokens are read: the model has room for ${room}, with [CLS] and [SEP].`,
    nothing: "Nothing is hidden. Click a token above: the model sees [MASK] in its place, and says what may have stood there.",
    empty: "Type a sentence, then click one of its tokens.",
    hidden: (n) => `${n} ${n === 1 ? "token is" : "tokens are"} hidden.`, noTruth: " A [MASK] that stands in the text has no true token.",
    right: (right, all) => ` The model’s first choice is ${all === 1 ? (right ? "the true token" : "another token") : `the true token at ${right} of ${all}`}.`,
    isCutOff: (cut) => ` ${cut} ${cut === 1 ? "head is" : "heads are"} cut.`,
    before: (right, all) => ` With all heads it was ${all === 1 ? (right ? "the true token" : "another token") : `the true one at ${right}`}.`,
    token: (i) => `token ${i}`, gap: (i, token) => `hidden token ${i}: ${token}`, prediction: "prediction", p: "p", both: "all heads → now", truth: "true token", inText: "none: [MASK] stands in the text",
    rank: "its rank", probability: "its probability", loss: "its loss −ln p",
    all: (n) => `All ${n} hidden tokens`, only: (n) => `The first ${n} are shown.`, mean: "mean loss", geometric: "geometric mean of p",
    attention: "Attention", attentionHelp: "What each head reads of the sentence as the model sees it. Cut a head, and what it found is missing: its output is 0.",
    view: "view", query: "query", firstHidden: "the first hidden token", none: "none", restoreAll: (n) => `Restore all (${n})`,
    headsHelp: "One small map a head: layers down, heads across, numbered from 0. Click one, or use the arrow keys, to see it large.",
  },
  zh: {
    name: "掩码语言模型探索器", sentence: "句子", examples: "例句", own: "自己输入的", reset: "复位",
    click: "点击一个词元，把它遮住", showAll: "全部显示", special: "特殊词元不能遮住。", literal: "这个 [MASK] 是文本中原有的，没有正确词元可言。",
    cutOff: (read, n, room) => `只读取 ${n} 个词元中的前 ${read} 个：连同 [CLS] 和 [SEP]，模型最多容纳 ${room} 个。`,
    nothing: "还没有遮住任何词元。请点击上面的一个词元：模型在那里只看到 [MASK]，并推测原来是什么。",
    empty: "请输入一个句子，再点击其中的词元。",
    hidden: (n) => `遮住了 ${n} 个词元。`, noTruth: "文本中原有的 [MASK] 没有正确词元可言。",
    right: (right, all) => (all === 1 ? `模型的首选${right ? "正确" : "不正确"}。` : `在这 ${all} 处，模型的首选有 ${right} 处正确。`),
    isCutOff: (cut) => `切除了 ${cut} 个头。`,
    before: (right, all) => (all === 1 ? `切除前，首选${right ? "正确" : "不正确"}。` : `切除前有 ${right} 处正确。`),
    token: (i) => `词元 ${i}`, gap: (i, token) => `遮住的词元 ${i}：${token}`, prediction: "预测", p: "p", both: "切除前 → 切除后", truth: "正确词元", inText: "无：[MASK] 是文本中原有的",
    rank: "名次", probability: "概率", loss: "损失 −ln p",
    all: (n) => `全部 ${n} 个遮住的词元`, only: (n) => `上面只列出前 ${n} 个。`, mean: "平均损失", geometric: "p 的几何平均",
    attention: "注意力", attentionHelp: "模型读这个句子时，每个头各读取了什么。切除一个头，它的输出就变成 0，它读到的信息也就丢失了。",
    view: "画法", query: "查询", firstHidden: "第一个遮住的词元", none: "无", restoreAll: (n) => `全部恢复（${n}）`,
    headsHelp: "每个头一幅小图：从上到下是层，从左到右是头，都从 0 开始编号。点击一个头，或用方向键选择，可放大来看。",
  },
};
const EXAMPLES = { // sentences, and which tokens are hidden
  "mlm-en": [
    ["My brother can speak French, but he cannot write it.", [5]],
    ["The children were playing in the garden when it began to rain.", [3, 12]],
    ["Tom went to Boston last week to see his mother.", [9]],
    ["He drinks a cup of coffee every morning before he goes to work.", [3, 5]],
    ["I left my umbrella on the bus this morning.", [4, 9]],
    ["The boys said that they would do it themselves.", [10]],
  ],
  "mlm-zh": [
    ["我的哥哥会说法语，但是不会写。", [7]],
    ["她去图书馆借了三本书。", [9, 10]],
    ["汤姆上个星期去北京看他的母亲。", [13]],
    ["今天天气很好，我们去公园散步吧。", [6]],
    ["我每天早上都喝一杯咖啡。", [7, 9]],
    ["他昨天晚上没有睡好，所以今天早上起得很晚。", [11, 12, 20]],
  ],
};
const NAMES = ["model", "text", "masked", "off", "layer", "head", "view", "query"];
const MOST_CHARACTERS = 10000; // of a text, as in Python
const SHOWN = 6; // hidden tokens
const LIKELIEST = 5; // predictions of each
const ORDINARY = 5; // the lowest id of a token that is not special

function render({ model, el }) {
  const lang = language(model), text = { ...MAP_TEXT[lang], ...TEXT[lang] };
  const root = frame("llm-maps llm-fill", text.name);
  let name, close = () => {};
  const open = () => {
    if (model.get("model") === name) return;
    close();
    root.replaceChildren();
    name = model.get("model");
    close = gate({ model, root, lang, name, build: ({ net, tokens }) => explore({ model, root, text, net, tokens }) });
  };
  model.on("change", open);
  open();
  el.append(root);
  return () => {
    model.off("change", open);
    close();
    root.remove();
  };
}

/** The figure, once the model is there. */
function explore({ model, root, text, net, tokens }) {
  const { state, set } = store(model, NAMES), first = state();
  const read = reader(net, tokens), answer = answers(net);
  const write = (sentence, masked) => {
    const row = read(sentence), { query } = state();
    set({ text: sentence, masked: masked.filter((i) => ordinary(row, i)), query: query < row.ids.length ? query : null });
  };
  const flip = (i) => {
    const { masked } = state();
    set({ masked: masked.includes(i) ? masked.filter((j) => j !== i) : [...masked, i].sort((a, b) => a - b) });
  };
  const inputs = controls(text, state, write, () => set({ ...first }));
  const sentence = chips({ text, net, tokens, flip, showAll: () => set({ masked: [] }) });
  const gaps = cards(text, tokens), attention = heads({ text, net, tokens, state, set });
  root.append(...inputs.nodes, sentence.node, gaps.node, attention.node);

  const now = () => {
    const all = state(), row = read(all.text);
    const hidden = row.ids.map((id, i) => i).filter((i) => row.ids[i] === tokens.special["[MASK]"] || (all.masked.includes(i) && ordinary(row, i)));
    return { ...all, row, hidden, input: row.ids.map((id, i) => (hidden.includes(i) ? tokens.special["[MASK]"] : id)) };
  };
  const compute = () => {
    const current = now(), found = answer(current);
    gaps.draw(current, found);
    attention.draw(current, found);
    root.removeAttribute("aria-busy");
  };
  const queue = soon(compute);
  const update = () => {
    if (state().model !== first.model) return; // another door is on its way
    inputs.update();
    sentence.draw(now());
    root.setAttribute("aria-busy", "true");
    queue.call();
  };
  model.on("change", update);
  update();
  return () => {
    model.off("change", update);
    queue.cancel();
    root.removeAttribute("aria-busy");
  };
}

const ordinary = ({ ids }, i) => ids[i] >= ORDINARY;

/** From a text to what the model reads of it: { ids, total }, [CLS] … [SEP], and how many tokens there are without these two. */
function reader(net, tokens) {
  let seen = {};
  return (text) => {
    if (seen.text !== text) {
      const all = tokens.encode(text).map(({ id }) => id);
      const ids = [tokens.special["[CLS]"], ...all.slice(0, net.config.max_len - 2), tokens.special["[SEP]"]];
      seen = { text, row: { ids, total: all.length } };
    }
    return seen.row;
  };
}

/** What the model makes of an input: { weights, gaps, whole }; `whole` are the gaps with no head cut. What is known is kept. */
function answers(net) {
  const keep = (compute) => {
    let seen = {};
    return (...what) => {
      const key = JSON.stringify(what);
      if (seen.key !== key) seen = { key, value: compute(...what) };
      return seen.value;
    };
  };
  const pass = (input, hidden, off) => {
    const done = run(net, input, { off });
    return { weights: maps(done), p: hidden.length ? head(net, hidden.map((i) => done.h[i])).at(-1).made[0].m : [] };
  };
  const [whole, cut] = [keep(pass), keep(pass)];
  const judged = ({ p }, { hidden, row }) => p.map((probabilities, k) => gap(hidden[k], row.ids[hidden[k]], probabilities));
  return (now) => {
    const before = whole(now.input, now.hidden, []), after = now.off.length ? cut(now.input, now.hidden, now.off) : before;
    return { weights: after.weights, gaps: judged(after, now), whole: judged(before, now) };
  };
}

/** One hidden token: its place, the likeliest tokens, and rank and loss of the true one, if there is one. */
function gap(position, id, p) {
  const likeliest = likely(p);
  if (id < ORDINARY) return { position, p, likeliest };
  const ahead = p.reduce((count, x, j) => count + (x > p[id] || (x === p[id] && j < id)), 0);
  return { position, p, likeliest, truth: id, rank: ahead + 1, loss: -Math.log(p[id]) };
}

/** The likeliest tokens, of equals the one with the lower id first. */
function likely(p) {
  const best = [];
  p.forEach((x, id) => {
    if (best.length === LIKELIEST && x <= p[best.at(-1)]) return;
    const place = best.findIndex((other) => p[other] < x);
    best.splice(place < 0 ? best.length : place, 0, id);
    best.length = Math.min(best.length, LIKELIEST);
  });
  return best;
}

const meanLoss = (gaps) => gaps.reduce((sum, { loss }) => sum + loss, 0) / gaps.length;

function controls(text, state, write, reset) {
  const sentences = EXAMPLES[state().model];
  let typed; // what came from the field itself: all else is put into it, even while it has the focus
  const field = editor({ label: text.sentence, longest: MOST_CHARACTERS, get: () => state().text, set: (value) => {
    typed = value.replace(/\p{Surrogate}/gu, "\ufffd");
    write(typed, state().masked);
  } });
  const examples = select({ label: text.examples, options: [["", text.own], ...sentences.map(([sentence], i) => [String(i), sentence])],
    get: () => String(sentences.findIndex(([sentence]) => sentence === state().text)).replace("-1", ""), set: (i) => write(...sentences[i]) });
  examples.node.querySelector("option").disabled = true; // it is what it says when nothing else is
  return {
    nodes: [field.node, h("div", { class: "llm-row" }, examples.node, button(text.reset, reset))],
    update: () => {
      field.update(state().text !== typed);
      examples.update();
    },
  };
}

/** The tokens, to click: a hidden one shows [MASK]; each is as wide as its text and [MASK], so that nothing moves. */
function chips({ text, net, tokens, flip, showAll }) {
  const note = h("p", { class: "llm-note", "aria-live": "polite" }), all = button(text.showAll, showAll);
  let list = h("div", {}), row, pressed; // the buttons among the tokens, by their places
  const chip = (id, i) => {
    const shown = tokens.label(id), name = `${text.token(i)}: ${shown}`;
    const inside = [h("span", { class: "llm-chip" }, h("bdi", {}, shown), h("bdi", {}, "[MASK]")), h("span", { class: "llm-place", "aria-hidden": "true" }, String(i))];
    if (id >= ORDINARY) return h("button", { type: "button", title: shown, "aria-label": name, onclick: () => flip(i) }, ...inside);
    const literal = id === tokens.special["[MASK]"];
    return h("span", { class: literal ? "llm-literal" : "llm-special", title: literal ? text.literal : text.special }, ...inside);
  };
  const build = () => {
    const nodes = row.ids.map(chip), read = row.ids.length - 2;
    pressed = new Map([...nodes.entries()].filter(([, node]) => node.tagName === "BUTTON"));
    const next = h("div", { class: "llm-tokens", role: "group", "aria-label": text.click }, ...nodes), buttons = [...pressed.values()];
    if (buttons.length) {
      const stop = roving(next, [buttons]);
      next.addEventListener("focusin", (event) => stop(0, buttons.indexOf(event.target)));
    }
    list.replaceWith(next);
    list = next;
    note.textContent = read < row.total ? text.cutOff(read, row.total, net.config.max_len) : "";
  };
  const node = h("div", {}, h("div", { class: "llm-row llm-caption" }, h("strong", { "aria-hidden": "true" }, text.click), all), list, note);
  const draw = (now) => {
    if (now.row !== row) {
      row = now.row;
      build();
    }
    pressed.forEach((node, i) => node.setAttribute("aria-pressed", now.hidden.includes(i)));
    all.setAttribute("aria-disabled", now.masked.length === 0);
  };
  return { node, draw };
}

/** What the model says of each hidden token, a card each, and of all together. */
function cards(text, tokens) {
  const said = h("p", { class: "llm-said", "aria-live": "polite" }), list = h("div", { class: "llm-cards" });
  const draw = (now, { gaps, whole }) => {
    const words = sentence(text, now, gaps, whole);
    if (said.textContent !== words) said.textContent = words; // what is as it was is not said again
    const cut = now.off.length > 0, shown = gaps.slice(0, SHOWN).map((found, k) => card(text, tokens, found, whole[k], cut));
    list.classList.toggle("llm-both", cut);
    list.replaceChildren(...shown, ...(gaps.length > 1 ? [summary(text, gaps, whole, cut)] : []));
  };
  return { node: h("div", { class: "llm-gaps" }, said, list), draw };
}

function sentence(text, { hidden, off, row }, gaps, whole) {
  if (!hidden.length) return row.total ? text.nothing : text.empty;
  const right = (all) => all.filter(({ rank }) => rank === 1).length, known = gaps.filter(({ rank }) => rank).length;
  const parts = [text.hidden(hidden.length), known ? text.right(right(gaps), known) : text.noTruth];
  if (off.length) parts.push(text.isCutOff(off.length), known ? text.before(right(whole), known) : "");
  return parts.join("");
}

/** A number, and before it, where heads are cut, what it was with all of them. */
function change(name, was, now, cut, digits, write) {
  const [before, after] = ["llm-was", "llm-now"].map((when) => number(digits, `llm-${name} ${when}`, write));
  before.show(was);
  after.show(now);
  return h("span", { class: "llm-change" }, ...(cut ? [before.node, " \u2192 "] : []), after.node);
}

const writeP = (p, digits) => (p > 0 && p < 0.0005 ? scientific(p, 0) : format(p, digits));

function card(text, tokens, now, whole, cut) {
  const { position, p, likeliest, truth } = now, true_ = truth === undefined ? "[MASK]" : tokens.label(truth);
  const cell = (child, className) => h("span", { role: "cell", class: className }, child);
  const bar = (name, x) => h("span", { class: name, style: `width: ${(100 * x).toFixed(2)}%` });
  const line = (id) => h("div", { role: "row", class: id === truth ? "llm-true" : "" },
    h("span", { role: "rowheader", title: tokens.label(id) }, h("bdi", {}, tokens.label(id))),
    cell(h("span", { class: "llm-track" }, bar("llm-bar", p[id]), ...(cut ? [bar("llm-ring", whole.p[id])] : [])), "llm-bars"),
    cell(change("p", whole.p[id], p[id], cut, 3, writeP), "llm-ps"));
  const top = h("div", { role: "row", class: "llm-head" }, ...[text.prediction, "", cut ? text.both : text.p].map((label) => h("span", { role: "columnheader" }, label)));
  const about = (label, child) => h("div", {}, h("span", {}, label), child);
  const facts = truth === undefined ? [about(text.truth, text.inText)] : [
    about(text.truth, h("bdi", { class: "llm-truth" }, true_)),
    about(text.rank, change("rank", whole.rank, now.rank, cut, 0)),
    about(text.probability, change("p", whole.p[truth], p[truth], cut, 3, writeP)),
    about(text.loss, change("loss", whole.loss, now.loss, cut, 3)),
  ];
  return h("div", { class: "llm-card", role: "group", "aria-label": text.gap(position, true_) },
    h("p", { class: "llm-title" }, h("span", {}, text.token(position)), h("bdi", {}, true_)),
    h("div", { role: "table", class: "llm-table", "aria-label": text.prediction }, top, ...likeliest.map(line)),
    h("div", { class: "llm-list" }, ...facts));
}

/** All hidden tokens that have a true one: their mean loss, and what it says of the probabilities. */
function summary(text, gaps, whole, cut) {
  const known = (all) => all.filter(({ rank }) => rank), [was, now] = [whole, gaps].map((all) => meanLoss(known(all)));
  const rows = known(gaps).length ? [[text.mean, change("mean", was, now, cut, 3)],
    [text.geometric, change("geometric", Math.exp(-was), Math.exp(-now), cut, 3, writeP)]] : [];
  return h("div", { class: "llm-card llm-all", role: "group", "aria-label": text.all(gaps.length) }, h("p", { class: "llm-title" }, text.all(gaps.length)),
    ...(gaps.length > SHOWN ? [h("p", {}, text.only(SHOWN))] : []),
    h("div", { class: "llm-list" }, ...rows.map(([label, child]) => h("div", {}, h("span", {}, label), child))));
}

/** The maps of all heads, to be cut, and the chosen one in large, whose row of the first hidden token stands out. */
function heads({ text, net, tokens, state, set }) {
  const same = ([l, a]) => ([m, b]) => l === m && a === b;
  const flip = (layer, head) => {
    const { off } = state(), there = off.some(same([layer, head]));
    set({ off: there ? off.filter((place) => !same([layer, head])(place)) : [...off, [layer, head]].sort(([l, a], [m, b]) => l - m || a - b) });
  };
  const all = headsOverview({ text, layers: net.config.n_layers, heads: net.config.n_heads, onCut: flip,
    pick: (layer, head) => set({ layer, head }) });
  const restore = button("", () => set({ off: [] }));
  all.node.append(restore);
  const view = choice({ label: text.view, shown: true, options: ["matrix", "lines"].map((name) => [name, text[name]]), get: () => state().view, set: (name) => set({ view: name }) });
  const place = h("div", { class: "llm-view" }, all.node), inputs = h("div", { class: "llm-row llm-options" }, view.node);
  let built, panel, query, row; // the row that stands out now
  const build = (input) => {
    const labels = input.map((id) => tokens.label(id));
    query?.node.remove();
    panel?.node.remove();
    query = select({ label: text.query, options: [["", text.firstHidden], ...toldApart(labels).map((token, i) => [String(i), token])],
      get: () => String(state().query ?? ""), set: (i) => set({ query: i ? Number(i) : null }) });
    panel = headPanel({ text, tokens: labels, choose: (i) => set({ query: i === row ? null : i }), point: (i, j) => panel.point(i, j) });
    inputs.append(query.node);
    place.append(panel.node);
    built = String(input);
  };
  const draw = (now, { weights }) => {
    if (built !== String(now.input)) build(now.input);
    row = now.query < now.input.length ? now.query ?? now.hidden[0] ?? null : null;
    const drawn = { ...now, weights, query: row, cut: now.off };
    all.draw(drawn);
    panel.draw(drawn, [now.layer, now.head]);
    [view, query].forEach((input) => input.update());
    restore.textContent = text.restoreAll(now.off.length);
    restore.setAttribute("aria-disabled", now.off.length === 0);
  };
  return { node: h("div", { class: "llm-reads" }, h("p", { class: "llm-title" }, text.attention), h("p", { class: "llm-help" }, text.attentionHelp), inputs, place), draw };
}

export default { render };

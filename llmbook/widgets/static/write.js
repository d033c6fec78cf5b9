import { button, choice, editor, figure, format, h, language, number, select, slider, store, toggle, uniform } from "./base.js";
import { softmax } from "./forward.js";
import { gate, soon } from "./live.js";
import { headPanel, headsOverview, MAP_TEXT } from "./maps.js";
import { head, maps, remember, run } from "./network.js";
import { byProbability, drawToken, entropyOf, judge, nextDistribution } from "./sampling.js";

const TEXT = {
  en: {
    name: "Causal language model explorer", prompt: "Beginning of the text", examples: "example", own: "your own", reset: "Reset",
    chips: "The text so far, token by token",
    legend: "Written tokens are shaded by the probability that the model gave them:", levels: ["below 1%", "1 to 5%", "5 to 20%", "20 to 50%", "50% and more"],
    point: "Point at a token, or reach it by the arrow keys, for its probability. A click chooses it.",
    scored: (token, of) => [`“${token}”: the model gave it the probability `, ", rank ", ` of ${of}.`],
    unscored: (token) => `“${token}” is the first token that the model reads: it predicts only what follows.`,
    notRead: (read, all) => `The model reads the last ${read} of ${all} tokens, [CLS] among them: it has room for no more.`,
    left: (n) => `${n} tokens not read`,
    next: "Next token", go: "Write on", halt: "Stop", back: "Take back", anew: "Draw anew", pace: "pace", slow: "5 a second", fast: "as fast as it goes",
    room: (n, most) => `${n} of at most ${most} tokens written.`, sep: (n) => `[SEP] has ended the text after ${n} ${n === 1 ? "token" : "tokens"}.`, full: (most) => `${most} tokens are written: no more are.`,
    temperature: "temperature", top_k: "top-k", top_p: "top-p", seed: "seed", value: (name) => `value of ${name}`,
    settings: "How the next token is drawn", distribution: "The next token", token: "token", bars: "probability", before: "softmax", after: "after",
    kept: (of) => [" of ", `${of} tokens kept`], entropy: "entropy", nats: "nats", u: "u", removed: "removed", take: (token) => `Take ${token}`,
    falls: (token, greedy) => (greedy ? `Temperature 0: “${token}” is taken, whatever u.` : `u falls on “${token}”: the next token.`),
    strip: (u, token, from, to) => `The kept tokens side by side, each as wide as its probability: u = ${u} falls on ${token}, from ${from} to ${to}`,
    help: "Outline: softmax of the scores. Filled: after temperature, top-k and top-p; what these remove is struck through. In the strip the kept tokens lie side by side, the likeliest first, each as wide as its probability, and u decides. Click a token to take it instead.",
    attention: "Attention, and heads to cut", attentionHelp: "What each head reads. A head that is cut gives 0: see what becomes of the distribution.",
    window: (n) => `The last ${n} tokens are drawn.`, isCutNow: (n) => `${n} ${n === 1 ? "head is" : "heads are"} cut.`, restoreAll: "Restore all heads", view: "view",
    headsHelp: "One small map a head: layers down, heads across, numbered from 0. Click one, or use the arrow keys, to see it large.",
  },
  zh: {
    name: "因果语言模型探索器", prompt: "文本的开头", examples: "例子", own: "自己输入的", reset: "复位",
    chips: "到目前为止的文本，逐个词元",
    legend: "写出的词元按模型给它的概率着色：", levels: ["低于 1%", "1%～5%", "5%～20%", "20%～50%", "50% 及以上"],
    point: "指向一个词元，或用方向键移到它上面，可看它的概率；点击则选定它。",
    scored: (token, of) => [`“${token}”：模型给它的概率是 `, `，在 ${of} 个词元中排第 `, "。"],
    unscored: (token) => `“${token}”是模型读到的第一个词元：模型只预测它后面的词元。`,
    notRead: (read, all) => `模型只读 ${all} 个词元（含 [CLS]）中的最后 ${read} 个：它最多容纳这么多。`,
    left: (n) => `${n} 个词元未读`,
    next: "下一个词元", go: "继续写", halt: "停止", back: "退回一个", anew: "重新抽", pace: "速度", slow: "每秒 5 个", fast: "尽可能快",
    room: (n, most) => `已写 ${n} 个词元，最多写 ${most} 个。`, sep: (n) => `写了 ${n} 个词元之后出现 [SEP]，文本到此结束。`, full: (most) => `已写满 ${most} 个词元，不再继续。`,
    temperature: "温度", top_k: "top-k", top_p: "top-p", seed: "随机种子", value: (name) => `${name} 的值`,
    settings: "怎样抽取下一个词元", distribution: "下一个词元", token: "词元", bars: "概率", before: "softmax", after: "调整后",
    kept: (of) => [" / ", `${of} 个词元留下`], entropy: "熵", nats: "奈特", u: "u", removed: "已去掉", take: (token) => `取 ${token}`,
    falls: (token, greedy) => (greedy ? `温度为 0：不论 u 是多少，都取“${token}”。` : `u 落在“${token}”上：下一个词元就是它。`),
    strip: (u, token, from, to) => `留下的词元并排放置，宽度就是概率：u = ${u} 落在 ${token} 上，这一段从 ${from} 到 ${to}`,
    help: "空心条是得分的 softmax，实心条是经过温度、top-k 和 top-p 调整后的概率，去掉的词元加删除线。长条中，留下的词元按概率从大到小并排放置，宽度就是概率，u 落在谁上面就取谁。点击一个词元，则改取它。",
    attention: "注意力与切除头", attentionHelp: "每个头各读取了什么。头被切除后输出为 0：看看分布会怎样变化。",
    window: (n) => `只画最后 ${n} 个词元。`, isCutNow: (n) => `切除了 ${n} 个头。`, restoreAll: "恢复所有的头", view: "画法",
    headsHelp: "每个头一幅小图：从上到下是层，从左到右是头，都从 0 开始编号。点击一个头，或用方向键选择，可放大来看。",
  },
};
const EXAMPLES = {
  "gpt-en": ["The king said to his son,", "In the beginning", "Jesus answered them,", "Blessed are those who", "You shall not", "The dog and the computer"],
  "gpt-zh": ["秋夜\n", "登高\n", "江上\n", "送友人\n", "春风又绿江南岸，", "人工智能\n"],
};
const NAMES = ["model", "text", "written", "temperature", "top_k", "top_p", "seed", "off", "layer", "head", "view", "query"];
const MOST_CHARACTERS = 10000; // of a text, MOST tokens written, HOTTEST temperature, SEED_LIMIT: as in Python
const MOST = 64;
const HOTTEST = 2;
const SEED_LIMIT = 2 ** 31;
const TOP = 12; // tokens that the table names
const WINDOW = 64; // tokens in the maps
const PACE = 200; // milliseconds from token to token
const LEVELS = [0.01, 0.05, 0.2, 0.5]; // probabilities at which the shade of a written token changes
const NEUTRAL = { temperature: 1, top_k: null, top_p: null }; // what changes nothing
const USUAL = { temperature: 0.7, top_k: 40, top_p: 0.9 }; // what they are when first turned on

function render({ model, el }) {
  const kept = {}; // a model that was loaded stays when the language changes
  let close = () => {};

  function build(root) {
    close();
    const lang = language(model), name = model.get("model"), text = { ...MAP_TEXT[lang], ...TEXT[lang] };
    let inner;
    const enter = (loaded) => {
      kept[name] = loaded;
      inner = explore({ model, root, text, ...loaded });
      return inner.stop;
    };
    if (kept[name]) close = enter(kept[name]);
    else close = gate({ model, root, lang, name, build: enter });
    return () => inner?.draw();
  }
  const shape = () => `${language(model)} ${model.get("model")}`;
  const remove = figure({ model, el, className: "llm-maps llm-write", label: TEXT[language(model)].name, shape, build });
  return () => {
    close();
    remove();
  };
}

/** The figure, once the model is there: { draw, stop }. */
function explore({ model, root, text, net, tokens }) {
  const { state, set } = store(model, NAMES), first = state();
  const read = reader(net, tokens), label = (id) => tokens.label(id), sep = tokens.special["[SEP]"];
  let seen = null; // what was computed last: null while something is due
  const compute = () => {
    const now = state(), { context, ...rest } = read(now), logits = context.next(), p = nextDistribution(logits, now), raw = softmax(logits);
    const ended = now.written.length >= MOST ? "full" : now.written.at(-1) === sep ? "sep" : "", u = uniform(now.seed, now.written.length);
    seen = { ...rest, context, logits, p, raw, u, chosen: drawToken(p, u), ended };
    [line, dial, list, attention].forEach((part) => part.draw(now, seen));
    writer.draw(now, seen);
    root.removeAttribute("aria-busy");
  };
  const queue = soon(compute);
  const current = () => {
    if (!seen) {
      queue.cancel();
      compute();
    }
    return seen;
  };
  const take = (id) => { if (!current().ended) set({ written: [...state().written, id] }); };
  const step = () => take(current().chosen);
  const writer = buttons({ text, root, state, set, step, current });
  const begin = (prompt) => { writer.halt(); set({ text: prompt, written: [], query: null }); };
  const line = chips({ text, label, vocabulary: net.config.vocab_size, choose: (query) => set({ query: query === state().query ? null : query }) });
  const dial = settings({ text, vocabulary: net.config.vocab_size, state, set });
  const list = candidates({ text, label, take, vocabulary: net.config.vocab_size });
  const attention = heads({ text, net, label, state, set, redraw: () => seen && attention.draw(state(), seen) });
  const inputs = beginning({ text, state, begin, reset: () => { writer.halt(); set({ ...first }); } });
  root.append(inputs.node, line.node, writer.node, dial.node, list.node, attention.node);
  const draw = () => {
    seen = null;
    inputs.update();
    root.setAttribute("aria-busy", "true");
    queue.call();
  };
  const stop = () => {
    writer.halt();
    queue.cancel();
    root.removeAttribute("aria-busy");
  };
  draw();
  return { draw, stop };
}

/**
 * From the state to what the model reads: { context, skipped, prompt, all }: as `reading` gives it, how many tokens come before it,
 * how many tokens [CLS] and the text are, and all that there are.
 */
function reader(net, tokens) {
  const read = reading(net);
  let known = {};
  return ({ text, written, off }) => {
    if (known.text !== text) known = { text, ids: [tokens.special["[CLS]"], ...tokens.encode(text).map(({ id }) => id)] };
    const all = [...known.ids, ...written], skipped = Math.max(0, all.length - net.config.max_len);
    return { context: read(all.slice(skipped), off), skipped, prompt: known.ids.length, all: all.length };
  };
}

/**
 * Reads tokens and remembers them: of a new list of ids only what differs from the last is computed. A function of ids and of the
 * heads that are cut, which gives { ids, weights, next, score }: weights[layer][head][query][key], rows of several lengths; the
 * scores of the next token; and what the model said of the tokens at some places, { p, rank }, nothing for the first.
 */
function reading(net) {
  let cut, memory, weights, h, ids, scores, said;
  const logits = (rows) => head(net, rows).find(({ key }) => key === "logits").made[0].m;
  const forget = (length) => {
    memory.forEach(({ k, v }) => { k.length = v.length = length; });
    weights.flat().forEach((rows) => { rows.length = length; });
    [ids, h, scores, said].forEach((list) => { list.length = Math.min(list.length, length); });
  };
  const grow = (more, off) => {
    const made = run(net, more, { off, memory });
    maps(made).forEach((layer, l) => layer.forEach((rows, a) => weights[l][a].push(...rows)));
    h.push(...made.h);
    ids.push(...more);
  };
  const next = () => (scores[ids.length - 1] ??= logits([h.at(-1)])[0]);
  const score = (places) => {
    const asked = places.filter((i) => i > 0 && !said[i]), unread = asked.filter((i) => !scores[i - 1]);
    if (unread.length) logits(unread.map((i) => h[i - 1])).forEach((row, k) => { scores[unread[k] - 1] = row; });
    asked.forEach((i) => { said[i] = judge(scores[i - 1], ids[i]); });
    return places.map((i) => said[i]);
  };
  return (wanted, off) => {
    if (cut !== String(off)) {
      [cut, memory, weights] = [String(off), remember(net), net.blocks.map(() => Array.from({ length: net.config.n_heads }, () => []))];
      [h, ids, scores, said] = [[], [], [], []];
    }
    let same = 0;
    while (same < Math.min(ids.length, wanted.length) && ids[same] === wanted[same]) same++;
    forget(same);
    if (same < wanted.length) grow(wanted.slice(same), off);
    return { ids, weights, next, score };
  };
}

/** The text to begin with, examples, reset. */
function beginning({ text, state, begin, reset }) {
  const written = editor({ label: text.prompt, longest: MOST_CHARACTERS, rows: 2, get: () => state().text, set: (prompt) => prompt !== state().text && begin(prompt) });
  const ready = EXAMPLES[state().model] ?? [];
  const pick = select({ label: text.examples, options: [["", text.own], ...ready.map((prompt, i) => [String(i), prompt.trim()])],
    get: () => { const i = ready.indexOf(state().text); return i < 0 ? "" : String(i); }, set: (i) => (i === "" ? written.node.querySelector("textarea").focus() : begin(ready[i])) });
  return {
    node: h("div", {}, written.node, h("div", { class: "llm-row llm-ready" }, pick.node, button(text.reset, reset))),
    update: () => [written, pick].forEach((input) => input.update()),
  };
}

/** A token as it stands in a text: its blanks are blanks. */
const inText = (token) => token.replaceAll("\u2423", " ");

/** What the model reads, token by token; of the one that is pointed at or chosen, what the model said of it. */
function chips({ text, label, vocabulary, choose }) {
  const row = h("div", { class: "llm-text", role: "group", "aria-label": text.chips }), before = h("span", { class: "llm-before" });
  const swatches = text.levels.map((words, level) => h("span", {}, h("i", { class: "llm-chip llm-new", "data-level": level }), words));
  const cut = h("p", { class: "llm-note", role: "status" });
  const says = readout(text, vocabulary);
  const node = h("div", { class: "llm-so-far" }, cut, row, says.node, h("p", { class: "llm-legend" }, text.legend, ...swatches));
  row.append(before);
  const shown = [];
  let at = null, seen, chosen = null, stop = 0; // the token pointed at, by its place on the row; what was drawn; the tab stop
  const tell = () => says.show(seen, label, at ?? (chosen < seen.context.ids.length && chosen >= 0 ? chosen : null));
  const point = (i) => { at = i; tell(); };
  const put = (i) => {
    shown.forEach(({ chip }, j) => { chip.tabIndex = j === i ? 0 : -1; });
    stop = i;
  };
  row.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: stop - 1, ArrowRight: stop + 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    shown[to]?.chip.focus();
  });
  ["pointerleave", "focusout"].forEach((event) => row.addEventListener(event, () => point(null)));
  const make = (i) => {
    const name = h("bdi", {});
    const chip = h("button", { type: "button", class: "llm-chip", onclick: () => choose(seen.skipped + i), onpointerenter: () => point(i),
      onfocus: () => { put(i); point(i); } }, name);
    return { chip, name, end: h("br") };
  };
  const draw = ({ query }, found) => {
    seen = found;
    const { context, skipped, prompt, all } = found, { ids } = context;
    chosen = query === null ? null : query - skipped;
    cut.textContent = skipped ? text.notRead(ids.length, all) : "";
    before.textContent = skipped ? `\u2026 ${text.left(skipped)} ` : "";
    while (shown.length > ids.length) Object.values(shown.pop()).forEach((element) => element.remove());
    const own = ids.map((_, i) => i).filter((i) => i >= prompt - skipped), scored = new Map(context.score(own).map((said, k) => [own[k], said]));
    ids.forEach((id, i) => {
      if (!shown[i]) row.append((shown[i] = make(i)).chip);
      const { chip, name, end } = shown[i], token = label(id), said = scored.get(i);
      if (name.textContent !== inText(token)) name.textContent = inText(token);
      chip.classList.toggle("llm-new", i >= prompt - skipped);
      chip.classList.toggle("llm-special", /^\[[A-Z]+\]$/.test(token));
      chip.dataset.level = said ? LEVELS.filter((limit) => said.p >= limit).length : "";
      chip.setAttribute("aria-pressed", i === chosen);
      if (token.includes("\u23ce")) chip.after(end);
      else end.remove();
    });
    put(Math.min(stop, ids.length - 1));
    if (at >= ids.length) at = null;
    tell();
  };
  return { node, draw };
}

/** A sentence about one token: its probability and its rank, in full precision too. */
function readout(text, vocabulary) {
  const p = number(4, "llm-p", share), rank = number(0, "llm-rank"), node = h("p", { class: "llm-readout-line", "aria-live": "polite" });
  const show = ({ context }, label, i) => {
    if (i === null) node.textContent = text.point;
    else if (i === 0) node.textContent = text.unscored(label(context.ids[0]));
    else {
      const [said] = context.score([i]), [a, b, c] = text.scored(label(context.ids[i]), vocabulary.toLocaleString("en"));
      p.show(said.p);
      rank.show(said.rank);
      node.replaceChildren(a, p.node, b, rank.node, c);
    }
  };
  return { node, show };
}

/** A probability for the eye: three decimals, or, where these are all 0, its power of ten. */
const share = (p) => (p > 0 && p < 0.0005 ? "<\u20090.001" : format(p, 3));

/** The buttons that write. `writer.halt()` ends what goes on by itself. */
function buttons({ text, root, state, set, step, current }) {
  let timer = null, pace = "slow";
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const halt = () => {
    clearTimeout(timer);
    timer = null;
    go.textContent = text.go;
    go.setAttribute("aria-pressed", "false");
    root.classList.remove("llm-writing");
  };
  const tick = () => {
    if (!root.isConnected || current().ended) return halt();
    do step(); while (still && !current().ended); // who wants no motion sees the whole text at once
    timer = setTimeout(tick, pace === "slow" ? PACE : 0);
    return undefined;
  };
  const start = () => {
    if (current().ended) return;
    go.textContent = text.halt;
    go.setAttribute("aria-pressed", "true");
    root.classList.add("llm-writing");
    tick();
  };
  const back = () => { halt(); if (state().written.length) set({ written: state().written.slice(0, -1) }); };
  const anew = () => set({ seed: (state().seed + 1) % SEED_LIMIT, written: [] });
  const next = button(text.next, step, { class: "llm-button llm-primary" }), go = button(text.go, () => (timer === null ? start() : halt()), { "aria-pressed": "false" });
  const undo = button(text.back, back), again = button(text.anew, anew), said = h("p", { class: "llm-note", role: "status" });
  const speed = choice({ label: text.pace, shown: true, options: ["slow", "fast"].map((name) => [name, text[name]]), get: () => pace,
    set: (name) => { pace = name; speed.update(); } });
  speed.update();
  const node = h("div", {}, h("div", { class: "llm-buttons" }, next, go, undo, again, ...(still ? [] : [speed.node])), said);
  const draw = ({ written }, { ended }) => {
    [next, go].forEach((one) => one.setAttribute("aria-disabled", Boolean(ended)));
    undo.setAttribute("aria-disabled", written.length === 0);
    if (timer !== null && ended) halt();
    said.setAttribute("aria-live", timer === null ? "polite" : "off"); // while it writes, a screen reader is told nothing
    const words = ended === "sep" ? text.sep(written.length) : ended ? text.full(MOST) : text.room(written.length, MOST);
    if (said.textContent !== words) said.textContent = words;
  };
  return { node, draw, halt };
}

/** Temperature, top-k and top-p, each on or off; the seed. */
function settings({ text, vocabulary, state, set }) {
  const optional = (name, range) => {
    let last = state()[name] === NEUTRAL[name] ? USUAL[name] : state()[name];
    const off = () => state()[name] === NEUTRAL[name];
    const value = slider({ label: text.value(text[name]), ...range, get: () => state()[name] ?? range.most, set: (x) => set({ [name]: range.read(x) }) });
    const on = toggle({ label: text[name], get: () => !off(), set: (checked) => set({ [name]: checked ? last : NEUTRAL[name] }) });
    const update = () => {
      if (!off()) last = state()[name];
      [on, value].forEach((input) => input.update());
    };
    return { node: h("div", { class: "llm-option" }, on.node, value.node), update };
  };
  const whole = (x, most) => Math.min(most, Math.max(1, Math.round(x)));
  const inputs = [
    optional("temperature", { min: 0, max: HOTTEST, step: 0.05, read: (x) => x }),
    optional("top_k", { min: 0, max: Math.log2(vocabulary), step: 0.25, at: Math.log2, from: (x) => Math.round(2 ** x), digits: 0, limits: [1, vocabulary], most: vocabulary,
      read: (x) => (whole(x, vocabulary) === vocabulary ? null : whole(x, vocabulary)) }),
    optional("top_p", { min: 0.01, max: 1, step: 0.01, limits: [0.001, 1], most: 1, read: (x) => (x === 1 ? null : x) }),
  ];
  const seed = slider({ label: text.seed, min: 0, max: 99, step: 1, limits: [0, SEED_LIMIT - 1], digits: 0, get: () => state().seed, set: (x) => set({ seed: Math.round(x) }) });
  const node = h("div", { class: "llm-controls", role: "group", "aria-label": text.settings }, ...inputs.map((input) => input.node), seed.node);
  return { node, draw: () => [...inputs, seed].forEach((input) => input.update()) };
}

/** The likeliest tokens, before and after; what is kept; u, and where it falls. */
function candidates({ text, label, take, vocabulary }) {
  const rows = Array.from({ length: TOP + 1 }, () => candidate(text, take));
  const head = ["token", "bars", "before", "after"].map((name) => h("span", { role: "columnheader", class: `llm-head-${name}` }, text[name]));
  const table = h("div", { role: "table", class: "llm-table", "aria-label": text.distribution }, h("div", { role: "row", class: "llm-head" }, ...head), ...rows.map((row) => row.node));
  const many = number(0, "llm-many"), before = number(2, "llm-entropy"), after = number(2, "llm-entropy"), u = number(3, "llm-u"), falls = h("span", { class: "llm-falls" });
  const [of, words] = text.kept(vocabulary.toLocaleString("en"));
  const facts = h("div", { class: "llm-facts" }, h("span", {}, many.node, of, words), h("span", {}, `${text.entropy} `, before.node, " \u2192 ", after.node, ` ${text.nats}`),
    h("span", {}, `${text.u} = `, u.node), falls);
  const band = strip(text, label);
  const node = h("div", { class: "llm-next" }, h("h4", { class: "llm-title" }, text.distribution), facts, band.node, table, h("p", { class: "llm-help" }, text.help));
  const draw = (now, found) => {
    const { logits, raw, p, chosen, ended } = found;
    const likeliest = largest(logits, TOP), order = byProbability(p), most = Math.max(...raw, ...p), extra = likeliest.includes(chosen) ? undefined : chosen;
    [...likeliest, extra].forEach((id, i) => rows[i].draw({ id, token: id === undefined ? "" : label(id), raw: raw[id], p: p[id], most, hit: id === chosen, ended,
      rank: i < TOP ? undefined : order.indexOf(id) + 1 }));
    many.show(order.length);
    before.show(entropyOf(raw));
    after.show(entropyOf(p));
    u.show(found.u);
    falls.textContent = text.falls(label(chosen), now.temperature === 0);
    band.draw(order, found);
  };
  return { node, draw };
}

/** The places of the n largest numbers, the largest first, equals in order. */
function largest(xs, n) {
  const found = []; // one pass is enough for so few
  xs.forEach((x, i) => {
    if (found.length === n && x <= xs[found[n - 1]]) return;
    let k = found.length;
    while (k > 0 && x > xs[found[k - 1]]) k--;
    found.splice(k, 0, i);
    found.length = Math.min(found.length, n);
  });
  return found;
}

function candidate(text, take) {
  let id;
  const name = h("bdi", {}), press = h("button", { type: "button", class: "llm-token" }, name), mark = h("span", { class: "llm-mark", "aria-hidden": "true" });
  const bars = ["before", "after"].map((side) => h("div", { class: `llm-bar llm-${side}` }));
  const numbers = ["before", "after"].map((side) => number(3, `llm-${side}-p`, share));
  const node = h("div", { role: "row", class: "llm-candidate", onclick: () => take(id) }, h("span", { role: "rowheader", class: "llm-token-cell" }, press, mark),
    h("span", { role: "cell", class: "llm-bars" }, ...bars), ...numbers.map(({ node: shown }, k) => h("span", { role: "cell", class: `llm-${["before", "after"][k]}` }, shown)));
  const draw = (now) => {
    id = now.id;
    node.hidden = id === undefined;
    if (node.hidden) return;
    name.textContent = now.token;
    press.title = text.take(now.token);
    press.setAttribute("aria-disabled", Boolean(now.ended));
    node.classList.toggle("llm-removed", now.p === 0);
    node.classList.toggle("llm-hit", now.hit);
    mark.textContent = now.hit ? `\u25c2 u` : "";
    [now.raw, now.p].forEach((x, k) => {
      bars[k].style.width = `${((100 * x) / now.most).toFixed(2)}%`;
      numbers[k].show(x);
    });
  };
  return { node, draw };
}

/** The kept tokens side by side from 0 to 1, the first few by name, and where u falls. */
function strip(text, label) {
  const parts = h("div", { class: "llm-parts" }), mark = h("div", { class: "llm-at" }), node = h("div", { class: "llm-strip", role: "img" }, parts, mark);
  const draw = (order, { p, u, chosen }) => {
    let sum = 0;
    const ends = order.map((id) => [id, sum, (sum += p[id])]), [, from, to] = ends.find(([id]) => id === chosen);
    const hit = ends.findIndex(([id]) => id === chosen), named = ends.slice(0, TOP);
    const part = (name, a, b, className) => h("span", { class: className, style: `left: ${(100 * a).toFixed(3)}%; width: ${(100 * (b - a)).toFixed(3)}%` }, b - a > 0.04 ? h("bdi", {}, name) : "");
    parts.replaceChildren(...named.map(([id, a, b]) => part(label(id), a, b, id === chosen ? "llm-part llm-hit" : "llm-part")));
    if (ends.length > TOP) parts.append(part("\u2026", named.at(-1)[2], 1, "llm-part llm-rest"));
    if (hit >= TOP) parts.append(part("", from, to, "llm-part llm-hit"));
    mark.style.left = `${(100 * u).toFixed(3)}%`;
    node.setAttribute("aria-label", text.strip(format(u), label(chosen), format(from), format(to)));
  };
  return { node, draw };
}

/** What every head reads; heads are cut and restored here. Drawn only while it is open. */
function heads({ text, net, label, state, set, redraw }) {
  const { n_layers, n_heads } = net.config;
  const cut = (layer, a) => {
    const same = ([l, b]) => l === layer && b === a, { off } = state();
    set({ layer, head: a, off: off.some(same) ? off.filter((place) => !same(place)) : [...off, [layer, a]].sort((x, y) => x[0] - y[0] || x[1] - y[1]) });
  };
  const all = headsOverview({ text, layers: n_layers, heads: n_heads, pick: (layer, a) => set({ layer, head: a }), onCut: cut, causal: true });
  const view = choice({ label: text.view, options: ["matrix", "lines"].map((name) => [name, text[name]]), get: () => state().view, set: (name) => set({ view: name }) });
  const place = h("div", { class: "llm-large" }), part = h("p", { class: "llm-note" });
  const details = h("details", { ontoggle: () => redraw() }, h("summary", {}, text.attention), h("p", { class: "llm-help" }, text.attentionHelp),
    h("div", { class: "llm-row" }, view.node, part), h("div", { class: "llm-view" }, all.node, place));
  const many = h("span", {}), gone = h("p", { class: "llm-gone" }, many, " ", button(text.restoreAll, () => set({ off: [] })));
  let panel, shown, start = 0;
  const large = (names, skipped) => {
    const key = JSON.stringify(names);
    start = skipped;
    if (key === shown) return;
    shown = key;
    panel = headPanel({ text, tokens: names, causal: true, point: (i, j) => panel.point(i, j),
      choose: (i) => set({ query: start + i === state().query ? null : start + i }) });
    place.replaceChildren(panel.node);
  };
  const draw = (now, { context, skipped }) => {
    many.textContent = text.isCutNow(now.off.length);
    gone.hidden = now.off.length === 0;
    if (!details.open) return;
    const { ids } = context, from = Math.max(0, ids.length - WINDOW), names = ids.slice(from).map(label);
    const weights = context.weights.map((layer) => layer.map((rows) => rows.slice(from).map((row) => names.map((_, j) => row[from + j] ?? 0))));
    const query = now.query === null ? -1 : now.query - skipped - from, current = { ...now, weights, cut: now.off, query: query >= 0 && query < names.length ? query : null };
    part.textContent = from ? text.window(WINDOW) : "";
    view.update();
    all.draw(current);
    large(names, skipped + from);
    panel.draw(current, [now.layer, now.head]);
  };
  return { node: h("div", { class: "llm-reads" }, gone, details), draw };
}

export default { render };

import { button, choice, figure, format, grid, h, language, number, roving, select, store, toggle } from "./base.js";
import { NORMS, TIMES, depth, length, repeated } from "./depth.js";
import { block, moments } from "./forward.js";

const TEXT = {
  en: {
    name: "Encoder block explorer", steps: "Steps of the block", token: "token", norm: "layer norm", pre: "pre-norm", post: "post-norm", none: "no norm",
    residual: "residual connections", back: "Previous step", on: "Next step", of: (i, n, title, k) => `${k > 1 ? `Application ${k}, step` : "Step"} ${i} of ${n}: ${title}. `, head: (name, i) => `${name}, head ${i}`,
    row: (token) => `The row of “${token}”`, made: "Computed from", mean: "mean", variance: "variance", length: "length", sum: "sum", keys: "effective keys",
    times: "times applied", again: "The block applied again and again", ask: "Take out the residual connections: do the tokens stay apart, or does their cosine go to 1? Take away the norm: do the lengths stay in bounds?", lengths: "mean length of the vectors", cosines: "mean cosine between tokens",
    alt: (what) => `${what} over the number of applications, from 0 to 8, for each norm, with and without residual connections`, key: (norm) => norm, dashed: "dashed: no residual connections",
    after: (k, length, cosine) => `After ${k} ${k === 1 ? "application" : "applications"} the vectors are ${length} long on average${cosine === "\u2013" ? "" : `, and the mean cosine between them is ${cosine}`}.`, read: (what, x) => `${what}: ${x}`,
    help: "Choose a step with the arrow keys; click a row to follow its token, whose numbers are the stripe under each step. Blue is positive, orange negative; ± is the deepest shade.",
    x: ["x", "the input", "One vector for each token: what the block is given."],
    "attention_norm feed_forward_norm": ["norm", "layer norm", "Each vector is brought to mean 0 and variance 1, then scaled and shifted component by component as was learnt."],
    qkv: ["q, k, v", "queries, keys, values", "Three projections of each vector: what it asks for, what it is found by, and what it hands over."],
    scores: ["scores", "scores", "In each head, every query is compared with every key."],
    weights: ["weights", "weights", "The softmax turns each row of scores into weights that sum to 1: how much a token reads of each."],
    heads: ["heads", "heads side by side", "Each head mixes the values by its weights; a token now holds something of the others."],
    project: ["W_o", "output projection", "One matrix mixes what the heads found, and brings it to the width of the input."],
    "attention_sum feed_forward_sum": ["+", "residual sum", "What the sublayer made is added to what it was given, which therefore is not lost."],
    hidden: ["hidden", "hidden layer", "From here each token is alone again: a wider vector, bent by the activation."],
    contract: ["W_2", "second projection", "The hidden vector is brought back to the width of the input."],
  },
  zh: {
    name: "编码器块探索器", steps: "编码器块的各步", token: "词元", norm: "层归一化", pre: "前置", post: "后置", none: "无",
    residual: "残差连接", back: "上一步", on: "下一步", of: (i, n, title, k) => `${k > 1 ? `第 ${k} 次应用，` : ""}第 ${i} 步，共 ${n} 步：${title}。`, head: (name, i) => `${name}，头 ${i}`,
    row: (token) => `“${token}”的一行`, made: "由此算出", mean: "均值", variance: "方差", length: "长度", sum: "和", keys: "有效键数",
    times: "应用次数", again: "反复应用同一个块", ask: "去掉残差连接：词元还能彼此区分吗，还是余弦趋于 1？去掉归一化：长度还稳定吗？", lengths: "向量的平均长度", cosines: "词元之间的平均余弦",
    alt: (what) => `${what}随应用次数（0 到 8）的变化：各种归一化，有无残差连接`, key: (norm) => `归一化：${norm}`, dashed: "虚线：无残差连接",
    after: (k, length, cosine) => `应用 ${k} 次之后，向量平均长 ${length}${cosine === "\u2013" ? "" : `，两两之间的平均余弦为 ${cosine}`}。`, read: (what, x) => `${what}：${x}`,
    help: "用方向键选择步骤；点击一行即可跟踪这个词元，每一步下方的色条就是它的各个数。蓝色为正，橙色为负；± 后面是最深颜色对应的数。",
    x: ["x", "输入", "每个词元一个向量：这就是块的输入。"],
    "attention_norm feed_forward_norm": ["归一化", "层归一化", "把每个向量变为均值 0、方差 1，再逐分量乘以学到的增益、加上学到的偏置。"],
    qkv: ["q, k, v", "查询、键、值", "每个向量的三个投影：它要找什么，别人凭什么找到它，它交出什么。"],
    scores: ["得分", "得分", "在每个头里，每个查询都与每个键比较。"],
    weights: ["权重", "权重", "softmax 把每一行得分变为和为 1 的权重：一个词元从各个词元读取多少。"],
    heads: ["各头", "各头并排", "每个头按权重混合各个值；词元由此含有其他词元的信息。"],
    project: ["W_o", "输出投影", "用一个矩阵混合各头的结果，并变回输入的宽度。"],
    "attention_sum feed_forward_sum": ["+", "残差之和", "子层的输出加到它的输入上，输入因此不会丢失。"],
    hidden: ["隐藏层", "隐藏层", "从这里起每个词元又各自独立：变为更宽的向量，再经过激活函数。"],
    contract: ["W_2", "第二个投影", "把隐藏层向量变回输入的宽度。"],
  },
};
const TRAITS = ["weights", "n_heads", "activation", "eps", "x", "tokens", "norm", "residual", "step", "token", "times"];

/** What is written beside a row: of scores their moments, of weights their sum and exp(entropy), of a vector its length too. */
function measure({ name }, row) {
  if (name === "scores") return moments(row);
  if (name !== "weights") return { ...moments(row), length: length(row) };
  const entropy = -row.reduce((sum, p) => (p > 0 ? sum + p * Math.log(p) : sum), 0);
  return { sum: row.reduce((a, b) => a + b, 0), keys: Math.exp(entropy) };
}

/** The largest number of a matrix, whatever its sign. */
const largest = (m) => Math.max(...m.flat().map(Math.abs), Number.MIN_VALUE);
const depthOf = (x, top) => `${(100 * Math.abs(x) / top).toFixed(1)}%`;

/** Shade an element as deep as a number is large, and by its sign. */
const shaded = (node, x, top) => {
  node.style.setProperty("--w", depthOf(x, top));
  node.classList.toggle("llm-minus", x < 0);
  return node;
};

/** A row of numbers in the same shades, as one background: where nobody reads them one by one. */
function band(xs, top, cut) {
  const at = (j) => `${(100 * j / xs.length).toFixed(3)}%`;
  const line = (j) => (cut && j && j % cut === 0 ? `currentColor ${at(j)} calc(${at(j)} + 2px), ` : "");
  const shades = xs.map((x, j) => `${line(j)}color-mix(in srgb, var(--${x < 0 ? "minus" : "plus"}) ${depthOf(x, top)}, transparent) ${at(j)} ${at(j + 1)}`);
  return `background: linear-gradient(90deg, ${shades.join(", ")})`;
}

function render({ model, el }) {
  const text = { ...TEXT[language(model)] };
  Object.entries(text).forEach(([keys, words]) => keys.split(" ").forEach((key) => { text[key] = words; }));
  const { state, set } = store(model, TRAITS);
  let held = {};

  /** The block and its input are large: they are told apart by being other objects, not by what they hold. */
  function shape() {
    const { weights, n_heads, activation, eps, x, tokens, token } = state();
    const fits = weights["attention.W_o.bias"].length === x[0].length && x[0].length % n_heads === 0;
    if (!fits || tokens.length !== x.length || token >= x.length) return null;
    const now = { weights, n_heads, activation, eps, x, tokens };
    if (Object.keys(now).some((name) => now[name] !== held[name])) held = now;
    return held;
  }

  function build(root) {
    const { weights, tokens, x } = state();
    const paths = NORMS.flatMap((norm) => [true, false].map((residual) => ({ norm, residual, states: repeated({ ...state(), norm, residual }) })));
    const path = ({ norm, residual }) => paths.find((p) => p.norm === norm && p.residual === residual);
    let steps, walked;
    /** Change norm or residual, and stay at the step where the reader is, if it is still there. */
    const change = (changes) => {
      const keys = block(x, weights, { ...state(), ...changes }).map((step) => step.key), at = keys.indexOf(steps[state().step].key);
      set({ ...changes, step: at < 0 ? Math.min(state().step, keys.length - 1) : at });
    };
    const go = (step) => steps[step] && set({ step });
    const inputs = controls(text, tokens, state, set, change);
    const parts = [strip(text, go), panel(text, tokens, (token) => set({ token })), depth(text, paths, state, set)];
    root.append(h("div", { class: "llm-controls" }, ...inputs.map((input) => input.node)), ...parts.map((part) => part.node));
    return () => {
      const now = state(), { norm, residual, times } = now, key = [norm, residual, times].join();
      if (walked !== key) steps = block(path(now).states[times - 1], weights, now);
      walked = key;
      if (!steps[now.step]) return; // another norm has arrived: its step is on its way
      [...inputs, parts[2]].forEach((part) => part.update(path(now)));
      parts.slice(0, 2).forEach((part) => part.draw(steps, now));
    };
  }
  return figure({ model, el, className: "llm-block", label: text.name, shape, build });
}

function controls(text, tokens, state, set, change) {
  return [
    select({ label: text.token, options: tokens.map((token, i) => [String(i), token]), get: () => String(state().token), set: (i) => set({ token: Number(i) }) }),
    choice({ label: text.norm, shown: true, options: NORMS.map((norm) => [norm, text[norm]]), get: () => state().norm, set: (norm) => change({ norm }) }),
    toggle({ label: text.residual, get: () => state().residual, set: (residual) => change({ residual }) }),
  ];
}

/** The steps in a row, the sublayers bracketed; under each the chosen token's numbers as a stripe. And the way on and back. */
function strip(text, go) {
  const line = h("div", { class: "llm-strip" }), words = h("p", { "aria-live": "polite" }), equation = h("p", { class: "llm-equation" });
  let at = 0, chips = [], shown, stop;
  const back = button("\u2190", () => go(at - 1), { "aria-label": text.back }), on = button("\u2192", () => go(at + 1), { "aria-label": text.on });
  const turn = ({ key }) => { const by = { ArrowLeft: -1, ArrowRight: 1 }[key]; if (by) go(at + by); };
  const node = h("div", {}, line, h("div", { class: "llm-walk", onkeydown: turn }, back, on, h("div", {}, words, equation)));
  const chip = ({ key }, i) => h("button", { type: "button", class: `llm-chip llm-${key}`, title: text[key][1], onclick: () => go(i) },
    h("span", {}, text[key][0]), h("span", { class: "llm-band", "aria-hidden": "true" }));
  const rebuild = (steps, residual) => {
    chips = steps.map(chip);
    const nav = h("nav", { "aria-label": text.steps }), groups = {};
    steps.forEach(({ to }, i) => {
      if (to && !groups[to]) nav.append(groups[to] = h("div", { class: `llm-sublayer${residual ? " llm-bypassed" : ""}` }));
      (groups[to] ?? nav).append(chips[i]);
    });
    line.replaceChildren(nav);
    stop = roving(nav, [chips], (_, i) => go(i));
  };
  const draw = (steps, { step, token, residual, times }) => {
    at = step;
    const keys = steps.map(({ key }) => key).join();
    if (keys !== shown) rebuild(steps, residual);
    shown = keys;
    chips.forEach((node, i) => {
      node.setAttribute("aria-current", i === step ? "step" : "false");
      const relative = steps[i].made.flatMap(({ m }) => m[token].map((x) => x / largest(m)));
      node.lastChild.setAttribute("style", band(relative, 1));
    });
    stop(0, step);
    back.setAttribute("aria-disabled", step === 0);
    on.setAttribute("aria-disabled", step === steps.length - 1);
    const [, title, sentence] = text[steps[step].key], said = `${text.of(step + 1, steps.length, title, times)}${sentence}`;
    if (words.textContent !== said) words.textContent = said; // what is as it was is not said again
    equation.textContent = steps[step].equation;
  };
  return { node, draw };
}

const titled = (text, { name, head }) => (head === undefined ? name : text.head(text[name][0], head));
const sized = (m) => `(${m.length}, ${m[0].length})`;

/** What the step is computed from, what it makes, and the chosen token's row of that in numbers. */
function panel(text, tokens, choose) {
  const flow = h("div", { class: "llm-flow" }), rows = h("div", { class: "llm-rows" }), help = h("p", { class: "llm-help" }, text.help);
  const node = h("div", {}, flow, rows, help);
  let shown, grids = [];
  const rebuild = ({ made, from }) => {
    const sources = from.map((value) => picture(text, value, choose)), results = made.map((value) => heatmap(text, tokens, value, choose));
    grids = [...sources, ...results];
    const side = (className, maps) => h("div", { class: className }, ...maps.map((m) => m.node));
    flow.replaceChildren(...(from.length ? [side("llm-from", sources), h("span", { class: "llm-arrow", "aria-hidden": "true" })] : []), side("llm-made", results));
  };
  const draw = (steps, { step, token }) => {
    if (steps[step] !== shown) rebuild(steps[step]);
    shown = steps[step];
    grids.forEach((m) => m.mark(token));
    rows.replaceChildren(h("h4", {}, text.row(tokens[token])), ...shown.made.map((value) => numbers(text, tokens, value, token)));
  };
  return { node, draw };
}

/** A matrix under its name and the number of its deepest shade; the row of the token that is followed is marked. */
function framed(text, { m, ...value }, node, rows) {
  const title = `${titled(text, value)} ${sized(m)}`, deepest = `±${format(largest(m), 2)}`;
  const read = h("span", { class: "llm-readout", "aria-hidden": "true" }, deepest);
  const whole = h("figure", { class: value.head === undefined ? "" : "llm-keyed" }, h("figcaption", {}, h("span", {}, title), read), node);
  whole.style.setProperty("--columns", m[0].length);
  const mark = (token) => rows.forEach((row, i) => row.classList.toggle("llm-chosen", i === token));
  return { node: whole, title, mark, tell: (words) => { read.textContent = words ?? deepest; } };
}

/** A matrix that a step is computed from: a band a token. */
function picture(text, value, choose) {
  const top = largest(value.m);
  const rows = value.m.map((row, i) => h("div", { class: "llm-band", style: band(row, top, value.cut), onclick: () => choose(i) }));
  const node = h("div", { role: "img" }, ...rows), frame = framed(text, value, node, rows);
  node.setAttribute("aria-label", `${text.made}: ${frame.title}`);
  return frame;
}

/** A matrix that a step makes: cells to be read one by one. A click follows the row's token. */
function heatmap(text, tokens, value, choose) {
  const { m, cut, head } = value, top = largest(m), keys = head === undefined ? [] : tokens;
  const cells = m.map((row, i) => row.map((x, j) => shaded(h("div", { role: "gridcell", class: `llm-heat${cut && j && j % cut === 0 ? " llm-cut" : ""}`,
    "aria-label": `${tokens[i]} \u2192 ${keys[j] ?? j}: ${format(x)}`, onclick: () => choose(i) }), x, top)));
  const label = (token, i) => h("span", { role: "rowheader", title: token, onclick: () => choose(i) }, h("bdi", {}, token));
  const columns = keys.map((token) => h("span", { role: "columnheader", title: token }, h("bdi", {}, token)));
  const { node, rows } = grid("", columns, tokens.map(label), cells), frame = framed(text, value, node, rows);
  node.setAttribute("aria-label", frame.title);
  roving(node, cells);
  ["pointerover", "focusin"].forEach((event) => node.addEventListener(event, ({ target }) => frame.tell(target.closest(".llm-heat")?.getAttribute("aria-label"))));
  ["pointerleave", "focusout"].forEach((event) => node.addEventListener(event, () => frame.tell()));
  return frame;
}

/** One row of a matrix in numbers, and what is measured of it. */
function numbers(text, tokens, value, token) {
  const row = value.m[token], top = largest(value.m);
  const show = (x, digits, className) => { const out = number(digits, className); out.show(x); return out.node; };
  const measures = Object.entries(measure(value, row)).map(([name, x]) => h("span", {}, `${text[name]} `, show(x, 3, `llm-${name}`)));
  const key = (j) => (value.head === undefined ? [] : [h("small", {}, h("bdi", {}, tokens[j]))]); // scores and weights: one a token
  const cells = row.map((x, j) => shaded(h("span", { class: "llm-cell" }, ...key(j), show(x, 2, "llm-entry")), x, top));
  return h("div", {}, h("div", { class: "llm-measures" }, h("b", {}, titled(text, value)), ...measures), h("div", { class: "llm-entries" }, ...cells));
}

export default { render };

import { axes, button, draggable, figure, format, h, language, number, s, setAttributes, slider, store } from "./base.js";
import { softmax } from "./forward.js";

const TEXT = {
  en: {
    name: "Loss explorer", word: "right word", scores: "score z", p: "p = softmax(z)", slope: "slope p − y", sum: "sum",
    scoreOf: (word) => `score of ${word}`, choose: (word) => `${word}: make it the right word`,
    help: "Move the scores; click a word to make it the right one. An arrow under a score shows where the next step takes it.",
    rate: "learning rate η", step: "Take a step", ten: "Take 10 steps", back: "Back to the start", reset: "Reset",
    curve: "The loss of the right word", curveHelp: "Drag the point, or take steps: rings are the steps taken.", x: "p of the right word", y: "−log p",
    alt: (p, loss) => `The curve −log p over p, with the point p = ${p}, loss ${loss}`,
    prob: (word) => `p(${word})`, loss: "loss −log p, in nats", steps: "steps taken",
    said: (k, word, p, loss) => `After ${k} ${k === 1 ? "step" : "steps"}: p(${word}) = ${p}, loss ${loss}.`,
  },
  zh: {
    name: "损失探索器", word: "正确的词", scores: "得分 z", p: "p = softmax(z)", slope: "梯度 p − y", sum: "合计",
    scoreOf: (word) => `${word} 的得分`, choose: (word) => `${word}：设为正确的词`,
    help: "移动得分；点击一个词，就把它设为正确的词。得分下方的箭头指出下一步更新到哪里。",
    rate: "学习率 η", step: "更新一步", ten: "更新十步", back: "回到起点", reset: "复位",
    curve: "正确的词的损失", curveHelp: "可以拖动圆点，也可以逐步更新；圆圈是走过的各步。", x: "正确的词的概率 p", y: "−log p",
    alt: (p, loss) => `曲线 −log p，横轴是 p；圆点在 p = ${p}，损失 ${loss}`,
    prob: (word) => `p(${word})`, loss: "损失 −log p（奈特）", steps: "已更新的步数",
    said: (k, word, p, loss) => `更新 ${k} 步后：p(${word}) = ${p}，损失 ${loss}。`,
  },
};
const REACH = 1000; // of a score, and MOST steps: as in Python
const MOST = 1000;
const TYPED = 100; // reach of what is typed for a score
const SYMBOLS = { scores: "z", p: "p", slope: "p − y" };
const NARROW = 6; // reach of a score's slider, doubled until all scores have room

const add = (a, b) => a + b;
const every = (z) => z.map(() => true);
const clip = (x, reach) => Math.min(reach, Math.max(-reach, x));

/** The loss at a gap, −log p of the right word in nats, and all that belongs to it: probabilities and slopes. */
function gap(z, target) {
  const p = softmax(z, every(z)), top = Math.max(...z);
  const loss = Math.log(z.map((x) => Math.exp(x - top)).reduce(add)) + top - z[target];
  return { z, p, loss, slope: p.map((x, v) => x - (v === target ? 1 : 0)) };
}

/** The gap after 0, 1, … steps z ← z − η (p − y). */
function walk({ scores, target, rate, steps }) {
  const path = [gap(scores, target)];
  while (path.length <= steps) path.push(gap(step(path.at(-1), rate), target));
  return path;
}

const step = ({ z, slope }, rate) => z.map((x, v) => x - rate * slope[v]);

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["words", "scores", "target", "rate", "steps"]);
  const first = state();

  function shape() {
    const { words, scores, target } = state();
    return scores.length === words.length && target < words.length ? JSON.stringify(words) : null;
  }

  function build(root) {
    let path = walk(state());
    /** Begin anew from the present scores, but for those of `changes`. */
    const start = (changes) => {
      const scores = (changes.scores ?? path.at(-1).z).map((x) => clip(x, REACH));
      set({ ...changes, scores, steps: 0 });
    };
    const move = (v, x) => start({ scores: path.at(-1).z.map((old, i) => (i === v ? x : old)) });
    const parts = [rows(text, state().words, () => path.at(-1).z, move, (target) => start({ target })),
      curve(text, (p) => move(state().target, scoreFor(p, path.at(-1).z, state().target))), numbers(text, state, set, () => set({ ...first }))];
    root.append(parts[0].node, h("div", { class: "llm-planes" }, parts[1].node, parts[2].node));
    return () => {
      path = walk(state());
      parts.forEach((part) => part.draw(state(), path));
    };
  }
  return figure({ model, el, className: "llm-loss", label: text.name, shape, build });
}

/** The score that gives the right word the probability p, the others as they are. */
function scoreFor(p, z, target) {
  const others = z.filter((_, v) => v !== target), top = Math.max(...others);
  return clip(Math.log(p / (1 - p)) + top + Math.log(others.map((x) => Math.exp(x - top)).reduce(add)), TYPED);
}

/** One row a word: the word, its score with the step to come, its probability, its slope; then the sums. */
function rows(text, words, get, move, choose) {
  let reach = NARROW;
  const cell = (name, ...children) => h("div", { class: `llm-cell llm-${name}-cell`, role: "cell" }, ...children);
  const value = (name, shown, bar) => cell(name, h("span", { class: "llm-name" }, SYMBOLS[name]), ...(bar ? [h("span", { class: "llm-room" }, bar)] : []), shown.node);
  const lines = words.map((word, v) => {
    const name = button(word, () => choose(v), { class: "llm-button llm-word", title: word, "aria-label": text.choose(word) });
    const input = slider({ label: text.scoreOf(word), min: -reach, max: reach, step: 0.05, limits: [-TYPED, TYPED], get: () => get()[v], set: (x) => move(v, x) });
    const arrow = h("span", { class: "llm-arrow", "aria-hidden": "true" });
    input.node.append(arrow);
    const p = number(3, "llm-p"), slope = number(3, "llm-slope"), bars = [h("span", { class: "llm-bar" }), h("span", { class: "llm-bar" })];
    const node = h("div", { class: "llm-line", role: "row" }, h("div", { class: "llm-cell", role: "rowheader" }, name), cell("scores", input.node),
      value("p", p, bars[0]), value("slope", slope, bars[1]));
    return { node, name, input, range: input.node.querySelector("[type=range]"), arrow, p, slope, bars };
  });
  const sums = ["scores", "p", "slope"].map((name) => ({ name, shown: number(3, `llm-sum-${name}`) }));
  const heads = ["word", "scores", "p", "slope"].map((name) => h("span", { role: "columnheader" }, text[name]));
  const foot = h("div", { class: "llm-line llm-foot", role: "row" }, h("div", { class: "llm-cell", role: "rowheader" }, text.sum), ...sums.map(({ name, shown }) => value(name, shown)));
  const table = h("div", { class: "llm-table", role: "table", "aria-label": text.name }, h("div", { class: "llm-line llm-top", role: "row" }, ...heads), ...lines.map((l) => l.node), foot);
  const draw = ({ target, rate }, path) => {
    const { z, p, slope } = path.at(-1), next = step(path.at(-1), rate);
    const held = table.contains(table.getRootNode().activeElement); // then nothing may shrink under the hand
    reach = Math.max(held ? reach : 0, reachOf([...z, ...path[0].z]));
    const at = (x) => (clip(x, reach) + reach) / (2 * reach);
    lines.forEach((line, v) => {
      setAttributes(line.range, { min: -reach, max: reach });
      line.input.update();
      line.name.setAttribute("aria-pressed", v === target);
      line.p.show(p[v]);
      line.slope.show(slope[v]);
      line.bars[0].style.width = `${(100 * p[v]).toFixed(3)}%`;
      bar(line.bars[1], 50 + 50 * Math.min(0, slope[v]), 50 * Math.abs(slope[v]), slope[v] > 0);
      bar(line.arrow, 100 * Math.min(at(z[v]), at(next[v])), 100 * Math.abs(at(z[v]) - at(next[v])), slope[v] > 0);
    });
    [z, p, slope].forEach((xs, k) => sums[k].shown.show(xs.reduce(add)));
  };
  return { node: h("div", {}, table, h("p", { class: "llm-help" }, text.help)), draw };
}

/** Lay a bar from `left`, `width` wide, both in per cent; `up`: the slope is above 0, and the score will fall. */
function bar(node, left, width, up) {
  node.style.setProperty("--left", left.toFixed(3));
  node.style.setProperty("--width", width.toFixed(3));
  node.classList.toggle("llm-above", up);
}

/** How far the sliders must reach for the scores z. */
function reachOf(z) {
  let reach = NARROW;
  while (Math.max(...z.map(Math.abs)) > reach) reach *= 2;
  return reach;
}

const WIDTH = 320, HEIGHT = 240, MARGIN = [14, 20, 42, 34]; // of the curve, in SVG units
const NEAREST = 0.001; // of a dragged point to p = 0 and to p = 1

function curve(text, drag) {
  const svg = s("svg", { role: "img" });
  const label = (x, y, anchor, words) => s("text", { x, y, "text-anchor": anchor }, words);
  let from;
  draggable(svg, (x, y) => drag(Math.min(1 - NEAREST, Math.max(NEAREST, from(x, y)[0]))));
  const draw = ({ target }, path) => {
    const now = path.at(-1), high = Math.max(5, ...path.map((g) => Math.ceil(g.loss))), every = Math.ceil(high / 6);
    const ticks = (n, by, digits) => Array.from({ length: Math.floor(n / by) + 1 }, (_, k) => [k * by, format(k * by, digits)]);
    const plane = axes(svg, { size: [WIDTH, HEIGHT], margin: MARGIN, x: { range: [0, 1], ticks: ticks(1, 0.25, 2) }, y: { range: [0, high], ticks: ticks(high, every, 0) } });
    const at = (loss) => plane.at([Math.exp(-loss), loss]);
    from = plane.from;
    const points = (list) => list.map((point) => point.map((x) => x.toFixed(1)).join(",")).join(" ");
    const [cx, cy] = at(now.loss), [left, bottom] = plane.at([0, 0]);
    svg.append(
      s("polyline", { class: "llm-curve", points: points(Array.from({ length: 201 }, (_, k) => at((k / 200) ** 2 * high))) }),
      s("polyline", { class: "llm-drop", points: points([[left, cy], [cx, cy], [cx, bottom]]) }),
      ...path.slice(0, -1).map((g) => s("circle", { class: "llm-ring", cx: at(g.loss)[0], cy: at(g.loss)[1], r: 4 })),
      s("circle", { class: "llm-now", cx, cy, r: 6 }),
      label(WIDTH / 2 + 12, HEIGHT - 6, "middle", text.x), label(left + 14, MARGIN[0] + 14, "start", text.y),
    );
    svg.setAttribute("aria-label", text.alt(format(now.p[target]), format(now.loss)));
  };
  return { node: h("figure", { class: "llm-plane" }, h("figcaption", {}, text.curve), svg, h("p", {}, text.curveHelp)), draw };
}

/** Probability and loss of the right word, large; the rate; and the buttons that take steps. */
function numbers(text, state, set, reset) {
  const p = number(3, "llm-right"), loss = number(3, "llm-value"), steps = number(0, "llm-steps");
  const name = h("span", {}), said = h("p", { class: "llm-said", "aria-live": "polite" });
  const go = (n) => () => set({ steps: Math.min(MOST, state().steps + n) });
  const more = [button(text.step, go(1), { class: "llm-button llm-primary" }), button(text.ten, go(10))], back = button(text.back, () => set({ steps: 0 }));
  const rate = slider({ label: text.rate, min: 0.05, max: 5, step: 0.05, limits: [0.001, 100], get: () => state().rate, set: (x) => set({ rate: x }) });
  const big = (shown, words) => h("p", { class: "llm-big" }, shown.node, words);
  const node = h("div", { class: "llm-numbers" }, big(p, name), big(loss, h("span", {}, text.loss)), big(steps, h("span", {}, text.steps)),
    rate.node, h("div", { class: "llm-buttons" }, ...more, back, button(text.reset, reset)), said);
  const draw = ({ words, target, steps: k }, path) => {
    const now = path.at(-1);
    name.textContent = text.prob(words[target]);
    [[p, now.p[target]], [loss, now.loss], [steps, k]].forEach(([shown, x]) => shown.show(x));
    rate.update();
    more.forEach((b) => b.setAttribute("aria-disabled", k === MOST)); // not disabled: that would take the focus away
    back.setAttribute("aria-disabled", k === 0);
    const sentence = text.said(k, words[target], format(now.p[target]), format(now.loss));
    if (said.textContent !== sentence) said.textContent = sentence;
  };
  return { node, draw };
}

export default { render };

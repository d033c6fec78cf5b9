import { button, draggable, editor, figure, h, language, number, s, setAttributes, slider, store } from "./base.js";

const TEXT = {
  en: {
    name: "Byte-pair encoding explorer", merges: "merges", less: "One merge fewer", more: "One merge more", text: "text", reset: "Reset",
    none: "No merge yet: every character is a token.", merge: (k) => `merge ${k}: `,
    places: (n) => `, in ${n} ${n === 1 ? "place" : "places"}`,
    tokens: "tokens", each: "characters per token",
    curve: "Tokens after each merge", curveHelp: "Drag to choose the number of merges.",
    curveAlt: "The number of tokens of the text as a curve over the number of merges",
  },
  zh: {
    name: "字节对编码探索器", merges: "合并次数", less: "少合并一次", more: "多合并一次", text: "文本", reset: "复位",
    none: "尚未合并：每个字符就是一个词元。", merge: (k) => `第 ${k} 次合并：`,
    places: (n) => `，改动了 ${n} 处`,
    tokens: "词元数", each: "每个词元的字符数",
    curve: "每次合并之后的词元数", curveHelp: "拖动可选择合并次数。",
    curveAlt: "文本的词元数随合并次数变化的曲线",
  },
};
const LONGEST = 200; // characters of a text, as in Python
const BLANKS = /[\p{White_Space}\x1c-\x1f]+/u; // where Python's str.split cuts

/** The words after no merge, one merge, … all: each a list of tokens that know which merge made them (0: none). */
function history(text, merges) {
  const words = text.split(BLANKS).filter(Boolean).map((word) => [...word].map((symbol) => ({ symbol, made: 0 })));
  const states = [words];
  merges.forEach((pair, i) => states.push(states[i].map((word) => merge(word, pair, i + 1))));
  return states;
}

/** Walk through the word, and join a symbol to the one before it where the two are the pair. */
function merge(word, [first, second], made) {
  const result = [];
  for (const token of word) {
    if (result.at(-1)?.symbol === first && token.symbol === second) result[result.length - 1] = { symbol: first + second, made };
    else result.push(token);
  }
  return result.length < word.length ? result : word;
}

function render({ model, el }) {
  const text = TEXT[language(model)];
  const { state, set } = store(model, ["merges", "text", "step"]);
  const first = state();

  function shape() {
    const { merges, step } = state();
    return step <= merges.length ? JSON.stringify(merges) : null;
  }

  function build(root) {
    const n = state().merges.length;
    const go = (step) => set({ step: Math.min(n, Math.max(0, Math.round(step))) });
    const inputs = controls(text, n, go, state, set, () => set({ ...first }));
    const parts = [words(), rule(text), counts(text), curve(text, n, go)];
    const [tokens, made, numbers, plot] = parts.map((part) => part.node);
    root.append(
      h("div", { class: "llm-controls" }, ...inputs.nodes),
      h("div", { class: "llm-view" }, tokens, made, h("div", { class: "llm-planes" }, numbers, plot)),
    );
    let seen = {};
    return () => {
      const now = state();
      if (seen.text !== now.text) seen = { text: now.text, states: history(now.text, now.merges) };
      inputs.update();
      parts.forEach((part) => part.draw(now, seen.states));
    };
  }
  return figure({ model, el, className: "llm-bpe", label: text.name, shape, build });
}

function controls(text, n, go, state, set, reset) {
  const steps = slider({ label: text.merges, min: 0, max: n, step: 1, digits: 0, get: () => state().step, set: go });
  const less = button("\u2212", () => go(state().step - 1), { "aria-label": text.less });
  const more = button("+", () => go(state().step + 1), { "aria-label": text.more });
  const field = editor({ label: text.text, longest: LONGEST, get: () => state().text, set: (value) => set({ text: value }) });
  return {
    nodes: [h("div", {}, steps.node, h("div", { class: "llm-row" }, h("span", { class: "llm-steps" }, less, more), button(text.reset, reset))),
      field.node],
    update: () => {
      [steps, field].forEach((input) => input.update());
      less.setAttribute("aria-disabled", state().step === 0); // not disabled: that would take the focus away
      more.setAttribute("aria-disabled", state().step === n);
    },
  };
}

const MARKS = /^\p{M}/u;
const UNSEEN = /^[\p{C}\p{Default_Ignorable_Code_Point}]+$/u;
const LEFTWARD = /^\P{L}*[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/** A token for the eye: a mark gets a circle to stand on, and what has no shape its number. */
function visible(token) {
  if (UNSEEN.test(token)) return [...token].map((c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`).join(" ");
  return MARKS.test(token) ? `\u25cc${token}` : token;
}

/** Which way a text runs: as its first letter does. */
const direction = (text) => (LEFTWARD.test(text) ? "rtl" : "ltr");

/** Each word as a run of chips, those that merge number `last` made marked. */
function chips(words, last) {
  return words.map((word) => {
    const whole = word.map((token) => token.symbol).join("");
    return h("span", { class: "llm-word", role: "list", "aria-label": whole, dir: direction(whole) },
      ...word.map(({ symbol, made }) => h("data", { role: "listitem", value: symbol,
        class: `llm-chip${made > 0 && made === last ? " llm-made" : ""}` }, visible(symbol))));
  });
}

/** The words as they are now; unseen behind them the single characters, so that what is below them never moves. */
function words() {
  const room = h("div", { class: "llm-words llm-room", "aria-hidden": "true" }), shown = h("div", { class: "llm-words" });
  let drawn;
  const draw = ({ text, step }, states) => {
    if (drawn !== states) room.replaceChildren(...chips(states[0], 0));
    drawn = states;
    shown.dir = direction(text);
    shown.replaceChildren(...chips(states[step], step));
  };
  return { node: h("div", { class: "llm-stack" }, room, shown), draw };
}

/** The merge made last, and how many places of the text it changed. */
function rule(text) {
  const node = h("p", { class: "llm-rule", "aria-live": "polite" });
  const draw = ({ merges, step }, states) => {
    if (step === 0) return node.replaceChildren(text.none);
    const [a, b] = merges[step - 1];
    const part = (symbol) => h("bdi", {}, visible(symbol));
    const places = states[step].flat().filter((token) => token.made === step).length;
    node.replaceChildren(text.merge(step), part(a), " + ", part(b), " \u2192 ", part(a + b), text.places(places));
  };
  return { node, draw };
}

function counts(text) {
  const tokens = number(0, "llm-tokens"), each = number(2, "llm-each");
  const node = h("div", { class: "llm-counts" }, h("p", {}, tokens.node, h("span", {}, text.tokens)), h("p", {}, each.node, h("span", {}, text.each)));
  const draw = ({ step }, states) => {
    const n = states[step].flat().length;
    tokens.show(n);
    each.show(states[0].flat().length / n);
  };
  return { node, draw };
}

const [WIDTH, HEIGHT] = [320, 150]; // of the curve, in SVG units
const [LEFT, RIGHT, TOP, BOTTOM] = [34, 308, 14, 128]; // of the curve's axes

function curve(text, n, go) {
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": text.curveAlt });
  const line = s("polyline", { class: "llm-curve" }), drop = s("polyline", { class: "llm-drop" });
  const mark = s("circle", { r: 5, class: "llm-now" });
  const label = (x, y, anchor, words = "") => svg.appendChild(s("text", { x, y, "text-anchor": anchor }, words));
  svg.append(s("polyline", { class: "llm-axis", points: [[LEFT, TOP - 6], [LEFT, BOTTOM], [RIGHT, BOTTOM]].join(" ") }), line, drop, mark);
  const top = label(LEFT - 6, TOP + 4, "end");
  label(LEFT - 6, BOTTOM + 4, "end", "0");
  label(LEFT, BOTTOM + 16, "middle", "0");
  label(RIGHT, BOTTOM + 16, "end", String(n));
  label((LEFT + RIGHT) / 2, BOTTOM + 16, "middle", text.merges);
  draggable(svg, (x) => go(((x * WIDTH - LEFT) / (RIGHT - LEFT)) * n));

  let drawn, at;
  const draw = ({ step }, states) => {
    if (drawn !== states) {
      const sizes = states.map((words) => words.flat().length);
      at = (k) => [LEFT + (k / n) * (RIGHT - LEFT), BOTTOM - (sizes[k] / (sizes[0] || 1)) * (BOTTOM - TOP)];
      line.setAttribute("points", sizes.map((_, k) => at(k).map((z) => z.toFixed(1))).join(" "));
      top.textContent = sizes[0] || "";
      drawn = states;
    }
    const [cx, cy] = at(step);
    setAttributes(mark, { cx, cy });
    drop.setAttribute("points", [[LEFT, cy], [cx, cy], [cx, BOTTOM]].join(" "));
  };
  const node = h("figure", { class: "llm-plane" }, h("figcaption", {}, text.curve), svg, h("p", {}, text.curveHelp));
  return { node, draw };
}

export default { render };

import { choice, figure, h, language, select, store } from "./base.js";
import { headPanel, headsOverview, MAP_TEXT, toldApart } from "./maps.js";

const TEXT = {
  en: { name: "Attention heads explorer", view: "view", compare: "compare with", query: "query token", none: "none" },
  zh: { name: "注意力头探索器", view: "画法", compare: "对比的头", query: "查询词元", none: "无" },
};

function render({ model, el }) {
  const text = { ...MAP_TEXT[language(model)], ...TEXT[language(model)] };
  const { state, set } = store(model, ["weights", "tokens", "key_tokens", "layer", "head", "compare", "view", "query"]);
  let held = {};

  /** Weights and tokens are large: they are told apart by being other objects, not by what they hold. */
  function shape() {
    const { weights, tokens, key_tokens: keys, layer, head, compare, query } = state();
    const there = ([l, a]) => l < weights.length && a < weights[0].length;
    const fits = tokens.length === weights[0][0].length && (keys ?? tokens).length === weights[0][0][0].length;
    if (!fits || !there([layer, head]) || (compare && !there(compare)) || query >= tokens.length) return null;
    if (held.weights !== weights || held.tokens !== tokens || held.keys !== keys) held = { weights, tokens, keys };
    return held;
  }

  function build(root) {
    const { weights, tokens, key_tokens: keys } = state();
    const choose = (query) => set({ query: query === state().query ? null : query });
    const point = (i, j) => panels.forEach((panel) => panel.point(i, j));
    const pick = (layer, head, beside) => set(beside ? { compare: [layer, head] } : { layer, head });
    const inputs = controls(text, weights, toldApart(tokens), state, set);
    const all = headsOverview({ text, layers: weights.length, heads: weights[0].length, pick });
    const panels = ["llm-first", "llm-second"].map((className) => headPanel({ text, tokens, keys: keys ?? tokens, className, choose, point }));
    const view = h("div", { class: "llm-view" }, all.node, ...panels.map((panel) => panel.node));
    root.append(h("div", { class: "llm-controls" }, ...inputs.nodes), view);
    return () => {
      const now = state();
      inputs.update();
      all.draw(now);
      view.classList.toggle("llm-compared", Boolean(now.compare));
      [[now.layer, now.head], now.compare].forEach((place, i) => panels[i].draw(now, place));
    };
  }
  return figure({ model, el, className: "llm-maps llm-heads", label: text.name, shape, build });
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

export default { render };

// The whole model as one drawing: the residual stream as a line through its blocks, attention and feed-forward as branches that
// leave it and are added to it, and each stage as a small picture of its numbers, which a click chooses.
import { h, roving, s, setAttributes } from "./base.js";
import { largestShown, pooled, shadedMatrix } from "./matrix.js";

const BRANCHES = [["attention", ["attention_norm", "qkv", "rotate", "scores", "weights", "heads", "project"]], ["feed_forward", ["feed_forward_norm", "hidden", "contract"]]];
const NARROW = 640; // pixels below which a block is drawn in two rows
const UNITS = { qkv: 3, rotate: 2, hidden: 4 }; // widths in those of the stream; others are 1
const SYMBOLS = { rotate: "q′ k′", scores: "s", weights: "w", heads: "c", project: "o" }; // labels for where there is little room
const LEFT = 24, LABEL = 15, DROP = 13, JOIN = 20; // pixels: for the number of the block, a label, down to the stream, a plus

/** The drawing: { node, draw, close }; `walk(key)` hears which stage is chosen. */
export function flow({ text, net, walk }) {
  const { n_layers, d_model, d_ff, vocab_size } = net.config, lines = s("path", { class: "llm-stream" }), twigs = s("path", { class: "llm-twigs" }), marks = s("g", { class: "llm-words" }), grounds = s("g", { class: "llm-grounds" });
  const svg = s("svg", { class: "llm-flow", role: "group", "aria-label": text.stages }, grounds, lines, twigs, marks);
  const node = h("figure", { class: "llm-plane llm-overview" }, svg, h("p", {}, text.legend(d_model, d_ff, vocab_size)));
  const keys = ["tokens", "embedding", ...Array.from({ length: n_layers }, (_, l) => BRANCHES.flatMap(([to, steps]) => [...steps, `${to}_sum`].map((step) => `${l + 1}.${step}`))).flat(),
    ...["norm", "transform", "head_norm", "logits", "probabilities"].map((step) => `head.${step}`), "loss"];
  const stops = Object.fromEntries(keys.map((key) => [key, stop(text, key, walk)]));
  svg.append(...keys.map((key) => stops[key].node));
  const put = roving(svg, [keys.map((key) => stops[key].node)], (_, i) => walk(keys[i]));
  let width = 0, all, now;
  const place = (wide) => {
    if (wide === width || !wide) return;
    width = wide;
    const { boxes, height, stream, branches, words, behind } = arrange(width, n_layers, text);
    setAttributes(svg, { viewBox: `0 0 ${width} ${height}` });
    keys.forEach((key) => stops[key].place(boxes[key]));
    lines.setAttribute("d", stream);
    twigs.setAttribute("d", branches);
    grounds.replaceChildren(...behind.map((box) => s("rect", { rx: 6, ...box })));
    marks.replaceChildren(...words.map(({ x, y, said, anchor = "start" }) => s("text", { x, y, "text-anchor": anchor }, said)));
    if (all) keys.forEach((key) => stops[key].draw(all, now));
  };
  const watcher = new ResizeObserver(([{ contentRect }]) => place(Math.round(contentRect.width)));
  watcher.observe(node);
  const draw = (journeyed, where) => {
    [all, now] = [journeyed, where];
    put(0, keys.indexOf(now.stage));
    keys.forEach((key) => {
      stops[key].node.setAttribute("aria-current", key === now.stage ? "step" : "false");
      if (width) stops[key].draw(all, now);
    });
  };
  return { node, draw, close: () => watcher.disconnect() };
}

/** One stage: its label and its picture. */
function stop(text, key, walk) {
  const [prefix, step] = key.includes(".") ? key.split(".") : ["", key], [label, title] = text.steps[step], name = Number(prefix) ? text.inBlock(title, prefix) : title;
  const picture = shadedMatrix(5), frame = s("rect", { class: "llm-frame", rx: 2 }), words = s("text", { "text-anchor": "middle" }, label);
  const node = s("g", { role: "button", class: "llm-stop", "aria-label": name, onclick: () => walk(key) }, s("title", {}, name), frame, picture.node, words);
  let box, drawn;
  const place = (where) => {
    box = where;
    drawn = undefined;
    const { x, y, width, height } = box;
    setAttributes(frame, { x: x - 1.5, y: y - 1.5, width: width + 3, height: height + 3 });
    setAttributes(picture.node, { x, y, width, height });
    setAttributes(words, { x: x + width / 2, y: y - 5 });
    words.textContent = labelWidth(label) < width + 4 ? label : SYMBOLS[step] ?? label;
  };
  const draw = ({ byKey }, { head }) => {
    const { parts } = byKey[key], m = step === "scores" || step === "weights" ? parts[head] : byKey[key].whole ?? parts[0];
    if (m === drawn) return;
    drawn = m;
    const small = pooled(m.map((row) => row.map((x) => (Number.isNaN(x) ? 0 : x))), box.width / 1.5);
    picture.draw(small, largestShown(small));
  };
  return { node, place, draw };
}

/** How wide a label is in pixels, more or less. */
const labelWidth = (label) => [...label].reduce((sum, c) => sum + (c > "\u2e80" ? 11 : 6), 0);

/** Where everything stands in a drawing so many pixels wide: boxes of the stages, the lines, and what is written. */
function arrange(width, layers, text) {
  const narrow = width < NARROW, tall = narrow ? 26 : 32, gap = narrow ? 4 : 6, square = narrow ? 38 : 42, right = 12;
  const perRow = narrow ? [[BRANCHES[0]], [BRANCHES[1]]] : [BRANCHES];
  const fixed = LEFT + right + (narrow ? 6 * gap + JOIN + 2 * square : 8 * gap + 2 * JOIN + 2 * square + 2 * gap);
  const unit = (width - fixed) / (narrow ? 9 : 16), wide = (step) => (step === "scores" || step === "weights" ? square : unit * (UNITS[step] ?? 1));
  const boxes = {}, words = [], behind = [], twigs = [], stream = [];
  const pitch = LABEL + tall + DROP + tall / 2 + (narrow ? 8 : 10);
  let y = LABEL + 2; // top of the pictures
  boxes.tokens = { x: LEFT, y, width: unit / 2, height: tall };
  boxes.embedding = { x: LEFT + unit / 2 + 3 * gap, y, width: unit, height: tall };
  twigs.push(`M${LEFT + unit / 2} ${y + tall / 2}h${3 * gap}`);
  words.push({ x: boxes.embedding.x + unit + 2 * gap, y: y + tall / 2 - 5, said: text.stream });
  let [from, level] = [boxes.embedding.x + unit, y + tall / 2]; // where the stream is now
  y += tall + LABEL + 30;
  const wrap = (next, between) => { // on at the left of the next row
    const end = width - 5, begin = LEFT - 8;
    stream.push(`M${from} ${level}H${end - 6}q6 0 6 6V${between - 6}q0 6 -6 6H${begin + 6}q-6 0 -6 6V${next - 6}q0 6 6 6`);
    [from, level] = [begin + 6, next];
  };
  for (let l = 1; l <= layers; l++) {
    perRow.forEach((branches, half) => {
      const captioned = l === 1 && (narrow || half === 0);
      wrap(y + tall + DROP, y - LABEL - (captioned ? 22 : 5));
      let x = LEFT;
      if (half === 0) words.push({ x: 0, y: y + tall / 2 + 4, said: String(l) });
      for (const [to, steps] of branches) {
        const start = x;
        steps.forEach((step, k) => {
          boxes[`${l}.${step}`] = { x, y, width: wide(step), height: tall };
          if (k) twigs.push(`M${x - gap} ${y + tall / 2}h${gap}`);
          x += wide(step) + gap;
        });
        const last = x - gap, middle = start + wide(steps[0]) / 2, joint = last + JOIN / 2 - 1, line = y + tall + DROP;
        behind.push({ x: start - 4, y: y - LABEL, width: last - start + 8, height: tall + LABEL + 4 });
        twigs.push(`M${middle} ${line}V${y + tall}`, `M${last} ${y + tall / 2}H${joint}V${line - 6}`, `M${joint - 6} ${line}a6 6 0 1 0 12 0a6 6 0 1 0 -12 0M${joint - 3} ${line}h6M${joint} ${line - 3}v6`);
        if (l === 1) words.push({ x: start, y: y - LABEL - 5, said: text[to] });
        boxes[`${l}.${to}_sum`] = { x: last + JOIN, y: line - tall / 2, width: unit, height: tall };
        stream.push(`M${from} ${line}H${joint - 6}M${joint + 6} ${line}H${last + JOIN}`);
        from = last + JOIN + unit;
        x = from + 2 * gap;
      }
      y += pitch + (l === 1 && narrow && half === 0 ? 18 : 0);
    });
  }
  wrap(y + tall / 2, y - LABEL - 5);
  const vocabulary = (width - LEFT - right - 3.5 * unit - 6 * gap) / 2;
  let x = LEFT;
  for (const [key, w] of [["head.norm", unit], ["head.transform", unit], ["head.head_norm", unit], ["head.logits", vocabulary], ["head.probabilities", vocabulary], ["loss", unit / 2]]) {
    boxes[key] = { x, y, width: w, height: tall };
    twigs.push(`M${x - gap} ${y + tall / 2}h${gap}`);
    x += w + gap;
  }
  return { boxes, height: y + tall + 6, stream: stream.join(""), branches: twigs.join(""), words, behind };
}

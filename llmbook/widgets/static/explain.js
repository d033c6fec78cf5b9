// The journey of a sentence through a masked model, stage by stage, and how each of its numbers was made of those of the stages
// before: steps in, terms out. No DOM. A place is { stage, token, head, component }: the key of a stage, a row and a column of
// its matrix, and, where the stage has a matrix for each head, which of them.
import { concatenate, dot, erf, moments, split } from "./forward.js";
import { head, run } from "./network.js";

const LARGEST = 6; // products that are told one by one; the others as their sum

/**
 * All stages of the token ids (T), in order: `stages`, each with its `key`, such as "embedding", "2.scores" or "head.logits", its
 * `step` (what the key says after the dot), its equation, and `parts`, one matrix (T, columns), or one for each head. Of qkv and
 * rotate these hold the head's queries, keys (and values) side by side; `whole` has all heads. `truths` are the true ids of hidden tokens by their
 * number: of these the last stage has the loss, −ln p; of all others NaN.
 */
export function journey(net, ids, truths = {}) {
  const { x, blocks, h } = run(net, ids), n = net.config.n_heads;
  const stage = (prefix) => (step) => ({ key: `${prefix}.${step.key}`, step: step.key, equation: step.equation, names: step.made.map(({ name }) => name), parts: partsOf(step.made, n),
    whole: step.made[0].head === undefined ? concatenate(step.made.map(({ m }) => m)) : undefined });
  const end = head(net, h).map(stage("head")), p = end.at(-1).parts[0];
  const losses = ids.map((_, i) => [i in truths ? -Math.log(p[i][truths[i]]) : NaN]);
  const stages = [
    { key: "tokens", step: "tokens", equation: "text → ids", names: ["id"], parts: [ids.map((id) => [id])] },
    { key: "embedding", step: "embedding", equation: "x = E[id]", names: ["x"], parts: [x] },
    ...blocks.flatMap((steps, l) => steps.slice(1).map(stage(l + 1))),
    ...end,
    { key: "loss", step: "loss", equation: "loss = −ln p[true]", names: ["loss"], parts: [losses] },
  ];
  return { net, ids, truths, stages, byKey: Object.fromEntries(stages.map((one) => [one.key, one])) };
}

/** What a step made as one matrix, or as one for each head. */
function partsOf(made, n) {
  if (made[0].head !== undefined) return made.map(({ m }) => m);
  if (!made[0].cut) return [made[0].m];
  const cuts = made.map(({ m }) => split(m, n));
  return Array.from({ length: n }, (_, a) => concatenate(cuts.map((heads) => heads[a])));
}

/** The number at a place. */
export const numberAt = ({ byKey }, { stage, token, head: a = 0, component }) => byKey[stage].parts[byKey[stage].parts.length > 1 ? a : 0][token][component];

/**
 * How the number at a place was made: { kind, value, … }, by the kind of its step. An operand is { x, at }: a number of an earlier
 * stage and its place. Everything adds up to `value` again.
 */
export function explain(all, place) {
  const { stage, token, head: a = 0, component: j } = place, value = numberAt(all, place);
  const [prefix, step] = stage.includes(".") ? stage.split(".") : ["", stage];
  return { value, ...EXPLAIN[step](context(all, prefix), token, j, a) };
}

/** What explanations of one block, or of the head, need: weights, sizes, and how to name a number of an earlier stage. */
function context(all, prefix) {
  const { net } = all, d = net.config.d_model, width = d / net.config.n_heads;
  const operand = (stage, token, component, a = 0) => {
    const at = { stage, token, head: a, component };
    return { x: numberAt(all, at), at };
  };
  const into = prefix === "1" ? "embedding" : `${prefix === "head" ? net.config.n_layers : prefix - 1}.feed_forward_sum`;
  return { all, net, d, width, eps: net.config.norm_eps, weights: net.blocks[prefix - 1], operand, into, own: (step) => `${prefix}.${step}` };
}

/** Σ x_k w_k of operands x and numbers w (or operands): the largest products, how many others there are, and their sum. */
function products(xs, ws) {
  const terms = xs.map((x, k) => ({ k, x, w: ws[k], product: x.x * (ws[k].x ?? ws[k]) })).sort((s, t) => Math.abs(t.product) - Math.abs(s.product));
  return { terms: terms.slice(0, LARGEST), others: Math.max(0, terms.length - LARGEST), rest: terms.slice(LARGEST).reduce((sum, t) => sum + t.product, 0) };
}

/** Row i of a stage as operands; of one with heads, those of all heads side by side. */
function rowOf({ all, operand }, stage, i) {
  const { parts } = all.byKey[stage];
  return parts.flatMap((m, a) => m[i].map((_, j) => operand(stage, i, j, a)));
}

function norm(c, stage, i, j, { weight, bias }) {
  const row = c.all.byKey[stage].parts[0][i];
  return { kind: "norm", x: c.operand(stage, i, j), ...moments(row), eps: c.eps, gain: weight[j], bias: bias[j] };
}

/** A linear layer, whose weights are (out, in) as torch's. */
function layer(c, stage, i, j, { weight, bias }) {
  return { kind: "linear", ...products(rowOf(c, stage, i), weight[j]), bias: bias[j] };
}

/** The same through GELU: z · Φ(z). */
function bent(linear) {
  const z = linear.terms.reduce((sum, { product }) => sum + product, 0) + linear.rest + linear.bias;
  return { ...linear, kind: "gelu", z, phi: (1 + erf(z / Math.SQRT2)) / 2 };
}

/** exp(score − max) / Σ, over a row. */
function share(c, stage, i, j, a) {
  const row = c.all.byKey[stage].parts[c.all.byKey[stage].parts.length > 1 ? a : 0][i];
  const top = row.reduce((best, x, k) => (x > row[best] ? k : best), 0);
  const sum = row.reduce((total, x) => total + Math.exp(x - row[top]), 0);
  return { kind: "softmax", x: c.operand(stage, i, j, a), max: c.operand(stage, i, top, a), power: Math.exp(row[j] - row[top]), sum, count: row.length };
}

/** Weight and bias of a part of a block. */
const named = (weights, name) => ({ weight: weights[`${name}.weight`], bias: weights[`${name}.bias`] });

const EXPLAIN = {
  tokens: ({ all }, i) => ({ kind: "token", id: all.ids[i] }),
  embedding: ({ all }, i, j) => ({ kind: "lookup", id: all.ids[i], column: j, x: all.net.embedding[all.ids[i]][j] }),
  attention_norm: (c, i, j) => norm(c, c.into, i, j, named(c.weights, "attention_norm")),
  qkv(c, i, j, a) { // columns of a head: its queries, its keys, its values
    const out = Math.floor(j / c.width) * c.d + a * c.width + (j % c.width);
    return layer(c, c.own("attention_norm"), i, out, named(c.weights, "attention.W_qkv"));
  },
  rotate(c, i, j, a) {
    const k = j % c.width, even = j - (k % 2), frequency = 10000 ** (-(k - (k % 2)) / c.width), angle = i * frequency;
    const [first, second] = [even, even + 1].map((component) => c.operand(c.own("qkv"), i, component, a));
    return { kind: "rotation", first, second, isSecond: k % 2 === 1, position: i, frequency, angle, cos: Math.cos(angle), sin: Math.sin(angle) };
  },
  scores(c, i, j, a) {
    const side = (token, from) => Array.from({ length: c.width }, (_, k) => c.operand(c.own("rotate"), token, from + k, a));
    return { kind: "scores", ...products(side(i, 0), side(j, c.width)), root: Math.sqrt(c.width), width: c.width };
  },
  weights: (c, i, j, a) => share(c, c.own("scores"), i, j, a),
  heads(c, i, j, a) {
    const keys = c.all.ids.map((_, t) => t);
    return { kind: "mix", ...products(keys.map((t) => c.operand(c.own("weights"), i, t, a)), keys.map((t) => c.operand(c.own("qkv"), t, 2 * c.width + j, a))) };
  },
  project: (c, i, j) => layer(c, c.own("heads"), i, j, named(c.weights, "attention.W_o")),
  attention_sum: (c, i, j) => ({ kind: "sum", first: c.operand(c.into, i, j), second: c.operand(c.own("project"), i, j) }),
  feed_forward_norm: (c, i, j) => norm(c, c.own("attention_sum"), i, j, named(c.weights, "feed_forward_norm")),
  hidden: (c, i, j) => bent(layer(c, c.own("feed_forward_norm"), i, j, named(c.weights, "feed_forward.W_1"))),
  contract: (c, i, j) => layer(c, c.own("hidden"), i, j, named(c.weights, "feed_forward.W_2")),
  feed_forward_sum: (c, i, j) => ({ kind: "sum", first: c.operand(c.own("attention_sum"), i, j), second: c.operand(c.own("contract"), i, j) }),
  norm: (c, i, j) => norm(c, c.into, i, j, c.net.final),
  transform: (c, i, j) => bent(layer(c, "head.norm", i, j, c.net.transform)),
  head_norm: (c, i, j) => norm(c, "head.transform", i, j, c.net.norm),
  logits: (c, i, j) => layer(c, "head.head_norm", i, j, { weight: c.net.embedding, bias: c.net.bias }),
  probabilities: (c, i, j) => share(c, "head.logits", i, j, 0),
  loss: ({ all, operand }, i) => (i in all.truths ? { kind: "loss", id: all.truths[i], p: operand("head.probabilities", i, all.truths[i]) } : { kind: "none" }),
};

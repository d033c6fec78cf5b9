// A trained model of the book on the page: from the bytes of its file to a network, and from token ids to probabilities.
// What the bytes hold is said in network.py, which writes them; tokenizer.js is the way from text to ids and back.
import { activations, apply, block, layerNorm, linear, softmax } from "./forward.js";

/** What network.py packed: { kind, config, tokenizer, tensors }, each tensor by its name in torch's state_dict. */
export async function unpack(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const { tensors: shapes, ...header } = JSON.parse(new TextDecoder().decode(await inflate(bytes.subarray(4, 4 + length))));
  const planes = await inflate(bytes.subarray(4 + length)), count = planes.length / 2;
  const values = new Float32Array(count), tensors = {};
  for (let i = 0; i < count; i++) values[i] = HALVES[(planes[i] << 8) | planes[count + i]];
  let at = 0;
  for (const [name, shape] of shapes) {
    const width = shape.at(-1), rows = shape.length === 1 ? 1 : shape[0], first = at;
    const all = Array.from({ length: rows }, (_, i) => values.subarray(first + i * width, first + (i + 1) * width));
    tensors[name] = shape.length === 1 ? all[0] : all;
    at += rows * width;
  }
  return { ...header, tensors };
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The number that 16 bits stand for (IEEE 754): a sign, 5 bits of exponent, 10 bits of fraction. */
function half(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

const HALVES = Float32Array.from({ length: 2 ** 16 }, (_, bits) => half(bits)); // no weight is infinite

/** A MaskedLM or a CausalLM, as unpacked: its tensors, put where the forward pass looks for them. */
export function network({ kind, config, tensors }) {
  const masked = kind === "MaskedLM", stack = masked ? "encoder." : "";
  const part = (prefix) => Object.fromEntries(Object.entries(tensors).filter(([name]) => name.startsWith(prefix))
    .map(([name, tensor]) => [name.slice(prefix.length), tensor]));
  const blocks = Array.from({ length: config.n_layers }, (_, i) => part(`${stack}blocks.${i}.`));
  const bias = tensors.bias ?? new Float32Array(config.vocab_size);
  return { masked, config, blocks, embedding: tensors[`${stack}embedding.tokens.weight`], final: part(`${stack}norm.`), transform: part("transform."), norm: part("norm."), bias };
}

/** An empty memory for a causal network: what it has read, as keys and values, layer by layer. */
export const remember = (net) => net.blocks.map(() => ({ k: [], v: [] }));

/**
 * Token ids (T) through all blocks: { x, blocks, h }, the embeddings (T, d_model), for each block its steps, and the last vectors
 * (T, d_model). The heads [layer, head] in `off` are cut. With a memory the ids go on where the last call ended.
 */
export function run(net, ids, { off = [], memory } = {}) {
  const { n_heads, activation, norm_eps: eps, norm, positions } = net.config;
  const embedded = ids.map((id) => Array.from(net.embedding[id]));
  let x = embedded;
  const blocks = net.blocks.map((weights, l) => {
    const cut = off.filter(([layer]) => layer === l).map(([, head]) => head);
    const steps = block(x, weights, { n_heads, activation, eps, norm, positions, causal: !net.masked, off: cut, memory: memory?.[l] });
    x = steps.at(-1).made[0].m;
    return steps;
  });
  return { x: embedded, blocks, h: x };
}

/** The steps from last vectors h (K, d_model) to probabilities (K, V), each as in `block`. */
export function head(net, h) {
  const steps = [], eps = net.config.norm_eps;
  const step = (key, equation, name, m, from) => { steps.push({ key, equation, made: [{ name, m }], from }); return steps.at(-1).made[0]; };
  const ln = (key, name, z, w) => step(key, `${name} = (${z.name} − mean) / √(variance + ε) · gain + bias`, name, layerNorm(z.m, w.weight, w.bias, eps), [z]);
  let z = ln("norm", "n", { name: "y", m: h }, net.final);
  if (net.masked) {
    z = step("transform", `t = ${net.config.activation.toUpperCase()}(${z.name} W + b)`, "t", apply(activations[net.config.activation], linear(z.m, net.transform.weight, net.transform.bias)), [z]);
    z = ln("head_norm", "u", z, net.norm);
  }
  z = step("logits", `logits = ${z.name} Eᵀ${net.masked ? " + b" : ""}`, "logits", linear(z.m, net.embedding, net.bias), [z]);
  step("probabilities", "p = softmax(logits)", "p", z.m.map((row) => softmax(row)), [z]);
  return steps;
}

/** The attention weights of a run, weights[layer][head][query][key]. */
export const maps = ({ blocks }) => blocks.map((steps) => steps.find(({ key }) => key === "weights").made.map(({ m }) => m));

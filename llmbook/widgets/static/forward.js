// The forward pass of a Transformer as functions: no DOM, double precision. A matrix is an array of its rows; weights are
// laid out as torch's are, in plain or typed arrays. An explorer module imports from here as it does from base.js.

/** The product of a (n, m) and b (m, p): (n, p). */
export function matmul(a, b) {
  return a.map((row) => {
    const sums = new Array(b[0].length).fill(0);
    for (let k = 0; k < row.length; k++) for (let j = 0; j < sums.length; j++) sums[j] += row[k] * b[k][j];
    return sums;
  });
}

export const transpose = (a) => a[0].map((_, j) => a.map((row) => row[j]));

/** The sum of two matrices of one shape. */
export const plus = (a, b) => a.map((row, i) => row.map((x, j) => x + b[i][j]));

/** A function of a number on every entry of a matrix. */
export const apply = (f, a) => a.map((row) => row.map(f));

export const dot = (u, v) => u.reduce((sum, x, j) => sum + x * v[j], 0);

/**
 * x W^T + b for each row x, with W (out, in) and b (out) as in torch.nn.Linear. Here a model spends its time, so four rows
 * go through two rows of W together: what is read once serves several products. (Too few rows: the last goes more than once.)
 */
export function linear(xs, weight, bias) {
  const ys = xs.map(() => new Array(weight.length).fill(0));
  for (let t = 0; t < xs.length; t += 4) {
    const rows = [0, 1, 2, 3].map((i) => Math.min(t + i, xs.length - 1));
    const [a, b, c, d] = rows.map((i) => xs[i]), [ya, yb, yc, yd] = rows.map((i) => ys[i]);
    for (let i = 0; i < weight.length; i += 2) {
      const j = Math.min(i + 1, weight.length - 1), u = weight[i], v = weight[j];
      let ua = 0, ub = 0, uc = 0, ud = 0, va = 0, vb = 0, vc = 0, vd = 0;
      for (let k = 0; k < u.length; k++) {
        const x = u[k], y = v[k], ak = a[k], bk = b[k], ck = c[k], dk = d[k];
        ua += x * ak; ub += x * bk; uc += x * ck; ud += x * dk;
        va += y * ak; vb += y * bk; vc += y * ck; vd += y * dk;
      }
      ya[i] = ua + bias[i]; yb[i] = ub + bias[i]; yc[i] = uc + bias[i]; yd[i] = ud + bias[i];
      ya[j] = va + bias[j]; yb[j] = vb + bias[j]; yc[j] = vc + bias[j]; yd[j] = vd + bias[j];
    }
  }
  return ys;
}

/** The columns of a (T, d) cut into n matrices (T, d / n): queries, keys and values, or heads. */
export function split(a, n) {
  const width = a[0].length / n;
  return Array.from({ length: n }, (_, h) => a.map((row) => row.slice(h * width, (h + 1) * width)));
}

/** Matrices with as many rows each, side by side. */
export const concatenate = (parts) => parts[0].map((_, i) => [].concat(...parts.map((part) => part[i])));

/** Mean and variance (divided by d) of a vector (d). */
export function moments(x) {
  const mean = x.reduce((sum, a) => sum + a, 0) / x.length;
  return { mean, variance: x.reduce((sum, a) => sum + (a - mean) ** 2, 0) / x.length };
}

/** Each row less its mean, divided by √(variance + eps), times a gain and plus a bias for each component. */
export function layerNorm(xs, gain, bias, eps = 1e-5) {
  return xs.map((x) => {
    const { mean, variance } = moments(x);
    return x.map((a, j) => ((a - mean) / Math.sqrt(variance + eps)) * gain[j] + bias[j]);
  });
}

/** Softmax of a vector over the entries where `mask` is true, if there is one; all zeros where it is true nowhere. */
export function softmax(scores, mask) {
  const kept = mask ? scores.map((x, i) => (mask[i] ? x : -Infinity)) : scores;
  const top = kept.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = kept.map((x) => (x > -Infinity ? Math.exp(x - top) : 0));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => (sum > 0 ? x / sum : 0));
}

/** Scaled dot-product attention of q (T_q, d_k) over k (T_k, d_k) and v (T_k, d_v); mask (T_q, T_k): true = may attend. */
export function attention(q, k, v, mask) {
  const scores = apply((x) => x / Math.sqrt(q[0].length), matmul(q, transpose(k)));
  const weights = scores.map((row, i) => softmax(row, mask?.[i]));
  return { scores, weights, output: matmul(weights, v) };
}

/**
 * Rotary positions (Su et al., 2021): in each row of q or k (T, d_k), the first of which stands at position `start`, the pair of
 * components (2i, 2i + 1) is turned by the angle position · ω_i, with ω_i = 10000^(−2i / d_k).
 */
export const rotate = (xs, start = 0) => xs.map((x, t) => x.map((_, j) => {
  const i = j - (j % 2), angle = (start + t) * 10000 ** (-i / x.length);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return j === i ? x[i] * cos - x[i + 1] * sin : x[i] * sin + x[i + 1] * cos;
}));

/**
 * The error function, to 1e-15: 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1 · 3 · 5 ⋯ (2n + 1)), a series of which all terms have one
 * sign, so that none takes digits from another (Abramowitz & Stegun, 1964, equation 7.1.6). Beyond 6 it is 1 in doubles.
 */
export function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** x · Φ(x), with Φ the distribution function of the normal distribution (Hendrycks & Gimpel, 2016). */
export const gelu = (x) => (x / 2) * (1 + erf(x / Math.SQRT2));

/** GELU with tanh in place of the error function, as in GPT-2. */
export const geluTanh = (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

export const relu = (x) => Math.max(0, x);

/** The activations by the names that EncoderConfig has for them. */
export const activations = { gelu, gelu_tanh: geluTanh, relu };

const WRITTEN = { gelu: "GELU", gelu_tanh: "GELU_tanh", relu: "ReLU" };

/**
 * One block on x (T, d_model), all its steps in order; `w` has the weights by their names in torch's state_dict.
 *
 * `norm` is "pre", "post" or "none", `positions` is "rotary" or none of the block's business, and the heads whose numbers are
 * in `off` are cut: their output is 0. A causal block lets no row read a later one; `memory` { k: [], v: [] } holds the rows of
 * keys and values of what came before, as it does in a cache, and those of x are added to it.
 *
 * Each step has its key, the sublayer that it belongs `to`, if any, its equation, and matrices: what it made and what it made
 * that `from`. A matrix `m` has a name; `cut` is where one head ends, `head` is the number of the head that it belongs to.
 */
export function block(x, w, { n_heads, activation, eps, norm, residual = true, positions, causal = false, off = [], memory }) {
  const steps = [], cut = x[0].length / n_heads, start = memory?.k.length ?? 0;
  const step = (key, to, equation, made, from) => { steps.push({ key, to, equation, made, from }); return made; };
  const project = (z, name) => linear(z.m, w[`${name}.weight`], w[`${name}.bias`]);
  const normed = (z, which, to, name) => {
    const m = layerNorm(z.m, w[`${which}_norm.weight`], w[`${which}_norm.bias`], eps), ln = `LN(${z.name})`;
    return step(`${which}_norm`, to, `${name ? `${name} = ${ln}` : ln} = (${z.name} − mean) / √(variance + ε) · gain + bias`, [{ name: name ?? ln, m }], [z])[0];
  };
  const turned = (z, to) => {
    const made = z.map(({ name, m }) => ({ name: `${name}′`, m: concatenate(split(m, n_heads).map((part) => rotate(part, start))), cut }));
    return step("rotate", to, "q′, k′ = q, k turned by position · ω", made, z);
  };
  const read = (name, m) => { // what is there to attend to: the rows of m, after those of the memory
    memory?.[name].push(...m);
    return split(memory?.[name] ?? m, n_heads);
  };
  const sublayers = {
    attention(z, to) {
      const qkv = split(project(z, "attention.W_qkv"), 3).map((m, i) => ({ name: "qkv"[i], m, cut }));
      step("qkv", to, `[q, k, v] = ${z.name} W_qkv + b_qkv`, qkv, [z]);
      const [q, k] = positions === "rotary" ? turned(qkv.slice(0, 2), to) : qkv;
      const queries = split(q.m, n_heads), keys = read("k", k.m), values = read("v", qkv[2].m);
      const mask = causal ? x.map((_, i) => keys[0].map((_, j) => j <= start + i)) : undefined;
      const results = queries.map((_, i) => attention(queries[i], keys[i], values[i], mask));
      const each = (name) => results.map((result, head) => ({ name, m: result[name], head }));
      const scores = step("scores", to, `scores = ${q.name} ${k.name}ᵀ / √d_k, d_k = ${cut}`, each("scores"), [q, k]);
      const weights = step("weights", to, "weights = softmax(scores)", each("weights"), scores);
      const outputs = results.map(({ output }, head) => (off.includes(head) ? apply(() => 0, output) : output));
      const c = step("heads", to, "c = Concat(weights v)", [{ name: "c", m: concatenate(outputs), cut }], [...weights, qkv[2]]);
      return step("project", to, "o = c W_o + b_o", [{ name: "o", m: project(c[0], "attention.W_o") }], c)[0];
    },
    feed_forward(z, to) {
      const h = [{ name: "h", m: apply(activations[activation], project(z, "feed_forward.W_1")) }];
      step("hidden", to, `h = ${WRITTEN[activation]}(${z.name} W_1 + b_1)`, h, [z]);
      return step("contract", to, "f = h W_2 + b_2", [{ name: "f", m: project(h[0], "feed_forward.W_2") }], h)[0];
    },
  };
  let [z] = step("x", "", "", [{ name: "x", m: x }], []);
  for (const [to, result] of [["attention", "a"], ["feed_forward", "y"]]) {
    let y = sublayers[to](norm === "pre" ? normed(z, to, to) : z, to);
    const sum = `${z.name} + ${y.name}`, name = norm === "post" ? sum : result;
    if (residual) [y] = step(`${to}_sum`, to, name === sum ? sum : `${name} = ${sum}`, [{ name, m: plus(z.m, y.m) }], [z, y]);
    z = norm === "post" ? normed(y, to, "", result) : y;
  }
  return steps;
}

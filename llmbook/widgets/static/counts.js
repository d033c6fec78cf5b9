// Language models that count, as in llmbook/ngram.py: n-grams, maximum likelihood, interpolated Kneser–Ney smoothing.
// Words are ids; an id of −1 is a word that was never seen.

const MOST = 5; // the largest n

/** How often each n-gram occurs: from its ids, joined, to a count. */
export function count(ids, n) {
  const counts = new Map();
  for (let i = 0; i + n <= ids.length; i++) {
    const gram = ids.slice(i, i + n).join(" ");
    counts.set(gram, (counts.get(gram) ?? 0) + 1);
  }
  return counts;
}

/** After how many different words each n-gram occurs; the start of the text is one more, save for a single word. */
function continuations(ids, n) {
  const counts = new Map([...count(ids, n).keys()].map((gram) => [gram, 0]));
  const add = (gram) => counts.set(gram, counts.get(gram) + 1);
  for (const longer of count(ids, n + 1).keys()) add(longer.slice(longer.indexOf(" ") + 1));
  if (n > 1 && n <= ids.length) add(ids.slice(0, n).join(" "));
  return counts;
}

/** The same by context: a(h w) of each word, their sum A(h) and how many are above 0, N(h); and the discount D. */
function group(counts) {
  const contexts = new Map();
  for (const [gram, a] of counts) {
    const cut = gram.lastIndexOf(" "), context = gram.slice(0, Math.max(cut, 0));
    if (!contexts.has(context)) contexts.set(context, { a: new Map(), A: 0, N: 0 });
    const node = contexts.get(context);
    node.a.set(Number(gram.slice(cut + 1)), a);
    node.A += a;
    node.N += a > 0;
  }
  const [once, twice] = [1, 2].map((k) => [...counts.values()].filter((a) => a === k).length);
  return { contexts, D: once && twice ? once / (once + 2 * twice) : 0.75 };
}

/** Count the first part of the words, for every n: `plain` counts, and `left` ones that Kneser–Ney has below its highest n. */
export function fit(words, heldOut) {
  const vocabulary = [...new Set(words)], id = new Map(vocabulary.map((word, i) => [word, i]));
  const all = words.map((word) => id.get(word)), cut = all.length - Math.floor(heldOut * all.length);
  const ids = all.slice(0, cut), orders = Array.from({ length: MOST }, (_, i) => i + 1);
  return { vocabulary, id, ids, test: all.slice(cut), V: vocabulary.length,
    plain: orders.map((n) => group(count(ids, n))), left: orders.map((n) => group(continuations(ids, n))) };
}

export const tail = (context, n) => context.slice(Math.max(context.length - n, 0));

/** p(w | context) as a function of w. */
export function predictor(model, order, smoothing, context) {
  const seen = tail(context, order - 1), m = seen.length;
  if (smoothing === "none") {
    const node = model.plain[m].contexts.get(seen.join(" "));
    return (w) => (node ? (node.a.get(w) ?? 0) / node.A : 1 / model.V);
  }
  const levels = Array.from({ length: m + 1 }, (_, k) => {
    const { contexts, D } = (k + 1 === order ? model.plain : model.left)[k];
    return { D, ...contexts.get(tail(seen, k).join(" ")) };
  }).filter((level) => level.A > 0); // a context that was never seen leaves all to the shorter one
  return (w) => levels.reduce((p, { a, A, N, D }) => Math.max((a.get(w) ?? 0) - D, 0) / A + ((D * N) / A) * p, 1 / model.V);
}

/** For one n: the share of held-out n-grams never counted, and of contexts that were seen once; NaN where there is none. */
export function sparsity(model, n) {
  const nodes = [...model.plain[n - 1].contexts.values()], known = count(model.ids, n);
  const test = Array.from({ length: Math.max(model.test.length - n + 1, 0) }, (_, i) => model.test.slice(i, i + n).join(" "));
  const share = (some, all) => some.length / all.length;
  return { novel: share(test.filter((gram) => !known.has(gram)), test), once: share(nodes.filter((node) => node.A === 1), nodes) };
}

/** exp of the mean −ln p over the held-out part, after its first word. */
export function perplexity(model, order, smoothing) {
  const losses = model.test.slice(1).map((w, i) => -Math.log(predictor(model, order, smoothing, model.test.slice(0, i + 1))(w)));
  return Math.exp(losses.reduce((sum, x) => sum + x, 0) / losses.length);
}

/** Where the fewest pieces of `ids` that make up `written` begin. */
export function pieces(written, ids) {
  const begins = [];
  let ends = [];
  written.forEach((w, i) => {
    ends = ends.map((j) => j + 1).filter((j) => ids[j] === w);
    if (ends.length) return;
    begins.push(i);
    ends = [...ids.keys()].filter((j) => ids[j] === w);
  });
  return begins;
}

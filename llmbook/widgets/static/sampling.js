// From the scores of the next token to a token: what llmbook.generate.next_distribution does, and a draw from it.
import { softmax } from "./forward.js";

const TINY = 2 ** -1022; // the smallest normal number: a temperature below it is taken as it

/**
 * The distribution (V) from which the next token is drawn: softmax(logits / temperature); of it the `top_k` likeliest tokens, and
 * of these the fewest likeliest whose sum reaches `top_p`; null keeps all. Equals rank by id. Temperature 0 takes the highest score.
 */
export function nextDistribution(logits, { temperature, top_k, top_p }) {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity), best = logits.indexOf(top);
  if (temperature === 0) return logits.map((_, id) => (id === best ? 1 : 0));
  const scores = logits.map((x) => (x - top) / Math.max(temperature, TINY));
  if (top_k === null && top_p === null) return softmax(scores);
  const order = descending(scores).slice(0, top_k ?? scores.length), p = softmax(order.map((id) => scores[id]));
  const reach = (top_p ?? 1) < 1 ? top_p * (1 - 8 * Number.EPSILON) : Infinity; // to within rounding
  const kept = [];
  let sum = 0;
  for (let k = 0; k < p.length && (k === 0 || sum < reach); k++) {
    kept.push(p[k]);
    sum += p[k];
  }
  const made = new Array(logits.length).fill(0);
  kept.forEach((x, k) => { made[order[k]] = x / sum; });
  return made;
}

/** The places of numbers, the largest first, equals in order. */
const descending = (xs) => xs.map((_, i) => i).sort((i, j) => xs[j] - xs[i] || i - j);

/** The ids that can be drawn, the most probable first. */
export const byProbability = (p) => descending(p).filter((id) => p[id] > 0);

/** The first id, the most probable first, at which the sum of the probabilities exceeds u. */
export function drawToken(p, u) {
  const ids = byProbability(p);
  let sum = 0;
  return ids.find((id) => (sum += p[id]) > u) ?? ids.at(-1); // rounding may leave the sum just below u
}

/** Entropy in nats. */
export const entropyOf = (p) => -p.reduce((sum, x) => (x > 0 ? sum + x * Math.log(x) : sum), 0);

/** The probability and the rank, from 1, that scores (V) give to a token. */
export function judge(logits, id) {
  const p = softmax(logits)[id], above = logits.filter((x, i) => x > logits[id] || (x === logits[id] && i < id)).length;
  return { p, rank: above + 1 };
}

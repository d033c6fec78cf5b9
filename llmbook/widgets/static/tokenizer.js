// The tokenizers of the shipped models on the page: from text to token ids and back, as Python's `tokenizers` has them.
// English: bytes, joined into longer and longer tokens (Radford et al., 2019, section 2.2). Chinese: a token for each character
// that is frequent, bytes for the others. What both are made from is said in tokenizers.py, which writes it.
import { LETTERS, NUMBERS, SPACES } from "./unicode.js";

/** A class of unicode.js as it stands between the brackets of a regular expression. */
function bracketed(runs) {
  let end = 0;
  return runs.trim().replace(/(\w+)\s+(\w+)\s*/g, (_, skipped, length) => {
    const first = end + parseInt(skipped, 36);
    end = first + parseInt(length, 36);
    return `\\u{${first.toString(16)}}-\\u{${(end - 1).toString(16)}}`;
  });
}

const [LETTER, NUMBER, SPACE] = [LETTERS, NUMBERS, SPACES].map(bracketed);
const WORDS = new RegExp(`'s|'t|'re|'ve|'m|'ll|'d| ?[${LETTER}]+| ?[${NUMBER}]+| ?[^${SPACE}${LETTER}${NUMBER}]+`
  + `|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`, "gu");

const BYTES = Array.from({ length: 256 }, (_, byte) => byte);
const hexadecimal = (byte) => byte.toString(16).toUpperCase().padStart(2, "0");

/** GPT-2's name of each byte: a character, its own if that can be seen, else the next from U+0100 on. */
function alphabet() {
  let next = 0x100;
  return BYTES.map((byte) => String.fromCharCode(byte)).map((c) => (/[!-~¡-¬®-ÿ]/.test(c) ? c : String.fromCharCode(next++)));
}

const fromUTF8 = (bytes, options) => new TextDecoder("utf-8", { ignoreBOM: true, ...options }).decode(Uint8Array.from(bytes));

/** The same, but undefined if the bytes are not UTF-8. */
function strictly(bytes) {
  try {
    return fromUTF8(bytes, { fatal: true });
  } catch {
    return undefined;
  }
}

// characters in UTF-8, or else single bytes
const PARTS = /[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}|[^]/g;

/** Bytes for the eye: the characters that they are, with signs for blanks; parts of characters and what shows nothing as "‹E4›". */
function legible(bytes) {
  const signs = { " ": "␣", "\n": "⏎" };
  return String.fromCharCode(...bytes).replace(PARTS, (part) => {
    const codes = Array.from(part, (c) => c.charCodeAt(0)), character = strictly(codes);
    const unseen = character === undefined || /\p{Control}/u.test(character);
    return signs[character] ?? (unseen ? codes.map((byte) => `‹${hexadecimal(byte)}›`).join("") : character);
  });
}

/** Each byte of a text as a token, which stands where its whole character does. Half a surrogate pair is U+FFFD to the encoder. */
function spell(text, byteIds) {
  const encoder = new TextEncoder(), tokens = [];
  let start = 0;
  for (const character of text) {
    const end = start + character.length;
    for (const byte of encoder.encode(character)) tokens.push({ id: byteIds[byte], start, end });
    start = end;
  }
  return tokens;
}

/**
 * Byte-pair encoding: of the pairs of neighbours the one learnt first is joined, from left to right, then the next, and so on.
 * A place in `tokens` waits under the id that it makes with its neighbour, behind those to its left; what a joined token makes has a
 * higher id, since a token is learnt after its parts.
 */
function join(tokens, pair) {
  const before = tokens.map((_, i) => i - 1), after = tokens.map((_, i) => i + 1), waiting = new Map();
  const look = (i) => {
    const id = pair(tokens[i]?.id, tokens[after[i]]?.id);
    if (waiting.has(id)) waiting.get(id).push(i);
    else if (id !== undefined) waiting.set(id, [i]);
  };
  tokens.forEach((_, i) => look(i));
  while (waiting.size > 0) {
    const id = Math.min(...waiting.keys()), places = waiting.get(id);
    waiting.delete(id);
    for (const i of places) {
      const j = after[i];
      if (pair(tokens[i]?.id, tokens[j]?.id) !== id) continue; // one of the two has been joined to another meanwhile
      tokens[i] = { id, start: tokens[i].start, end: tokens[j].end };
      tokens[j] = undefined;
      after[i] = after[j];
      before[after[i]] = i;
      look(before[i]);
      look(i);
    }
  }
  return tokens.filter(Boolean);
}

/** What the English models have of their own: how text is cut into words and words into tokens, a token's bytes, decoding. */
function joining(vocab, merges, ids) {
  const letters = alphabet(), byteIds = letters.map((letter) => ids.get(letter)), remembered = new Map();
  const bytes = new Map(letters.map((letter, byte) => [letter, byte]));
  const key = (left, right) => left * vocab.length + right, first = vocab.length - merges.length;
  const pairs = new Map(merges.map((length, k) => {
    const token = vocab[first + k];
    return [key(ids.get(token.slice(0, length)), ids.get(token.slice(length))), first + k];
  }));
  const cut = (word) => {
    const tokens = remembered.get(word) ?? join(spell(word, byteIds), (left, right) => pairs.get(key(left, right)));
    if (word.length <= 40) remembered.set(word, tokens);
    return tokens;
  };
  const spelt = (id) => Array.from(vocab[id], (letter) => bytes.get(letter));
  return { words: WORDS, cut, spelt, decode: (all) => fromUTF8(all.flatMap(spelt)) };
}

/** What the Chinese models have of their own, to which each character is a word. */
function spelling(vocab, merges, ids) {
  const byteIds = BYTES.map((byte) => ids.get(`<0x${hexadecimal(byte)}>`)), bytes = new Map(byteIds.map((id, byte) => [id, byte]));
  const cut = (c) => (ids.has(c) ? [{ id: ids.get(c), start: 0, end: c.length }] : spell(c, byteIds));
  const spelt = (id) => (bytes.has(id) ? [bytes.get(id)] : [...new TextEncoder().encode(vocab[id])]);
  const decode = (all) => {
    let text = "", run = [];
    const read = () => {
      if (run.length > 0) text += strictly(run) ?? "\ufffd".repeat(run.length); // a run of bytes is UTF-8 as a whole or not at all
      run = [];
    };
    for (const id of all) {
      if (!bytes.has(id)) read();
      if (bytes.has(id)) run.push(bytes.get(id));
      else text += vocab[id];
    }
    read();
    return text;
  };
  return { words: /./gsu, cut, spelt, decode };
}

/**
 * A tokenizer. `vocab` has its tokens in the order of their ids: five special ones, the bytes, all others. `merges` has, for each of those
 * others, the length of the first of the two tokens that it is joined from; or none, and `characters` is true, if they are characters.
 */
export function tokenizer({ vocab, merges, characters }) {
  const ids = new Map(vocab.map((token, id) => [token, id])), special = Object.fromEntries([...ids].slice(0, 5));
  const { words, cut, spelt, decode } = (characters ? spelling : joining)(vocab, merges, ids);
  const space = new RegExp(`[${SPACE}]`, "u");

  /** The tokens of a text, each { id, start, end }: where it stands, in UTF-16 units. Special ones are found first, then what is between. */
  function encode(text) {
    const tokens = [];
    let at = 0; // what is before has its tokens
    const plain = (until) => {
      for (const word of text.slice(at, until).match(words) ?? []) {
        for (const { id, start, end } of cut(word)) tokens.push({ id, start: at + start, end: at + end });
        at += word.length;
      }
    };
    for (const { 0: name, index } of text.matchAll(/\[[A-Z]+\]/g)) {
      if (!(name in special)) continue;
      let start = index;
      if (name === "[MASK]") while (start > at && space.test(text[start - 1])) start--; // it takes the blanks before it along
      plain(start);
      at = index + name.length;
      tokens.push({ id: special[name], start, end: at });
    }
    plain(text.length);
    return tokens;
  }

  const label = (id) => legible(spelt(id));
  return { encode, label, decode: (all) => decode([...all].filter((id) => id in vocab)), special, size: vocab.length };
}

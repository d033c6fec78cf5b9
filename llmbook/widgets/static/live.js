// What explorers with a trained model share: the way to its bytes, with progress, and a queue for what it has to compute.
import { button, h } from "./base.js";
import { network, unpack } from "./network.js";
import { tokenizer } from "./tokenizer.js";

const LIVE = {
  en: { load: (name, size) => `Load the model ${name} (${size} MB)`, loading: "Loading", again: "Try again", failed: "It could not be loaded: ",
    note: "It then runs here, in this page: nothing that you type leaves it." },
  zh: { load: (name, size) => `载入模型 ${name}（${size} MB）`, loading: "正在载入", again: "重试", failed: "未能载入：",
    note: "载入之后，模型就在这个页面里运行：你输入的内容不会离开本页。" },
};
const SIZE = { "mlm-en": 5.8, "mlm-zh": 5.7, "gpt-en": 5.8, "gpt-zh": 5.8 }; // MB, with its tokenizer

/** The bytes of a model, asked for piece by piece; `progress(share)` hears how much has come. `stop` ends it. */
function fetchBytes(model, name, progress) {
  let hear;
  const stop = () => model.off("msg:custom", hear);
  const bytes = new Promise((resolve, reject) => {
    const pieces = [], ask = (piece) => model.send({ model: name, piece });
    hear = (message, [view] = []) => {
      if (message.model !== name || message.piece < pieces.length) return; // another explorer's, or come twice
      if (message.error) {
        stop();
        reject(new Error(message.error));
        return;
      }
      pieces.push(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
      progress(pieces.length / message.total);
      if (pieces.length < message.total) ask(pieces.length);
      else {
        stop();
        resolve(joined(pieces));
      }
    };
    model.on("msg:custom", hear);
    ask(0);
  });
  return { bytes, stop };
}

function joined(pieces) {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/**
 * A door before a figure that needs a model: a button that loads it, with a bar that shows how far it is. Behind it comes what
 * `build({ net, tokens })` mounts in the root and whose cleanup function it returns. Gives the door's own cleanup function.
 */
export function gate({ model, root, lang, name, build }) {
  const text = LIVE[lang];
  let stop = () => {}, cleanup = () => {};
  const bar = h("progress", { max: 1, value: 0, "aria-label": text.loading }), said = h("p", { role: "status" });
  const start = button(text.load(name, SIZE[name]), () => load(), { class: "llm-button llm-primary" });
  const door = h("div", { class: "llm-gate" }, start, bar, said);
  const show = (loading, words) => {
    start.hidden = loading;
    bar.hidden = !loading;
    said.textContent = words;
  };
  const load = async () => {
    show(true, "");
    bar.value = 0;
    let left = false;
    const fetching = fetchBytes(model, name, (share) => { bar.value = share; });
    stop = () => { left = true; fetching.stop(); };
    let packed;
    try {
      packed = await unpack(await fetching.bytes);
    } catch (error) {
      start.textContent = text.again;
      show(false, text.failed + error.message);
      start.focus();
      return;
    }
    if (left) return;
    door.remove();
    cleanup = build({ net: network(packed), tokens: tokenizer(packed.tokenizer) });
    root.tabIndex = -1;
    root.focus({ preventScroll: true }); // the button that had the focus is gone
  };
  show(false, text.note);
  root.append(door);
  return () => { stop(); cleanup(); };
}

/** Run `compute` once, soon after the last of many calls: while a reader types, only the newest text is worth it. */
export function soon(compute) {
  let timer;
  const call = () => {
    clearTimeout(timer);
    timer = setTimeout(compute, 0);
  };
  return { call, cancel: () => clearTimeout(timer) };
}

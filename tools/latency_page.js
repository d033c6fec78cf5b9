// What latency_page.py has run on a page before anything else: inputs as a reader would give them, and a clock.

/** The time at which the next frame has been painted: a macrotask after its animation callbacks. */
const nextFrame = () => new Promise((done) => requestAnimationFrame(() => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => done(performance.now());
  port2.postMessage(0);
}));

/** `window.drawn` becomes the time, since the page was asked for, when an element that fits is there and painted. */
window.watchFor = (selector) => new MutationObserver((_, observer) => {
  if (!document.querySelector(selector)) return;
  observer.disconnect();
  nextFrame().then((now) => { window.drawn = now; });
}).observe(document, { subtree: true, childList: true });

/** Make the `i`-th input on a control ready; the function that comes back dispatches its event. */
function prepare(control, i, name) {
  const event = (Kind, type, more) => () => control.dispatchEvent(new Kind(type, { bubbles: true, ...more }));
  if (control.matches("[type=range]")) {
    const [from, to] = [Number(control.min), Number(control.max)];
    control.value = from + (((i * 37) % 101) / 100) * (to - from);
    return event(Event, "input");
  }
  if (control.matches("textarea, [type=text]")) {
    control.value = control.value.endsWith("a") ? control.value.slice(0, -1) : `${control.value}a`;
    return event(Event, "input");
  }
  if (control.matches("select")) {
    control.selectedIndex = (control.selectedIndex + 1) % control.length;
    return event(Event, "change");
  }
  if (control.matches("[role=slider]")) return event(KeyboardEvent, "keydown", { key: "ArrowRight" });
  return event(MouseEvent, name);
}

/**
 * For `n` inputs, after `warm` more: milliseconds from the dispatch to the DOM being changed within `root`, and to the
 * next frame painted; null where nothing changed. The `i`-th input goes to the `i`-th control, in turns, and falls into
 * another phase of the frame than the one before. With `image` only a new picture counts as a change; what is marked as
 * busy has not changed yet. Waits `patience` milliseconds for a change, and after 20 inputs in vain gives up.
 *
 * What an observer is told of takes time by itself. If all of the first inputs have changed the DOM by the end of their
 * dispatch, and nothing later, then the others are not observed: the end of the dispatch is the end of the change.
 */
window.latency = async ({ root, control, name, n, warm, image, patience }) => {
  const host = document.querySelector(root), times = [];
  let direct = warm > 0 && !image, vain = 0;
  for (let i = 0; i < warm + n && vain < 20; i++) {
    await new Promise((done) => setTimeout(done, 20 + 17 * ((i * 0.618) % 1)));
    const all = host.querySelectorAll(control), go = prepare(all[i % all.length], i, name);
    const one = i >= warm && direct ? await unobserved(go) : await observed(host, go, image, patience);
    if (i < warm) direct = direct && Boolean(one?.direct);
    else times.push(one ? [one.dom, one.frame] : null);
    if (!one) vain++;
  }
  return { times, direct };
};

async function unobserved(go) {
  const start = performance.now();
  go();
  const dom = performance.now() - start;
  return { dom, frame: (await nextFrame()) - start };
}

async function observed(host, go, image, patience) {
  const picture = () => host.querySelector("img")?.src, before = picture();
  const ready = () => (image ? ![before, undefined].includes(picture()) : !host.querySelector("[aria-busy=true]"));
  let done, later = 0;
  const changed = new Promise((resolve) => { done = resolve; });
  const observer = new MutationObserver((records) => {
    later += records.length;
    const now = performance.now();
    if (ready()) done([now, nextFrame()]);
  });
  observer.observe(host, { subtree: true, childList: true, attributes: true, characterData: true });
  const start = performance.now();
  go();
  const end = performance.now(), within = observer.takeRecords().length;
  if (within && ready()) done([end, nextFrame()]);
  setTimeout(done, patience);
  const seen = await changed, frame = await seen?.[1];
  observer.disconnect();
  return seen && { dom: seen[0] - start, frame: frame - start, direct: within > 0 && later === 0 };
}

/** When the loader of explorers comes: have it put the milliseconds to an explorer's DOM, and to the next frame, in `mounted`. */
let loader;
Object.defineProperty(window, "llmExplorers", { get: () => loader, set: (given) => {
  const timed = (explorer) => ({ render: (options) => {
    const start = performance.now(), remove = explorer.render(options), dom = performance.now() - start;
    nextFrame().then((now) => { window.mounted = [dom, now - start]; });
    return remove;
  } });
  loader = { ...given, define: (name, explorer) => given.define(name, timed(explorer)) };
} });

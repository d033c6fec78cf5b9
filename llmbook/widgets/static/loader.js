// Mounts the explorers of a page: no kernel, no request to another host, no module script (so file:// works too).
// Each figure is <div class="llm-explorer" data-explorer="NAME"> with its state as JSON; its script is loaded when
// the figure comes near the screen, and gets a model with the part of anywidget's interface that explorers use.
(() => {
  "use strict";
  const folder = document.currentScript.src.replace(/[^/]*$/, ""); // none inside a page, which has everything in it
  const zh = document.documentElement.lang.startsWith("zh");
  const FAILED = zh ? "这幅图未能载入：" : "This figure could not be loaded: ";
  const entries = {}; // by the path of their scripts: what came, or is on its way

  /** An explorer's module, or a piece of a model; its script hands it over by define or piece. */
  function entry(path) {
    if (!entries[path]) {
      const made = (entries[path] = {});
      made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    }
    return entries[path];
  }

  function arrive(path, value) {
    entry(path).asked = true;
    entry(path).resolve(value);
  }

  function load(path) {
    const waiting = entry(path);
    if (!waiting.asked) {
      waiting.asked = true;
      const script = document.createElement("script");
      script.src = `${folder}${path}.js`;
      script.onerror = () => {
        delete entries[path]; // so that it can be tried again
        waiting.reject(new Error(script.src));
      };
      script.onload = () => { script.remove(); waiting.reject(new Error(script.src)); }; // too late once it has arrived
      document.head.append(script);
    }
    return waiting.promise;
  }

  window.llmExplorers = {
    define: (name, explorer) => arrive(name, explorer),
    piece: (name, number, total, base64) =>
      arrive(`models/${name}/${number}`, { total, bytes: Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)) }),
  };

  /**
   * get, set, on, off, save_changes and send as in a notebook. There is no kernel to save to; but what explorers ask a kernel
   * for, the pieces of a model, this answers in its place.
   */
  function createModel(state) {
    const listeners = {};
    const emit = (event, ...what) => [...(listeners[event] ?? [])].forEach((listener) => listener(...what));
    let changed = false;
    return {
      get: (name) => state[name],
      set: (name, value) => { state[name] = value; changed = true; emit(`change:${name}`); },
      on: (event, listener) => (listeners[event] ??= new Set()).add(listener),
      off: (event, listener) => listeners[event]?.delete(listener),
      save_changes: () => { if (changed) { changed = false; emit("change"); } },
      send: ({ model, piece }) => load(`models/${model}/${piece}`).then(
        ({ total, bytes }) => emit("msg:custom", { model, piece, total }, [new DataView(bytes.buffer)]),
        (error) => emit("msg:custom", { model, error: error.message }, [])),
    };
  }

  async function mount(el) {
    try {
      const state = JSON.parse(el.querySelector('script[type="application/json"]').textContent);
      const explorer = await load(el.dataset.explorer);
      explorer.render({ model: createModel(state), el });
      el.querySelector(".llm-fallback")?.remove();
    } catch (error) {
      const note = document.createElement("p");
      note.className = "llm-error";
      note.textContent = FAILED + error.message;
      el.append(note);
    }
  }

  function start() {
    const seen = new IntersectionObserver((found) => {
      for (const { target } of found.filter((e) => e.isIntersecting)) {
        seen.unobserve(target);
        mount(target);
      }
    }, { rootMargin: "600px" });
    document.querySelectorAll(".llm-explorer").forEach((el) => seen.observe(el));
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

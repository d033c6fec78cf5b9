// Mounts the explorers of a page: no kernel, no request to another host, no module script (so file:// works too).
// Each figure is <div class="llm-explorer" data-explorer="NAME"> with its state as JSON; its script is loaded when
// the figure comes near the screen, and gets a model with the part of anywidget's interface that explorers use.
(() => {
  "use strict";
  const folder = new URL("explorers/", document.currentScript.src).href;
  const zh = document.documentElement.lang.startsWith("zh");
  const FAILED = zh ? "这幅图未能载入：" : "This figure could not be loaded: ";
  const waiting = {};

  window.llmExplorers = { define: (name, explorer) => waiting[name].resolve(explorer) };

  function load(name) {
    if (!waiting[name]) {
      const entry = (waiting[name] = {});
      entry.promise = new Promise((resolve, reject) => {
        entry.resolve = resolve;
        const script = document.createElement("script");
        script.src = `${folder}${name}.js`;
        script.onload = script.onerror = () => reject(new Error(script.src)); // too late once it has called define
        document.head.append(script);
      });
    }
    return waiting[name].promise;
  }

  /** get, set, on, off, save_changes as in a notebook; there is no kernel to save to. */
  function createModel(state) {
    const listeners = {};
    const emit = (event) => [...(listeners[event] ?? [])].forEach((listener) => listener());
    let changed = false;
    return {
      get: (name) => state[name],
      set: (name, value) => { state[name] = value; changed = true; emit(`change:${name}`); },
      on: (event, listener) => (listeners[event] ??= new Set()).add(listener),
      off: (event, listener) => listeners[event]?.delete(listener),
      save_changes: () => { if (changed) { changed = false; emit("change"); } },
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
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        seen.unobserve(entry.target);
        mount(entry.target);
      }
    }, { rootMargin: "600px" });
    document.querySelectorAll(".llm-explorer").forEach((el) => seen.observe(el));
  }
  // from file:// the search page may not read other pages for its summaries: do not let it try
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

// What every explorer shares: elements, controls, numbers, language. Plain DOM, no dependency, no global state.
// An explorer module imports from here; Python puts this file in the place of the import (widgets/base.py).

/** "zh" or "en": the model's own language, else the page's. */
export function language(model) {
  const lang = model.get("lang") || document.documentElement.lang || "en";
  return lang.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** An HTML element; `class`, `aria-…` and the like are attributes, `on…` are listeners, children are nodes or text. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

/** A number for the eye: fixed digits, a true minus sign, never "-0.00"; a dash for what is no number. */
export function format(x, digits = 3) {
  if (Number.isNaN(x)) return "\u2013";
  if (Math.abs(x) >= 1e5) return x.toExponential(1).replace("-", "\u2212");
  const text = x.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}

export const vector = (xs, digits = 2) => `[${xs.map((x) => format(x, digits)).join(", ")}]`;

/** A number on display: `show(x)` sets its text and, in full precision, its value and tooltip. */
export function number(digits = 3, className = "") {
  const node = h("data", { class: `llm-number ${className}` });
  const show = (x) => {
    node.textContent = format(x, digits);
    node.value = String(x);
    node.title = String(x);
  };
  return { node, show };
}

/**
 * A labelled slider with a field beside it for an exact value. `get` reads the state, `set` writes it; what is typed
 * is clamped to `limits`, and what is no number is put back. A screen reader says the value to `digits` digits.
 */
export function slider({ label, min, max, step, limits = [min, max], digits = 2, get, set }) {
  const range = h("input", { type: "range", min, max, step, "aria-label": label });
  const field = h("input", { type: "number", step: "any", min: limits[0], max: limits[1], "aria-label": label });
  const put = (text) => {
    const x = Number(text);
    if (text.trim() !== "" && Number.isFinite(x)) set(Math.min(limits[1], Math.max(limits[0], x)));
  };
  const update = (everything) => {
    const x = get();
    range.value = x;
    range.setAttribute("aria-valuetext", format(x, digits));
    if (everything === true || field !== field.getRootNode().activeElement) field.value = Number(x.toFixed(4));
  };
  range.addEventListener("input", () => put(range.value));
  field.addEventListener("input", () => put(field.value));
  field.addEventListener("change", () => update(true));
  return { node: h("label", { class: "llm-slider" }, h("span", {}, label), range, field), update };
}

/** A labelled checkbox. */
export function toggle({ label, get, set }) {
  const box = h("input", { type: "checkbox" });
  box.addEventListener("change", () => set(box.checked));
  const update = () => { box.checked = get(); };
  return { node: h("label", { class: "llm-toggle" }, box, h("span", {}, label)), update };
}

export function button(label, onclick, attributes = {}) {
  return h("button", { type: "button", class: "llm-button", onclick, ...attributes }, label);
}

/** A labelled list to choose from: `options` are pairs of a value, a string, and what is shown for it. */
export function select({ label, options, get, set }) {
  const box = h("select", {}, ...options.map(([value, shown]) => h("option", { value }, shown)));
  box.addEventListener("change", () => set(box.value));
  const update = () => { box.value = get(); };
  return { node: h("label", { class: "llm-select" }, h("span", {}, label), box), update };
}

/**
 * Make rows of cells one tab stop: the arrow keys, Home and End move the focus from cell to cell, and `move` hears where
 * to (row, column, event); Enter and the space bar click. Returns a function that puts the tab stop at a cell, and moves
 * no focus.
 */
export function roving(node, rows, move = () => {}) {
  const where = new Map(rows.flatMap((row, i) => row.map((cell, j) => [cell, [i, j]])));
  let stop = rows[0][0];
  const put = (i, j) => {
    stop.tabIndex = -1;
    stop = rows[i][j];
    stop.tabIndex = 0;
  };
  const go = (event) => {
    const [i, j] = where.get(event.target) ?? [];
    const to = { ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1], Home: [i, 0],
      End: [i, rows[i]?.length - 1] }[event.key];
    const press = event.key === "Enter" || event.key === " ";
    if (i === undefined || !(to || press) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (press) event.target.dispatchEvent(new MouseEvent("click", { shiftKey: event.shiftKey }));
    const cell = to && rows[to[0]]?.[to[1]];
    if (!cell) return; // the edge
    put(...to);
    cell.focus();
    move(...to, event);
  };
  where.forEach((_, cell) => { cell.tabIndex = -1; });
  put(0, 0);
  node.addEventListener("keydown", go);
  return put;
}

/** Report where a pointer (mouse, pen or finger) presses and moves, as fractions of the drawing's width and height. */
export function draggable(svg, report) {
  const move = (event) => {
    const box = svg.getBoundingClientRect();
    report((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  svg.classList.add("llm-draggable");
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); move(event); });
  svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) move(event); });
}

/** Softmax over the entries where `mask` is true; all zeros where it is true nowhere. */
export function softmax(scores, mask) {
  const top = Math.max(...scores.filter((_, i) => mask[i]));
  const e = scores.map((x, i) => (mask[i] ? Math.exp(x - top) : 0));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => (sum > 0 ? x / sum : 0));
}

/** Read and write the traits `names` of a model as one object; a write is also sent to the kernel, if there is one. */
export function store(model, names) {
  const state = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const set = (changes) => {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  };
  return { state, set };
}

/**
 * Keep a figure in step with its model: `build(root)` makes the elements and returns a draw function; it is called
 * again when `shape()` changes, and draw on every change. Returns the cleanup function.
 */
export function figure({ model, el, className, label, shape, build }) {
  const root = h("div", { class: `llm ${className}`, role: "group", "aria-label": label });
  let draw, built;
  const update = () => {
    const now = shape();
    if (now === null) return; // half of a change has arrived: the other half is on its way
    if (now !== built) {
      root.replaceChildren();
      draw = build(root);
      built = now;
    }
    draw();
  };
  model.on("change", update);
  update();
  el.append(root);
  return () => {
    model.off("change", update);
    root.remove();
  };
}

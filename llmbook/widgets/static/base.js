// What every explorer shares: elements, controls, numbers, language. Plain DOM, no dependency, no global state.
// An explorer module imports from here (and its mathematics from forward.js); Python puts what it imports before it.

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
  if (Math.abs(x) === Infinity) return x > 0 ? "\u221e" : "\u2212\u221e";
  if (Math.abs(x) >= 1e5) return x.toExponential(1).replace("-", "\u2212");
  const text = x.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}

/** A number as a power of ten: 0.00123 is 1.2 × 10⁻³; without `digits` the power alone. */
export function scientific(x, digits) {
  if (x === 0 || !Number.isFinite(x)) return format(x, 0);
  const [factor, power] = x.toExponential(digits ?? 0).split("e");
  const raised = `10${String(Number(power)).replace(/./g, (c) => (c === "-" ? "\u207b" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]))}`;
  return digits === undefined ? raised : `${factor.replace("-", "\u2212")} × ${raised}`;
}

/** A number in [0, 1) that belongs to a seed and a place: like a draw, but always the same, here and in Python. */
export const uniform = (seed, place = 0) => mix(mix(seed + 0x9e3779b9) ^ Math.imul(place + 1, 0x9e3779b9)) / 2 ** 32;

/** MurmurHash3's finalizer (Appleby, 2011): a bijection of 32 bits; changing one changes about half of them. */
function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

export const vector = (xs, digits = 2) => `[${xs.map((x) => format(x, digits)).join(", ")}]`;

/** A number on display: `show(x)` sets its text, as `write` has it, and, in full precision, its value and tooltip. */
export function number(digits = 3, className = "", write = format) {
  const node = h("data", { class: `llm-number ${className}` });
  const show = (x) => {
    node.textContent = write(x, digits);
    node.value = String(x);
    node.title = String(x);
  };
  return { node, show };
}

/**
 * A labelled slider with a field beside it for an exact value. `get` reads the state, `set` writes it; what is typed
 * is clamped to `limits`, and what is no number is put back. A screen reader says the value to `digits` digits. `at`
 * places a value on the track, from `min` to `max`, and `from` reads it back: Math.log2 and (x) => 2 ** x, say.
 */
export function slider({ label, min, max, step, at = (x) => x, from = (x) => x, limits = [from(min), from(max)], digits = 2, get, set }) {
  const range = h("input", { type: "range", min, max, step, "aria-label": label });
  const field = h("input", { type: "number", step: "any", min: limits[0], max: limits[1], "aria-label": label });
  const put = (text) => {
    const x = Number(text);
    if (text.trim() !== "" && Number.isFinite(x)) set(Math.min(limits[1], Math.max(limits[0], x)));
  };
  const update = (everything) => {
    const x = get();
    range.value = at(x);
    range.setAttribute("aria-valuetext", format(x, digits));
    if (everything === true || field !== field.getRootNode().activeElement) field.value = Number(x.toFixed(4));
  };
  range.addEventListener("input", () => put(String(from(Number(range.value)))));
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

/** A labelled field for a text of at most `longest` characters. */
export function editor({ label, longest, rows = 2, get, set }) {
  const field = h("textarea", { rows, dir: "auto", spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-label": label });
  const update = (everything) => {
    if (everything === true || field !== field.getRootNode().activeElement) field.value = get();
  };
  field.addEventListener("input", (event) => {
    const kept = [...field.value].slice(0, longest).join("");
    if (kept !== field.value && !event.isComposing) field.value = kept;
    set(kept);
  });
  field.addEventListener("change", () => update(true));
  return { node: h("label", { class: "llm-editor" }, h("span", {}, label), field), update };
}

/** A labelled list to choose from: `options` are pairs of a value, a string, and what is shown for it. */
export function select({ label, options, get, set }) {
  const box = h("select", {}, ...options.map(([value, shown]) => h("option", { value }, shown)));
  box.addEventListener("change", () => set(box.value));
  const update = () => { box.value = get(); };
  return { node: h("label", { class: "llm-select" }, h("span", {}, label), box), update };
}

/** One of a few to press, side by side: `options` are pairs of a value and what is shown for it; `shown` names it to the eye. */
export function choice({ label, options, shown = false, get, set }) {
  const buttons = options.map(([value, text]) => button(text, () => set(value)));
  const update = () => buttons.forEach((node, i) => node.setAttribute("aria-pressed", get() === options[i][0]));
  const group = h("div", { class: "llm-switch", role: "group", "aria-label": label }, ...buttons);
  return { node: shown ? h("div", { class: "llm-choice" }, h("span", { "aria-hidden": "true" }, label), group) : group, update };
}

/** A grid for eye and screen reader: a head over each column, a head before each row; `cells` are rows of cells. */
export function grid(label, columns, heads, cells) {
  const top = h("div", { role: "row" }, h("span", { role: "columnheader" }), ...columns);
  const rows = cells.map((row, i) => h("div", { role: "row" }, heads[i], ...row));
  return { node: h("div", { role: "grid", "aria-label": label }, top, ...rows), rows };
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

/**
 * Draw axes into an SVG, in place of what it held: `x` and `y` are { range: [from, to], ticks: [[value, text], …] }, and the
 * first tick has the axis. Returns `at`, which maps data to SVG units, and `from`, a pointer's fractions to data.
 */
export function axes(svg, { x, y, size: [width, height] = [320, 190], margin: [top, right, bottom, left] = [14, 16, 26, 44] }) {
  const line = ([from, to], start, end) => ({ to: (z) => start + ((z - from) / (to - from)) * (end - start), back: (u) => from + ((u - start) / (end - start)) * (to - from) });
  const [across, up] = [line(x.range, left, width - right), line(y.range, height - bottom, top)];
  const mark = (i) => (i ? "llm-grid" : "llm-axis");
  setAttributes(svg, { viewBox: `0 0 ${width} ${height}` });
  svg.replaceChildren(...x.ticks.flatMap(([z, text], i) => [s("line", { x1: across.to(z), x2: across.to(z), y1: top, y2: height - bottom, class: mark(i) }),
    s("text", { x: across.to(z), y: height - bottom + 17, "text-anchor": "middle" }, text)]),
  ...y.ticks.flatMap(([z, text], i) => [s("line", { x1: left, x2: width - right, y1: up.to(z), y2: up.to(z), class: mark(i) }),
    s("text", { x: left - 7, y: up.to(z) + 4, "text-anchor": "end" }, text)]));
  return { at: ([a, b]) => [across.to(a), up.to(b)], from: (u, v) => [across.back(u * width), up.back(v * height)] };
}

/**
 * Curves over an axis, to look at and to drag in. `axis` is what `axes` takes; `curves` are [class, (state, x) => y], drawn
 * through the places `steps`; `marks(state)` are [class, x], each an upright line and a dot on every curve; `title` and
 * `alt` say what is drawn, and `pick` hears the data (x, y) under a pointer. Also gives `svg` and `at` to draw more.
 */
export function plot({ title, alt = title, axis, steps = [], curves = [], marks = () => [], pick }) {
  const svg = s("svg", { role: "img" }), caption = h("figcaption", {}), { at, from } = axes(svg, axis);
  const lines = curves.map(([name]) => svg.appendChild(s("polyline", { class: `llm-curve ${name}` })));
  const signs = svg.appendChild(s("g", {}));
  const points = (places) => places.map((place) => at(place).map((z) => z.toFixed(2))).join(" ");
  const upright = (name, x) => s("polyline", { class: `llm-drop ${name}`, points: points(axis.y.range.map((y) => [x, y])) });
  const dot = (name, [cx, cy]) => s("circle", { r: 4.5, cx, cy, class: name });
  draggable(svg, (u, v) => pick(...from(u, v)));
  const draw = (state) => {
    caption.textContent = title(state);
    svg.setAttribute("aria-label", alt(state));
    curves.forEach(([, f], j) => lines[j].setAttribute("points", points(steps.map((x) => [x, f(state, x)]))));
    signs.replaceChildren(...marks(state).flatMap(([name, x]) => [upright(name, x), ...curves.map(([curve, f]) => dot(`${name} ${curve}`, at([x, f(state, x)])))]));
  };
  return { node: h("figure", { class: "llm-plane" }, caption, svg), svg, at, draw };
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
 * The root of an explorer. A key pressed in it is for it alone: without the mark that Jupyter knows on what has the focus, it
 * would take the arrows from a slider, and D, D would delete the cell. Shortcuts with Control and the like go through.
 */
export function frame(className, label) {
  const mark = ({ target, ctrlKey, metaKey, altKey }) => target.toggleAttribute("data-lm-suppress-shortcuts", !(ctrlKey || metaKey || altKey));
  return h("div", { class: `llm ${className}`, role: "group", "aria-label": label, onfocusin: mark, onkeydown: mark, onkeyup: mark });
}

/**
 * Keep a figure in step with its model: `build(root)` makes the elements and returns a draw function; it is called
 * again when `shape()` changes, and draw on every change. Returns the cleanup function.
 */
export function figure({ model, el, className, label, shape, build }) {
  const root = frame(className, label);
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

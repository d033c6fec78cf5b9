// Matrices of any size in shades: blue is positive, orange negative, and the larger a number the deeper. A cell is no element
// of its own: there is a path for each shade, so that thousands of cells are drawn at once.
import { draggable, format, h, roving, s, setAttributes } from "./base.js";

const DEEPEST = 0.99; // the share of the numbers that are within the shades; larger ones have the deepest
const TALL = 100; // units of a drawing of bars

/** The number of the deepest shade of a matrix: not quite its largest, as a few are often many times as large as all others. */
export function largestShown(m) {
  const sizes = Float64Array.from(m.flatMap((row) => Array.from(row, Math.abs))).sort();
  return sizes[Math.floor(DEEPEST * (sizes.length - 1))] || sizes.at(-1) || 1;
}

/** A matrix in so many shades of each colour; it fills the box that it is given. */
export function shadedMatrix(shades) {
  const levels = Array.from({ length: 2 * shades + 1 }, (_, k) => k - shades);
  const paths = levels.map((k) => s("path", { class: k < 0 ? "llm-negative" : "llm-positive", "fill-opacity": Math.abs(k) / shades }));
  const node = s("svg", { class: "llm-shaded", preserveAspectRatio: "none", "aria-hidden": "true" }, ...paths.filter((_, i) => levels[i] !== 0));
  let drawn;
  const draw = (m, top = largestShown(m)) => {
    if (m === drawn) return;
    drawn = m;
    const cells = levels.map(() => []), level = (x) => Math.max(-shades, Math.min(shades, Math.round((shades * x) / top)));
    m.forEach((row, i) => {
      for (let j = 0; j < row.length;) { // neighbours of one shade are one cell
        const k = level(row[j]), from = j;
        while (j < row.length && level(row[j]) === k) j++;
        if (k) cells[k + shades].push(`M${from} ${i}h${j - from}v1h${from - j}z`);
      }
    });
    paths.forEach((path, i) => path.setAttribute("d", cells[i].join("")));
    node.setAttribute("viewBox", `0 0 ${m[0].length} ${m.length}`);
  };
  return { node, draw };
}

/** As few columns as `most`: of neighbours that share one, the number that is largest in size stands for all. */
export function pooled(m, most) {
  const n = m[0].length, bins = Math.min(n, Math.max(1, Math.round(most)));
  if (bins === n) return m;
  return m.map((row) => Array.from({ length: bins }, (_, b) => {
    let best = 0;
    for (let j = Math.floor((b * n) / bins); j < Math.floor(((b + 1) * n) / bins); j++) if (Math.abs(row[j]) > Math.abs(best)) best = row[j];
    return best;
  }));
}

/**
 * A matrix in large, a row a token. A click chooses a row and a column, and so do the names of the rows; the number under the
 * pointer is told above. `go` hears { token, component }. `draw` takes { m, labels, keys: names of columns if they have some,
 * bands: names of equal parts of the columns, width: of a part, name, token, component }. `below` stands under the columns.
 */
export function matrixMap({ text, go, below }) {
  const picture = shadedMatrix(10), rowMark = s("rect", { class: "llm-mark-row", height: 1, x: 0 }), cellMark = s("rect", { class: "llm-mark-cell", height: 1, width: 1 }), cuts = s("g", { class: "llm-cuts" });
  const readout = h("span", { class: "llm-readout", "aria-hidden": "true" }), title = h("span", {}), names = h("div", { class: "llm-names" }), top = h("div", { class: "llm-tops" });
  const box = h("div", { class: "llm-box", role: "img" }, picture.node);
  const node = h("figure", { class: "llm-matrix" }, h("figcaption", {}, title, readout), h("div", { class: "llm-spread" }, h("span", {}), top, names, box, h("span", {}), below));
  picture.node.append(cuts, rowMark, cellMark);
  let now, built, buttons = [], stop;
  const under = (event) => {
    const area = box.getBoundingClientRect(), { m } = now, at = (share, n) => Math.max(0, Math.min(n - 1, Math.floor(share * n)));
    return { token: at((event.clientY - area.top) / area.height, m.length), component: at((event.clientX - area.left) / area.width, m[0].length) };
  };
  const tell = (place) => {
    const column = place && (now.keys[place.component] ?? (now.bands.length ? `${now.bands[Math.floor(place.component / now.width)]}[${place.component % now.width}]` : place.component));
    readout.textContent = place ? `${now.labels[place.token]} \u2192 ${column}: ${format(now.m[place.token][place.component])}` : text.deepest(format(now.top));
  };
  box.addEventListener("click", (event) => go(under(event)));
  box.addEventListener("pointermove", (event) => tell(under(event)));
  box.addEventListener("pointerleave", () => tell());
  const rebuild = () => {
    const had = buttons.includes(names.getRootNode().activeElement);
    buttons = now.labels.map((label, i) => h("button", { type: "button", title: label, onclick: () => go({ token: i }) }, h("bdi", {}, label)));
    names.replaceChildren(...buttons);
    stop = roving(names, buttons.map((one) => [one]), (i) => go({ token: i }));
    node.style.setProperty("--rows", now.labels.length);
    if (had) buttons[now.token].focus({ preventScroll: true });
  };
  const draw = (what) => {
    const before = now;
    now = { ...what, top: largestShown(what.m) };
    if (built !== String(now.labels)) rebuild();
    built = String(now.labels);
    const columns = now.m[0].length, heads = now.keys.length ? now.keys : now.bands;
    picture.draw(now.m, now.top);
    title.textContent = now.name;
    box.setAttribute("aria-label", text.map(now.name));
    if (!before || before.m !== now.m) tell();
    top.className = `llm-tops${now.keys.length ? " llm-keys" : ""}`;
    top.replaceChildren(...heads.map((head, j) => h("span", { class: now.keys.length && j === now.component ? "llm-chosen" : "" }, h("bdi", {}, head))));
    cuts.replaceChildren(...now.bands.slice(1).map((_, b) => s("line", { x1: (b + 1) * now.width, x2: (b + 1) * now.width, y1: 0, y2: now.m.length })));
    setAttributes(rowMark, { y: now.token, width: columns });
    setAttributes(cellMark, { x: now.component, y: now.token });
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", i === now.token));
    stop(now.token, 0);
  };
  return { node, draw };
}

/** A row of numbers as bars, up and down from a line; `choose` hears the column under a pointer. */
export function barsOf(choose) {
  const [plus, minus] = ["positive", "negative"].map((name) => s("path", { class: `llm-${name}` })), zero = s("line", { class: "llm-axis", x1: 0 }), mark = s("rect", { class: "llm-mark-cell", y: 0, width: 1, height: TALL });
  const node = s("svg", { class: "llm-bars", role: "img", preserveAspectRatio: "none" }, plus, minus, zero, mark);
  let drawn, columns = 1;
  draggable(node, (u) => choose(Math.max(0, Math.min(columns - 1, Math.floor(u * columns)))));
  const draw = ({ row, component, label }) => {
    setAttributes(mark, { x: component });
    node.setAttribute("aria-label", label);
    if (row === drawn) return;
    drawn = row;
    columns = row.length;
    const low = Math.min(0, ...row), high = Math.max(0, ...row), y = (x) => (TALL * (high - x)) / (high - low || 1), path = (sign) => row.map((x, j) => (sign * x > 0 ? `M${j} ${y(0).toFixed(2)}V${y(x).toFixed(2)}h1V${y(0).toFixed(2)}z` : "")).join("");
    plus.setAttribute("d", path(1));
    minus.setAttribute("d", path(-1));
    setAttributes(zero, { x2: columns, y1: y(0), y2: y(0) });
    node.setAttribute("viewBox", `0 0 ${columns} ${TALL}`);
  };
  return { node, draw };
}

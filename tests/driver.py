"""What the tests of the explorers share: one explorer on a page beside the Python explorer that it ought to equal."""

import json
import re
from typing import ClassVar

import torch


def state(shown):
    """The state that an explorer's HTML holds."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', shown.to_html())[1])


def displayed(make):
    """What a notebook stores of an explorer, which is the same each time that it is made."""
    first, second = (make()._repr_mimebundle_()[0] for _ in range(2))
    for mime in ("text/plain", "text/html"):
        assert first[mime] == second[mime]
    return first


class Driver:
    """One explorer on a page, with the Python explorer, its ``twin``, that it ought to equal now."""

    LABELS: ClassVar[dict[str, dict[str, str]]]  #: for each edition the names of the controls

    def __init__(self, page, twin=None, index=0, edition="en"):
        self.page, self.twin, self.labels = page, twin or self.default(), self.LABELS[edition]
        host = page.locator(".llm-explorer").nth(index)
        host.scroll_into_view_if_needed()
        self.root = host.locator(".llm")
        self.root.wait_for()

    def default(self):
        """The twin unless one is given."""
        raise NotImplementedError

    def follow(self, changes):
        """Let the twin have what was changed on the page."""
        with self.twin.hold_trait_notifications():
            for name, value in changes.items():
                setattr(self.twin, name, value)

    def button(self, name):
        return self.root.get_by_role("button", name=self.labels[name], exact=True)

    def press(self, name):
        self.button(name).click(force=True)

    def input(self, name, kind="number"):
        return self.root.locator(f'input[type={kind}][aria-label="{self.labels[name]}"]')

    def numbers(self, selector):
        return self.root.locator(selector).evaluate_all("all => all.map((data) => Number(data.value))")


def use(root):
    """Move the first control of an explorer, by the keyboard; a busy page answers late, so wait until it has."""
    free = "button:not([aria-disabled=true], [aria-pressed=true])"
    control = root.locator(f"input[type=range], input[type=checkbox], select, {free}").first
    kind, last = control.evaluate("c => [c.type, c.value === c.max]")
    keys = {"range": "ArrowLeft" if last else "ArrowRight", "checkbox": "Space", "select-one": "ArrowDown"}
    heard = "() => ({ key: new Promise((hear) => addEventListener('keyup', hear, { capture: true, once: true })) })"
    answer = root.page.evaluate_handle(heard)
    control.press(keys.get(kind, "Enter"))
    answer.evaluate("async ({ key }) => { await key; }")
    root.page.wait_for_function("(root) => !root.ariaBusy", arg=root.element_handle())


def shades(paths, shape, size=1):
    """The numbers, a matrix of that shape, that the shades of a drawing stand for; its cells are `size` wide."""
    found = torch.zeros(shape, dtype=torch.float64)
    of = "all => all.map((path) => [path.getAttribute('d') ?? '', Number(path.getAttribute('fill-opacity'))])"
    for path, shade in paths.evaluate_all(of):
        for j, i in re.findall(rf"M(\d+) (\d+)h{size}v{size}h-{size}z", path):
            found[int(i) // size, int(j) // size] = shade
    return found


def drawn(root):
    """All that a figure shows, without the mark that the focus leaves on a control."""
    return root.inner_html().replace(' data-lm-suppress-shortcuts=""', "")


# Scripts that run on the page.

# the weights that the names of a map's cells tell
TOLD = "all => all.map((cell) => Number(cell.ariaLabel.split(': ').at(-1)))"

# bring each explorer on the screen, so that it is mounted, and load its model if it has one
MOUNT = """async () => {
  const until = async (there, host) => {
    for (const end = performance.now() + 60000; !there(); await new Promise(requestAnimationFrame)) {
      if (performance.now() > end) throw new Error(`${host.dataset.explorer} did not open: ${host.innerText}`);
    }
  };
  for (const host of document.querySelectorAll(".llm-explorer")) {
    host.scrollIntoView();
    await until(() => host.querySelector(".llm, .llm-error"), host);
    host.querySelector(".llm-gate button")?.click();
    await until(() => !host.querySelector(".llm-gate"), host);
  }
}"""

# of every text in an explorer, the contrast with what is behind it (WCAG 2.2, section 1.4.3, which leaves out disabled
# controls); its colour and its opacity count, and in a drawing its fill
CONTRAST = """(root) => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colours, opacity = 1) => { pen.clearRect(0, 0, 1, 1);
    colours.forEach((colour, i) => {
      pen.globalAlpha = i < colours.length - 1 ? 1 : opacity;
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1); });
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = (rgb) => rgb.map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const written = (e) => e.matches("textarea, select, input[type=number]")
    || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const own = (e) => e.checkVisibility() && e.matches(":not(option, title, [aria-disabled=true])") && written(e);
  return [...root.querySelectorAll("*")].filter(own).map((e) => {
    const styles = [];
    for (let p = e; p; p = p.parentElement) styles.unshift(getComputedStyle(p));
    const { color, fill } = styles.at(-1), grounds = styles.map((s) => s.backgroundColor);
    const opacity = styles.reduce((product, s) => product * s.opacity, 1), ink = e instanceof SVGElement ? fill : color;
    const [a, b] = [light(paint(grounds)), light(paint([...grounds, ink], opacity))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""

# mount an explorer, by name and state, on a model as a notebook has it; what it saves is kept in `stage`
RENDER = """async ([name, state]) => {
  const explorer = await new Promise((resolve) => {
    window.llmExplorers = { define: (_, module) => resolve(module) };
    document.head.append(Object.assign(document.createElement("script"), { src: `explorers/${name}.js` }));
  });
  const listeners = new Set(), saved = [], el = document.body.appendChild(document.createElement("div"));
  let unsent = {};
  const emit = () => [...listeners].forEach((listener) => listener());
  const model = { get: (name) => state[name] ?? null,
    on: (_, f) => listeners.add(f), off: (_, f) => listeners.delete(f),
    set: (name, value) => { state[name] = unsent[name] = value; },
    save_changes: () => { saved.push(unsent); unsent = {}; emit(); } };
  window.stage = { explorer, model, el, saved, listeners,
    kernel: (changes) => { Object.assign(state, changes); emit(); } };
}"""

# let a model of RENDER tell events apart, and ask a kernel, `ask`, for pieces
KERNEL = """() => {
  const custom = new Set(), { model, listeners } = stage;
  model.on = (event, f) => (event === "change" ? listeners : custom).add(f);
  model.off = (event, f) => (event === "change" ? listeners : custom).delete(f);
  model.send = async (content) => {
    const [message, text] = await ask(content);
    const buffers = text === null ? [] : [new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer)];
    [...custom].forEach((f) => f(message, buffers));
  };
  stage.custom = custom;
}"""

# mount it 50 times, click once, remove it: the listeners and elements that are left
LEFT = """(selector) => {
  const added = [], add = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (...args) {
    if (this === document || this === window || this === document.body) added.push(args[0]);
    return add.apply(this, args); };
  for (let i = 0; i < 50; i++) {
    const remove = stage.explorer.render(stage);
    stage.el.querySelector(selector).click();
    remove(); }
  EventTarget.prototype.addEventListener = add;
  return [stage.listeners.size, stage.el.childNodes.length, added.length];
}"""

"""What holds for every explorer: a box and a link take it, anyone can read and use it, and it leaves nothing behind."""

from itertools import cycle, islice

import pytest
import traitlets as t
from axe_playwright_python.base import AXE_SCRIPT
from driver import CONTRAST, MOUNT, RENDER, displayed, drawn, state, use
from examples import example
from ipywidgets import FloatSlider, HBox, link

from llmbook.widgets import EXPLORERS

every = pytest.mark.parametrize("name", EXPLORERS)


def gallery():
    """Every explorer from two sides."""
    examples = [example(name) for name in EXPLORERS]
    return [explorer for e in examples for explorer in (e.make(), e.make(**e.other))]


def kind(explorer):
    return type(explorer).__name__


# --- in Python


@every
def test_it_is_displayed_the_same_every_time(name):
    display = displayed(example(name).make)
    assert display["text/plain"].startswith(f"{name}(") and " at 0x" not in display["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in display


@every
def test_a_change_is_heard(name):
    explorer, change, heard = example(name).make(), example(name).change, []
    explorer.observe(lambda change: heard.append((change["name"], change["new"])), list(explorer.state))
    for trait, value in change.items():
        assert getattr(explorer, trait) != value
        setattr(explorer, trait, value)
    assert set(change.items()) <= set(heard)


@every
def test_every_trait_refuses_what_it_cannot_be_and_says_which_it_is(name):
    explorer = example(name).make()
    before = explorer.to_html()
    for trait in (*explorer.state, "lang"):
        with pytest.raises(t.TraitError, match=rf"\b{trait}\b"):
            setattr(explorer, trait, object())
    assert explorer.to_html() == before


@every
def test_it_stands_in_a_box_and_its_numbers_are_linked_to_sliders(name):
    explorer = example(name).make()
    assert HBox([explorer, FloatSlider()]).children[0] is explorer
    for trait in (trait for trait in explorer.state if type(explorer.traits()[trait]) is t.Float):
        old = getattr(explorer, trait)
        new = next(x for x in (0.9 * old, 1.1 * old) if fits(explorer, trait, x))
        slider = FloatSlider(min=0, max=2 * old, value=old)
        link((slider, "value"), (explorer, trait))
        slider.value = new
        assert getattr(explorer, trait) == new
        setattr(explorer, trait, old)
        assert slider.value == old


def fits(explorer, trait, value):
    """Whether the trait takes the value; it holds its old one afterwards."""
    old = getattr(explorer, trait)
    try:
        setattr(explorer, trait, value)
    except t.TraitError:
        return False
    setattr(explorer, trait, old)
    return True


# --- in a browser: all on one page

# what axe finds: of each explorer the rules it breaks and where; contrast takes it longer than all else together
AXE = """async (contrast) => {
  const rules = { "target-size": { enabled: true }, "color-contrast": { enabled: contrast } };
  const options = { preload: false, resultTypes: ["violations"], rules };
  const { violations } = await axe.run(".llm", options);
  const name = (selector) => document.querySelector(selector).closest(".llm-explorer").dataset.explorer;
  return violations.filter(({ impact }) => ["serious", "critical"].includes(impact)).flatMap(({ id, nodes }) =>
    nodes.map(({ target, html, failureSummary }) => [name(target[0]), id, html.slice(0, 120), failureSummary]));
}"""

# the size of every text in pixels on the screen, and of what it is the text
SIZES = """(root) => [...root.querySelectorAll(":not(title, option)")]
  .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .map((e) => {
    const { a, b } = e instanceof SVGElement ? e.getScreenCTM() : { a: 1, b: 0 };
    return [parseFloat(getComputedStyle(e).fontSize) * Math.hypot(a, b), e.textContent];
  })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_it_can_be_read_by_all_on_large_screens_and_small(visit, stage, edition, scheme):
    explorers = gallery()
    with visit(stage(*explorers, lang=edition, scheme=scheme), scheme=scheme) as page:
        page.evaluate(MOUNT)
        page.evaluate(AXE_SCRIPT)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(AXE, width == 1280) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for explorer, root in zip(explorers, page.locator(".llm-explorer").all(), strict=True):
                assert root.locator("[id]").count() == 0, kind(explorer)
                assert min(root.evaluate(CONTRAST)) >= 4.5, (kind(explorer), width)
                assert min(root.evaluate(SIZES)) >= [11], (kind(explorer), width)


# which explorers show something else than the last time
CHANGED = """() => {
  const drawn = (root) => root.innerHTML.replaceAll(' data-lm-suppress-shortcuts=""', "");
  const before = window.before ?? [], after = [...document.querySelectorAll(".llm")].map(drawn);
  window.before = after;
  return [...after.keys()].filter((i) => after[i] !== before[i]);
}"""


def test_twenty_on_a_page_answer_each_for_itself(visit, stage):
    explorers = list(islice(cycle(gallery()), max(20, len(gallery()))))
    with visit(stage(*explorers)) as page:
        page.evaluate(MOUNT)
        assert page.locator(".llm").count() == len(explorers)
        page.evaluate(CHANGED)
        for i in reversed(range(len(explorers))):
            use(page.locator(".llm").nth(i))
            assert page.evaluate(CHANGED) == [i], kind(explorers[i])


# --- in a browser: each alone

# mount it, change it and remove it, again and again; how many listeners are left outside it
CYCLE = """async (times) => {
  const { addEventListener: add, removeEventListener: remove } = EventTarget.prototype;
  let left = 0;
  const count = (method, step) => function (...args) {
    if ([window, document, document.documentElement, document.body].includes(this)) left += step;
    return method.apply(this, args);
  };
  Object.assign(EventTarget.prototype, { addEventListener: count(add, 1), removeEventListener: count(remove, -1) });
  for (let i = 0; i < times; i++) {
    const unmount = stage.explorer.render(stage);
    stage.kernel({});
    unmount();
  }
  Object.assign(EventTarget.prototype, { addEventListener: add, removeEventListener: remove });
  await new Promise(requestAnimationFrame);
  return [left, stage.listeners.size, stage.el.childNodes.length];
}"""


@every
def test_two_hundred_cycles_leave_nothing_behind(visit, stage, name):
    explorer = example(name).make()
    with visit(stage()) as page:
        page.evaluate(RENDER, [explorer.files, state(explorer)])
        devtools = page.context.new_cdp_session(page)
        held = []
        for cycles in (50, 150):
            assert page.evaluate(CYCLE, cycles) == [0, 0, 0]
            devtools.send("HeapProfiler.collectGarbage")
            nodes = devtools.send("Memory.getDOMCounters")
            held.append([devtools.send("Runtime.getHeapUsage")["usedSize"], nodes["nodes"], nodes["jsEventListeners"]])
        more = [after - before for before, after in zip(*held, strict=True)]
        assert more[0] < 400_000 and max(more[1:]) <= 0  # a figure that stayed would be 10 kB and more a cycle


# the visible controls, and at which of them the focus is
CONTROLS = """(root) => window.controls =
  [...root.querySelectorAll("input, button, select, textarea, summary, a[href], [tabindex]")]
    .filter((c) => c.checkVisibility() && !c.disabled)"""
FOCUS = """() => [controls.indexOf(document.activeElement),
  document.activeElement !== document.body && getComputedStyle(document.activeElement).outlineStyle]"""

# the controls that the arrow keys do not reach either
UNREACHED = """() => {
  const reached = new Set(), open = controls.filter((c) => c.tabIndex === 0);
  while (open.length) {
    const from = open.pop();
    if (reached.has(from)) continue;
    reached.add(from);
    for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"]) {
      from.focus();
      from.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      open.push(document.activeElement);
    }
  }
  return controls.filter((c) => !reached.has(c)).map((c) => c.outerHTML);
}"""


@every
def test_the_keyboard_reaches_every_control_in_order(visit, stage, name):
    with visit(stage(example(name).make(**example(name).other))) as page:
        page.evaluate(MOUNT)
        page.locator(".llm").evaluate(CONTROLS)
        marked = "document.activeElement.hasAttribute('data-lm-suppress-shortcuts')"
        page.evaluate("controls.find((c) => c.tabIndex === 0).focus()")
        assert page.evaluate(marked)  # else Jupyter would take arrows, and letters as commands
        page.keyboard.down("Control")
        assert not page.evaluate(marked)
        page.keyboard.up("Control")
        assert page.evaluate(marked)
        page.evaluate("() => { document.body.tabIndex = -1; document.body.focus(); }")
        stops = page.evaluate("controls.flatMap((c, i) => (c.tabIndex === 0 ? [i] : []))")
        reached = []
        for _ in stops:
            page.keyboard.press("Tab")
            at, outline = page.evaluate(FOCUS)
            assert outline not in (False, "none")
            reached.append(at)
        assert reached == stops
        page.keyboard.press("Tab")
        assert page.evaluate(FOCUS)[0] == -1  # and out again
        assert page.evaluate(UNREACHED) == []


@every
def test_a_finger_moves_it(visit, stage, name):
    with visit(stage(example(name).make()), touch=True, width=390) as page:
        page.evaluate(MOUNT)
        for selector in ("input[type=range]", "input[type=checkbox]", "button"):
            controls = [c for c in page.locator(f".llm {selector}").all() if c.is_visible()]
            assert not controls or any(taps(page, control) for control in controls), selector


def taps(page, control):
    """Whether a tap on a control, left of its middle or right of it, changes the figure."""
    for place in (0.2, 0.8):
        control.scroll_into_view_if_needed()
        before, box = drawn(page.locator(".llm")), control.bounding_box()
        page.touchscreen.tap(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(50)  # a model answers a little later
        if drawn(page.locator(".llm")) != before:
            return True
    return False

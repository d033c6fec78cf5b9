"""The explorers in a real browser, on the built site: driven by mouse, keyboard and touch, and compared with torch."""

import json
import math
import re

import nbformat
import pytest
import torch
from conftest import ROOT

from llmbook.attention import attention

CHAPTER = "notebooks/04_1_attention"
LABELS = {
    "en": {"q1": "query q₁", "q2": "query q₂", "tau": "temperature τ", "scaled": "divide by √d_k", "reset": "Reset"},
    "zh": {"q1": "查询 q₁", "q2": "查询 q₂", "tau": "温度 τ", "scaled": "除以 √d_k", "reset": "复位"},
}


def stored_states():
    """The state of each explorer of the chapter, as its notebook stores it."""
    notebook = nbformat.read(ROOT / f"{CHAPTER}.ipynb", as_version=4)
    html = "".join(
        o.data["text/html"] for c in notebook.cells for o in c.get("outputs", []) if "text/html" in o.get("data", {})
    )
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html)]


class Driver:
    """One explorer on a page, with the state that it ought to have now."""

    def __init__(self, page, index=0, edition="en"):
        self.page, self.labels = page, LABELS[edition]
        self.state = stored_states()[index]
        host = page.locator(".llm-explorer").nth(index)
        host.scroll_into_view_if_needed()
        self.root = host.locator(".llm")
        self.root.wait_for()

    def slider(self, name):
        return self.root.locator(f'input[type=range][aria-label="{self.labels[name]}"]')

    def field(self, name):
        return self.root.locator(f'input[type=number][aria-label="{self.labels[name]}"]')

    def read_sliders(self):
        """Take over what the sliders say."""
        self.state["q"] = [float(self.slider(name).input_value()) for name in ("q1", "q2")]
        self.state["temperature"] = float(self.slider("tau").input_value())

    def numbers(self, kind):
        return self.root.locator(f".llm-{kind}").evaluate_all("all => all.map((data) => Number(data.value))")

    def agrees_with_torch(self):
        """Weights and output on the page are torch's for the same state, to 1e-6; and the bars are as long."""
        s = self.state
        q, k, v = (torch.tensor(s[name], dtype=torch.float64) for name in ("q", "K", "V"))
        scale = (len(q) ** -0.5 if s["scaled"] else 1.0) / s["temperature"]
        output, weights = attention(q[None], k, v, torch.tensor(s["mask"]), scale=scale)
        assert torch.allclose(torch.tensor(self.numbers("weight")).double(), weights[0], atol=1e-6, rtol=0)
        assert torch.allclose(torch.tensor(self.numbers("output")).double(), output[0], atol=1e-6, rtol=1e-6)
        shown = [float(text) for text in self.root.locator(".llm-weight").all_inner_texts()]
        assert shown == [round(w, 3) for w in weights[0].tolist()]
        bars = self.root.locator(".llm-bar").evaluate_all("bars => bars.map((bar) => parseFloat(bar.style.width))")
        assert bars == pytest.approx((100 * weights[0]).tolist(), abs=0.01)


@pytest.mark.parametrize("edition", ["en", "zh"])
def test_every_explorer_of_the_chapter_opens_right(visit, address, edition):
    with visit(f"{address}/{edition}/{CHAPTER}.html") as page:
        assert page.locator(".llm-explorer").count() == len(stored_states()) >= 4
        for index in range(len(stored_states())):
            Driver(page, index, edition).agrees_with_torch()
        assert page.locator(".llm-fallback").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_keyboard_and_mouse_move_the_weights(visit, address, edition, width, scheme):
    with visit(f"{address}/{edition}/{CHAPTER}.html", width=width, scheme=scheme) as page:
        driver = Driver(page, 0, edition)
        driver.slider("q1").focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        driver.read_sliders()
        assert driver.state["q"] == pytest.approx([0.35, 0.2])
        driver.agrees_with_torch()

        box = driver.slider("tau").bounding_box()
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        driver.read_sliders()
        assert 0.1 < driver.state["temperature"] < 0.8
        driver.agrees_with_torch()

        driver.root.get_by_label(driver.labels["scaled"]).uncheck()
        driver.state["scaled"] = False
        driver.agrees_with_torch()

        driver.root.locator("tbody input[type=checkbox]").first.focus()
        page.keyboard.press("Space")
        driver.state["mask"] = [False, True]
        driver.agrees_with_torch()
        assert driver.numbers("weight") == [0, 1]


@pytest.mark.parametrize("touch", [False, True])
def test_the_query_is_dragged_in_its_plane(visit, http, touch):
    with visit(f"{http}/en/{CHAPTER}.html", touch=touch) as page:
        driver = Driver(page)
        plane = driver.root.locator(".llm-draggable")
        plane.scroll_into_view_if_needed()
        box = plane.bounding_box()
        x, y = box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"]
        if touch:
            page.touchscreen.tap(x, y)
        else:
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            page.mouse.move(x, y, steps=5)
            page.mouse.up()
            page.mouse.move(box["x"] + 5, box["y"] + 5)  # with no button down nothing moves
        driver.read_sliders()
        assert driver.state["q"][0] < -0.2 and driver.state["q"][1] < -0.2
        driver.agrees_with_torch()
        assert driver.numbers("weight")[0] > 0.5  # the first key wins, as the chapter says it must


def test_the_output_stays_among_the_values(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        driver = Driver(page)
        for q1, q2, tau in (("-300", "200", "0.01"), ("10000", "10000", "0.01"), ("0", "0", "5")):
            for name, text in (("q1", q1), ("q2", q2), ("tau", tau)):
                driver.field(name).fill(text)
            driver.state |= {"q": [float(q1), float(q2)], "temperature": float(tau)}
            driver.agrees_with_torch()
            x, y = driver.numbers("output")
            assert 1.0 <= x <= 2.0 and math.isclose(y - x, 0.1, abs_tol=1e-9)


@pytest.mark.parametrize("text", ["", "-", "e", "1e999", "-1e999", "--1", "NaN", "１２", "<b>", "1,5"])
def test_nothing_typed_breaks_it(visit, http, text):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        driver = Driver(page)
        field = driver.field("q1")
        field.click()
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.type(text)
        page.keyboard.press("Tab")
        q1 = float(field.input_value())  # what was no number is put back, or only its sensible part was taken
        driver.state["q"] = [q1, 0.2]
        assert abs(q1) <= 1e4
        driver.agrees_with_torch()


def test_what_is_typed_too_large_is_clamped(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        driver = Driver(page)
        driver.field("q1").fill("123456789")
        driver.field("tau").fill("0")
        driver.field("q1").focus()
        driver.state |= {"q": [1e4, 0.2], "temperature": 0.01}
        driver.agrees_with_torch()
        assert driver.field("tau").input_value() == "0.01"


def test_all_keys_masked_gives_zeros(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        driver = Driver(page)
        for box in driver.root.locator("tbody input[type=checkbox]").all():
            box.uncheck()
        driver.state["mask"] = [False, False]
        driver.agrees_with_torch()
        assert driver.numbers("output") == [0, 0]


def test_two_explorers_on_a_page_do_not_disturb_each_other(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        first, second = Driver(page, 0), Driver(page, 1)
        first.field("q1").fill("-2")
        first.state["q"][0] = -2.0
        second.agrees_with_torch()
        second.field("tau").fill("0.5")
        second.state["temperature"] = 0.5
        first.agrees_with_torch()
        second.agrees_with_torch()


def test_reset_brings_back_the_beginning(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        driver = Driver(page, 1)
        driver.field("q1").fill("-2")
        driver.root.get_by_label(driver.labels["scaled"]).uncheck()
        driver.root.locator("tbody input[type=checkbox]").first.uncheck()
        driver.root.get_by_role("button", name=driver.labels["reset"]).click()
        driver.agrees_with_torch()


def test_a_long_query_is_folded_and_still_moves(visit, http):
    with visit(f"{http}/en/{CHAPTER}.html") as page:
        index = next(i for i, state in enumerate(stored_states()) if len(state["q"]) > 4)
        driver = Driver(page, index)
        assert not driver.slider("q1").is_visible()
        driver.root.locator("summary").click()
        driver.field("q2").fill("-1.5")
        driver.state["q"][1] = -1.5
        driver.agrees_with_torch()


def test_every_control_has_a_name_and_can_be_reached(visit, http):
    with visit(f"{http}/zh/{CHAPTER}.html") as page:
        root = Driver(page, 1, "zh").root
        for control in root.locator("input, button").all():
            name = control.evaluate(
                "c => c.ariaLabel || [...(c.labels ?? [])].map((l) => l.textContent).join('') || c.textContent"
            )
            assert name.strip()
        for svg in root.locator("svg").all():
            assert svg.get_attribute("role") == "img" and svg.get_attribute("aria-label")
        assert root.locator("[id]").count() == 0


def test_an_explorer_leaves_nothing_behind(visit, http):
    with visit(f"{http}/en/book/index.html") as page:
        page.wait_for_selector(".llm")
        left = page.evaluate(
            """async () => {
                 const explorer = await new Promise((resolve) => {
                   const script = document.querySelector('script[src*="explorers/attention.js"]').cloneNode();
                   window.llmExplorers = { define: (_, module) => resolve(module) };
                   document.head.append(Object.assign(document.createElement("script"), { src: script.src }));
                 });
                 const state = { tokens: ["a"], q: [1, 2], K: [[1, 3]], V: [[1, 4]], mask: [true],
                   temperature: 1, scaled: true };
                 const listeners = new Set(), el = document.createElement("div");
                 const model = { get: (name) => state[name], set() {}, save_changes() {},
                   on: (event, f) => listeners.add(f), off: (event, f) => listeners.delete(f) };
                 for (let i = 0; i < 200; i++) explorer.render({ model, el })();
                 return [listeners.size, el.childNodes.length];
               }"""
        )
        assert left == [0, 0]


@pytest.mark.parametrize("answer", [{"status": 404}, {"content_type": "text/javascript", "body": "}"}])
def test_a_module_that_does_not_load_says_so_and_leaves_the_table(chromium, http, answer):
    page = chromium.new_page()
    page.route("**/explorers/*.js", lambda route: route.fulfill(**answer))
    page.goto(f"{http}/zh/book/index.html")
    assert "这幅图未能载入" in page.locator(".llm-error").inner_text(timeout=5000)
    assert page.locator(".llm-fallback").is_visible()
    page.context.close()

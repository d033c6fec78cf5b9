"""The explorers in a real browser, on the built site: driven by mouse, keyboard and touch, and compared with torch."""

import json
import math
import random
import re

import nbformat
import pytest
import torch
from conftest import ROOT

from llmbook.attention import attention
from llmbook.widgets import BPEExplorer

CHAPTER = "notebooks/04_1_attention"
LABELS = {
    "en": {"q1": "query q₁", "q2": "query q₂", "tau": "temperature τ", "scaled": "divide by √d_k", "reset": "Reset"},
    "zh": {"q1": "查询 q₁", "q2": "查询 q₂", "tau": "温度 τ", "scaled": "除以 √d_k", "reset": "复位"},
}


def stored_states():
    """The state of each attention explorer of the chapter, as its notebook stores it."""
    notebook = nbformat.read(ROOT / f"{CHAPTER}.ipynb", as_version=4)
    html = "".join(
        o.data["text/html"] for c in notebook.cells for o in c.get("outputs", []) if "text/html" in o.get("data", {})
    )
    mounted = re.findall(r'data-explorer="attention"><script type="application/json">(.*?)</script>', html)
    return [json.loads(text) for text in mounted]


ATTENTION = '.llm-explorer[data-explorer="attention"]'


class Driver:
    """One explorer on a page, with the state that it ought to have now."""

    def __init__(self, page, index=0, edition="en"):
        self.page, self.labels = page, LABELS[edition]
        self.state = stored_states()[index]
        host = page.locator(ATTENTION).nth(index)
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
        assert page.locator(ATTENTION).count() == len(stored_states()) >= 4
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


@pytest.mark.parametrize("answer", [{"status": 404}, {"content_type": "text/javascript", "body": "}"}])
def test_a_module_that_does_not_load_says_so_and_leaves_the_table(chromium, http, answer):
    page = chromium.new_page()
    page.route("**/explorers/attention.js", lambda route: route.fulfill(**answer))
    page.goto(f"{http}/zh/book/index.html")
    assert "这幅图未能载入" in page.locator(".llm-error").inner_text(timeout=5000)
    assert page.locator(".llm-fallback").is_visible()
    page.context.close()


# --- byte-pair encoding, on a page of its own: the site's loader, module and styles, and the theme's colours

BPE_LABELS = {
    "en": {"merges": "merges", "less": "One merge fewer", "more": "One merge more", "text": "text", "reset": "Reset"},
    "zh": {"merges": "合并次数", "less": "少合并一次", "more": "多合并一次", "text": "文本", "reset": "复位"},
}


class BPEDriver:
    """One explorer on a page, with the Python explorer that it ought to equal now."""

    def __init__(self, page, explorer=None, index=0, edition="en"):
        self.page, self.labels = page, BPE_LABELS[edition]
        self.twin = explorer or BPEExplorer()
        host = page.locator(".llm-explorer").nth(index)
        host.scroll_into_view_if_needed()
        self.root = host.locator(".llm")
        self.root.wait_for()
        self.slider = self.root.locator(f'input[type=range][aria-label="{self.labels["merges"]}"]')
        self.field = self.root.locator(f'input[type=number][aria-label="{self.labels["merges"]}"]')
        self.editor = self.root.get_by_role("textbox", name=self.labels["text"], exact=True)

    def press(self, name):
        button = self.root.get_by_role("button", name=self.labels[name], exact=True)
        button.click(force=True)  # at either end too, where it does nothing

    def chips(self, which=""):
        return self.root.locator(f".llm-words:not(.llm-room) .llm-chip{which}")

    def agrees_with_python(self, **changes):
        """After ``changes`` the page has the tokens, the counts and the last merge of the Python explorer."""
        for name, value in changes.items():
            setattr(self.twin, name, value)
        tokens, step = self.twin.tokens, self.twin.step
        words = self.root.locator(".llm-words:not(.llm-room) .llm-word")
        assert words.evaluate_all("w => w.map((x) => [...x.children].map((chip) => chip.value))") == tokens
        assert words.evaluate_all("w => w.map((x) => x.ariaLabel)") == self.twin.text.split()
        assert self.root.locator(".llm-tokens").evaluate("n => Number(n.value)") == sum(map(len, tokens))
        if tokens:
            each = sum(map(len, self.twin.text.split())) / sum(map(len, tokens))
            assert self.root.locator(".llm-each").evaluate("n => Number(n.value)") == pytest.approx(each)
        assert self.slider.input_value() == str(step)
        made, rule = self.chips(".llm-made"), self.root.locator(".llm-rule")
        if step:
            before = BPEExplorer(self.twin.merges, self.twin.text, step - 1).tokens
            changed = sum(map(len, before)) - sum(map(len, tokens))
            pair = self.twin.merges[step - 1]
            assert made.evaluate_all("all => all.map((chip) => chip.value)") == ["".join(pair)] * changed
            assert rule.locator("bdi").all_inner_texts() == [*pair, "".join(pair)]
            assert re.findall(r"\d+", rule.inner_text()) == [str(step), str(changed)]
        else:
            assert made.count() == 0 == rule.locator("bdi").count()
        at = self.root.locator(".llm-now").evaluate("c => [c.cx.baseVal.value, c.cy.baseVal.value]")
        point = self.root.locator(".llm-curve").evaluate(f"c => [c.points[{step}].x, c.points[{step}].y]")
        assert at == pytest.approx(point, abs=0.1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_bpe_keyboard_mouse_and_buttons_move_the_merges(visit, stage, edition, width, scheme):
    url = stage(BPEExplorer(), lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = BPEDriver(page, edition=edition)
        driver.agrees_with_python()
        assert page.locator(".llm-fallback").count() == 0
        driver.slider.focus()
        for step in (1, 2, 3):
            page.keyboard.press("ArrowRight")
            driver.agrees_with_python(step=step)
        driver.press("less")
        driver.agrees_with_python(step=2)
        page.keyboard.press("Tab")  # from one button to the other
        page.keyboard.press("Space")
        driver.agrees_with_python(step=3)
        driver.slider.focus()
        page.keyboard.press("End")
        driver.agrees_with_python(step=10)
        assert driver.root.get_by_label(driver.labels["more"], exact=True).get_attribute("aria-disabled") == "true"
        driver.press("more")
        driver.agrees_with_python()
        box = driver.slider.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        driver.agrees_with_python(step=5)
        driver.field.fill("7")
        driver.agrees_with_python(step=7)
        driver.field.fill("99")
        driver.agrees_with_python(step=10)
        driver.field.fill("3.4")
        driver.slider.focus()
        driver.agrees_with_python(step=3)
        assert driver.field.input_value() == "3"
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_bpe_every_step_of_the_default_is_python_s(visit, stage):
    with visit(stage(BPEExplorer())) as page:
        driver = BPEDriver(page)
        height = driver.root.bounding_box()["height"]
        for step in range(1, 11):
            driver.press("more")
            driver.agrees_with_python(step=step)
            assert driver.root.bounding_box()["height"] == height  # nothing below the words jumps


BLANK = [chr(i) for i in range(0x110000) if chr(i).isspace()]
LETTERS = list("aabbc<&字节e\u0301\ufe0f\u200d\U0001f468שل\ufeff\u180e")


def anything(g):
    """An explorer of random merges and a random text: often blanks of every kind, marks, letters of two directions."""
    letters = g.sample(LETTERS, 4)
    text = "".join(g.choice([*letters, *letters, g.choice(BLANK)]) for _ in range(g.randrange(60)))
    symbols, merges = list(letters), []
    for _ in range(g.randrange(1, 15)):
        merges.append((g.choice(symbols), g.choice(symbols)))
        symbols.append("".join(merges[-1]))
    return BPEExplorer(merges, text, g.randrange(len(merges) + 1))


def test_bpe_tokens_are_python_s_whatever_the_words_and_merges(visit, stage):
    g = random.Random(0)
    explorers = [*(anything(g) for _ in range(500)), BPEExplorer(text="x".join(BLANK))]
    with visit(stage()) as page:
        shown = page.evaluate(
            """async (states) => {
                 const explorer = await new Promise((resolve) => {
                   window.llmExplorers = { define: (_, module) => resolve(module) };
                   document.head.append(Object.assign(document.createElement("script"), { src: "explorers/bpe.js" }));
                 });
                 return states.map((state) => {
                   const model = { get: (name) => state[name], on() {}, off() {} }, el = document.createElement("div");
                   const remove = explorer.render({ model, el });
                   const words = [...el.querySelectorAll(".llm-words:not(.llm-room) .llm-word")];
                   const tokens = words.map((word) => [...word.children].map((chip) => chip.value));
                   const made = el.querySelectorAll(".llm-words .llm-made").length;
                   remove();
                   return [tokens, made, el.childNodes.length];
                 });
               }""",
            [{"merges": e.merges, "text": e.text, "step": e.step} for e in explorers],
        )
    for explorer, (tokens, made, left) in zip(explorers, shown, strict=True):
        assert tokens == explorer.tokens and left == 0, explorer.to_html()
        now = sum(map(len, tokens))
        explorer.step = max(explorer.step - 1, 0)
        assert made == sum(map(len, explorer.tokens)) - now
    assert sum(made for _, made, _ in shown) > 200


def test_bpe_text_is_edited(visit, stage):
    with visit(stage(BPEExplorer(step=4))) as page:
        driver = BPEDriver(page, BPEExplorer(step=4))
        for text in ("slow lowest", "", "  lost\n\tsnow ", "字节 e\u0301 <b>low</b>", "שלום low"):
            driver.editor.fill(text)
            driver.agrees_with_python(text=text)
        driver.editor.fill("low👍" * 60)  # 240 characters: the first 200 are kept
        driver.agrees_with_python(text="low👍" * 50)
        assert driver.editor.input_value() == "low👍" * 50
        driver.editor.fill("")
        driver.editor.press_sequentially("new est")
        driver.agrees_with_python(text="new est")
        driver.field.fill("6")
        driver.agrees_with_python(step=6)
        assert driver.editor.input_value() == "new est"
        driver.press("reset")
        driver.agrees_with_python(text="low lower newest widest", step=4)
        assert driver.editor.input_value() == "low lower newest widest"


@pytest.mark.parametrize("touch", [False, True])
def test_bpe_curve_is_dragged(visit, stage, touch):
    with visit(stage(BPEExplorer()), touch=touch) as page:
        driver = BPEDriver(page)
        plot = driver.root.locator(".llm-draggable")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        x, y = box["x"] + (34 + 0.8 * 274) / 320 * box["width"], box["y"] + box["height"] / 2
        if touch:
            page.touchscreen.tap(x, y)
        else:
            page.mouse.move(box["x"] + 40, y)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] + 50, y, steps=3)
            driver.agrees_with_python(step=10)
            page.mouse.move(x, y, steps=3)
            page.mouse.up()
            page.mouse.move(box["x"] + 40, y)  # with no button down nothing moves
        driver.agrees_with_python(step=8)


def test_bpe_runs_from_right_to_left_where_the_text_does(visit, stage):
    explorer = BPEExplorer([("ש", "ל")], "שלום abc", 1)
    with visit(stage(explorer)) as page:
        driver = BPEDriver(page, explorer)
        driver.agrees_with_python()
        x = driver.chips().evaluate_all("all => all.map((chip) => chip.getBoundingClientRect().x)")
        hebrew, latin = x[:3], x[3:]
        assert hebrew == sorted(hebrew, reverse=True) and latin == sorted(latin) and max(latin) < min(hebrew)


def test_bpe_marks_and_what_has_no_shape_can_be_seen(visit, stage):
    explorer = BPEExplorer(text="e\u0301 a\u200d")
    with visit(stage(explorer)) as page:
        driver = BPEDriver(page, explorer)
        driver.agrees_with_python()
        assert driver.chips().all_text_contents() == ["e", "\u25cc\u0301", "a", "U+200D"]


@pytest.mark.parametrize("width", [390, 1280])
def test_bpe_long_words_and_long_tokens_do_not_widen_the_page(visit, stage, width):
    merges = [("x" * 2**k, "x" * 2**k) for k in range(7)]
    explorers = [BPEExplorer(merges, "x" * 200, step) for step in (0, 7)]
    with visit(stage(*explorers), width=width) as page:
        for i, explorer in enumerate(explorers):
            BPEDriver(page, explorer, i).agrees_with_python()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_bpe_two_on_a_page_do_not_disturb_each_other(visit, stage):
    with visit(stage(BPEExplorer(), BPEExplorer(step=2))) as page:
        first, second = BPEDriver(page), BPEDriver(page, BPEExplorer(step=2), 1)
        first.press("more")
        second.editor.fill("west")
        first.agrees_with_python(step=1)
        second.agrees_with_python(text="west")


def test_bpe_every_control_has_a_name(visit, stage):
    with visit(stage(BPEExplorer(step=3), lang="zh")) as page:
        root = BPEDriver(page, edition="zh").root
        assert root.get_attribute("aria-label") == "字节对编码探索器" and root.locator("[id]").count() == 0
        for control in root.locator("input, button, textarea").all():
            assert control.evaluate("c => c.ariaLabel || c.textContent").strip()
        assert root.locator("svg").get_attribute("role") == "img" and root.locator("svg").get_attribute("aria-label")


def test_bpe_without_scripts_leaves_a_table(visit, stage):
    with visit(stage(BPEExplorer(step=4)), java_script_enabled=False) as page:
        assert page.locator(".llm-fallback td").all_inner_texts() == ["low", "low e r", "n e w est", "w i d est"]

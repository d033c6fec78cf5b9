"""GradientExplorer, in Python and in a real browser: its slopes are torch.autograd's."""

import math
import re

import pytest
import torch
from driver import Driver, state
from traitlets import TraitError

import llmbook
from llmbook.widgets import GradientExplorer
from llmbook.widgets.gradient import FAR

NETWORKS = ["recurrent", "memory", "attention"]
LABELS = {
    "en": {"w": "recurrent weight w", "forget": "forget gate f", "length": "length T", "reset": "Reset",
           "tanh": "tanh in the recurrent network", "name": "Gradient explorer"},
    "zh": {"w": "循环权重 w", "forget": "遗忘门 f", "length": "长度 T", "reset": "复位", "tanh": "循环网络带 tanh",
           "name": "梯度探索器"},
}  # fmt: skip


def autograd(shown):
    """Of each network the slopes of the last output at the distances 0 … T − 1, by torch."""
    T = shown.length

    def recurrent(x):
        h = torch.zeros((), dtype=torch.float64)
        for x_t in x:
            h = shown.w * h + x_t if shown.linear else (shown.w * h + x_t).tanh()
        return h

    def memory(x):
        c = torch.zeros((), dtype=torch.float64)
        for x_t in x:
            c = shown.forget * c + x_t
        return c

    def attention(x):
        return torch.zeros(T, dtype=torch.float64).softmax(0) @ x

    slopes = []
    for network in (recurrent, memory, attention):
        x = torch.tensor(shown.x[:T], dtype=torch.float64, requires_grad=True)
        network(x).backward()
        slopes.append(x.grad.flip(0).tolist())
    return dict(zip(NETWORKS, slopes, strict=True))


CASES = [{}, {"w": 0.5}, {"w": 1.3}, {"w": 1.5, "linear": True, "length": 100}, {"w": 0.7, "linear": True},
         {"w": 0.0}, {"w": 1.0, "linear": True}, {"forget": 0.0}, {"forget": 1.0, "length": 2},
         {"x": [0.3, -0.2, 2.0, 0.0], "length": 4}, {"x": [0.1] * 200, "length": 200, "forget": 0.4}]  # fmt: skip

# --- in Python


@pytest.mark.parametrize("case", CASES)
def test_slopes_are_autograd_s(case):
    shown = GradientExplorer(**case)
    for name, exact in autograd(shown).items():
        assert shown.slopes[name] == pytest.approx(exact, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"w": 1.6}, r"w: expected a number from 0 to 1.5, got 1.6"),
        ({"w": -0.1}, r"w: expected a number from 0 to 1.5, got -0.1"),
        ({"w": float("nan")}, r"w: expected a number from 0 to 1.5, got nan"),
        ({"w": "a"}, r"'w' trait .* expected a float, not the str 'a'"),
        ({"forget": 1.01}, r"forget: expected a number from 0 to 1.0, got 1.01"),
        ({"length": 1}, r"length: expected a whole number from 2 to 100, the number of inputs, got 1"),
        ({"length": 101}, r"length: expected a whole number from 2 to 100, the number of inputs, got 101"),
        ({"length": 2.5}, r"'length' trait .* expected an int, not the float 2.5"),
        ({"x": [1.0, 2.0]}, r"length: expected a whole number from 2 to 2, the number of inputs, got 40"),
        ({"x": [1.0]}, r"x: expected 2 to 200 numbers, got 1"),
        ({"x": [0.0] * 201}, r"x: expected 2 to 200 numbers, got 201"),
        ({"x": [float("inf"), 1.0]}, r"x: expected finite numbers, got inf"),
        ({"linear": 3}, r"'linear' trait .* expected a boolean, not the int 3"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(TraitError, match=message):
        GradientExplorer(**arguments)


def test_it_can_be_made_again_and_a_bad_change_leaves_what_was():
    shown, heard = GradientExplorer(w=1.2, linear=True), []
    plain = "GradientExplorer(w=1.2, forget=0.95, length=40, linear)"
    assert repr(shown) == repr(GradientExplorer(**state(shown))) == plain
    assert GradientExplorer().x == GradientExplorer().x and len(GradientExplorer().x) == FAR
    assert llmbook.GradientExplorer is GradientExplorer
    shown.observe(lambda change: heard.append(change["new"]), "w")
    shown.w = 0.4
    with pytest.raises(TraitError):
        shown.w = 2
    assert heard == [0.4] and shown.w == 0.4


# --- in the browser


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return GradientExplorer()

    def slider(self, name):
        return self.input(name, "range")

    def values(self, name):
        return self.numbers(f"data.llm-{name}")

    def agrees(self, **changes):
        """The numbers are torch's, and so is every point of the curves."""
        self.follow(changes)
        exact, T = autograd(self.twin), self.twin.length
        assert self.values("far") == pytest.approx([exact[name][-1] for name in NETWORKS], rel=1e-6)
        for half, slope in zip(self.values("half"), exact.values(), strict=True):
            ratio = math.inf if slope[-1] == 0 else slope[0] / slope[-1]
            halves = math.inf if abs(math.log(ratio)) < 1e-12 else (T - 1) * math.log(2) / math.log(ratio)
            assert half == pytest.approx(halves, rel=1e-6)
        for name in NETWORKS:
            drawn = self.curve(name)
            kept = [(d, slope) for d, slope in enumerate(exact[name]) if slope > 0 and math.log10(slope) >= self.low]
            assert [d for d, _ in drawn] == pytest.approx([d for d, _ in kept], abs=1e-9)
            assert [slope for _, slope in drawn] == pytest.approx([slope for _, slope in kept], rel=1e-6)

    def curve(self, name):
        """The points of a curve, read back through the labels of the axes."""
        read = """svg => [...svg.querySelectorAll('text')].map((t) => [Number(t.getAttribute('x')),
                  Number(t.getAttribute('y')), t.getAttribute('text-anchor'), t.textContent])"""
        labels = self.root.locator(".llm-chart svg").evaluate(read)
        xs = [(x, int(t)) for x, _, anchor, t in labels if anchor == "middle" and re.fullmatch(r"[0-9]+", t)]
        power = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
        ys = [(y - 4, int(t[2:].translate(power))) for _, y, anchor, t in labels if anchor == "end"]
        (x0, d0), (x1, d1) = xs[0], xs[-1]
        (y0, p0), (y1, p1) = ys[0], ys[-1]
        self.low = p0
        points = self.root.locator(f"polyline.llm-{name}").get_attribute("points").split()
        pairs = [tuple(map(float, point.split(","))) for point in points]
        return [
            (d0 + (x - x0) / (x1 - x0) * (d1 - d0), 10 ** (p0 + (y - y0) / (y1 - y0) * (p1 - p0))) for x, y in pairs
        ]


def test_every_point_of_every_curve_is_autograd_s(visit, stage):
    shown = [GradientExplorer(**case) for case in CASES]
    with visit(stage(*shown)) as page:
        for i, one in enumerate(shown):
            Page(page, one, i).agrees()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_keyboard_typing_and_switch(visit, stage, edition, width, scheme):
    url = stage(GradientExplorer(), lang=edition, scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, GradientExplorer(), edition=edition)
        driver.agrees()
        driver.slider("w").focus()
        page.keyboard.press("ArrowRight")
        driver.agrees(w=0.91)
        driver.slider("forget").focus()
        page.keyboard.press("ArrowLeft")
        driver.agrees(forget=0.94)
        driver.root.get_by_label(driver.labels["tanh"]).uncheck()
        driver.agrees(linear=True)
        typed = [("w", "9", 1.5), ("w", "", 1.5), ("length", "-4", 2), ("length", "60.4", 60), ("forget", "0.5", 0.5)]
        for name, text, value in typed:
            driver.input(name, "number").fill(text)
            driver.agrees(**{name: value})
        said = driver.root.locator(".llm-said")
        assert said.get_attribute("aria-live") == "polite" and "59" in said.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        driver.root.get_by_role("button", name=driver.labels["reset"]).click()
        driver.agrees(w=0.9, forget=0.95, length=40, linear=False)


@pytest.mark.parametrize("touch", [False, True])
def test_the_length_is_dragged(visit, stage, touch):
    with visit(stage(GradientExplorer()), touch=touch) as page:
        driver = Page(page, GradientExplorer())
        box = driver.root.locator(".llm-draggable").bounding_box()
        at = box["x"] + (44 + 400 * 79 / 99) / 460 * box["width"], box["y"] + box["height"] / 2
        page.touchscreen.tap(*at) if touch else page.mouse.click(*at)
        driver.agrees(length=80)


def test_two_on_a_page_names_and_no_scripts(visit, stage):
    shown = [GradientExplorer(), GradientExplorer(w=0.2)]
    with visit(stage(*shown)) as page:
        first, second = (Page(page, one, i) for i, one in enumerate(shown))
        first.slider("w").fill("0.3")
        second.agrees()
        first.agrees(w=0.3)
        assert first.root.get_attribute("aria-label") == LABELS["en"]["name"]
        assert first.root.locator("[id]").count() == 0
        assert first.root.locator("svg").get_attribute("aria-label")
    with visit(stage(GradientExplorer()), java_script_enabled=False) as page:
        cells = page.locator(".llm-fallback td").all_inner_texts()
        assert [float(cell) for cell in cells] == pytest.approx(
            [autograd(GradientExplorer())[name][d] for name in NETWORKS for d in (0, 1, 10, 20, 39)], rel=0.05
        )

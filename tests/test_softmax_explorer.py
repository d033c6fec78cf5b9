"""SoftmaxExplorer, in Python and in a real browser: weights and measures with and without √d_k are torch's."""

import re

import numpy as np
import pytest
import torch
from driver import CONTRAST, LEFT, RENDER, Driver, displayed, state
from traitlets import TraitError

import llmbook
from llmbook.attention import attention_weights
from llmbook.widgets import SoftmaxExplorer

Z = [1.3, 1.0, 0.0, -0.1, -0.6, -1.7]
LABELS = {
    "en": {"d_k": "width d_k", "scaled": "divide by √d_k", "reset": "Reset", "score": "score of {}"},
    "zh": {"d_k": "键的维数 d_k", "scaled": "除以 √d_k", "reset": "复位", "score": "{} 的得分"},
}


def measures(scores, d_k, scaled):
    """Weights, and what is shown of them, by torch: the slope is the largest entry of the Jacobian's diagonal."""
    z = torch.tensor(scores, dtype=torch.float64) * (1 if scaled else d_k**0.5)
    jacobian = torch.autograd.functional.jacobian(lambda x: x.softmax(-1), z)
    weights = z.softmax(-1)
    keys, slope = torch.special.entr(weights).sum().exp(), jacobian.diagonal().max()
    single = {"spread": z.std(correction=0), "most": weights.max(), "keys": keys, "slope": slope}
    return {"weight": weights.tolist()} | {name: [x.item()] for name, x in single.items()}


# --- in Python


@pytest.mark.parametrize("d_k", [1, 7, 64, 1024])
@pytest.mark.parametrize("scaled", [True, False])
def test_weights_are_those_of_attention_with_such_dot_products(d_k, scaled):
    shown = SoftmaxExplorer(Z, d_k=d_k, scaled=scaled)
    q = torch.eye(d_k, dtype=torch.float64)[:1]
    k = torch.zeros(len(Z), d_k, dtype=torch.float64)
    k[:, 0] = torch.tensor(Z) * d_k**0.5  # q·k = √d_k z
    weights = attention_weights(q, k, scale=None if scaled else 1.0)[0]
    assert np.allclose(shown.weights, weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, iter, lambda z: torch.tensor(z).half()])
def test_lists_arrays_and_tensors_are_taken(make):
    assert np.allclose(SoftmaxExplorer(make(Z)).scores, Z, atol=1e-3)
    assert SoftmaxExplorer(make(Z)).tokens == ["k₁", "k₂", "k₃", "k₄", "k₅", "k₆"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": [1.0, float("nan")]}, r"scores: expected finite numbers, got nan"),
        ({"scores": [1.0, float("inf")]}, r"scores: expected finite numbers, got inf"),
        ({"scores": ["a", "b"]}, r"scores: expected finite numbers, got 'a'"),
        ({"scores": [True, False]}, r"scores: expected finite numbers, got True"),
        ({"scores": "ab"}, r"scores: expected numbers, got 'ab'"),
        ({"scores": 3}, r"scores: expected numbers, got 3"),
        ({"scores": []}, r"scores: expected numbers, got none"),
        ({"scores": [1.0]}, r"scores: expected 2 to 12 numbers, got 1"),
        ({"scores": [0.0] * 13}, r"scores: expected 2 to 12 numbers, got 13"),
        ({"tokens": ["a"]}, r"tokens: expected one for each of the 6 scores, got 1"),
        ({"tokens": [1] * 6}, r"'tokens' trait .* expected a unicode string, not the int 1"),
        ({"d_k": 0}, r"d_k: expected a whole number from 1 to 1024, got 0"),
        ({"d_k": 1025}, r"d_k: expected a whole number from 1 to 1024, got 1025"),
        ({"d_k": True}, r"d_k: expected a whole number from 1 to 1024, got True"),
        ({"d_k": 2.5}, r"'d_k' trait .* expected an int, not the float 2.5"),
        ({"scaled": 2}, r"'scaled' trait"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        SoftmaxExplorer(**({"scores": Z} | arguments))


def test_a_refused_change_leaves_everything_as_it_was_and_shapes_change_together():
    shown = SoftmaxExplorer(Z)
    before = shown.to_html()
    for name, value in (("scores", Z[:2]), ("tokens", ["a"]), ("d_k", 0), ("scores", [float("nan")] * 6)):
        with pytest.raises(TraitError):
            setattr(shown, name, value)
    assert shown.to_html() == before
    with shown.hold_trait_notifications():
        shown.scores, shown.tokens = [1.0, 2.0], ["a", "b"]
    assert len(shown.weights) == 2


def test_what_the_browser_sends_is_seen_in_python():
    shown, seen = SoftmaxExplorer(Z), []
    shown.observe(lambda change: seen.append((change["name"], change["new"])), ["d_k", "scaled", "scores"])
    shown.set_state({"d_k": 256, "scaled": False, "scores": [0, 0, 0, 0, 0, 1]})
    assert seen == [("d_k", 256), ("scaled", False), ("scores", [0.0, 0.0, 0.0, 0.0, 0.0, 1.0])]


def test_it_is_displayed_the_same_every_time():
    display = displayed(lambda: SoftmaxExplorer(Z[:2], scaled=False))
    assert display["text/plain"] == "SoftmaxExplorer(2 keys, d_k=64, scaled=False, weights=[0.917, 0.083])"
    assert state(SoftmaxExplorer(Z[:2])) == {"scores": Z[:2], "tokens": ["k₁", "k₂"], "d_k": 64, "scaled": True}
    assert llmbook.SoftmaxExplorer is SoftmaxExplorer


def test_the_fallback_is_a_table_of_both_and_markup_stays_text():
    html = SoftmaxExplorer([0.0, 1.0], ["</script><b>", "b"], d_k=4).to_html()
    assert html.count("</script>") == 1 and "<b>" not in html
    assert html.endswith("<th>b</th></tr><tr><th>q·k</th><td>0.119</td><td>0.881</td></tr>"
                         "<tr><th>q·k / √d_k</th><td>0.269</td><td>0.731</td></tr></table></div>")  # fmt: skip


# --- in a browser: the site's loader, module and styles


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return SoftmaxExplorer(Z)

    def inputs(self, label):
        """The slider and the field of that name."""
        return [self.root.locator(f'input[type={kind}][aria-label="{label}"]') for kind in ("range", "number")]

    def score(self, i):
        return self.inputs(self.labels["score"].format(self.twin.tokens[i]))

    def agrees(self, **changes):
        """After ``changes`` the page shows torch's numbers for the state of the Python explorer, on both sides."""
        self.follow(changes)
        t = self.twin
        assert self.root.get_by_label(self.labels["scaled"], exact=True).is_checked() == t.scaled
        assert self.root.get_attribute("data-shown") == ("divided" if t.scaled else "plain")
        for side, scaled in (("plain", False), ("divided", True)):
            expected = measures(t.scores, t.d_k, scaled)
            for name, values in expected.items():
                shown = self.root.locator(f".llm-table span.llm-{side} .llm-{name}")
                assert shown.evaluate_all("all => all.map((d) => Number(d.value))") == pytest.approx(values, abs=1e-6)
            bars = self.root.locator(f".llm-bar.llm-{side}").evaluate_all("all => all.map((b) => b.style.width)")
            assert [float(b[:-1]) / 100 for b in bars] == pytest.approx(expected["weight"], abs=6e-5)
            self.marked(side, expected["keys"][0] / len(t.scores), expected["slope"][0] / 0.25)
        assert np.allclose(t.weights, measures(t.scores, t.d_k, t.scaled)["weight"])
        said = self.root.locator(".llm-words")
        now = measures(t.scores, t.d_k, t.scaled)
        numbers = [
            t.d_k,
            *(f"{now[n][0] * k:.{d}f}" for n, k, d in (("spread", 1, 1), ("most", 100, 0), ("slope", 1, 3))),
        ]
        assert re.findall(r"\d+(?:\.\d+)?", said.inner_text().replace("k₁", "")) == [str(n) for n in numbers]
        assert said.get_attribute("aria-live") == "polite"

    def marked(self, side, *heights):
        """The marks in the two plots stand at d_k and as high as the measure, and on their curve."""
        for plot, height in zip(self.root.locator("svg").all(), heights, strict=True):
            axis = plot.locator(".llm-drop").evaluate("p => [...p.points].map((q) => [q.x, q.y])")
            x, y = plot.locator(f"circle.llm-{side}").evaluate("c => [c.cx.baseVal.value, c.cy.baseVal.value]")
            (x0, y0), (_, y1) = axis
            assert x == pytest.approx(x0, abs=0.01) and (y0 - y) / (y0 - y1) == pytest.approx(height, abs=1e-3)
            curve = plot.locator(f"polyline.llm-curve.llm-{side}").evaluate("p => [...p.points].map((q) => [q.x, q.y])")
            assert np.interp(x, *zip(*curve, strict=True)) == pytest.approx(y, abs=0.3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_keyboard_mouse_and_switch(visit, stage, edition, width, scheme):
    url = stage(SoftmaxExplorer(Z), lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, edition=edition)
        driver.agrees()
        assert page.locator(".llm-fallback").count() == 0
        width_slider, width_field = driver.inputs(driver.labels["d_k"])
        width_slider.focus()
        for key, d_k in (("ArrowRight", 128), ("End", 1024), ("ArrowLeft", 512), ("Home", 1), ("ArrowRight", 2)):
            page.keyboard.press(key)
            driver.agrees(d_k=d_k)
            assert width_slider.get_attribute("aria-valuetext") == str(d_k)
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        driver.agrees(scaled=False)
        box = width_slider.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        driver.agrees(d_k=32)
        width_field.fill("100")
        driver.agrees(d_k=100)
        driver.score(5)[1].fill("2.5")
        driver.agrees(scores=[*Z[:5], 2.5])
        driver.score(0)[0].focus()
        page.keyboard.press("ArrowLeft")
        driver.agrees(scores=[1.2, *Z[1:5], 2.5])
        driver.root.get_by_role("button", name=driver.labels["reset"]).click()
        driver.agrees(scores=Z, d_k=64, scaled=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert min(driver.root.evaluate(CONTRAST)) >= 4.5


def test_the_more_components_the_less_slope_unless_divided(visit, stage):
    with visit(stage(SoftmaxExplorer(Z, d_k=1))) as page:
        driver = Page(page, SoftmaxExplorer(Z, d_k=1))
        slope = driver.root.locator(".llm-slope")
        first = slope.nth(1).get_attribute("value")
        for d_k in (1, 4, 16, 64, 256, 1024):
            driver.inputs("width d_k")[1].fill(str(d_k))
            driver.agrees(d_k=d_k)
            assert slope.nth(1).get_attribute("value") == first
        assert float(slope.nth(0).get_attribute("value")) < 1e-3 < 0.2 < float(first)


@pytest.mark.parametrize("touch", [False, True])
def test_d_k_is_dragged_in_a_plot(visit, stage, touch):
    with visit(stage(SoftmaxExplorer(Z)), touch=touch) as page:
        driver = Page(page)
        for plot, exponent in zip(driver.root.locator("svg").all(), (3, 9), strict=True):
            box, at = plot.bounding_box(), 44 / 320 + (exponent + 0.3) / 10 * 260 / 320
            x, y = box["x"] + at * box["width"], box["y"] + box["height"] / 2
            if touch:
                page.touchscreen.tap(x, y)
            else:
                page.mouse.move(box["x"] + box["width"] / 2, y)
                page.mouse.down()
                page.mouse.move(x, y, steps=4)
                page.mouse.up()
            driver.agrees(d_k=2**exponent)


@pytest.mark.parametrize("text", ["", "-", "1e999", "NaN", "<b>", "0", "-5", "9e9", "2.6"])
def test_nothing_typed_breaks_it(visit, stage, text):
    with visit(stage(SoftmaxExplorer(Z))) as page:
        driver = Page(page)
        for field in (driver.inputs("width d_k")[1], driver.score(1)[1]):
            field.click()
            page.keyboard.press("Control+A")
            page.keyboard.type(text)
            page.keyboard.press("Tab")
        d_k, score = (float(f.input_value()) for f in (driver.inputs("width d_k")[1], driver.score(1)[1]))
        assert d_k in {64, 1, 1024, 3, 5} and abs(score) <= 100
        driver.agrees(d_k=int(d_k), scores=[Z[0], score, *Z[2:]])


def test_two_on_a_page_do_not_disturb_each_other_and_every_control_has_a_name(visit, stage):
    twins = [SoftmaxExplorer(Z), SoftmaxExplorer([0.0, 2.0, 4.0], ["internationalisation" * 2, "<b>&", "键"], d_k=9)]
    with visit(stage(*twins), width=390) as page:
        first, second = (Page(page, twin, i) for i, twin in enumerate(twins))
        first.inputs("width d_k")[1].fill("4")
        second.root.get_by_label("divide by √d_k").uncheck()
        first.agrees(d_k=4)
        second.agrees(scaled=False)
        assert "“键”" in second.root.locator(".llm-words").inner_text()
        for control in page.locator("input, button").all():
            assert control.evaluate(
                "c => (c.ariaLabel || [...(c.labels ?? [])].map((l) => l.textContent).join('') || c.textContent).trim()"
            )
        assert page.locator(".llm [id]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_speaks_with_a_kernel_and_leaves_nothing_behind(visit, stage):
    with visit(stage()) as page:
        page.evaluate(RENDER, ["softmax", state(SoftmaxExplorer(Z))])
        page.evaluate("() => { stage.remove = stage.explorer.render(stage); }")
        page.locator("input[type=checkbox]").uncheck()
        page.evaluate("stage.kernel({ scores: [0, 1] })")  # half of a change
        assert page.locator(".llm-bars .llm-bar").count() == 12
        page.evaluate("stage.kernel({ tokens: ['a', 'b'] })")
        assert page.locator(".llm-bars .llm-bar").count() == 4
        assert page.evaluate("stage.saved") == [{"scaled": False}]
        page.evaluate("stage.remove()")
        assert page.evaluate(LEFT, "input[type=checkbox]") == [0, 0, 0]

"""PositionsExplorer, in Python and in a real browser: its position vectors, turned pairs and scores are torch's."""

import math
import re

import numpy as np
import pytest
import torch
from driver import CONTRAST, LEFT, RENDER, Driver, displayed, state
from traitlets import TraitError

import llmbook
from llmbook.positions import frequencies, rotate, sinusoidal
from llmbook.widgets import PositionsExplorer

Q, K = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = {
    "en": {"sinusoidal": "Sinusoidal", "rotary": "Rotary", "m": "position m", "n": "position n", "pair": "pair i",
           "less": "Shift both back by one", "more": "Shift both on by one", "reset": "Reset"},
    "zh": {"sinusoidal": "正弦", "rotary": "旋转", "m": "位置 m", "n": "位置 n", "pair": "分量对 i",
           "less": "两个位置都退一步", "more": "两个位置都进一步", "reset": "复位"},
}  # fmt: skip


def rotary(**kwargs):
    return PositionsExplorer(**({"kind": "rotary", "d_model": 8, "q": Q, "k": K, "query": 11, "key": 3} | kwargs))


def vectors(t, m, n):
    """What is multiplied, pair by pair, by torch: two position vectors, or the query turned by m and the key by n."""
    if t.kind == "sinusoidal":
        angles = torch.tensor([m, n])[:, None] * frequencies(t.d_model, base=t.base)
        return torch.stack((angles.sin(), angles.cos()), -1)  # (2, d/2, 2)
    q, k = (torch.tensor([x], dtype=torch.float64) for x in (t.q, t.k))
    turned = [rotate(x, torch.tensor([at]), base=t.base)[0] for x, at in ((q, m), (k, n))]
    return torch.stack(turned).unflatten(-1, (-1, 2))


def parts(t, m, n):
    """What each pair contributes to the score."""
    return vectors(t, m, n).prod(0).sum(-1)


# --- in Python


@pytest.mark.parametrize("make", [rotary, PositionsExplorer])
def test_the_score_is_torch_s_and_depends_on_the_distance_alone(make):
    t = make(base=100.0)
    for m, n in ((0, 0), (11, 3), (3, 11), (47, 0)):
        t.query, t.key = m, n
        assert t.score == pytest.approx(parts(t, m, n).sum().item(), abs=1e-9)
        if m < 47:
            assert t.score == pytest.approx(parts(t, m + 1, n + 1).sum().item(), abs=1e-9)


def test_the_score_is_the_dot_product_of_the_rows_of_sinusoidal():
    rows = sinusoidal(48, 32)
    assert PositionsExplorer(query=16, key=9).score == pytest.approx((rows[16] @ rows[9]).item(), abs=1e-4)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, tuple, lambda x: torch.tensor(x).requires_grad_()])
def test_lists_arrays_and_tensors_are_taken(make):
    shown = rotary(q=make(Q.tolist()))
    assert np.allclose(shown.q, Q) and PositionsExplorer(d_model=6.0).q == [1.0, 0.0] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "learned"}, r"'kind' trait"),
        ({"d_model": 7}, r"d_model: expected an even number from 2 to 64, got 7"),
        ({"d_model": 0}, r"d_model: expected a whole number from 2 to 64, got 0"),
        ({"d_model": 66}, r"d_model: expected a whole number from 2 to 64, got 66"),
        ({"d_model": 8.5}, r"'d_model' trait .* expected an int, not the float 8.5"),
        ({"positions": 1}, r"positions: expected a whole number from 2 to 128, got 1"),
        ({"positions": 129}, r"positions: expected a whole number from 2 to 128, got 129"),
        ({"query": 48}, r"query: expected a whole number from 0 to 47, got 48"),
        ({"key": -1}, r"key: expected a whole number from 0 to 47, got -1"),
        ({"key": True}, r"key: expected a whole number from 0 to 47, got True"),
        ({"pair": 16}, r"pair: expected a whole number from 0 to 15, got 16"),
        ({"q": [1.0, 2.0]}, r"q: expected d_model=32 numbers, got 2"),
        ({"k": [float("nan")] * 32}, r"k: expected finite numbers, got nan"),
        ({"k": 3}, r"k: expected numbers, got 3"),
        ({"base": 1.0}, r"base: expected a finite number above 1, got 1.0"),
        ({"base": math.inf}, r"base: expected a finite number above 1, got inf"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        PositionsExplorer(**arguments)


def test_a_refused_change_leaves_everything_as_it_was_and_sizes_change_together():
    shown = rotary()
    before = shown.to_html()
    for name, value in (("d_model", 10), ("positions", 5), ("query", 48), ("pair", 4), ("q", [1.0]), ("base", 0)):
        with pytest.raises(TraitError):
            setattr(shown, name, value)
    assert shown.to_html() == before
    with shown.hold_trait_notifications():
        shown.d_model, shown.q, shown.k, shown.positions, shown.query, shown.pair = 2, [1.0, 0.0], [0.0, 1.0], 4, 3, 0
    assert shown.score == pytest.approx(0.0)


def test_what_the_browser_sends_is_seen_in_python():
    shown, seen = PositionsExplorer(), []
    shown.observe(lambda change: seen.append((change["name"], change["new"])), ["query", "key", "pair", "kind"])
    shown.set_state({"query": 5, "key": 0, "pair": 15, "kind": "rotary"})
    assert seen == [("query", 5), ("key", 0), ("pair", 15), ("kind", "rotary")]


def test_it_is_displayed_the_same_every_time_and_falls_back_to_a_table():
    display = displayed(lambda: PositionsExplorer(query=16))
    plain = "PositionsExplorer(sinusoidal, d_model=32, 48 positions, query=16, key=8, score=10.522)"
    assert display["text/plain"] == plain and llmbook.PositionsExplorer is PositionsExplorer
    assert PositionsExplorer(**state(rotary())).to_html() == rotary().to_html()
    rows = re.findall(r"<th>(\d+)</th><td>(.*?)</td>", rotary().fallback())
    assert rows == [(str(n), f"{parts(rotary(), 11, n).sum():.3f}") for n in range(48)]


# --- in a browser: the site's loader, module and styles


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return PositionsExplorer()

    def value(self, name):
        return float(self.root.locator(f".llm-measures .llm-{name}").get_attribute("value"))

    def svg(self, i):
        return self.root.locator(f".llm-{self.twin.kind} .llm-plane > svg").nth(i)

    def point(self, i, x, y):
        """Where a point of a drawing, in its own units, is on the page."""
        script = """(g, p) => { const q = new DOMPoint(...p).matrixTransform(g.getScreenCTM()); return [q.x, q.y]; }"""
        return self.svg(i).evaluate(script, [x, y])

    def agrees(self, **changes):
        """After ``changes`` the page shows torch's numbers, curves and arrows for the state of the Python explorer."""
        self.follow(changes)
        t = self.twin
        m, n, omega = t.query, t.key, frequencies(t.d_model, base=t.base)[t.pair].item()
        assert [self.input(name).input_value() for name in ("m", "n", "pair")] == [str(x) for x in (m, n, t.pair)]
        each = parts(t, m, n)
        expected = {"score": each.sum().item(), "part": each[t.pair].item(), "plain": parts(t, 0, 0).sum().item(),
                    "distance": m - n, "omega": omega, "turn": 2 * math.pi / omega}  # fmt: skip
        assert {name: self.value(name) for name in expected} == pytest.approx(expected, abs=1e-6)
        said = self.root.locator(".llm-words")
        numbers = re.findall(r"[−\d.]*\d", said.inner_text())
        assert numbers == [str(m), str(n), str(m - n).replace("-", "−"), f"{t.score:.3f}".replace("-", "−")]
        assert said.get_attribute("aria-live") == "polite"
        for kind in ("sinusoidal", "rotary"):
            assert self.root.locator(f".llm-figures.llm-{kind}").is_visible() == (kind == t.kind)
        getattr(self, f"{t.kind}_agrees")(m, n)

    def curves(self, i, expected):
        """The curves of plot i have the shape of ``expected``, up to the scale of the axis."""
        drawn = self.svg(i).locator(".llm-curve").evaluate_all("all => all.map((c) => [...c.points].map((p) => p.y))")
        ys, xs = np.concatenate(drawn), np.concatenate(expected)
        slope, start = np.polyfit(xs, ys, 1)
        assert slope < 0 and np.abs(slope * xs + start - ys).max() < 0.02
        height = self.svg(i).evaluate("g => g.viewBox.baseVal.height")
        assert ys.min() > 9.9 and ys.max() < height - 21.9  # within the axes

    def sinusoidal_agrees(self, m, n):
        t = self.twin
        rows = sinusoidal(t.positions, t.d_model, base=t.base).double()
        shades = np.zeros((t.d_model, t.positions))
        paths = self.svg(0).locator(".llm-cells path")
        for d, shade in paths.evaluate_all(
            "all => all.map((p) => [p.getAttribute('d'), p.getAttribute('fill-opacity')])"
        ):
            for x, y in re.findall(r"M(\d+) (\d+)", d):
                shades[int(y), int(x)] = float(shade) / 0.9
        assert np.abs(2 * shades - 1 - rows.T.numpy()).max() <= 0.0501
        times = torch.arange(4 * (t.positions - 1) + 1, dtype=torch.float64) / 4
        angles = times * frequencies(t.d_model, base=t.base)[t.pair]
        self.curves(1, [angles.sin().numpy(), angles.cos().numpy()])
        self.curves(2, [[parts(t, m, other).sum().item() for other in range(t.positions)]])

    def rotary_agrees(self, m, n):
        t = self.twin
        turned = vectors(t, m, n)  # (2, d/2, 2)
        tips = "(all) => all.map((p) => p.getAttribute('d').match(/^M0 0L(\\S+) ([^LM]+)/).slice(1).map(Number))"
        for j, name in enumerate(("query", "key")):
            drawn = np.array(self.root.locator(f".llm-dial .llm-{name}").evaluate_all(tips)) * [1, -1]
            longest = max(np.linalg.norm(np.reshape(x, (-1, 2)), axis=1).max() for x in (t.q, t.k))
            assert np.allclose(drawn / 46 * longest, turned[j], atol=1e-6)
            large = self.svg(0).locator(f".llm-{name}:not(.llm-dashed)").evaluate_all(tips)
            assert np.allclose(large[0], drawn[t.pair] * [1, -1])
        pressed = self.root.locator(".llm-dial").evaluate_all("all => all.map((b) => b.ariaPressed === 'true')")
        assert pressed == [i == t.pair for i in range(t.d_model // 2)]
        each = torch.stack([parts(t, max(0, d), max(0, -d)) for d in range(1 - t.positions, t.positions)])
        self.curves(1, [each[:, t.pair].numpy(), each.sum(-1).numpy()])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_keyboard_buttons_and_both_kinds(visit, stage, edition, width, scheme):
    twin = rotary(kind="sinusoidal", positions=20)
    url = stage(twin, lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, twin, edition=edition)
        driver.agrees()
        assert page.locator(".llm-fallback").count() == 0
        driver.input("m", "range").focus()
        page.keyboard.press("ArrowRight")
        driver.agrees(query=12)
        driver.press("rotary")
        driver.agrees(kind="rotary")
        assert driver.root.get_by_role("button", name=driver.labels["rotary"]).get_attribute("aria-pressed") == "true"
        before = driver.value("score")
        driver.press("more")
        driver.agrees(query=13, key=4)
        assert driver.value("score") == pytest.approx(before, abs=1e-9)  # only the distance counts
        driver.input("n").fill("0")
        driver.agrees(key=0)
        driver.press("less")  # there is no position −1
        driver.agrees()
        driver.root.locator(".llm-dial").nth(0).click()
        driver.agrees(pair=0)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("End")
        driver.agrees(pair=3)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert min(driver.root.evaluate(CONTRAST)) >= 4.5
        driver.press("reset")
        driver.agrees(kind="sinusoidal", query=11, key=3, pair=3)


@pytest.mark.parametrize("touch", [False, True])
def test_pointer_chooses_positions_pairs_and_distances(visit, stage, touch):
    twin = PositionsExplorer(query=16)
    with visit(stage(twin), touch=touch) as page:
        driver, cell = Page(page, twin), 316 / 48

        def point(i, x, y):
            x, y = driver.point(i, x, y)
            page.touchscreen.tap(x, y) if touch else page.mouse.click(x, y)

        point(0, 34 + 20.5 * cell, 10 + 128 * 5.5 / 32)
        driver.agrees(query=20, pair=2)
        point(1, 34 + 30.4 * cell, 40)
        driver.agrees(query=30)
        point(2, 34 + 40.6 * cell, 40)
        driver.agrees(key=40)
        driver.press("rotary")
        driver.agrees(kind="rotary")
        for d, key in ((5, 40), (-44, 44), (47, 0)):
            point(1, 34 + (d + 47.5) / 95 * 316, 60)
            driver.agrees(query=key + d, key=key)


@pytest.mark.parametrize("text", ["", "-", "NaN", "<b>", "-3", "1e9", "2.6"])
def test_nothing_typed_breaks_it(visit, stage, text):
    with visit(stage(PositionsExplorer())) as page:
        driver = Page(page)
        for name in ("m", "n", "pair"):
            driver.input(name).click()
            page.keyboard.press("Control+A")
            page.keyboard.type(text)
            page.keyboard.press("Tab")
        m, n, pair = (int(driver.input(name).input_value()) for name in ("m", "n", "pair"))
        driver.agrees(query=m, key=n, pair=pair)


def test_two_on_a_page_and_every_size(visit, stage):
    twins = [PositionsExplorer(d_model=2, positions=2), rotary(d_model=64, q=[0.0] * 64, k=[0.0] * 64, positions=128)]
    with visit(stage(*twins), width=390) as page:
        first, second = (Page(page, twin, i) for i, twin in enumerate(twins))
        first.input("m").fill("1")
        second.press("more")
        first.agrees(query=1)
        assert second.value("score") == 0 and second.input("m").input_value() == "12"
        for control in page.locator("input, button").all():
            assert control.evaluate("c => (c.ariaLabel || c.textContent).trim()")
        assert page.locator(".llm [id]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_speaks_with_a_kernel_and_leaves_nothing_behind(visit, stage):
    with visit(stage()) as page:
        page.evaluate(RENDER, ["positions", state(rotary())])
        page.evaluate("() => { stage.remove = stage.explorer.render(stage); }")
        page.locator(".llm-dial").nth(2).click()
        page.evaluate("stage.kernel({ d_model: 4, pair: 1 })")  # half of a change
        assert page.locator(".llm-dial").count() == 4
        page.evaluate("stage.kernel({ q: [1, 0, 1, 0], k: [1, 0, 1, 0] })")
        assert page.locator(".llm-dial").count() == 2
        assert page.evaluate("stage.saved") == [{"pair": 2}]
        page.evaluate("stage.remove()")
        assert page.evaluate(LEFT, ".llm-switch button") == [0, 0, 0]

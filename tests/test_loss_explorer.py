"""LossExplorer, in Python and in a real browser: softmax, loss and slope that are torch's, and steps down the curve."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from driver import Driver, state
from traitlets import TraitError

import llmbook
from llmbook.widgets import LossExplorer

WORDS, SCORES = ["cat", "dog", "hat", "mat"], [2.0, 1.0, 0.0, 0.0]
LABELS = {
    "en": {"score": "score of {}", "rate": "learning rate η", "step": "Take a step", "ten": "Take 10 steps",
           "back": "Back to the start", "reset": "Reset", "choose": "{}: make it the right word"},
    "zh": {"score": "{} 的得分", "rate": "学习率 η", "step": "更新一步", "ten": "更新十步",
           "back": "回到起点", "reset": "复位", "choose": "{}：设为正确的词"},
}  # fmt: skip


def explorer(words=WORDS, scores=SCORES, target=1, **kwargs):
    return LossExplorer(words, scores, target=target, **kwargs)


def walk(scores, target, rate, steps):
    """Scores, loss and slope after 0, 1, … steps of torch's gradient descent."""
    z, path = torch.tensor(scores, dtype=torch.float64, requires_grad=True), []
    for _ in range(steps + 1):
        loss = F.cross_entropy(z, torch.tensor(target))
        (slope,) = torch.autograd.grad(loss, z)
        path.append((z.detach(), loss.item(), slope))
        z = (z - rate * slope).detach().requires_grad_()
    return path


# --- in Python


@pytest.mark.parametrize("scores", [SCORES, [0.0, 0.0], [-700.0, 800.0, 3.0], [5.0] * 12, torch.arange(6.0).half()])
@pytest.mark.parametrize(("rate", "steps"), [(0.5, 0), (0.5, 7), (30.0, 3), (100.0, 1000)])
def test_loss_slope_and_steps_are_torch_s(scores, rate, steps):
    shown = LossExplorer([f"w{i}" for i in range(len(scores))], scores, target=len(scores) - 1, rate=rate, steps=steps)
    path = walk([float(x) for x in scores], len(scores) - 1, rate, steps)
    assert shown.walk.shape == (steps + 1, len(scores))
    assert np.allclose(shown.walk, torch.stack([z for z, _, _ in path]), atol=1e-9)
    assert shown.loss == pytest.approx(path[-1][1], abs=1e-9)
    assert np.allclose(shown.slope, path[-1][2], atol=1e-12) and abs(shown.slope.sum()) < 1e-12
    assert np.allclose(shown.probabilities, path[-1][0].softmax(-1), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": ["a"], "scores": [1.0]}, r"words: expected 2 to 12, got 1"),
        ({"words": ["a"] * 13, "scores": [1.0] * 13}, r"words: expected 2 to 12, got 13"),
        ({"words": "abcd"}, r"words: expected words, got 'abcd'"),
        ({"words": []}, r"words: expected words, got none"),
        ({"words": ["a", "", "b", "c"]}, r"words: expected non-empty strings, got '' at 1"),
        ({"words": [1, 2, 3, 4]}, r"'words' trait .* not the int 1"),
        ({"scores": [1.0, 2.0]}, r"scores: expected one for each of the 4 words, got 2"),
        ({"scores": [1.0, 2.0, 3.0, math.nan]}, r"scores: expected finite numbers, got nan"),
        ({"scores": [1.0, 2.0, 3.0, -1001.0]}, r"scores: expected numbers from -1000 to 1000, got -1001.0"),
        ({"scores": 3.0}, r"scores: expected numbers, got 3.0"),
        ({"target": 4}, r"target: expected a whole number from 0 to 3, got 4"),
        ({"target": -1}, r"target: expected a whole number from 0 to 3, got -1"),
        ({"target": True}, r"target: expected a whole number from 0 to 3, got True"),
        ({"rate": 0.0}, r"rate: expected a number above 0 and at most 100, got 0.0"),
        ({"rate": math.nan}, r"rate: expected a number above 0 and at most 100, got nan"),
        ({"steps": -1}, r"steps: expected a whole number from 0 to 1000, got -1"),
        ({"steps": 1001}, r"steps: expected a whole number from 0 to 1000, got 1001"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        LossExplorer(**({"words": WORDS, "scores": SCORES} | arguments))


def test_a_refused_change_leaves_everything_as_it_was_and_changes_are_seen():
    shown, seen = explorer(), []
    before = shown.to_html()
    for name, value in (("words", ["a"]), ("scores", [1.0]), ("target", 4), ("rate", -1.0), ("steps", 2000)):
        with pytest.raises(TraitError):
            setattr(shown, name, value)
    assert shown.to_html() == before
    shown.observe(lambda change: seen.append((change["name"], change["new"])), ["scores", "steps"])
    shown.set_state({"scores": [1.0, 1.0, 0.0, 0.0], "steps": 2})
    assert sorted(seen) == [("scores", [1.0, 1.0, 0.0, 0.0]), ("steps", 2)]
    with shown.hold_trait_notifications():
        shown.words, shown.scores = ["a", "b"], [1.0, 2.0]
    assert len(shown.probabilities) == 2


def test_it_is_displayed_the_same_every_time_and_its_state_makes_it_again():
    shown = explorer(rate=2, steps=3)
    assert repr(explorer()) == "LossExplorer(4 words, target='dog', rate=0.5, steps=0, loss=1.494)"
    assert LossExplorer(**state(shown)).to_html() == shown.to_html() and llmbook.LossExplorer is LossExplorer


def test_the_fallback_is_a_table_and_markup_stays_text():
    shown = LossExplorer(["<b>", "</script>"], [0.0, 0.0])
    assert shown.fallback() == (
        '<table class="llm-fallback"><tr><th>−log p = 0.693</th><th>&lt;b&gt;</th><th>&lt;/script&gt;</th></tr>'
        "<tr><th>z</th><td>0.000</td><td>0.000</td></tr><tr><th>p</th><td>0.500</td><td>0.500</td></tr>"
        "<tr><th>p − y</th><td>−0.500</td><td>0.500</td></tr></table>"
    )
    assert shown.to_html().count("</script>") == 1


# --- in a browser: the site's loader, module and styles

VALUES = "all => all.map((d) => Number(d.value))"


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return explorer()

    def button(self, name, word=""):
        return self.root.get_by_role("button", name=self.labels[name].format(word), exact=True)

    def field(self, name, word="", kind="number"):
        return self.root.locator(f'input[type={kind}][aria-label="{self.labels[name].format(word)}"]')

    def agrees(self, **changes):
        """After ``changes`` the page has the scores, probabilities, loss and slopes that torch has."""
        self.follow(changes)
        t = self.twin
        path = walk(t.scores, t.target, t.rate, t.steps)
        z, loss, slope = path[-1]
        p = z.softmax(-1)
        assert self.numbers(".llm-p") == pytest.approx(p.tolist(), abs=1e-6)
        assert self.numbers(".llm-slope") == pytest.approx(slope.tolist(), abs=1e-6)
        assert self.numbers(".llm-right") == pytest.approx([p[t.target].item()], abs=1e-6)
        assert self.numbers(".llm-value") == pytest.approx([loss], abs=1e-6)
        assert self.numbers(".llm-steps") == [t.steps]
        sums = [self.numbers(f".llm-sum-{name}")[0] for name in ("scores", "p", "slope")]
        assert sums == pytest.approx([z.sum().item(), 1, 0], abs=1e-6) and z.sum().item() == pytest.approx(
            sum(t.scores)
        )
        fields = self.root.locator(".llm-table input[type=number]").evaluate_all(VALUES)
        ranges = self.root.locator(".llm-table input[type=range]").evaluate_all(VALUES)
        assert fields == pytest.approx(z.tolist(), abs=1e-4) and ranges == pytest.approx(z.tolist(), abs=0.026)
        pressed = self.root.locator(".llm-word").evaluate_all("all => all.map((b) => b.ariaPressed === 'true')")
        assert pressed == [v == t.target for v in range(len(t.words))]
        self.picture_agrees(path, p)

    def picture_agrees(self, path, p):
        t, (z, _, slope) = self.twin, path[-1]
        high = max(5, *(math.ceil(step[1]) for step in path))
        at = [(34 + 266 * math.exp(-step[1]), 198 - 184 * step[1] / high) for step in path]
        centres = "all => all.map((c) => [c.cx.baseVal.value, c.cy.baseVal.value])"
        dots = self.root.locator("circle").evaluate_all(centres)  # the rings of the steps, and the point
        assert np.allclose(dots, at, atol=1e-3)
        widths = self.root.locator(".llm-p-cell .llm-bar").evaluate_all("all => all.map((b) => b.style.width)")
        assert [float(w[:-1]) for w in widths] == pytest.approx((100 * p).tolist(), abs=1e-3)
        laid = """all => all.map((b) => [...["--left", "--width"].map((name) => Number(b.style.getPropertyValue(name))),
                    b.classList.contains("llm-above")])"""
        bars = self.root.locator(".llm-slope-cell .llm-bar").evaluate_all(laid)
        assert np.allclose(bars, [[50 + 50 * min(0, s), 50 * abs(s), s > 0] for s in slope.tolist()], atol=1e-3)
        reach = float(self.root.locator(".llm-table input[type=range]").first.get_attribute("max"))
        ends = torch.stack([z, z - t.rate * slope]).clamp(-reach, reach).add(reach).div(2 * reach) * 100
        arrows = np.array(self.root.locator(".llm-arrow").evaluate_all(laid))
        assert np.allclose(arrows[:, 0], ends.amin(0), atol=1e-3)
        assert np.allclose(arrows[:, 1], (ends[0] - ends[1]).abs(), atol=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_scores_words_and_steps(visit, stage, edition, width, scheme):
    url = stage(explorer(), lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, edition=edition)
        driver.agrees()
        assert page.locator(".llm-fallback").count() == 0
        assert driver.button("back").get_attribute("aria-disabled") == "true"
        driver.field("score", "hat", "range").focus()
        page.keyboard.press("ArrowRight")
        driver.agrees(scores=[2.0, 1.0, 0.05, 0.0])
        driver.field("score", "mat").fill("-1.5")
        driver.agrees(scores=[2.0, 1.0, 0.05, -1.5])
        driver.button("choose", "hat").click()
        driver.agrees(target=2)
        for steps in (1, 2):
            driver.button("step").click()
            driver.agrees(steps=steps)
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        driver.agrees(steps=12)
        driver.field("rate").fill("3")  # the same walk, with longer steps
        driver.agrees(rate=3.0)
        driver.button("back").click()
        driver.agrees(steps=0)
        driver.button("ten").click()
        driver.agrees(steps=10)
        now = driver.twin.walk[-1].tolist()
        driver.field("score", "dog").fill("4")  # from where the walk has come to
        driver.agrees(scores=[now[0], 4.0, *now[2:]], steps=0)
        driver.button("reset").click()
        driver.agrees(scores=SCORES, target=1, rate=0.5)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("touch", [False, True])
def test_the_point_is_dragged_along_the_curve(visit, stage, touch):
    with visit(stage(explorer()), touch=touch) as page:
        driver = Page(page)
        plot = driver.root.locator(".llm-draggable")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        for share in (0.25, 0.8, 2.0, -1.0):
            x, y = box["x"] + (34 + 266 * share) / 320 * box["width"], box["y"] + box["height"] / 2
            if touch and 0 < share < 1:
                page.touchscreen.tap(x, y)
            elif not touch:
                page.mouse.move(box["x"] + box["width"] / 2, y)
                page.mouse.down()
                page.mouse.move(x, y, steps=3)
                page.mouse.up()
            else:
                continue
            wanted = min(0.999, max(0.001, share))
            [p] = driver.numbers(".llm-right")
            assert p == pytest.approx(wanted, abs=2e-3 if 0 < share < 1 else 1e-9)
            others = sum(math.exp(z) for z in (2.0, 0.0, 0.0))
            driver.agrees(scores=[2.0, math.log(p / (1 - p) * others), 0.0, 0.0])


@pytest.mark.parametrize("text", ["", "-", "e", "NaN", "<b>"])
def test_nothing_typed_breaks_it(visit, stage, text):
    with visit(stage(explorer())) as page:
        driver = Page(page)
        field = driver.field("score", "dog")
        field.fill("")
        field.press_sequentially(text)
        driver.field("rate").focus()
        driver.agrees()
        for typed, kept in (("1e9", 100.0), ("-1e9", -100.0), ("12.5", 12.5)):
            field.fill(typed)
            field.blur()
            driver.agrees(scores=[2.0, kept, 0.0, 0.0])
        driver.field("rate").fill("-1")
        driver.agrees(rate=0.001)


def test_the_last_step_is_the_last_and_says_what_has_come_of_it(visit, stage):
    twin = explorer(rate=5, steps=995)
    with visit(stage(explorer(rate=5, steps=995))) as page:
        driver = Page(page, twin)
        driver.button("ten").click()
        driver.agrees(steps=1000)
        assert driver.button("step").get_attribute("aria-disabled") == "true"
        driver.button("step").click(force=True)
        driver.agrees()
        said = driver.root.locator("[aria-live=polite]").inner_text()
        assert said == f"After 1000 steps: p(dog) = {twin.probabilities[1]:.3f}, loss {twin.loss:.3f}."


def test_two_on_a_page_do_not_disturb_each_other_and_every_control_has_a_name(visit, stage):
    long = [*(f"w{i}" for i in range(10)), "internationalisation" * 5, "<b>国际化" * 9]
    other = LossExplorer(long, [float(i * 40) for i in range(12)], target=3, rate=100)
    with visit(stage(explorer(), other, lang="zh"), width=390) as page:
        first, second = Page(page, edition="zh"), Page(page, other, 1, "zh")
        first.button("step").click()
        second.button("step").click()
        first.agrees(steps=1)
        second.agrees(steps=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert first.root.locator("[id]").count() == 0 and first.root.get_attribute("aria-label") == "损失探索器"
        for control in first.root.locator("input, button").all():
            assert control.evaluate("c => c.ariaLabel || c.textContent").strip()

"""BlockExplorer in a real browser: every step of a block in torch's numbers, walked by mouse, key and finger."""

import re

import numpy as np
import pytest
import torch
from driver import CONTRAST, LEFT, RENDER, Driver, state
from helpers import normal
from test_block_explorer import X, block, explorer

from llmbook.widgets import BlockExplorer

LABELS = {
    "en": {"token": "token", "pre": "pre-norm", "post": "post-norm", "none": "no norm",
           "residual": "residual connections", "back": "Previous step", "on": "Next step", "times": "times applied"},
    "zh": {"token": "词元", "pre": "前置", "post": "后置", "none": "无", "residual": "残差连接", "back": "上一步",
           "on": "下一步", "times": "应用次数"},
}  # fmt: skip


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return explorer()

    def chip(self, name):
        return self.root.locator(f".llm-chip.llm-{name}")

    def values(self, name):
        return self.numbers(f".llm-{name}")

    def agrees(self, **changes):
        """After ``changes`` the page shows the step of the Python explorer with its numbers, to 1e-6."""
        self.follow(changes)
        t, steps = self.twin, self.twin.steps
        chips = self.root.locator(".llm-chip").evaluate_all("all => all.map((c) => c.className.split(' llm-')[1])")
        assert chips == list(steps)
        name, made = list(steps.items())[t.step]
        assert self.root.locator(".llm-chip[aria-current=step]").evaluate_all("all => all.length") == 1
        assert self.chip(name).get_attribute("aria-current") == "step"
        said = self.root.locator("[aria-live]").first.inner_text()
        numbers = [*([t.times] if t.times > 1 else []), t.step + 1, len(steps)]
        assert [int(n) for n in re.findall(r"\d+", said)][: len(numbers)] == numbers
        rows = np.concatenate([m[t.token] for m in made])
        assert np.allclose(self.values("entry"), rows, rtol=1e-6, atol=1e-6)
        cells = self.root.locator(".llm-made .llm-heat").evaluate_all("all => all.map((c) => c.ariaLabel)")
        written = [float(words.rsplit(": ")[1].replace("−", "-")) for words in cells]
        assert np.allclose(written, np.concatenate([m.flatten() for m in made]), rtol=0, atol=5.01e-4)
        assert self.root.locator(".llm-made figcaption span:first-child").evaluate_all("all => all.length") == len(made)
        for key, measured in self.measures(name, made).items():
            assert np.allclose(self.values(key), measured, rtol=1e-6, atol=1e-6), key
        chosen = self.root.locator(".llm-made [role=row].llm-chosen [role=rowheader]").all_text_contents()
        assert chosen == [t.tokens[t.token]] * len(made)
        last = torch.tensor(list(steps.values())[-1][0])
        cosines = torch.nn.functional.cosine_similarity(last[:, None], last[None], -1)
        n = len(last)
        means = [last.norm(dim=-1).mean().item(), (cosines.sum().item() - n) / (n * (n - 1))]
        said = self.root.locator("[aria-live]").last.inner_text().replace("−", "-")
        assert [float(x) for x in re.findall(r"-?\d+\.\d+", said)] == pytest.approx(means, abs=5.01e-4)
        for title, mean in zip(self.root.locator(".llm-depth figcaption").all_inner_texts(), means, strict=True):
            assert float(re.search(r"[−\d.]+$", title)[0].replace("−", "-")) == pytest.approx(mean, abs=5.01e-4)

    def measures(self, name, made):
        rows = torch.tensor(np.stack([m[self.twin.token] for m in made]))
        if name == "weights":
            return {"sum": rows.sum(-1), "keys": torch.special.entr(rows).sum(-1).exp()}
        moments = {"mean": rows.mean(-1), "variance": rows.var(-1, correction=0)}
        return moments if name == "scores" else moments | {"length": rows.norm(dim=-1)}


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_every_step_is_torch_s(visit, stage, norm, residual):
    activation = {"pre": "gelu", "post": "gelu_tanh", "none": "relu"}[norm]
    twin = explorer(activation, norm=norm, residual=residual, token=4, times=3)
    with visit(stage(twin)) as page:
        driver = Page(page, twin)
        for step, name in enumerate(twin.steps):
            driver.chip(name).click()
            driver.agrees(step=step)
        assert driver.root.locator(".llm-bypassed").count() == 2 * residual


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_mouse_and_keyboard_walk_the_block(visit, stage, edition, width, scheme):
    url = stage(explorer(), lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, edition=edition)
        driver.agrees()
        assert page.locator(".llm-fallback").count() == 0
        driver.press("back")  # there is none before the first
        driver.agrees(step=0)
        driver.press("on")
        driver.agrees(step=1)
        page.keyboard.press("ArrowRight")
        driver.agrees(step=2)
        page.keyboard.press("ArrowLeft")
        driver.press("on")
        driver.chip("scores").click()
        driver.agrees(step=3)
        for key, step in (
            ("ArrowRight", 4),
            ("End", 11),
            ("ArrowRight", 11),
            ("ArrowLeft", 10),
            ("Home", 0),
            ("End", 11),
        ):
            page.keyboard.press(key)
            driver.agrees(step=step)
        assert driver.root.get_by_role("button", name=driver.labels["on"]).get_attribute("aria-disabled") == "true"
        driver.root.get_by_role("combobox", name=driver.labels["token"]).select_option("2")
        driver.agrees(token=2)
        driver.root.locator(".llm-made [role=rowheader]").nth(5).click()
        driver.agrees(token=5)
        driver.root.locator(".llm-from .llm-band").nth(1).click()
        driver.agrees(token=1)
        driver.root.locator(".llm-made .llm-heat").nth(3).focus()
        for key in ("ArrowDown", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        driver.agrees(token=2)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_norm_and_residual_change_the_steps_and_the_reader_stays(visit, stage):
    with visit(stage(explorer(step=3))) as page:
        driver = Page(page, explorer(step=3))
        driver.press("post")
        driver.agrees(norm="post", step=2)  # scores
        driver.chip("feed_forward_norm").click()
        driver.agrees(step=11)
        driver.root.get_by_role("checkbox", name=driver.labels["residual"]).uncheck()
        driver.agrees(residual=False, step=9)
        driver.press("none")
        driver.agrees(norm="none", step=7)  # this step is gone: the last
        assert driver.root.locator(".llm-bypassed").count() == 0
        driver.root.get_by_role("checkbox", name=driver.labels["residual"]).check()
        driver.agrees(residual=True, step=8)  # the second projection
        driver.press("pre")
        driver.agrees(norm="pre", step=10)


@pytest.mark.parametrize("touch", [False, True])
def test_the_block_is_applied_again(visit, stage, touch):
    with visit(stage(explorer(step=11)), touch=touch) as page:
        driver = Page(page, explorer(step=11))
        slider = driver.root.locator("input[type=range]")
        slider.focus()
        page.keyboard.press("ArrowRight")
        driver.agrees(times=2)
        for typed, times in (("7", 7), ("0", 1), ("99", 8), ("2.6", 3), ("", 3), ("e", 3)):
            field = driver.root.locator("input[type=number]")
            field.click()
            page.keyboard.press("Control+A")
            page.keyboard.press("Delete")
            page.keyboard.type(typed)
            page.keyboard.press("Tab")
            driver.agrees(times=times)
            assert field.input_value() == str(times) == slider.input_value()
        plane = driver.root.locator(".llm-draggable").nth(1)
        plane.scroll_into_view_if_needed()
        box = plane.bounding_box()
        (page.touchscreen.tap if touch else page.mouse.click)(box["x"] + 0.74 * box["width"], box["y"] + 60)
        driver.agrees(times=6)


def test_curves_are_those_of_every_norm_with_and_without_residual(visit, stage):
    with visit(stage(explorer(times=5))) as page:
        driver = Page(page, explorer(times=5))
        svg = driver.root.locator(".llm-depth svg").nth(1)
        points = "all => all.map((c) => [c.className.baseVal, [...c.points].map((p) => p.y)])"
        curves = svg.locator("polyline.llm-curve").evaluate_all(points)
        assert len(curves) == 6 and len({name.replace(" llm-now", "") for name, _ in curves}) == 6
        ticks = svg.locator("text[text-anchor=end]").evaluate_all(
            "all => all.map((x) => [x.textContent, x.y.baseVal[0].value - 4])"
        )
        zero, one = dict(ticks)["0"], dict(ticks)["1"]
        for name, ys in curves:
            norm, residual = re.search("pre|post|none", name)[0], "without" not in name
            for times in range(1, 9):
                z = list(explorer(norm=norm, residual=residual, times=times).steps.values())[-1][0]
                unit = z / np.linalg.norm(z, axis=-1, keepdims=True)
                cosine = ((unit @ unit.T).sum() - 6) / 30
                assert (ys[times] - zero) / (one - zero) == pytest.approx(cosine, abs=1e-3), name
            if "llm-now" in name:
                assert (norm, residual) == ("pre", True)
                assert float(svg.locator("circle").get_attribute("cy")) == pytest.approx(ys[5], abs=0.01)


def test_a_cell_under_pointer_or_focus_tells_its_number(visit, stage):
    with visit(stage(explorer(step=4))) as page:
        driver = Page(page, explorer(step=4))
        read = driver.root.locator(".llm-made .llm-readout").nth(1)
        weights = driver.twin.steps["weights"][1]
        assert read.inner_text() == f"±{weights.max():.2f}"
        driver.root.locator(".llm-made figure").nth(1).locator(".llm-heat").nth(8).hover()
        assert read.inner_text() == f"cat → drank: {weights[1, 2]:.3f}"
        driver.root.locator(".llm-made figure").nth(1).locator(".llm-heat").first.focus()
        page.keyboard.press("ArrowDown")
        assert read.inner_text() == f"cat → the: {weights[1, 0]:.3f}"


def test_two_on_a_page_and_one_token_alone(visit, stage):
    alone = BlockExplorer(block(n_heads=1), X[:1], ["<b>&"], step=2)
    with visit(stage(explorer(), alone)) as page:
        first, second = Page(page), page.locator(".llm").nth(1)
        second.get_by_role("button", name="Next step").click()
        first.chip("hidden").click()
        first.agrees(step=9)
        assert second.locator(".llm-chip[aria-current=step]").inner_text() == "scores"
        assert second.locator("h4").first.inner_text() == "The row of “<b>&”"
        assert second.locator(".llm-depth figcaption").last.inner_text().endswith(": –")
        assert second.locator("[id]").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_largest_does_not_widen_the_page(visit, stage, width):
    tokens = ["internationalisation" * 3, *("x" for _ in range(10)), "国际化" * 9]
    most = BlockExplorer(block(d_model=16, d_ff=64, n_heads=8), normal(12, 16).detach(), tokens, step=4)
    with visit(stage(most), width=width) as page:
        driver = Page(page, most)
        for step, name in ((3, "scores"), (5, "heads"), (9, "hidden")):
            driver.chip(name).click()
            driver.agrees(step=step)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    with visit(stage(most), width=width, java_script_enabled=False) as page:
        assert page.locator(".llm-fallback td").count() == 12
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_has_a_name_and_text_stands_out(visit, stage, scheme):
    twin = explorer(step=4, token=3)
    with visit(stage(twin, lang="zh", scheme=scheme), scheme=scheme) as page:
        root = Page(page, twin, edition="zh").root
        assert root.get_attribute("aria-label") == "编码器块探索器"
        for control in root.locator("select, input, button, [role=grid], [role=gridcell], [role=img]").all():
            assert control.evaluate(
                "c => (c.ariaLabel || [...(c.labels ?? [])].map((l) => l.textContent).join('') || c.textContent).trim()"
            )
        for grid in root.locator("[role=grid], nav").all():
            assert grid.locator("[tabindex='0']").count() == 1
        ratios = root.evaluate(CONTRAST)
        assert len(ratios) > 60 and min(ratios) >= 4.5


def test_it_speaks_with_a_kernel_in_both_directions_and_leaves_nothing_behind(visit, stage):
    with visit(stage()) as page:
        page.evaluate(RENDER, ["block", state(explorer(step=1))])
        page.evaluate("() => { stage.remove = stage.explorer.render(stage); }")
        root = page.locator(".llm")
        root.locator(".llm-hidden").click()
        root.get_by_role("button", name="no norm").click()
        root.locator(".llm-made [role=rowheader]").nth(3).click()
        saved = [{"step": 9}, {"norm": "none", "step": 7}, {"token": 3}]
        assert page.evaluate("stage.saved") == saved
        other = state(BlockExplorer(block(d_model=4, d_ff=5), normal(2, 4).detach(), ["a", "b"], step=5))
        for part in ("token", "weights", "x"):  # parts of a change: x and tokens fit together again only at the end
            page.evaluate("(changes) => stage.kernel(changes)", {"token": 0, part: other[part]})
            assert root.locator(".llm-made .llm-heat").count() == 6 * 12
        page.evaluate("(changes) => stage.kernel(changes)", other)
        assert root.locator(".llm-made .llm-heat").count() == 2 * 4 and root.locator("option").count() == 2
        page.evaluate("stage.kernel({ norm: 'none', residual: false, step: 7 })")
        assert root.locator(".llm-chip").count() == 8 and page.evaluate("stage.saved.length") == len(saved)
        page.evaluate("stage.remove()")
        assert page.evaluate(LEFT, ".llm-hidden") == [0, 0, 0]

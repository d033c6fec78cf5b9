"""ScaleExplorer, in Python and in a real browser: what a model of a size costs is what llmbook.scale says."""

import math

import pytest
from driver import Driver, state
from traitlets import TraitError

import llmbook
from llmbook.scale import PUBLISHED, compute_optimal, training_flops
from llmbook.widgets import ScaleExplorer

LABELS = {
    "en": {"N": "parameters N, billions", "D": "tokens D, billions", "best": "Best size for this compute",
           "reset": "Reset", "point": "your model", "unit": 1e9, "here": "175 billion parameters, 300 billion tokens"},
    "zh": {"N": "参数量 N（亿）", "D": "词元数 D（亿）", "best": "取这份计算量下的最优规模", "reset": "复位",
           "point": "你的模型", "unit": 1e8, "here": "参数 1750 亿，词元 3000 亿"},
}  # fmt: skip
KNOWN = [(m.name, m.parameters, m.tokens) for m in PUBLISHED if m.tokens]
OURS = ("ours", 2.6e6, 2.6e7)


# --- in Python


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": 1e5}, r"parameters: expected a number from 1e\+06 to 1e\+13, got 100000.0"),
        ({"parameters": float("nan")}, r"parameters: expected a number from 1e\+06 to 1e\+13, got nan"),
        ({"tokens": 3e14}, r"tokens: expected a number from 2e\+07 to 2e\+14, got 3"),
        ({"tokens": "many"}, r"'tokens' trait .* expected a float, not the str 'many'"),
        ({"throughput": 0}, r"throughput: expected operations a second above 0, got 0"),
        ({"throughput": float("inf")}, r"throughput: expected operations a second above 0, got inf"),
        ({"models": []}, r"models: expected 1 to 40, got 0"),
        ({"models": [OURS] * 41}, r"models: expected 1 to 40, got 41"),
        ({"models": [(" ", 1e9, 1e9)]}, r"models: expected a name for each, got ' '"),
        ({"models": [("x", 1e9)]}, r"models.* requires 3 elements"),
        ({"models": [("x", 1.0, 1e9)]}, r"models: parameters of x: expected a number from 1e\+06 to 1e\+13, got 1.0"),
        ({"models": [("x", 1e9, 1.0)]}, r"models: tokens of x: expected a number from 2e\+07 to 2e\+14, got 1.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(TraitError, match=message):
        ScaleExplorer(**arguments)


def test_it_opens_with_gpt_3_among_the_published_models_and_can_be_made_again():
    shown = ScaleExplorer()
    assert shown.models == KNOWN and shown.nearest == "GPT-3"
    assert shown.flops == training_flops(175e9, 300e9)
    assert shown.gpu_days == pytest.approx(3.15e23 / 400e12 / 24 / 3600)
    plain = "ScaleExplorer(parameters=1.75e+11, tokens=3e+11, flops=3.15e+23, 6 models)"
    assert repr(shown) == repr(ScaleExplorer(**state(shown))) == plain
    assert llmbook.ScaleExplorer is ScaleExplorer


def test_changes_are_heard_and_a_bad_one_leaves_what_was():
    shown, heard = ScaleExplorer(), []
    shown.observe(lambda change: heard.append(change["new"]), "tokens")
    shown.tokens = 1e12
    with pytest.raises(TraitError):
        shown.tokens = 1
    assert heard == [1e12] and shown.tokens == 1e12


def test_markup_stays_text():
    html = ScaleExplorer(models=[("</script><b>", 1e9, 1e10)]).to_html()
    assert html.count("</script>") == 1 and "<b>" not in html


# --- in the browser


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return ScaleExplorer()

    def slider(self, name):
        return self.input(name, "range")

    def value(self, name):
        return float(self.root.locator(f"data.llm-{name}").get_attribute("value"))

    def at(self, circle):
        """Where a circle stands: parameters and tokens, by the drawing's frame of 7 decades each."""
        x, y = (float(circle.get_attribute(name)) for name in ("cx", "cy"))
        return 10 ** (6 + 7 * (x - 48) / (460 - 48 - 18)), 2 * 10 ** (7 + 7 * (360 - y) / (360 - 24))

    def agrees(self, **changes):
        self.follow(changes)
        N, D = self.twin.parameters, self.twin.tokens
        flops, (best_n, best_d) = training_flops(N, D), compute_optimal(training_flops(N, D))
        exact = {"flops": flops, "days": flops / self.twin.throughput / 86400, "ratio": D / N, "memory": 2 * N / 1e9,
                 "bestN": best_n, "bestD": best_d}  # fmt: skip
        assert {name: self.value(name) for name in exact} == pytest.approx(exact, rel=1e-9)
        assert self.at(self.point()) == pytest.approx((N, D), rel=1e-6)
        assert self.at(self.root.locator(".llm-best")) == pytest.approx((best_n, best_d), rel=1e-6)
        name = min(self.twin.models, key=lambda m: math.hypot(math.log(m[1] / N), math.log(m[2] / D)))[0]
        assert name == self.twin.nearest and f" {name}" in self.root.locator(".llm-said").inner_text()
        for slider, x in (("N", N), ("D", D)):
            place = math.log10(x / self.labels["unit"])
            assert float(self.slider(slider).input_value()) == pytest.approx(place, abs=0.0051)

    def point(self):
        return self.root.locator("[role=slider]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_sliders_keys_lists_and_buttons_move_the_point(visit, stage, edition, width, scheme):
    shown = ScaleExplorer(models=[*KNOWN, OURS], throughput=1e14)
    with visit(stage(shown, lang=edition, scheme=scheme), width=width, scheme=scheme) as page:
        driver = Page(page, shown, edition=edition)
        driver.agrees()
        assert driver.root.locator(".llm-here").inner_text() == driver.labels["here"]
        driver.slider("N").focus()
        page.keyboard.press("Home")
        driver.agrees(parameters=1e6)
        page.keyboard.press("End")
        driver.agrees(parameters=1e13)
        unit = driver.labels["unit"]
        for typed, value in (("7", 7 * unit), ("1e99", 1e13), ("-1", 1e6), ("", 1e6), ("40", 40 * unit)):
            driver.input("N", "number").fill(typed)
            driver.agrees(parameters=value)
        driver.input("D", "number").fill("90")
        driver.agrees(tokens=90 * unit)
        driver.root.get_by_role("button", name=driver.labels["best"]).click()
        best = [float(f"{x:.4g}") for x in compute_optimal(training_flops(40 * unit, 90 * unit))]
        driver.agrees(parameters=best[0], tokens=best[1])
        driver.root.locator("select").select_option("PaLM")
        driver.agrees(parameters=540e9, tokens=780e9)
        driver.point().focus()
        assert driver.point().get_attribute("aria-label") == driver.labels["point"]
        for key, factor in (("ArrowRight", 10**0.05), ("Shift+ArrowLeft", 10**-0.25)):
            page.keyboard.press(key)
            driver.agrees(parameters=float(f"{driver.twin.parameters * factor:.4g}"))
        for key, factor in (("ArrowDown", 10**-0.05), ("Shift+ArrowUp", 10**0.25)):
            page.keyboard.press(key)
            driver.agrees(tokens=float(f"{driver.twin.tokens * factor:.4g}"))
        assert driver.root.locator("select").input_value() == "-1"
        driver.root.locator("select").select_option(index=7)
        driver.agrees(parameters=2.6e6, tokens=2.6e7)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        driver.root.get_by_role("button", name=driver.labels["reset"]).click()
        driver.agrees(parameters=175e9, tokens=300e9)


@pytest.mark.parametrize("touch", [False, True])
def test_the_point_is_dragged(visit, stage, touch):
    with visit(stage(ScaleExplorer()), touch=touch) as page:
        driver = Page(page, ScaleExplorer())
        box = driver.root.locator(".llm-draggable").bounding_box()
        at = box["x"] + 245 / 460 * box["width"], box["y"] + 192 / 400 * box["height"]  # the middle
        page.touchscreen.tap(*at) if touch else page.mouse.click(*at)
        driver.twin.parameters, driver.twin.tokens = driver.at(driver.point())
        assert driver.twin.parameters == pytest.approx(10**9.5, rel=0.05)
        assert driver.twin.tokens == pytest.approx(2 * 10**10.5, rel=0.05)
        driver.agrees()


def test_models_and_lines_lie_where_they_should(visit, stage):
    with visit(stage(ScaleExplorer())) as page:
        driver = Page(page, ScaleExplorer())
        dots = [driver.at(dot) for dot in driver.root.locator("circle.llm-rule").all()]
        for dot, (_, parameters, tokens) in zip(dots, KNOWN, strict=True):
            assert dot == pytest.approx((parameters, tokens), rel=1e-6)

        def ends(line):
            points = [map(float, p.split(",")) for p in line.get_attribute("points").split()]
            return [(10 ** (6 + 7 * (x - 48) / 394), 2 * 10 ** (7 + 7 * (360 - y) / 336)) for x, y in points]

        assert [d / n for n, d in ends(driver.root.locator("polyline.llm-rule"))] == pytest.approx([20, 20])
        levels = [6 * n * d for line in driver.root.locator("polyline.llm-level").all() for n, d in ends(line)]
        assert levels == pytest.approx([10.0**power for power in (17, 19, 21, 23, 25) for _ in range(2)])
        same = [6 * n * d for n, d in ends(driver.root.locator("polyline.llm-same"))]
        assert same == pytest.approx([3.15e23] * 2)


def test_two_on_a_page_names_and_no_scripts(visit, stage):
    shown = [ScaleExplorer(), ScaleExplorer(1e9, 1e9)]
    with visit(stage(*shown)) as page:
        first, second = (Page(page, one, i) for i, one in enumerate(shown))
        first.root.locator("select").select_option("Gopher")
        second.agrees()
        first.agrees(parameters=280e9)
        assert first.root.get_attribute("aria-label") == "Scale explorer" and first.root.locator("[id]").count() == 0
        assert first.root.locator("svg").get_attribute("aria-label")
    with visit(stage(ScaleExplorer()), java_script_enabled=False) as page:
        assert page.locator(".llm-fallback tr").count() == 2 + len(KNOWN)

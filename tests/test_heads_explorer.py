"""HeadsExplorer, in Python and in a real browser: every head's map, one or two large, and numbers that are torch's."""

import re

import numpy as np
import pytest
import torch
from driver import CONTRAST, LEFT, RENDER, TOLD, Driver, displayed, shades, state
from traitlets import TraitError

import llmbook
from llmbook import text, zoo
from llmbook.capture import capture
from llmbook.widgets import HeadsExplorer

TOKENS = ["[CLS]", "the", "cat", "drank", "the", "milk", "[SEP]"]
LABELS = {
    "en": {"matrix": "Matrix", "lines": "Lines", "compare": "compare with", "query": "query token", "all": "All heads"},
    "zh": {"matrix": "矩阵", "lines": "连线", "compare": "对比的头", "query": "查询词元", "all": "所有的头"},
}


def weights(layers=3, heads=2, n=7):
    """Attention weights (L, H, T, T), some of them large."""
    g = torch.Generator().manual_seed(0)
    return (2 * torch.randn(layers, heads, n, n, generator=g, dtype=torch.float64)).softmax(-1)


def explorer(**kwargs):
    return HeadsExplorer(weights(), TOKENS, **kwargs)


# --- in Python


@pytest.fixture(scope="module")
def trained():
    """What capture leaves of the shipped model's pass over a batch of two, and the tokens of the first row."""
    model, tokenizer = zoo.load("mlm-en")
    encoding = tokenizer.encode("The cat drank the milk because it was thirsty.", add_special_tokens=False)
    ids = torch.tensor([[text.CLS, *encoding.ids, text.SEP]])
    with capture(model) as maps, torch.no_grad():
        model(torch.cat([ids, ids.flip(1)]))
    return maps, ["[CLS]", *encoding.tokens, "[SEP]"]


def test_what_capture_leaves_is_taken_and_the_first_row_of_the_batch_shown(trained):
    maps, tokens = trained
    shown = HeadsExplorer(maps, tokens)
    first = torch.stack(list(maps))[:, 0]
    assert np.array(shown.weights).shape == first.shape
    assert np.abs(np.array(shown.weights) - first.double().numpy()).max() <= 0.000501
    assert re.fullmatch(r"HeadsExplorer\(\d layers, \d heads, 13 tokens, layer=0, head=0\)", repr(shown))


def test_weights_are_kept_to_three_decimals():
    kept = np.array(explorer().weights)
    assert (kept == kept.round(3)).all() and np.abs(kept - weights().numpy()).max() <= 0.0005 + 1e-12
    assert not re.search(r"\d\.\d{4}", explorer().to_html())


@pytest.mark.parametrize(
    "make",
    [
        lambda w: w,
        lambda w: w.numpy(),
        lambda w: w.tolist(),
        lambda w: list(w),
        lambda w: [layer[None] for layer in w],
        lambda w: [torch.stack([layer, layer.flip(-1)]) for layer in w],
        lambda w: [layer[None].requires_grad_() for layer in w],
        lambda w: [layer.numpy()[None] for layer in w],
    ],
)
def test_lists_arrays_and_tensors_are_taken(make):
    assert HeadsExplorer(make(weights()), TOKENS).weights == explorer().weights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_of_half_precision_are_taken(dtype):
    assert np.allclose(HeadsExplorer(weights().to(dtype), TOKENS).weights, weights(), atol=5e-3)


@pytest.mark.parametrize("n", range(1, 65))
def test_what_was_rounded_may_be_put_in_again(n):
    uniform = HeadsExplorer(np.full((1, 1, n, n), 1 / n), ["x"] * n)
    assert HeadsExplorer(**state(uniform)).weights == uniform.weights


W = torch.full((2, 3, 4, 4), 0.25)
T4 = list("abcd")


def changed(value, at=(1, 2, 3, 0)):
    w = W.clone()
    w[at] = value
    return w


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": 3}, r"weights: expected layers, got 3"),
        ({"weights": "ab"}, r"weights: expected layers, got 'ab'"),
        ({"weights": []}, r"weights: expected layers, got none"),
        ({"weights": [None]}, r"weights: expected .* \(B, H, T_q, T_k\) or \(H, T_q, T_k\), got None in one"),
        ({"weights": W[0, 0, 0]}, r"weights: expected layers of weights .*, got \(\)"),
        ({"weights": W[None, None]}, r"weights: expected layers of weights .*, got \(1, 2, 3, 4, 4\)"),
        ({"weights": [W[:0]]}, r"weights: expected layers of weights .*, got \(0,"),
        ({"weights": [[[[0.5, 0.5], [1.0]]]]}, r"weights: expected layers of weights .*, got what makes no array"),
        ({"weights": [[[["a"]]]]}, r"weights: expected layers of weights .*, got 'a' in one"),
        ({"weights": torch.zeros(4, 4, device="meta")}, r"weights: .*, got what makes no array"),
        ({"weights": [W[0], W[0, :2]]}, r"weights: expected layers of one shape, got \[\(3, 4, 4\), \(2, 4, 4\)\]"),
        ({"weights": torch.eye(65)[None, None]}, r"weights: expected at most 64 tokens, got 65"),
        ({"weights": changed(float("nan"))}, r"weights: expected finite numbers not below 0, got nan"),
        ({"weights": changed(float("inf"))}, r"weights: expected finite numbers not below 0, got inf"),
        ({"weights": changed(-0.25)}, r"weights: expected finite numbers not below 0, got -0.25"),
        ({"weights": changed(0.2711)}, r"weights: expected rows that sum to 1 .*, got 1.021 in layer 1, head 2, row 3"),
        ({"weights": changed(0.0)}, r"weights: expected rows that sum to 1 .*, got 0.75 in layer 1, head 2, row 3"),
        ({"weights": changed(0.239)}, r"weights: expected rows that sum to 1 .*, got 0.989 in layer 1, head 2, row 3"),
        ({"tokens": T4[:3]}, r"tokens: expected one for each of the 4 rows of the weights \(2, 3, 4, 4\), got 3"),
        ({"tokens": [*T4, "e"]}, r"tokens: expected one for each of the 4 rows of the weights \(2, 3, 4, 4\), got 5"),
        ({"tokens": "abcd"}, r"tokens: expected one for each of the 4 rows of the weights \(2, 3, 4, 4\), got 1"),
        ({"tokens": [1, 2, 3, 4]}, r"'tokens' trait .* expected a unicode string, not the int 1"),
        ({"layer": 2}, r"layer: expected a whole number from 0 to 1, got 2"),
        ({"layer": -1}, r"layer: expected a whole number from 0 to 1, got -1"),
        ({"head": 3}, r"head: expected a whole number from 0 to 2, got 3"),
        ({"head": True}, r"head: expected a whole number from 0 to 2, got True"),
        ({"head": 0.5}, r"'head' trait .* expected an int, not the float 0.5"),
        ({"compare": (2, 0)}, r"compare: expected a whole number from 0 to 1, got 2"),
        ({"compare": (1, 3)}, r"compare: expected a whole number from 0 to 2, got 3"),
        ({"compare": (1,)}, r"'compare' trait .* requires 2 elements"),
        ({"compare": 1}, r"'compare' trait .* expected a tuple or None, not the int 1"),
        ({"query": 4}, r"query: expected a whole number from 0 to 3, got 4"),
        ({"query": -1}, r"query: expected a whole number from 0 to 3, got -1"),
        ({"view": "heat"}, r"'view' trait"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        HeadsExplorer(**({"weights": W, "tokens": T4} | arguments))


def test_a_refused_change_leaves_everything_as_it_was_and_sentences_change_together():
    shown = explorer(layer=2, head=1, compare=(0, 1), query=6)
    before = shown.to_html()
    for name, value in (("weights", W), ("tokens", T4), ("layer", 3), ("head", 2), ("compare", (3, 0)), ("query", 7)):
        with pytest.raises(TraitError):
            setattr(shown, name, value)
    assert shown.to_html() == before
    with shown.hold_trait_notifications():
        shown.weights, shown.tokens, shown.layer, shown.query = W, T4, 1, None
    assert np.array(shown.weights).shape == W.shape


def test_what_the_browser_sends_is_seen_in_python():
    shown, seen = explorer(), []
    shown.observe(lambda change: seen.append((change["name"], change["new"])), ["layer", "compare", "query", "view"])
    shown.set_state({"layer": 2, "compare": [1, 0], "query": 3, "view": "lines"})
    assert seen == [("layer", 2), ("compare", (1, 0)), ("query", 3), ("view", "lines")]
    shown.set_state({"compare": None, "query": None})
    assert shown.compare is None and shown.query is None


def test_it_is_displayed_the_same_every_time():
    display = displayed(lambda: explorer(layer=1, compare=(2, 1)))
    plain = "HeadsExplorer(3 layers, 2 heads, 7 tokens, layer=1, head=0, compare=(2, 1))"
    assert display["text/plain"] == repr(explorer(layer=1, compare=(2, 1))) == plain
    assert "application/vnd.jupyter.widget-view+json" in display and 'data-explorer="heads"' in plain_html()
    assert state(explorer()) == {"weights": explorer().weights, "tokens": TOKENS, "layer": 0, "head": 0,
                                 "compare": None, "view": "matrix", "query": None}  # fmt: skip
    assert llmbook.HeadsExplorer is HeadsExplorer


def plain_html():
    return HeadsExplorer([[[[1.0, 0.0], [0.25, 0.75]]]], ["<b>", "b"]).to_html()


def test_the_fallback_is_the_table_of_the_head():
    assert plain_html().endswith(
        '<table class="llm-fallback"><tr><th>weights[0][0]</th><th>&lt;b&gt;</th><th>b</th></tr>'
        "<tr><th>&lt;b&gt;</th><td>1.000</td><td>0.000</td></tr><tr><th>b</th><td>0.250</td><td>0.750</td></tr></table></div>"
    )
    assert f"<td>{weights()[2, 1, 0, 0]:.3f}</td>" in explorer(layer=2, head=1).fallback()


def test_markup_in_tokens_stays_text():
    html = HeadsExplorer([[np.eye(2)]], ["</script><script>alert(1)</script>", "b"]).to_html()
    assert html.count("<script") == 1 == html.count("</script>")


# --- in a browser: the site's loader, module and styles


def measures(map):
    """Of a head (T, T), by torch: mean weight on the token itself, before it, after it; mean exp(entropy)."""
    means = [map.diagonal(k).mean() for k in (0, -1, 1)]
    return [float(x) for x in (*means, torch.special.entr(map).sum(-1).exp().mean())]


CHOSEN = "all => all.map((x) => x.classList.contains('llm-chosen'))"


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return explorer()

    def __init__(self, page, twin=None, index=0, edition="en"):
        super().__init__(page, twin, index, edition)
        self.edition = edition
        self.compare = self.root.get_by_label(self.labels["compare"])
        self.query = self.root.get_by_label(self.labels["query"])

    def small(self, layer, head):
        return self.root.locator(".llm-small").nth(layer * len(self.twin.weights[0]) + head)

    def panel(self, which="first"):
        return self.root.locator(f".llm-panel.llm-{which}")

    def cell(self, i, j, which="first"):
        return self.panel(which).locator(".llm-heat").nth(i * len(self.twin.tokens) + j)

    def head_name(self, layer, head):
        return {"en": f"layer {layer}, head {head}", "zh": f"层 {layer}，头 {head}"}[self.edition]

    def agrees(self, **changes):
        """After ``changes`` the page shows the heads of the Python explorer, and what torch makes of them."""
        self.follow(changes)
        t = self.twin
        chosen = self.root.locator(".llm-small[aria-selected=true]")
        assert chosen.evaluate_all("all => all.map((cell) => cell.title)") == [self.head_name(t.layer, t.head)]
        assert self.root.locator(".llm-small.llm-beside").count() == (t.compare is not None)
        assert self.compare.input_value() == ("" if t.compare is None else f"{t.compare[0]},{t.compare[1]}")
        assert self.query.input_value() == ("" if t.query is None else str(t.query))
        pressed = {name: self.button(name).get_attribute("aria-pressed") for name in ("matrix", "lines")}
        assert pressed == {name: str(name == t.view).lower() for name in pressed}
        self.panel_agrees("first", (t.layer, t.head))
        if t.compare is None:
            assert not self.panel("second").is_visible()
        else:
            self.panel_agrees("second", t.compare)

    def panel_agrees(self, which, place):
        t, panel = self.twin, self.panel(which)
        map = torch.tensor(t.weights[place[0]][place[1]], dtype=torch.float64)
        assert panel.locator("figcaption span").first.inner_text() == self.head_name(*place)
        grid, picture = panel.get_by_role("grid"), panel.get_by_role("img")
        assert (grid.is_visible(), picture.is_visible()) == (t.view == "matrix", t.view == "lines")
        if t.view == "matrix":
            told = grid.locator(".llm-heat").evaluate_all(TOLD)
            assert told == pytest.approx(map.flatten().tolist(), abs=1e-9)
            assert (shades(grid.locator("path"), map.shape) - map).abs().max() <= 0.0101
            own = shades(grid.locator("svg > path"), map.shape).any(-1).tolist()  # drawn apart: the chosen one
            assert own == [i == t.query for i in range(len(t.tokens))]
            marked = grid.locator("[role=row]:has(.llm-heat)").evaluate_all(CHOSEN)
        else:
            drawn = picture.locator("line").evaluate_all("all => all.map((c) => c.getAttribute('stroke-opacity'))")
            assert [float(w) for w in drawn] == pytest.approx(map.flatten().tolist(), abs=1e-9)
            marked = picture.locator("g").evaluate_all(CHOSEN)
            tokens = panel.locator("button.llm-token")
            assert marked == tokens.evaluate_all("all => all.map((b) => b.ariaPressed === 'true')")
        assert marked == [i == t.query for i in range(len(t.tokens))]
        words = panel.locator(".llm-words")
        assert words.get_attribute("aria-live") == "polite"
        if t.query is not None:
            row = map[t.query]
            top = [j for j in sorted(range(len(row)), key=lambda j: -row[j])[:3] if row[j] > 0]
            assert re.findall(r"[(（](\d\.\d{3})[)）]", words.inner_text()) == [f"{row[j]:.3f}" for j in top]
            named = [re.sub(r"\[\d+\]$", "", name) for name in re.findall(r"“(.*?)”", words.inner_text())]
            assert named == [t.tokens[t.query], *(t.tokens[j] for j in top)]
        shown = panel.locator(".llm-measure").evaluate_all("all => all.map((data) => Number(data.value))")
        assert shown == pytest.approx(measures(map / map.sum(-1, keepdim=True)), abs=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_mouse_keyboard_and_lists_choose(visit, stage, edition, width, scheme):
    url = stage(explorer(), lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, edition=edition)
        driver.agrees()
        assert page.locator(".llm-fallback").count() == 0
        driver.small(1, 0).click()
        driver.agrees(layer=1)
        for key, change in (("ArrowRight", {"head": 1}), ("ArrowDown", {"layer": 2}), ("ArrowDown", {}),
                            ("Shift+ArrowUp", {"compare": (1, 1)}), ("Home", {"layer": 1, "head": 0}),
                            ("Shift+End", {"compare": (1, 1)}), ("Enter", {"head": 1})):  # fmt: skip
            page.keyboard.press(key)
            driver.agrees(**change)
        driver.cell(3, 2).click()
        driver.agrees(query=3)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        driver.agrees(query=4)
        driver.button("lines").click()
        driver.agrees(view="lines")
        driver.panel("second").locator("button.llm-token").nth(5).click()
        driver.agrees(query=5)
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Space")
        driver.agrees(query=3)
        page.keyboard.press("Enter")
        driver.agrees(query=None)
        driver.query.select_option("1")
        driver.compare.select_option("0,1")
        driver.agrees(query=1, compare=(0, 1))
        driver.button("matrix").click()
        driver.agrees(view="matrix")
        driver.panel().locator("[role=rowheader]").nth(1).click()
        driver.agrees(query=None)
        boxes = [driver.panel(which).bounding_box() for which in ("first", "second")]
        below = boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
        assert below == (width == 390) and (boxes[1]["y"] == boxes[0]["y"]) == (width == 1280)
        driver.small(2, 0).click(modifiers=["Shift"])
        driver.agrees(compare=(2, 0))
        driver.compare.select_option("")
        driver.agrees(compare=None)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_cell_under_pointer_or_focus_tells_its_weight_in_both_heads(visit, stage):
    with visit(stage(explorer(compare=(2, 1)))) as page:
        driver = Page(page, explorer(compare=(2, 1)))
        maps = {"first": weights()[0, 0], "second": weights()[2, 1]}

        def tells(i, j, names):
            for which, map in maps.items():
                said = f"{names[0]} → {names[1]}: {map[i, j]:.3f}"
                assert driver.panel(which).locator(".llm-readout").inner_text() == said
                assert driver.panel(which).locator(".llm-pointed").count() == 1
                assert driver.cell(i, j, which).get_attribute("aria-label") == said

        driver.cell(2, 5).hover()
        tells(2, 5, ("cat", "milk"))
        driver.cell(3, 4, "second").hover()
        tells(3, 4, ("drank", "the[4]"))  # there is another
        driver.root.locator("figcaption").first.hover()
        assert driver.root.locator(".llm-pointed").count() == 0
        driver.cell(0, 0).focus()
        tells(0, 0, ("[CLS]", "[CLS]"))
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        tells(1, 1, ("the[1]", "the[1]"))
        page.keyboard.press("End")
        tells(1, 6, ("the[1]", "[SEP]"))
        driver.agrees()


def test_measures_and_words_of_a_trained_model_are_torch_s(visit, stage, trained):
    maps, tokens = trained
    twin = HeadsExplorer(maps, tokens, query=7)
    with visit(stage(twin)) as page:
        driver = Page(page, twin)
        for layer in range(len(twin.weights)):
            for head in range(len(twin.weights[0])):
                driver.small(layer, head).click()
                driver.agrees(layer=layer, head=head)
                shown = driver.panel().locator(".llm-measure").evaluate_all("all => all.map((d) => Number(d.value))")
                exact = measures(maps[layer][0, head].double())
                assert shown[:3] == pytest.approx(exact[:3], abs=1e-3)
                assert shown[3] == pytest.approx(exact[3], rel=1e-2)  # three decimals leave out what is very small


def test_measures_of_heads_that_are_known(visit, stage):
    n = 23  # 1/23 is 0.043 to three decimals: such rows sum to 0.989
    uniform, self, before = torch.full((n, n), 1 / n), torch.eye(n), torch.eye(n).roll(1, 0)
    with visit(stage(HeadsExplorer([torch.stack([uniform, self, before])], [str(i) for i in range(n)]))) as page:
        driver = Page(page, HeadsExplorer([torch.stack([uniform, self, before])], [str(i) for i in range(n)]))
        for head, known in enumerate([[0.043, 0.043, 0.043, 23], [1, 0, 0, 1], [0, 1, 0, 1]]):
            driver.small(0, head).click()
            shown = driver.panel().locator(".llm-measure").evaluate_all("all => all.map((d) => Number(d.value))")
            assert shown == pytest.approx(known, abs=1e-9)


def test_small_maps_have_the_pattern_of_their_head(visit, stage):
    with visit(stage(explorer())) as page:
        driver = Page(page)
        for layer, heads in enumerate(weights()):
            for head, map in enumerate(heads):
                drawn = shades(driver.small(layer, head).locator("path"), map.shape)
                assert (drawn - map).abs().max() <= 0.051


def test_one_token_has_no_neighbour_and_markup_stays_text(visit, stage):
    shown = HeadsExplorer([[[[1.0]]]], ["<b>&</script>"], query=0)
    with visit(stage(shown)) as page:
        driver = Page(page, shown)
        assert driver.root.locator(".llm-measure").all_inner_texts()[:4] == ["1.000", "–", "–", "1.0"]
        assert driver.root.locator(".llm-words").first.inner_text().count("“<b>&</script>”") == 2


@pytest.mark.parametrize("view", ["matrix", "lines"])
@pytest.mark.parametrize("width", [390, 1280])
def test_many_heads_and_long_tokens_do_not_widen_the_page(visit, stage, width, view):
    tokens = ["internationalisation" * 3, *("x" for _ in range(30)), "国际化" * 9]
    many = HeadsExplorer(weights(12, 16, 32), tokens, compare=(11, 15), query=0, view=view)
    with visit(stage(many), width=width) as page:
        Page(page, many).agrees()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    with visit(stage(many), width=width, java_script_enabled=False) as page:
        assert page.locator(".llm-fallback td").count() == 32 * 32
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_two_on_a_page_do_not_disturb_each_other(visit, stage):
    with visit(stage(explorer(), explorer(layer=2, view="lines"))) as page:
        first, second = Page(page), Page(page, explorer(layer=2, view="lines"), 1)
        first.small(1, 1).click()
        first.compare.select_option("0,1")
        second.root.locator(".llm-panel.llm-first button.llm-token").nth(2).click()
        first.agrees(layer=1, head=1, compare=(0, 1))
        second.agrees(query=2)


def test_every_control_has_a_name_and_one_tab_stop_a_grid(visit, stage):
    with visit(stage(explorer(compare=(1, 1)), lang="zh")) as page:
        root = Page(page, explorer(compare=(1, 1)), edition="zh").root
        assert root.get_attribute("aria-label") == "注意力头探索器" and root.locator("[id]").count() == 0
        for control in root.locator("select, button, [role=grid], [role=gridcell]").all():
            name = control.evaluate(
                "c => c.ariaLabel || [...(c.labels ?? [])].map((l) => l.textContent).join('') || c.textContent"
            )
            assert name.strip()
        for svg in root.locator("svg").all():
            assert svg.get_attribute("aria-hidden") == "true" or svg.get_attribute("role") == "img"
        for grid in root.locator("[role=grid]").all():
            assert grid.locator("[tabindex='0']").count() == 1
            assert (
                grid.locator("[role=row] > :not([role=gridcell], [role=columnheader], [role=rowheader])").count() == 0
            )
        assert root.locator(".llm-small").nth(3).get_attribute("aria-label") == "层 1，头 1（对比）"


@pytest.mark.parametrize("view", ["matrix", "lines"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit, stage, scheme, view):
    twin = explorer(compare=(1, 1), query=2, view=view)
    with visit(stage(twin, scheme=scheme), scheme=scheme) as page:
        driver = Page(page, twin)
        driver.agrees()
        ratios = driver.root.evaluate(CONTRAST)
        assert len(ratios) > 40 and min(ratios) >= 4.5
        blue = driver.small(0, 0).locator("path").first.evaluate("p => getComputedStyle(p).fill")
        assert blue == {"light": "rgb(29, 78, 216)", "dark": "rgb(122, 162, 255)"}[scheme]


def test_it_speaks_with_a_kernel_in_both_directions(visit, stage):
    with visit(stage()) as page:
        page.evaluate(RENDER, ["heads", state(explorer())])
        page.evaluate("() => { stage.remove = stage.explorer.render(stage); }")
        root = page.locator(".llm")
        root.locator(".llm-small").nth(3).click()
        root.locator("select").first.select_option("2,0")
        root.get_by_role("button", name="Lines").click()
        root.locator("button.llm-token").nth(2).click()
        root.locator("select").first.select_option("")
        saved = [{"layer": 1, "head": 1}, {"compare": [2, 0]}, {"view": "lines"}, {"query": 2}, {"compare": None}]
        assert page.evaluate("stage.saved") == saved
        names = "[...document.querySelectorAll('figcaption span:first-child')].slice(1).map((x) => x.textContent)"
        page.evaluate("stage.kernel({ layer: 2, head: 0, compare: [0, 1], view: 'matrix', query: 4 })")
        assert page.evaluate(names.replace(".slice(1)", "")) == ["layer 2, head 0", "layer 0, head 1"]
        assert root.locator("select").evaluate_all("all => all.map((x) => x.value)") == ["0,1", "4"]
        assert root.get_by_role("button", name="Matrix").get_attribute("aria-pressed") == "true"
        page.evaluate("stage.kernel({ weights: [[[[1, 0], [0, 1]]]] })")  # half of a change
        assert root.locator(".llm-small").count() == 6
        page.evaluate("stage.kernel({ tokens: ['a', 'b'], layer: 0, head: 0, compare: null, query: null })")
        assert root.locator(".llm-small").count() == 1 and root.locator(".llm-first .llm-heat").count() == 4
        assert page.evaluate("stage.saved.length") == len(saved)  # what the kernel sent is not sent back


def test_it_leaves_nothing_behind(visit, stage):
    with visit(stage()) as page:
        page.evaluate(RENDER, ["heads", state(explorer(compare=(1, 1)))])
        assert page.evaluate(LEFT, ".llm-small") == [0, 0, 0]


def test_without_scripts_it_leaves_a_table(visit, stage):
    with visit(stage(explorer(head=1)), java_script_enabled=False) as page:
        shown = page.locator(".llm-fallback td").all_inner_texts()
        assert [float(x) for x in shown] == np.array(explorer().weights[0][1]).flatten().tolist()

"""MaskingExplorer, in Python and in a real browser: what a draw does, and counts beside what is expected of them."""

import re
from math import comb, sqrt

import pytest
import torch
from driver import Driver, state
from traitlets import TraitError

import llmbook
from llmbook.mlm import mask_tokens
from llmbook.widgets import MaskingExplorer

TOKENS = ["[CLS]", "the", "cat", "drank", "the", "milk", "because", "it", "was", "thirsty", ".", "[SEP]"]
WORDS = ["dog", "hat", "mat", "tea", "ran", "sat"]
KINDS = ["mask", "random", "kept"]
LABELS = {
    "en": {"p": "rate p", "mask": "[MASK]", "random": "random", "kept": "kept", "again": "Draw again",
           "many": "Draw 100 times", "reset": "Reset", "quota": "a fixed number in every row, as mask_tokens does"},
    "zh": {"p": "选取比例 p", "mask": "[MASK]", "random": "随机", "kept": "不变", "again": "再抽一次",
           "many": "抽 100 次", "reset": "复位", "quota": "每行选取的个数固定（mask_tokens 的做法）"},
}  # fmt: skip


def explorer(tokens=TOKENS, vocabulary=WORDS, **kwargs):
    return MaskingExplorer(tokens, vocabulary, **kwargs)


# --- in Python


@pytest.mark.parametrize("quota", [False, True])
@pytest.mark.parametrize(("p", "mask", "random"), [(0.15, 0.8, 0.1), (0.5, 0.2, 0.5), (1.0, 1.0, 0.0), (0.0, 0.8, 0.1)])
def test_rates_are_those_asked_for(p, mask, random, quota):
    shown = explorer(p=p, mask=mask, random=random, quota=quota, draws=2000)
    drawn = [shown.draw(d) for d in range(1, 2001)]
    chosen = torch.tensor([[bool(kind) for kind in kinds] for kinds, _ in drawn])
    assert not chosen[:, [0, 11]].any()
    assert (chosen[:, 1:11].double().mean(0) - p).abs().max() <= 4.5 * sqrt(p * (1 - p) / 2000)
    kinds = [kind for kinds, _ in drawn for kind in kinds if kind]
    for kind, share in zip(KINDS, (mask, random, 1 - mask - random), strict=True):
        assert abs(kinds.count(kind) - share * len(kinds)) <= 4.5 * sqrt(len(kinds) * share * (1 - share)) + 1e-9
    others = [x for kinds, inputs in drawn for kind, x in zip(kinds, inputs, strict=True) if kind == "random"]
    for word in WORDS:
        assert abs(others.count(word) - len(others) / 6) <= 4.5 * sqrt(len(others) * 5 / 36)


def test_a_draw_corrupts_what_is_chosen_and_nothing_else():
    shown = explorer(p=0.6, mask=0.4, random=0.3)
    for number in range(1, 201):
        for i, (kind, x) in enumerate(zip(*shown.draw(number), strict=True)):
            assert x in {"mask": ["[MASK]"], "random": WORDS}.get(kind, [TOKENS[i]])
    assert shown.draw(7) == explorer(p=0.6, mask=0.4, random=0.3, seed=6).draw() == shown.draw(7)


@pytest.mark.parametrize("p", [0.15, 0.5, 0.33])
def test_a_quota_is_that_of_mask_tokens(p):
    """The number chosen in a row has the same distribution in both: two neighbours, with p·n as their mean."""
    ids = torch.arange(12).repeat(20_000, 1)
    _, _, targets = mask_tokens(ids, mask_id=12, vocab_size=19, special_ids=[0, 11], p=p,
                                generator=torch.Generator().manual_seed(0))  # fmt: skip
    theirs = (targets >= 0).sum(1).bincount(minlength=11) / 20_000
    shown = explorer(p=p, quota=True)
    ours = torch.tensor([sum(map(bool, shown.draw(d)[0])) for d in range(1, 4001)])
    assert (ours.bincount(minlength=11) / 4000 - theirs).abs().max() < 0.04


def test_a_higher_rate_chooses_the_same_tokens_and_more():
    for quota in (False, True):
        for seed in range(30):
            few, many = (explorer(p=p, quota=quota, seed=seed).draw() for p in (0.2, 0.6))
            assert all(many[0][i] == kind and many[1][i] == few[1][i] for i, kind in enumerate(few[0]) if kind)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": []}, r"tokens: expected tokens, got none"),
        ({"tokens": "abc"}, r"tokens: expected tokens, got 'abc'"),
        ({"tokens": 3}, r"tokens: expected tokens, got 3"),
        ({"tokens": ["a"] * 65}, r"tokens: expected 1 to 64, got 65"),
        ({"tokens": ["a", ""]}, r"tokens: expected non-empty strings, got '' at 1"),
        ({"tokens": ["a", 1]}, r"'tokens' trait .* not the int 1"),
        ({"tokens": ["[CLS]", "[SEP]"]}, r"special: expected one of the 2 tokens to be ordinary, all are special"),
        ({"vocabulary": []}, r"vocabulary: expected tokens, got none"),
        ({"vocabulary": ["", "a"]}, r"vocabulary: expected non-empty strings, got '' at 0"),
        ({"special": [12]}, r"special: expected whole numbers from 0 to 11, got 12"),
        ({"special": [-1]}, r"special: expected whole numbers from 0 to 11, got -1"),
        ({"special": list(range(12))}, r"special: expected one of the 12 tokens to be ordinary, all are special"),
        ({"p": 1.5}, r"p: expected a probability between 0 and 1, got 1.5"),
        ({"p": float("nan")}, r"p: expected a probability between 0 and 1, got nan"),
        ({"mask": -0.1}, r"mask: expected a probability between 0 and 1, got -0.1"),
        ({"random": 2.0}, r"random: expected a probability between 0 and 1, got 2.0"),
        ({"mask": 0.8, "random": 0.3}, r"mask, random: expected shares that sum to 1 at most, got 1.1"),
        ({"seed": -1}, r"seed: expected a whole number from 0 to 2147483647, got -1"),
        ({"draws": 0}, r"draws: expected a whole number from 1 to 2000, got 0"),
        ({"draws": 2001}, r"draws: expected a whole number from 1 to 2000, got 2001"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        MaskingExplorer(**({"tokens": TOKENS, "vocabulary": WORDS} | arguments))


def test_a_refused_change_leaves_everything_as_it_was_and_changes_are_seen():
    shown, seen = explorer(), []
    before = shown.to_html()
    for name, value in (("tokens", [""]), ("vocabulary", []), ("special", [12]), ("mask", 0.95), ("draws", 0)):
        with pytest.raises(TraitError):
            setattr(shown, name, value)
    assert shown.to_html() == before
    shown.observe(lambda change: seen.append((change["name"], change["new"])), ["mask", "random", "draws"])
    shown.set_state({"mask": 0.0, "random": 1.0, "draws": 101})
    assert sorted(seen) == [("draws", 101), ("mask", 0.0), ("random", 1.0)]
    with shown.hold_trait_notifications():
        shown.tokens, shown.special = ["a", "b"], [1]
    assert shown.draw(1)[1][1] == "b"


def test_it_is_displayed_the_same_every_time_and_its_state_makes_it_again():
    shown = explorer(p=0.3, seed=4, draws=3)
    assert repr(shown) == "MaskingExplorer(12 tokens, p=0.3, mask=0.8, random=0.1, seed=4, draws=3)"
    assert MaskingExplorer(**state(shown)).to_html() == shown.to_html()
    assert state(shown)["special"] == [0, 11] and llmbook.MaskingExplorer is MaskingExplorer


def test_the_fallback_is_the_table_of_the_draw_and_markup_stays_text():
    shown = MaskingExplorer(["<b>", "</script>"], ["x"], p=1, mask=1, random=0, special=[0])
    assert shown.fallback() == (
        '<table class="llm-fallback"><tr><th>x</th><th>&lt;b&gt;</th><th>&lt;/script&gt;</th></tr>'
        "<tr><th>x̃</th><td>&lt;b&gt;</td><td>[MASK]</td></tr><tr><th>y</th><td>−100</td><td>&lt;/script&gt;</td></tr></table>"
    )
    assert shown.to_html().count("</script>") == 1


# --- in a browser: the site's loader, module and styles


def expected(t):
    """The distribution of the number chosen, and (mean, standard deviation) a draw of it and of each kind."""
    n, shares = len(t.tokens) - len(t.special), (1, t.mask, t.random, max(0, 1 - t.mask - t.random))
    if t.quota:
        mean, spare = n * t.p, n * t.p % 1
        row = [max(0, 1 - abs(k - mean)) for k in range(n + 1)]
        return row, [(mean * s, sqrt(mean * s * (1 - s) + s * s * spare * (1 - spare))) for s in shares]
    row = [comb(n, k) * t.p**k * (1 - t.p) ** (n - k) for k in range(n + 1)]
    return row, [(n * t.p * s, sqrt(n * t.p * s * (1 - t.p * s))) for s in shares]


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return explorer()

    def agrees(self, **changes):
        """After ``changes`` the page shows the draw, the counts and the expectations of the Python explorer."""
        self.follow(changes)
        t = self.twin
        kinds, inputs = t.draw()
        columns = self.root.locator("li[data-kind]")
        parts = "all => all.map((c) => [c.dataset.kind, ...[...c.children].map((x) => x.textContent)])"
        shown = columns.evaluate_all(parts)
        labels = [token if kind else "−100" for token, kind in zip(t.tokens, kinds, strict=True)]
        assert shown == [list(column) for column in zip(kinds, t.tokens, inputs, labels, strict=True)]
        rest = max(0, 1 - t.mask - t.random)
        for name, x in (("p", t.p), ("mask", t.mask), ("random", t.random), ("kept", rest)):
            assert float(self.input(name, "range").input_value()) == pytest.approx(x, abs=0.0051)
        assert self.root.get_by_label(self.labels["quota"]).is_checked() == t.quota
        self.counts_agree(kinds)

    def counts_agree(self, kinds):
        t = self.twin
        n, (row, moments) = len(t.tokens) - len(t.special), expected(t)
        all_kinds = [t.draw(d)[0] for d in range(1, t.draws + 1)]
        flat = [kind for kinds in all_kinds for kind in kinds if kind]
        now = [sum(map(bool, kinds)), *map(kinds.count, KINDS)]
        total = [len(flat), *map(flat.count, KINDS)]
        of = [n * t.draws] + [len(flat)] * 3
        shares = [100 * x / m if m else float("nan") for x, m in zip(total, of, strict=True)]
        rows = self.root.locator("tbody tr").all()
        for line, *numbers in zip(rows, now, total, shares, strict=True):
            got = line.locator("data").evaluate_all("all => all.map((d) => d.value)")
            assert [float(x) for x in got] == pytest.approx(numbers, abs=1e-9, nan_ok=True)
        notes = [line.locator("small").all_inner_texts() for line in rows]
        wanted = (100 * t.p, 100 * t.mask, 100 * t.random, 100 * (1 - t.mask - t.random))
        for note, (mean, sd), share in zip(notes, moments, wanted, strict=True):
            numbers = [float(x) for x in " ".join(note).replace("±", "").split()]
            exact = [mean, sd, mean * t.draws, sd * sqrt(t.draws), share]
            halves = (0.0051, 0.0051, 0.051, 0.051, 0.051)  # of the last digit shown
            assert all(abs(a - b) <= half for a, b, half in zip(numbers, exact, halves, strict=True))
        self.histogram_agrees([sum(map(bool, kinds)) for kinds in all_kinds], row)

    def histogram_agrees(self, sizes, row):
        svg = self.root.locator("svg")
        bars = svg.locator("rect").evaluate_all("all => all.map((b) => [b.className.baseVal, b.height.baseVal.value])")
        rings = svg.locator("circle").evaluate_all("all => all.map((c) => c.cy.baseVal.value)")
        seen = [sizes.count(k) / len(sizes) for k in range(len(row))]
        there = [k for k in range(len(row)) if seen[k] or row[k] > 1e-3]
        places = range(max(0, there[0] - 1), min(len(row) - 1, there[-1] + 1) + 1)
        high = (200 - 12 - 42) / max(*seen, *row)
        assert [height for _, height in bars] == pytest.approx([high * seen[k] for k in places], abs=1e-3)
        assert rings == pytest.approx([158 - high * row[k] for k in places], abs=1e-3)
        assert [name for name, _ in bars] == ["llm-now" if k == sizes[-1] else "llm-bar" for k in places]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_draws_sliders_and_switch(visit, stage, edition, width, scheme):
    url = stage(explorer(), lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, edition=edition)
        driver.agrees()
        assert page.locator(".llm-fallback").count() == 0
        height = driver.root.locator("ol").bounding_box()["height"]
        for draws in (2, 3, 4):
            driver.button("again").click()
            driver.agrees(draws=draws)
            assert driver.root.locator("ol").bounding_box()["height"] == height  # nothing jumps
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        driver.agrees(draws=105)
        driver.input("p", "range").focus()
        page.keyboard.press("ArrowRight")
        driver.agrees(p=0.16)
        driver.root.get_by_label(driver.labels["quota"]).click()
        driver.agrees(quota=True)
        driver.input("mask").fill("0.3")  # "kept" takes what is left
        driver.agrees(mask=0.3)
        driver.input("random").fill("0.9")  # "kept" has no more to give
        driver.agrees(mask=0.1, random=0.9)
        driver.input("kept").fill("0.5")
        driver.agrees(mask=0.0, random=0.5)
        driver.input("kept").fill("1")
        driver.agrees(random=0.0)
        driver.button("reset").click()
        driver.agrees(mask=0.8, random=0.1, p=0.15, quota=False, draws=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("text", ["", "-", "e", "NaN", "1,5", "<b>"])
def test_nothing_typed_breaks_it(visit, stage, text):
    with visit(stage(explorer(draws=20))) as page:
        driver = Page(page, explorer(draws=20))
        driver.input("p").fill("")
        driver.input("p").press_sequentially(text)
        driver.input("mask").focus()
        driver.agrees() if text != "1,5" else None  # Chromium reads this as 15, or not at all
        for typed, kept in (("7", 1.0), ("-3", 0.0), ("0.33335", 0.33335)):
            driver.input("p").fill(typed)
            driver.agrees(p=kept)
        driver.input("mask").fill("0.33335")
        driver.input("random").fill("0.9")
        driver.agrees(mask=0.1, random=0.9)


def test_the_last_draw_is_the_last_and_says_what_happened(visit, stage):
    with visit(stage(explorer(draws=1950, seed=2**31 - 1)), touch=True) as page:
        driver = Page(page, explorer(draws=1950, seed=2**31 - 1))
        driver.button("many").tap()
        driver.agrees(draws=2000)
        assert driver.button("again").get_attribute("aria-disabled") == "true"
        driver.button("again").click(force=True)
        driver.agrees()
        kinds = [kind for kind in driver.twin.draw()[0] if kind]
        said = driver.root.locator("[aria-live=polite]").inner_text()
        assert re.findall(r"\d+", said) == [str(x) for x in (2000, len(kinds), 10, *map(kinds.count, KINDS))]


def test_two_on_a_page_do_not_disturb_each_other_and_every_control_has_a_name(visit, stage):
    long = ["internationalisation" * 5, "<b>&</b>", *"国际化" * 20, "x"]
    other = explorer(long, ["长词" * 30], p=0.9, random=0.2, seed=3)
    with visit(stage(explorer(), other, lang="zh"), width=390) as page:
        first, second = Page(page, edition="zh"), Page(page, other, 1, "zh")
        first.button("again").click()
        second.button("again").click()
        first.agrees(draws=2)
        second.agrees(draws=2)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert first.root.locator("[id]").count() == 0 and first.root.get_attribute("aria-label") == "掩码探索器"
        for control in first.root.locator("input, button").all():
            assert control.evaluate("c => c.ariaLabel || c.textContent || c.closest('label').textContent").strip()

"""NgramExplorer, in Python and in a real browser: what the page counts and smooths is what llmbook.ngram does."""

import pytest
import torch
from driver import Driver, state
from traitlets import TraitError

import llmbook
from llmbook.ngram import NGram
from llmbook.widgets import NgramExplorer
from llmbook.widgets.masking import _uniform

TEXT = """the cat sat on the mat . the dog sat on the log . the cat saw the dog . the dog ran to the mat and the cat
sat on the dog . the bird saw the cat and the dog ran ."""
WORDS = TEXT.split()
CHARACTERS = list("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。白日入海，黄河入山。")
LABELS = {
    "en": {
        "best": "Likeliest word",
        "draw": "Draw a word",
        "more": "Draw 20",
        "back": "One word back",
        "reset": "Reset",
    },
    "zh": {"best": "最可能的词", "draw": "抽一个词", "more": "抽 20 个", "back": "退回一个词", "reset": "复位"},
}


class Twin:
    """The same model, by llmbook.ngram."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.vocabulary = list(dict.fromkeys(explorer.words))
        self.counted, self.test = map(self.ids, explorer.parts)

    def ids(self, words):
        return torch.tensor([self.vocabulary.index(word) for word in words], dtype=torch.long)

    def model(self, smoothing):
        return NGram(self.explorer.order, len(self.vocabulary), smoothing=smoothing).fit(self.counted)

    def p(self, smoothing):
        known = self.explorer.context
        last = max((i + 1 for i, word in enumerate(known) if word not in self.vocabulary), default=0)
        if smoothing == "none" and len(known) - last < self.explorer.order - 1 and last:
            return torch.full((len(self.vocabulary),), 1 / len(self.vocabulary), dtype=torch.float64)
        return self.model(smoothing).probabilities(self.ids(known[last:]))

    def draw(self, seed):
        passed = self.p(self.explorer.smoothing).cumsum(0) > _uniform(seed, 0)
        return self.vocabulary[passed.tolist().index(True)]


# --- in Python


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": []}, r"words: expected 2 to 3000 words, got 0"),
        ({"words": ["a"] * 3001}, r"words: expected 2 to 3000 words, got 3001"),
        ({"words": ["a", " "]}, r"words: expected words that are not blank, got ' '"),
        ({"order": 6}, r"order: expected a whole number from 1 to 5, got 6"),
        ({"context": ["a"] * 101}, r"context: expected 0 to 100 words, got 101"),
        ({"smoothing": "add-k"}, r"smoothing"),
        ({"held_out": float("nan")}, r"held_out: expected a share from 0 to 0.5, got nan"),
        ({"seed": -1}, r"seed: expected a whole number from 0 to 2147483647, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(TraitError, match=message):
        NgramExplorer(**({"words": WORDS} | arguments))


def test_it_opens_at_the_most_frequent_context_can_be_made_again_and_tells_its_changes():
    shown = NgramExplorer(WORDS, order=3)
    assert shown.context == [".", "the"] and shown.counts == {"dog": 2, "cat": 1, "bird": 1}
    plain = "NgramExplorer(44 words, order=3, 2 words of context, smoothing='none', 3 continuations)"
    assert repr(shown) == repr(NgramExplorer(**state(shown))) == plain
    assert NgramExplorer(WORDS, order=1).context == NgramExplorer(WORDS, context=[]).context == []
    assert llmbook.NgramExplorer is NgramExplorer
    heard = []
    shown.observe(lambda change: heard.append(change["name"]), ["order", "context"])
    shown.order, shown.context = 2, ["the"]
    with pytest.raises(TraitError):
        shown.order = 9
    assert heard == ["order", "context"] and shown.order == 2


@pytest.mark.parametrize("context", [[], ["the"], ["on", "the"], ["log", "cat"]])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_counts_are_those_of_the_package(order, context):
    shown = NgramExplorer(WORDS, order=order, context=context)
    twin, h = Twin(shown), context[max(len(context) - order + 1, 0) :]
    model = twin.model("none")
    counts = {word: model.count(twin.ids([*h, word])) for word in twin.vocabulary}
    assert shown.counts == {word: c for word, c in counts.items() if c}


def test_the_fallback_is_a_table_and_markup_stays_text():
    html = NgramExplorer(["<b>", "</script>"] * 3, order=2, context=["<b>"], held_out=0).to_html()
    assert "<th>&lt;/script&gt;</th><td>3</td><td>1.000</td>" in html and "<b>" not in html.split("</script>", 1)[1]
    assert html.count("</script>") == 1


# --- in the browser


class Page(Driver):
    LABELS = LABELS

    def values(self, name):
        return self.numbers(f"data.llm-{name}")

    def text(self):
        return self.root.locator(".llm-chip").all_inner_texts()

    def agrees(self, **changes):
        self.follow(changes)
        twin, shown = Twin(self.twin), self.twin
        assert self.text() == shown.context
        first = max(len(shown.context) - shown.order + 1, 0)
        assert self.root.locator(".llm-looked").all_inner_texts() == shown.context[first:]
        words = self.root.locator("tbody th .llm-button").all_inner_texts()
        ps = {name: twin.p(smoothing) for name, smoothing in (("ml", "none"), ("kn", "kneser-ney"))}
        top = twin.ids(words)
        for name, p in ps.items():
            *each, rest = self.values(name)
            assert each == pytest.approx(p[top].tolist(), abs=1e-12)
            assert rest == pytest.approx(1 - p[top].sum().item(), abs=1e-9)
        chosen = ps["ml" if shown.smoothing == "none" else "kn"]
        assert chosen[top].tolist() == sorted(chosen.tolist(), reverse=True)[:8]
        counts = self.root.locator("tbody tr td:nth-child(2)").all_inner_texts()
        assert [int(c) for c in counts[:-1]] == [shown.counts.get(word, 0) for word in words]
        self.costs(twin)

    def costs(self, twin):
        """The shares and the perplexity, counted anew."""
        n, counted, test = twin.explorer.order, twin.counted.tolist(), twin.test.tolist()
        known = {tuple(counted[i : i + n]) for i in range(len(counted) - n + 1)}
        tests = [tuple(test[i : i + n]) for i in range(len(test) - n + 1)]
        contexts = [tuple(counted[i : i + n - 1]) for i in range(len(counted) - n + 1)]
        once = [contexts.count(h) == 1 for h in set(contexts)]
        assert self.values("novel-share") == pytest.approx([sum(g not in known for g in tests) / len(tests)])
        assert self.values("once-share") == pytest.approx([sum(once) / len(once)])
        exact = llmbook.perplexity(twin.model(twin.explorer.smoothing), twin.test[None])
        shown = self.root.locator("data.llm-perplexity").inner_text()
        assert shown == ("∞" if exact == float("inf") else f"{exact:.1f}")


@pytest.mark.parametrize("smoothing", ["none", "kneser-ney"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_probabilities_and_costs_are_the_package_s(visit, stage, order, smoothing):
    contexts = [None, [], ["the"], ["sat", "on", "the"], ["cat", "sat", "on", "the"], ["mat", "mat"], ["unheard", "on"]]
    shown = [NgramExplorer(WORDS, order=order, smoothing=smoothing, context=context) for context in contexts]
    with visit(stage(*shown)) as page:
        for i, one in enumerate(shown):
            Page(page, one, i).agrees()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("edition", ["en", "zh"])
def test_mouse_keyboard_and_typing_write(visit, stage, edition, width, scheme):
    shown = NgramExplorer(WORDS if edition == "en" else CHARACTERS, order=2, seed=5)
    url, first = stage(shown, lang=edition, scheme=scheme), list(shown.context)
    with visit(url, width=width, scheme=scheme) as page:
        driver = Page(page, shown, edition=edition)
        driver.agrees()
        likely = Twin(shown).p("none").tolist()
        twin = Twin(shown)
        best = twin.vocabulary[likely.index(max(likely))]
        driver.press("best")
        driver.agrees(context=[*first, best])
        driver.press("draw")
        driver.press("more")
        for seed in range(5, 26):
            shown.context = [*shown.context, twin.draw(seed)]
        driver.agrees()
        driver.press("back")
        driver.agrees(context=shown.context[:-1])
        page.keyboard.press("Enter")
        driver.agrees(context=shown.context[:-1])
        driver.press("reset")
        driver.agrees(context=first)
        driver.root.locator("tbody .llm-button").nth(1).click()
        driver.agrees(context=[*first, driver.text()[-1]])
        driver.root.locator("input[type=range][aria-label=n]").focus()
        page.keyboard.press("ArrowRight")
        driver.agrees(order=3)
        driver.root.locator("select").select_option("kneser-ney")
        driver.agrees(smoothing="kneser-ney")
        field = driver.root.get_by_role("textbox", name="text so far" if edition == "en" else "已有的文字")
        field.fill("the  cat <b> " if edition == "en" else "黄 河 X")
        driver.agrees(context=["the", "cat", "<b>"] if edition == "en" else ["黄", "河", "X"])
        field.fill("")
        driver.agrees(context=[])
        number = driver.root.locator("input[type=number]")
        for typed, order in (("9", 5), ("-3", 1), ("2.4", 2), ("", 2)):
            number.fill(typed)
            driver.agrees(order=order)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        driver.press("reset")
        driver.agrees(context=first, smoothing="none", order=2)


@pytest.mark.parametrize("touch", [False, True])
def test_the_chart_is_dragged_to_choose_n(visit, stage, touch):
    with visit(stage(NgramExplorer(WORDS)), touch=touch) as page:
        driver = Page(page, NgramExplorer(WORDS))
        box = driver.root.locator(".llm-draggable").bounding_box()
        x = box["x"] + 0.95 * box["width"], box["y"] + box["height"] / 2
        page.touchscreen.tap(*x) if touch else page.mouse.click(*x)
        driver.agrees(order=5)


def test_with_large_n_the_text_is_copied(visit, stage):
    draws = torch.randint(0, 30, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    words, lengths = [f"w{i}" for i in draws], {}
    for order in (1, 5):
        shown = NgramExplorer(words, order=order, context=words[:3], seed=1)
        with visit(stage(shown)) as page:
            driver = Page(page, shown)
            for _ in range(6):
                driver.press("more")
            written, begins = driver.text(), driver.root.locator(".llm-begins").count()
            assert len(written) == 100 and driver.values("pieces") == [begins]
            counted, pieces, piece = " ".join(["", *driver.twin.parts[0], ""]), 1, " "
            for word in written:
                longer = f"{piece}{word} "
                pieces += longer not in counted
                piece = longer if longer in counted else f" {word} "
            assert begins == pieces
            lengths[order] = driver.values("length")[0]
    assert lengths == {1: pytest.approx(2, abs=0.5), 5: 100}


def test_two_on_a_page_names_and_no_scripts(visit, stage):
    shown = [NgramExplorer(WORDS, order=2, context=["the"]), NgramExplorer(WORDS, order=4)]
    with visit(stage(*shown)) as page:
        first, second = (Page(page, one, i) for i, one in enumerate(shown))
        first.press("best")
        second.agrees()
        first.agrees(context=["the", first.text()[1]])
        assert first.root.get_attribute("aria-label") == "N-gram explorer"
        assert first.root.locator("[id]").count() == 0
        named = "all => all.every((c) => c.ariaLabel || c.labels?.length || c.textContent.trim())"
        assert first.root.locator("select, button, input, textarea").evaluate_all(named)
    with visit(stage(shown[0]), java_script_enabled=False) as page:
        assert page.locator(".llm-fallback td").count() == 2 * len(shown[0].counts)

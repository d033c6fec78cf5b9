"""FillExplorer: in Python it is torch's model; on the page, with a kernel and without, it is Python's explorer."""

import numpy as np
import pytest
import torch
from axe_playwright_python.base import AXE_SCRIPT
from driver import CONTRAST, RENDER, Driver, displayed, state
from helpers import cut
from test_every_explorer import AXE, SIZES
from traitlets import TraitError

import llmbook
from llmbook.capture import capture
from llmbook.cloze import fill
from llmbook.text import MASK
from llmbook.widgets import FillExplorer
from llmbook.widgets.fill import FIRST
from llmbook.widgets.live import loaded
from llmbook.widgets.tokenizers import label

LABELS = {
    "en": {"sentence": "Sentence", "example": "example", "reset": "Reset", "showAll": "Show all", "query": "query",
           "lines": "Lines", "matrix": "Matrix", "cut": "Cut this head", "restore": "Restore this head",
           "again": "Try again", "restoreAll": "Restore all ({})"},
    "zh": {"sentence": "句子", "example": "例句", "reset": "复位", "showAll": "全部显示", "query": "查询",
           "lines": "连线", "matrix": "矩阵", "cut": "切除这个头", "restore": "恢复这个头",
           "again": "重试", "restoreAll": "全部恢复（{}）"},
}  # fmt: skip
MODELS = {"en": "mlm-en", "zh": "mlm-zh"}
LONG = "The bus was late, so we walked to the school in the rain. " * 20


# --- in Python


@pytest.mark.parametrize("name", ["mlm-en", "mlm-zh"])
@pytest.mark.parametrize("off", [[], [(0, 1), (3, 5)]])
def test_predictions_and_attention_are_those_of_the_model(name, off):
    shown = FillExplorer(name, off=off)
    model, tokenizer = cut(loaded(name)[0], off), loaded(name)[1]
    ids = [1, *tokenizer.encode(shown.text, add_special_tokens=False).ids, 2]
    seen = torch.tensor([[MASK if i in shown.masked else token for i, token in enumerate(ids)]])
    with torch.no_grad(), capture(model) as maps:
        p = model(seen)[0].softmax(-1)
    assert shown.hidden == shown.masked == FIRST[name]["masked"]
    assert np.abs(shown.attention - torch.cat(maps).numpy()).max() < 1e-12
    for found in shown.predictions(7):
        true, row = ids[found.position], p[found.position]
        assert found.token == shown.tokens[found.position] == label(tokenizer, true)
        assert found.rank == (row > row[true]).sum() + 1
        assert found.loss == pytest.approx(-row[true].log().item())
        best = row.topk(7)
        assert [token for token, _ in found.likeliest] == [label(tokenizer, i) for i in best.indices.tolist()]
        assert [x for _, x in found.likeliest] == pytest.approx(best.values.tolist())
    assert shown.loss == pytest.approx(np.mean([found.loss for found in shown.predictions()]))


def test_a_mask_in_the_text_is_hidden_and_has_no_true_token():
    text = "My brother can speak [MASK], but he cannot write it."
    shown = FillExplorer(text=text)
    [found] = shown.predictions()
    assert shown.masked == [] and shown.hidden == [5] and shown.loss is None
    assert found[:4] == (5, None, None, None)
    guesses = fill(*llmbook.zoo.load("mlm-en"), text)[0]
    assert [token.replace("␣", " ") for token, _ in found.likeliest] == [guess.token for guess in guesses]
    assert [p for _, p in found.likeliest] == pytest.approx([guess.probability for guess in guesses], abs=1e-5)
    shown.masked = [2]
    assert shown.hidden == [2, 5] and shown.loss == shown.predictions()[0].loss


def test_cutting_a_head_changes_what_is_predicted_and_restoring_it_changes_it_back():
    shown = FillExplorer()
    before = shown.predictions()
    shown.off = [(0, 1)]
    assert shown.predictions()[0].loss > before[0].loss + 1  # the head that reads "speak"
    assert not any(module._forward_pre_hooks for module in loaded("mlm-en")[0].modules())
    shown.off = []
    assert shown.predictions() == before


def test_when_the_text_changes_hidden_tokens_stay_where_there_are_ordinary_ones():
    shown = FillExplorer(masked=[2, 5, 11], query=12)
    shown.text = "My sister can speak Chinese."
    assert len(shown.tokens) == 8 and shown.masked == [2, 5] and shown.query is None
    shown.text = "My sister can speak[SEP]."
    assert shown.tokens[4:] == ["␣speak", "[SEP]", ".", "[SEP]"] and shown.masked == [2]
    with shown.hold_trait_notifications():
        shown.text, shown.masked = "I am here.", [3, 1, 3]
    assert shown.masked == [1, 3]
    with shown.hold_trait_notifications():
        shown.model, shown.text = "mlm-zh", "你好"
    assert shown.tokens == ["[CLS]", "你", "好", "[SEP]"] and shown.masked == [1]


def test_any_text_is_read_as_far_as_there_is_room():
    assert len(FillExplorer(text="a" * 10_000).tokens) == len(FillExplorer("mlm-zh", LONG).tokens) == 64
    assert FillExplorer(text="").tokens == ["[CLS]", "[SEP]"]
    assert FillExplorer(text="a\ud800b").text == "a\ufffdb"
    assert FillExplorer(text="a\ud83d\ude00b", masked=[1]).hidden == [1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": "gpt-en"}, r"model: expected one of mlm-en, mlm-zh, got 'gpt-en'"),
        ({"model": "bert", "masked": [1]}, r"model: expected one of mlm-en, mlm-zh, got 'bert'"),
        ({"text": "a" * 10_001}, r"text: expected at most 10000 characters, got 10001"),
        ({"text": 3}, r"'text' trait .* expected a unicode string, not the int 3"),
        ({"masked": [0]}, r"masked: expected numbers of ordinary tokens, got 0, which is \[CLS\]"),
        ({"masked": [14]}, r"masked: expected whole numbers from 0 to 13, got 14"),
        ({"masked": [-1]}, r"masked: expected whole numbers from 0 to 13, got -1"),
        ({"masked": [True]}, r"masked: expected whole numbers from 0 to 13, got True"),
        ({"text": "a [MASK]", "masked": [2]}, r"masked: expected numbers of ordinary .* got 2, which is \[MASK\]"),
        ({"off": [(4, 0)]}, r"off: expected whole numbers from 0 to 3, got 4"),
        ({"off": [(0, 6)]}, r"off: expected whole numbers from 0 to 5, got 6"),
        ({"off": [(0,)]}, r"'off' trait"),
        ({"layer": 4}, r"layer: expected whole numbers from 0 to 3, got 4"),
        ({"head": -1}, r"head: expected whole numbers from 0 to 5, got -1"),
        ({"query": 14}, r"query: expected whole numbers from 0 to 13, got 14"),
        ({"view": "bars"}, r"view"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        FillExplorer(**arguments)
    shown = FillExplorer()
    before = shown.to_html()
    with pytest.raises(TraitError, match=message), shown.hold_trait_notifications():
        for name, value in arguments.items():
            setattr(shown, name, value)
    assert shown.to_html() == before
    with pytest.raises(ValueError, match="k: expected a positive integer, got 0"):
        shown.predictions(0)


def test_it_is_displayed_the_same_every_time():
    display = displayed(lambda: FillExplorer(off=[(0, 1)]))
    assert display["text/plain"] == "FillExplorer(mlm-en, 14 tokens, hidden=[5], loss=3.106, off=[(0, 1)])"
    assert repr(FillExplorer(text="Hi.")) == "FillExplorer(mlm-en, 5 tokens, hidden=[])"
    assert llmbook.FillExplorer is FillExplorer


def test_the_fallback_is_a_table_and_markup_stays_text():
    html = FillExplorer().fallback()
    assert "<tr><th>5 ␣French</th><td>1.214</td><td>2</td><td>␣English 0.390</td><td>␣French 0.297</td>" in html
    html = FillExplorer(text="</script><b>[MASK]").to_html()
    assert html.count("</script>") == 1 and "<b>" not in html and "[MASK]</th><td>–</td><td>–</td>" in html
    assert "<th>[CLS]</th><td>H</td>" in FillExplorer(text="Hi").fallback()


def test_what_the_browser_sends_is_seen_in_python():
    shown, seen = FillExplorer(), []
    shown.observe(lambda change: seen.append((change["name"], change["new"])), list(FillExplorer.state))
    shown.set_state({"text": "I am here.", "masked": [2], "off": [[0, 1]]})
    assert sorted(seen) == [("masked", [2]), ("off", [(0, 1)]), ("text", "I am here.")]


# --- in a browser: the site's loader, module and styles


def facts(found=None, guesses=()):
    """The numbers that a card shows of a prediction: of the tokens that are guessed, and of the true one."""
    p = dict(reversed(found.likeliest)) if found else {}  # of tokens that look the same the likelier one
    true = [np.exp(-found.loss)] if found and found.token else []
    return {
        "p": [p[guess] for guess in guesses] + true,
        "rank": [found.rank] if true else [],
        "loss": [found.loss] if true else [],
    }


class Page(Driver):
    LABELS = LABELS

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if (door := self.root.locator(".llm-gate button")).is_visible():
            door.click()
        self.tokens = self.root.locator(".llm-tokens > *")
        self.tokens.first.wait_for()

    def default(self):
        return FillExplorer()

    def token(self, i):
        return self.tokens.nth(i)

    def settled(self):
        self.root.and_(self.page.locator(":not([aria-busy])")).wait_for()

    def select(self, name):
        return self.root.locator(f'.llm-select:has(> span:text-is("{self.labels[name]}")) select')

    def type(self, text):
        self.root.get_by_label(self.labels["sentence"]).fill(text)

    def values(self, name, when, within=None):
        found = (within or self.root).locator(f"data.llm-{name}.llm-{when}")
        return found.evaluate_all("all => all.map((data) => Number(data.value))")

    def agrees(self, **changes):
        """After ``changes`` the page shows torch's numbers for the state of the Python explorer."""
        self.follow(changes)
        self.settled()
        twin, hidden = self.twin, self.twin.hidden
        assert self.root.locator("textarea").input_value() == twin.text
        assert self.tokens.locator("bdi:first-child").all_text_contents() == twin.tokens
        assert self.tokens.evaluate_all("all => all.map((token) => token.ariaPressed)") == [
            None if token in ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]") else str(i in twin.masked).lower()
            for i, token in enumerate(twin.tokens)
        ]
        found = {"now": twin.predictions()}
        if twin.off:
            found["was"] = FillExplorer(twin.model, twin.text, twin.masked).predictions(4096)
        self.cards(found["now"], found.get("was"))
        for when in ("now", "was"):
            losses = [one.loss for one in found.get(when, []) if one.loss is not None]
            expected = [np.mean(losses)] if losses and len(hidden) > 1 else []
            assert self.values("mean", when) == pytest.approx(expected, abs=1e-6)
            assert self.values("geometric", when) == pytest.approx(np.exp(-np.array(expected)), abs=1e-6)
        self.attention(twin.query if twin.query is not None else next(iter(hidden), None))

    def cards(self, now, whole):
        cards = self.root.locator(".llm-card:not(.llm-all)")
        assert cards.count() == min(6, len(now))
        assert self.root.locator(".llm-all").count() == (len(now) > 1)
        for card, found, was in zip(cards.all(), now, whole or now, strict=False):
            guesses = [guess for guess, _ in found.likeliest]
            expected = {"now": facts(found, guesses), "was": facts(was, guesses) if whole else facts()}
            assert card.locator("[role=rowheader]").all_text_contents() == guesses
            assert card.locator(".llm-truth").all_text_contents() == ([found.token] if found.token else [])
            for when in ("now", "was"):
                for name, numbers in expected[when].items():
                    assert self.values(name, when, card) == pytest.approx(numbers, abs=1e-6)
            for kind, when in (("bar", "now"), ("ring", "was")):
                widths = card.locator(f".llm-{kind}").evaluate_all("all => all.map((b) => parseFloat(b.style.width))")
                assert widths == pytest.approx([100 * p for p in expected[when]["p"][:5]], abs=6e-3)

    def attention(self, query):
        """The chosen head is shown large, and small ones stand for all; the query's row stands out."""
        weights = self.twin.attention[self.twin.layer, self.twin.head]
        n, off = len(weights), self.twin.off
        means = [weights.trace() / n, np.diag(weights, -1).mean(), np.diag(weights, 1).mean()]
        shown = self.root.locator(".llm-measure").evaluate_all("all => all.map((data) => Number(data.value))")
        assert shown[:3] == pytest.approx(means, abs=1e-6)
        smalls = self.root.locator(".llm-small")
        assert smalls.count() == 24
        cut = smalls.evaluate_all("all => all.flatMap((small, i) => small.matches('.llm-cut') ? [i] : [])")
        assert cut == [6 * layer + head for layer, head in off]
        panel = self.root.locator(".llm-panel")
        if self.twin.view == "matrix":
            rows = panel.locator("[role=rowgroup] > [role=row]").evaluate_all("all => all.map((r) => r.className)")
        else:
            rows = panel.locator("button.llm-token").evaluate_all("all => all.map((r) => r.className)")
        assert [i for i, name in enumerate(rows) if "llm-chosen" in name] == ([] if query is None else [query])


@pytest.mark.parametrize("edition, width, scheme, touch", [("en", 1280, "light", 0), ("zh", 390, "dark", 1)])
def test_tokens_are_hidden_and_heads_are_cut(visit, stage, edition, width, scheme, touch):
    model = MODELS[edition]
    url = stage(FillExplorer(model), lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme, touch=bool(touch)) as page:
        driver = Page(page, FillExplorer(model), edition=edition)
        first = FIRST[model]["masked"]
        press = (lambda locator: locator.tap()) if touch else (lambda locator: locator.click())
        driver.agrees()
        press(driver.token(2))
        driver.agrees(masked=[2, *first])
        driver.token(2).focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        driver.agrees(masked=[2, 3, *first])
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Space")
        driver.agrees(masked=[3, *first])
        press(driver.button("cut"))
        driver.agrees(off=[(0, driver.twin.head)])
        driver.root.locator(".llm-small").nth(8).click()
        driver.agrees(layer=1, head=2)
        page.keyboard.press("Delete")
        driver.agrees(off=[*driver.twin.off, (1, 2)])
        press(driver.button("restore"))
        driver.agrees(off=driver.twin.off[:1])
        driver.root.locator(".llm-small").nth(23).dblclick()
        driver.agrees(off=[*driver.twin.off, (3, 5)], layer=3, head=5)
        page.evaluate(AXE_SCRIPT)
        assert page.evaluate(AXE) == []
        assert min(driver.root.evaluate(CONTRAST)) >= 4.5 and min(driver.root.evaluate(SIZES)) >= [11]
        press(driver.root.get_by_role("button", name=driver.labels["restoreAll"].format(2)))
        driver.agrees(off=[])
        press(driver.button("lines"))
        driver.agrees(view="lines")
        driver.select("query").select_option("2")
        driver.agrees(query=2)
        driver.root.locator(".llm-panel button.llm-token").nth(4).click()
        driver.agrees(query=4)
        press(driver.button("matrix"))
        driver.root.locator(".llm-panel [role=rowheader]").nth(4).click()
        driver.agrees(view="matrix", query=None)
        press(driver.button("showAll"))
        driver.agrees(masked=[])
        said = driver.root.locator(".llm-said").inner_text()
        assert said.startswith({"en": "Nothing is hidden.", "zh": "还没有遮住"}[edition])
        press(driver.button("reset"))
        driver.agrees(masked=first, layer=0, head=FIRST[model]["head"])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert min(driver.root.evaluate(CONTRAST)) >= 4.5


@pytest.mark.parametrize("model", ["mlm-en", "mlm-zh"])
def test_examples_are_right_in_both_languages_and_reset_goes_back(visit, stage, model):
    with visit(stage(FillExplorer(model, "Hi."))) as page:
        driver = Page(page, FillExplorer(model, "Hi."))
        box = driver.select("example")
        assert box.input_value() == ""
        options = [option for option in box.locator("option").all() if option.get_attribute("value")]
        assert len(options) == 6 and options[0].text_content() == FIRST[model]["text"]
        for i, option in enumerate(options):
            box.select_option(str(i))
            driver.settled()
            masked = page.locator("[aria-pressed=true] .llm-place").all_text_contents()
            driver.agrees(text=option.text_content(), masked=[int(place) for place in masked])
            assert masked and box.input_value() == str(i)
            assert i or driver.twin.masked == FIRST[model]["masked"]
        driver.press("reset")
        driver.agrees(text="Hi.", masked=[])


HOSTILE = [
    "",
    "   ",
    "👩‍👩‍👧‍👦 and 🏳️‍🌈!",
    "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>",
    "</script>&lt;b&gt;",
    "I [MASK] it [SEP] and [CLS] [PAD] [MASK]. ",
    "שלום, מה שלומך? \u202eabc",
    "a\u0301\u0000\u0007\n\n\tb\u2028c",
    LONG,
    "aaaa" * 2500,
]


def test_nothing_typed_breaks_it(visit, stage):
    with visit(stage(FillExplorer(masked=[1, 5, 11])), width=390) as page:
        driver = Page(page, FillExplorer(masked=[1, 5, 11]))
        for text in HOSTILE:
            driver.type(text)
            driver.agrees(text=text)
            assert page.evaluate("window.broken") is None
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            note = driver.root.locator(".llm-note").inner_text()
            assert ("The first 62 of" in note) == (len(driver.twin.tokens) == 64)
        assert driver.root.locator("script, img").count() == 0
        box = driver.root.locator("textarea")
        box.evaluate("(box) => { box.value = 'one \\ud800 two'; box.dispatchEvent(new InputEvent('input')); }")
        driver.settled()
        shown = driver.tokens.locator("bdi:first-child").all_text_contents()
        assert shown == FillExplorer(text="one \ud800 two").tokens


def test_hidden_tokens_stay_while_the_text_is_typed_and_composed(visit, stage):
    with visit(stage(FillExplorer("mlm-zh", "我爱你", [2]))) as page:
        driver = Page(page, FillExplorer("mlm-zh", "我爱你", [2]))
        assert driver.root.evaluate("root => root === document.activeElement")  # no keyboard opens on a phone
        driver.root.locator("textarea").focus()
        page.keyboard.press("Control+End")
        devtools = page.context.new_cdp_session(page)
        devtools.send("Input.imeSetComposition", {"text": "ma", "selectionStart": 2, "selectionEnd": 2})
        driver.settled()
        devtools.send("Input.insertText", {"text": "吗"})
        page.keyboard.type("?")
        driver.agrees(text="我爱你吗?")
        for _ in range(4):
            page.keyboard.press("Backspace")
        driver.agrees(text="我", masked=[])


def test_many_hidden_tokens_are_counted(visit, stage):
    with visit(stage(FillExplorer(masked=list(range(1, 10))))) as page:
        driver = Page(page, FillExplorer(masked=list(range(1, 10))))
        driver.agrees()
        total = driver.root.locator(".llm-all")
        assert "All 9 hidden tokens" in total.inner_text() and "The first 6 are shown." in total.inner_text()
        right = sum(found.rank == 1 for found in driver.twin.predictions())
        said = driver.root.locator(".llm-said").inner_text()
        assert said == f"9 tokens are hidden. The model’s first choice is the true token at {right} of 9."


def test_loading_shows_how_far_it_is_and_can_be_tried_again(chromium, stage):
    context = chromium.new_context()
    page = context.new_page()
    waiting, fails = [], [True]

    def third(route):
        if fails[0]:
            route.abort()
        else:
            waiting.append(route)

    page.route("**/models/mlm-en/3.js", third)
    page.goto(stage(FillExplorer()))
    root = page.locator(".llm")
    root.locator(".llm-gate button").click()
    again = root.get_by_role("button", name="Try again")
    again.wait_for()
    assert "could not be loaded" in root.get_by_role("status").inner_text()
    assert not root.locator("progress").is_visible() and again.evaluate("b => b === document.activeElement")
    fails[0] = False
    again.click()
    page.wait_for_function("document.querySelector('progress').value > 0")
    assert root.locator("progress").is_visible() and not again.is_visible()
    assert 0 < root.locator("progress").evaluate("bar => bar.value") < 1
    while not waiting:
        page.wait_for_timeout(10)
    waiting[0].continue_()
    driver = Page(page, FillExplorer())
    driver.agrees()
    context.close()


# answer what the explorer asks of a kernel, as live.py does
KERNEL = """() => {
  const heard = new Set(), { on, off } = stage.model;
  stage.model.on = (event, f) => (event === "msg:custom" ? heard.add(f) : on(event, f));
  stage.model.off = (event, f) => (event === "msg:custom" ? heard.delete(f) : off(event, f));
  llmExplorers.piece = (model, piece, total, text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    heard.forEach((f) => f({ model, piece, total }, [new DataView(bytes.buffer)]));
  };
  stage.model.send = ({ model, piece }) => {
    const script = document.head.appendChild(document.createElement("script"));
    script.src = `explorers/models/${model}/${piece}.js`;
  };
  stage.heard = heard;
  stage.remove = stage.explorer.render(stage);
}"""


def test_it_speaks_with_a_kernel_and_leaves_nothing_behind(visit, stage):
    with visit(stage(FillExplorer("mlm-zh"), FillExplorer())) as page:
        page.locator(".llm-explorer").evaluate_all("all => all.forEach((e) => e.remove())")
        page.evaluate(RENDER, ["fill", state(FillExplorer())])
        page.evaluate("() => { stage.el.className = 'llm-explorer'; }")
        page.evaluate(KERNEL)
        driver = Page(page, FillExplorer())
        driver.agrees()
        driver.token(2).click()
        driver.agrees(masked=[2, 5])
        driver.type("Hi, you")
        driver.agrees(text="Hi, you", masked=[2])
        assert page.evaluate("stage.saved") == [{"masked": [2, 5]}, {"text": "Hi, you", "masked": [2], "query": None}]
        page.evaluate("stage.kernel({ text: 'Hi.' })")  # "masked" is on its way
        driver.agrees(text="Hi.", masked=[2])
        page.evaluate("stage.kernel({ masked: [], off: [[0, 1]], layer: 2, head: 3, view: 'lines', query: 1 })")
        driver.agrees(masked=[], off=[(0, 1)], layer=2, head=3, view="lines", query=1)
        page.evaluate("stage.kernel({ text: '', query: null })")
        driver.agrees(text="", query=None)
        page.evaluate("stage.kernel({ model: 'mlm-zh', text: '你好', masked: [1] })")
        driver = Page(page, FillExplorer("mlm-zh", "你好", [1], off=[(0, 1)], layer=2, head=3, view="lines"))
        driver.agrees()
        page.evaluate("() => { stage.kernel({ off: [] }); stage.remove(); }")  # while it computes
        page.wait_for_timeout(100)
        assert page.evaluate("[stage.listeners.size, stage.heard.size, stage.el.childNodes.length]") == [0, 0, 0]


def test_it_can_be_removed_while_it_loads_and_others_go_on(visit, stage):
    with visit(stage(FillExplorer(), FillExplorer(masked=[2]))) as page:
        for button in page.locator(".llm-gate button").all():
            button.click()
        page.locator(".llm-explorer").first.evaluate("e => e.remove()")
        driver = Page(page, FillExplorer(masked=[2]))
        driver.agrees()
        assert page.locator(".llm [id]").count() == 0
        for control in page.locator("input, button, select, textarea").all():
            assert control.evaluate(
                "c => (c.ariaLabel || [...(c.labels ?? [])].map((l) => l.textContent).join('') || c.textContent).trim()"
            )

"""WriteExplorer, in Python and in a real browser: the page writes the tokens that Python writes, by equal numbers."""

import base64
import re

import numpy as np
import pytest
import torch
from driver import CONTRAST, KERNEL, LEFT, RENDER, TOLD, Driver, displayed, state
from traitlets import TraitError

import llmbook
from llmbook.generate import generate, next_distribution
from llmbook.text import CLS, SEP, encode
from llmbook.widgets import WriteExplorer
from llmbook.widgets.base import bundle
from llmbook.widgets.live import loaded
from llmbook.widgets.write import FIRST, _draw

LABELS = {
    "en": {
        "next": "Next token", "go": "Write on", "halt": "Stop", "back": "Take back", "anew": "Draw anew",
        "reset": "Reset", "fast": "as fast as it goes", "restore": "Restore all heads", "cut": "Cut this head",
        "lines": "Lines",
        "prompt": "Beginning of the text", "temperature": "temperature", "top_k": "top-k", "top_p": "top-p",
        "seed": "seed",
    },
    "zh": {
        "next": "下一个词元", "go": "继续写", "halt": "停止", "back": "退回一个", "anew": "重新抽", "reset": "复位",
        "fast": "尽可能快", "restore": "恢复所有的头", "cut": "切除这个头", "lines": "连线",
        "prompt": "文本的开头", "temperature": "温度", "top_k": "top-k", "top_p": "top-p", "seed": "随机种子",
    },
}  # fmt: skip
SETTINGS = [
    {"seed": 0},
    {"seed": 7, "temperature": 1.3, "top_p": None},
    {"seed": 2**31 - 1, "temperature": 0.7, "top_k": 20, "top_p": 0.95},
    {"seed": 3, "temperature": 0.0, "off": [(0, 1), (3, 5)]},
]
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None}


# --- in Python


@pytest.mark.parametrize("name", FIRST)
def test_greedily_it_writes_what_generate_writes_beyond_what_the_model_has_room_for(name):
    model, tokenizer = loaded(name)
    ids = encode(tokenizer, FIRST[name] * 40)[: model.max_len - 4]
    shown = WriteExplorer(name, tokenizer.decode(ids), temperature=0)
    assert encode(tokenizer, shown.text) == ids
    shown.write(10)
    expected = generate(model, torch.tensor([CLS, *ids]), 10, temperature=0, stop_id=SEP)
    assert shown.written == expected[len(ids) + 1 :].tolist()
    assert len(shown.ids) == model.max_len and shown.ids == expected[-model.max_len :].tolist()


def test_it_draws_by_the_seed_and_the_number_of_the_token_alone():
    shown = WriteExplorer(seed=5)
    shown.write(12)
    again = WriteExplorer(seed=5, written=shown.written[:7])
    again.write(5)
    assert again.written == shown.written and shown.continuation.startswith(" ")
    assert WriteExplorer(seed=6).write(12) != shown.continuation
    expected = next_distribution(torch.tensor(again.logits), temperature=1.0, top_p=0.9)
    assert np.array_equal(again.distribution, expected) and 0 < (again.distribution > 0).sum() < 4096


def test_the_first_at_which_the_sum_exceeds_u_is_drawn_equals_by_id():
    p = np.array([0.25, 0.0, 0.5, 0.25])
    assert [_draw(p, u) for u in (0, 0.4999, 0.5, 0.7499, 0.75, 0.9999)] == [2, 2, 0, 0, 3, 3]
    assert _draw(p * (1 - 1e-12), 1 - 2**-53) == 3


def test_sep_ends_a_text_and_so_do_64_tokens():
    shown = WriteExplorer("gpt-en", "The king said to his son,", temperature=0)
    shown.write(64)
    assert (
        shown.written[-1] == SEP and len(shown.written) == 38 and shown.ended and shown.continuation.endswith("[SEP]")
    )
    before = shown.written
    shown.step()
    assert shown.written == before
    full = WriteExplorer("gpt-zh", written=[300] * 63)
    assert not full.ended
    full.write(3)
    assert len(full.written) == 64 and full.ended
    with pytest.raises(ValueError, match="n: expected"):
        full.write(0)


def test_scored_tokens_are_the_model_s():
    shown = WriteExplorer("gpt-en", "In the beginning", written=[9, 300])
    model, tokenizer = loaded("gpt-en")
    ids = [CLS, *encode(tokenizer, "In the beginning"), 9, 300]
    with torch.no_grad():
        p = model(torch.tensor([ids]))[0].softmax(-1)
    assert shown.ids == ids and shown.tokens[0] == ("[CLS]", None, None) and shown.tokens[2].token == "␣the"
    for i, token in enumerate(shown.tokens[1:]):
        assert token.p == pytest.approx(p[i, ids[i + 1]].item(), rel=1e-12)
        assert token.rank == 1 + (p[i] > p[i, ids[i + 1]]).sum()
    attention = shown.attention
    assert attention.shape == (4, 6, len(ids), len(ids)) and np.allclose(attention.sum(-1), 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "mlm-en"}, "model: expected one of gpt-en, gpt-zh, got 'mlm-en'"),
        ({"model": "gpt"}, "model: expected one of gpt-en, gpt-zh, got 'gpt'"),
        ({"text": "a" * 10_001}, "text: expected at most 10000 characters, got 10001"),
        ({"text": 3}, "'text' trait"),
        ({"written": [4096]}, "written: expected whole numbers from 0 to 4095, got 4096"),
        ({"written": [0] * 65}, "written: expected at most 64 tokens, got 65"),
        ({"temperature": -0.1}, "temperature: expected a number from 0 to 2, got -0.1"),
        ({"temperature": float("nan")}, "temperature: expected a number from 0 to 2, got nan"),
        ({"top_k": 0}, "top_k: expected whole numbers from 1 to 4096, got 0"),
        ({"top_k": 4097}, "top_k: expected whole numbers from 1 to 4096, got 4097"),
        ({"top_p": 0}, "top_p: expected None or a number above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "top_p: expected None or a number above 0 and at most 1, got 1.1"),
        ({"seed": -1}, "seed: expected whole numbers from 0 to 2147483647, got -1"),
        ({"seed": True}, "seed: expected whole numbers from 0 to 2147483647, got True"),
        ({"off": [(4, 0)]}, "off: expected whole numbers from 0 to 3, got 4"),
        ({"off": [(0, 6)]}, "off: expected whole numbers from 0 to 5, got 6"),
        ({"layer": 4}, "layer: expected whole numbers from 0 to 3, got 4"),
        ({"head": -1}, "head: expected whole numbers from 0 to 5, got -1"),
        ({"query": -1}, "query: expected whole numbers"),
        ({"view": "graph"}, "view"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=re.escape(message)):
        WriteExplorer(**arguments)


def test_a_refused_change_leaves_everything_as_it_was_and_lone_surrogates_are_replaced():
    shown = WriteExplorer(written=[17])
    before = shown.to_html()
    for name, value in {"written": [-1], "top_p": 2, "top_k": -4, "off": [(9, 9)], "model": "mlm-zh"}.items():
        with pytest.raises(TraitError):
            setattr(shown, name, value)
    assert shown.to_html() == before
    shown.text = "a\ud800b"
    assert shown.text == "a\ufffdb" and shown.to_html().encode()


def test_it_is_displayed_the_same_every_time():
    display = displayed(lambda: WriteExplorer(written=[17, 300], off=[(1, 2), (0, 3), (0, 3)]))
    assert display["text/plain"].startswith("WriteExplorer(gpt-en, 'The king said to his son,' → ")
    assert display["text/plain"].endswith("temperature=1, top_k=None, top_p=0.9, seed=0, off=[(0, 3), (1, 2)])")
    assert display["text/html"].count("<tr>") == 13
    html = WriteExplorer(text="</script><b>").to_html()
    assert html.count("</script>") == 1 and "<b>" not in html
    assert llmbook.WriteExplorer is WriteExplorer


# --- in a browser: sampling.js alone

NAMES = ["nextDistribution", "drawToken", "entropyOf", "judge"]


def test_the_page_s_distribution_is_next_distribution(visit, stage):
    ties = [2.0, 1.0, 2.0, 0.0, 1.0, 2.0, -1.0, 1.0]
    rows = [*(WriteExplorer(name).logits.tolist() for name in FIRST), ties, [0.0] * 9, [-800.0, 0.0, 800.0]]
    options = [(t, k, p) for t in (0.0, 1e-310, 0.7, 2.0) for k in (None, 1, 4, 40)
               for p in (None, 0.25, 0.9, 1.0)]  # fmt: skip
    us = [0, 0.5, 0.75, 1 - 2**-32]
    functions = re.sub(r"^export ", "", bundle("sampling"), flags=re.M) + f"\nreturn {{ {', '.join(NAMES)} }};"
    with visit(stage()) as page:
        page.evaluate("(code) => { window.f = new Function(code)(); }", functions)
        for row in rows:
            got = page.evaluate(
                """([row, options, us]) => options.map(([temperature, top_k, top_p]) => {
                  const p = f.nextDistribution(row, { temperature, top_k, top_p });
                  const kept = p.flatMap((x, i) => (x > 0 ? [[i, x]] : []));
                  return [kept, f.entropyOf(p), us.map((u) => f.drawToken(p, u))]; })""",
                [row, options, us],
            )
            for (t, k, p), (kept, entropy, drawn) in zip(options, got, strict=True):
                expected = next_distribution(torch.tensor(row, dtype=torch.float64), temperature=t, top_k=k, top_p=p)
                q = torch.zeros_like(expected)
                for i, x in kept:
                    q[i] = x
                assert (q - expected).abs().max() <= 1e-10, (t, k, p)
                assert entropy == pytest.approx(torch.special.entr(expected).sum().item(), abs=1e-9)
                assert drawn == [_draw(expected.numpy(), u) for u in us], (t, k, p)
        assert page.evaluate("([row]) => row.map((_, i) => f.judge(row, i).rank)", [ties]) == [1, 4, 2, 7, 5, 3, 8, 6]


# --- in a browser: the site's loader, module and styles

# the chips of the page: what each says when it is pointed at
CHIPS = """(root) => [...root.querySelectorAll(".llm-text .llm-chip")].map((chip) => {
  chip.dispatchEvent(new PointerEvent("pointerenter"));
  const [p, rank] = root.querySelectorAll(".llm-readout-line data");
  return [chip.textContent, p ? Number(p.value) : null, rank ? Number(rank.value) : null];
})"""


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return WriteExplorer()

    def open(self):
        """Load the model."""
        self.root.locator(".llm-gate button").click()
        self.root.locator(".llm-text").wait_for()
        return self.settle()

    def settle(self):
        self.page.wait_for_function("(root) => !root.ariaBusy", arg=self.root.element_handle())
        return self

    def press(self, name):
        super().press(name)
        self.settle()

    def value(self, name, kind="number"):
        """The slider or the field of a setting."""
        label = (
            self.labels[name]
            if name == "seed"
            else {"en": "value of {}", "zh": "{} 的值"}[self.edition].format(self.labels[name])
        )
        return self.root.locator(f'input[type={kind}][aria-label="{label}"]')

    @property
    def edition(self):
        return next(edition for edition, labels in LABELS.items() if labels is self.labels)

    @property
    def prompt(self):
        return self.root.get_by_label(self.labels["prompt"], exact=True)

    def agrees(self, **changes):
        """After ``changes`` the page shows the numbers of the Python explorer."""
        self.follow(changes)
        self.settle()
        t = self.twin
        said = self.root.evaluate(CHIPS)
        expected = t.tokens
        assert [token.replace("␣", " ") for token, *_ in expected] == [token for token, *_ in said]
        for (_, p, rank), (_, q, place) in zip(said, expected, strict=True):
            assert place == rank and (p is q is None or p == pytest.approx(q, abs=1e-10))
        before, after, chosen = torch.tensor(t.logits).softmax(-1).numpy(), t.distribution, _draw(t.distribution, t.u)
        likeliest = np.argsort(-before, kind="stable")[:12].tolist()
        shown = likeliest + [chosen] * (chosen not in likeliest)
        rows = self.root.locator(".llm-candidate:not([hidden])")
        assert rows.locator(".llm-token").all_inner_texts() == [t._label(i) for i in shown]
        assert self.numbers(".llm-candidate:not([hidden]) .llm-before-p") == pytest.approx(
            before[shown].tolist(), abs=1e-10
        )
        assert self.numbers(".llm-candidate:not([hidden]) .llm-after-p") == pytest.approx(
            after[shown].tolist(), abs=1e-10
        )
        marks = rows.evaluate_all(
            "all => all.map((r) => [r.classList.contains('llm-removed'), r.classList.contains('llm-hit')])"
        )
        assert marks == [[bool(after[i] == 0), i == chosen] for i in shown]
        entropy = [torch.special.entr(torch.tensor(p)).sum().item() for p in (before, after)]
        assert self.numbers(".llm-many") == [(after > 0).sum()]
        assert self.numbers(".llm-entropy") == pytest.approx(entropy, abs=1e-9)
        assert self.numbers(".llm-u") == [t.u]
        left, width = self.root.locator(".llm-part.llm-hit").last.evaluate(
            "p => [p.style.left, p.style.width].map(parseFloat)"
        )
        at = self.root.locator(".llm-at").evaluate("m => parseFloat(m.style.left)")
        assert at == pytest.approx(100 * t.u, abs=1e-3) and left - 2e-3 <= at <= left + width + 2e-3
        assert self.button("next").get_attribute("aria-disabled") == str(t.ended).lower()
        return self


@pytest.fixture
def kernel(visit, stage):
    """``kernel(twin)``: an explorer on a page whose model asks Python, ``twin``, for what it needs."""
    opened = []

    def mount(twin, **options):
        context = visit(stage(), **options)
        page = context.__enter__()
        opened.append(context)
        sent = []
        twin.send = lambda content, buffers=None: sent.append(
            [content, buffers and base64.b64encode(buffers[0]).decode()]
        )

        def ask(content):
            twin._answer(twin, content, [])
            return sent.pop()

        page.expose_function("ask", ask)
        page.evaluate(RENDER, [twin.files, state(twin)])
        page.evaluate(KERNEL)
        page.evaluate("() => { stage.remove = stage.explorer.render(stage); stage.el.className = 'llm-explorer'; }")
        return Page(page, twin)

    yield mount
    for context in reversed(opened):
        context.__exit__(None, None, None)


@pytest.mark.parametrize("name", FIRST)
def test_forty_tokens_are_python_s(kernel, name):
    driver = kernel(WriteExplorer(name)).open()
    for settings in SETTINGS:
        changes = PLAIN | {"top_p": 0.9, "off": [], "written": []} | settings
        driver.page.evaluate("(changes) => stage.kernel(changes)", changes)
        driver.follow(changes)
        written = driver.root.evaluate(
            """async (root) => {
              for (let i = 0; i < 40; i++) root.querySelector(".llm-buttons .llm-primary").click();
              return stage.model.get("written"); }"""
        )
        driver.twin.write(40)
        assert written == driver.twin.written, settings
        driver.agrees()


def test_keyboard_mouse_and_every_control(visit, stage):
    twin = WriteExplorer(seed=4)
    with visit(stage(twin)) as page:
        driver = Page(page, WriteExplorer(seed=4))
        assert driver.root.locator(".llm-gate button").inner_text() == "Load the model gpt-en (5.8 MB)"
        driver.open()
        assert driver.root.evaluate("root => root === document.activeElement")
        driver.agrees()
        driver.button("next").focus()
        for _ in range(3):
            page.keyboard.press("Enter")
            driver.twin.step()
        driver.agrees()
        second = driver.root.locator(".llm-candidate .llm-token").nth(1)
        token = second.inner_text()
        second.click()
        driver.settle()
        chosen = next(i for i in range(4096) if driver.twin._label(i) == token)
        driver.agrees(written=[*driver.twin.written, chosen])
        driver.press("back")
        driver.agrees(written=driver.twin.written[:-1])
        driver.root.get_by_label("temperature", exact=True).check()
        driver.agrees(temperature=0.7)
        driver.value("temperature").fill("0")
        driver.agrees(temperature=0.0)
        driver.value("temperature").fill("9")
        driver.agrees(temperature=2.0)
        driver.root.get_by_label("top-k", exact=True).check()
        driver.agrees(top_k=40)
        driver.value("top_k", "range").focus()
        page.keyboard.press("Home")
        driver.agrees(top_k=1)
        driver.root.get_by_label("top-k", exact=True).uncheck()
        driver.root.get_by_label("top-p", exact=True).uncheck()
        driver.agrees(top_k=None, top_p=None)
        driver.value("top_p").fill("0.3")
        driver.agrees(top_p=0.3)
        driver.root.get_by_label("temperature", exact=True).uncheck()
        driver.value("seed").fill("123456")
        driver.agrees(temperature=1.0, seed=123456)
        driver.press("anew")
        driver.agrees(seed=123457, written=[])
        driver.root.get_by_label("example").select_option("In the beginning")
        driver.agrees(text="In the beginning")
        driver.prompt.fill("In the beginning was")
        driver.agrees(text="In the beginning was")
        driver.press("reset")
        driver.agrees(**state(twin))


def test_heads_are_cut_and_their_maps_are_the_model_s(visit, stage):
    twin = WriteExplorer("gpt-zh", written=[300, 17, 900])
    with visit(stage(twin, lang="zh")) as page:
        driver = Page(page, twin, edition="zh").open()
        assert not driver.root.locator(".llm-overview").is_visible()
        driver.root.locator("summary").click()
        small = driver.root.locator(".llm-small")
        assert small.count() == 24
        small.nth(8).dblclick()
        driver.agrees(off=[(1, 2)], layer=1, head=2)
        small.nth(5).click()
        driver.press("cut")
        driver.agrees(off=[(0, 5), (1, 2)], layer=0, head=5)
        assert driver.root.locator(".llm-small.llm-cut").count() == 2
        n = len(twin.ids)
        weights = driver.root.locator(".llm-heat:not(.llm-masked)").evaluate_all(TOLD)
        expected = [twin.attention[0, 5, i, j] for i in range(n) for j in range(i + 1)]
        assert weights == pytest.approx(expected, abs=6e-4)
        driver.button("lines").click()
        driver.root.locator(".llm-text .llm-chip").nth(3).click()
        driver.agrees(view="lines", query=3)
        assert driver.root.locator(".llm-lines .llm-token[aria-pressed=true]").inner_text() == twin.tokens[3].token
        driver.press("next")
        twin.step()
        driver.agrees()
        assert driver.root.locator(".llm-lines button").count() == n + 1
        driver.press("restore")
        driver.agrees(off=[])
        assert not driver.root.locator(".llm-gone").is_visible()


def test_it_writes_on_until_it_is_stopped_or_the_text_ends(visit, stage):
    twin = WriteExplorer("gpt-en", temperature=0)
    with visit(stage(twin)) as page:
        driver = Page(page, WriteExplorer("gpt-en", temperature=0)).open()
        chips = driver.root.locator(".llm-text .llm-new")
        driver.button("go").click()
        page.wait_for_function("document.querySelectorAll('.llm-text .llm-new').length >= 3")
        driver.button("halt").click()
        stopped = chips.count()
        page.wait_for_timeout(450)
        assert chips.count() == stopped < 38
        driver.button("fast").click()
        driver.button("go").click()
        driver.root.get_by_text("[SEP] has ended the text after 38 tokens.").wait_for()
        driver.twin.write(64)
        driver.agrees()
        driver.press("next")
        driver.root.locator(".llm-candidate").first.click()
        driver.press("go")
        driver.agrees()
        driver.press("back")
        driver.agrees(written=driver.twin.written[:-1])
        driver.button("go").click()
        driver.prompt.fill("The dog")  # another text: it stops
        driver.agrees(text="The dog", written=[])
        page.wait_for_timeout(100)
        assert driver.button("go").is_visible() and chips.count() == 0


def test_who_wants_no_motion_sees_it_at_once(visit, stage):
    twin = WriteExplorer("gpt-en", temperature=0)
    with visit(stage(twin), reduced_motion="reduce") as page:
        driver = Page(page, twin).open()
        counts = driver.root.evaluate(
            """async (root) => {
              const row = root.querySelector(".llm-text"), seen = [];
              const watch = new MutationObserver(() => seen.push(row.querySelectorAll(".llm-new").length));
              watch.observe(row, { childList: true });
              root.querySelectorAll(".llm-buttons button")[1].click();
              do await new Promise(requestAnimationFrame);
              while (!root.querySelector(".llm-buttons .llm-primary[aria-disabled=true]"));
              watch.disconnect();
              return seen; }"""
        )
        assert set(counts) == {38}
        twin.write(64)
        driver.agrees()


HOSTILE = [
    "",
    " ",
    "\n\n",
    "<script>alert(1)</script>",
    "</script><!--",
    "[SEP] [MASK] [CLS] a",
    "👩‍👩‍👧‍👦 e\u0301 Ž",
    "\u202eשלום עולם",
    "é\u0000\u2028",
]


def test_nothing_typed_breaks_it(visit, stage):
    with visit(stage(WriteExplorer(written=[300]))) as page:
        driver = Page(page, WriteExplorer(written=[300])).open()
        for text in HOSTILE:
            driver.prompt.fill(text)
            driver.agrees(text=text.replace("\r", ""), written=[])
        driver.prompt.evaluate(
            "(field) => { field.value = 'a\\ud800b'; field.dispatchEvent(new Event('input', { bubbles: true })); }"
        )
        driver.agrees(text="a\ufffdb")
        long = "and the king said " * 600
        driver.prompt.fill(long)
        driver.agrees(text=long[:10_000])
        assert driver.root.get_by_text(re.compile(r"The model reads the last 128 of \d+ tokens")).is_visible()
        for _ in range(2):
            driver.press("next")
            driver.twin.step()
        driver.agrees()
        assert page.title() == "t" and page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.mark.parametrize(("edition", "scheme"), [("en", "light"), ("zh", "dark")])
def test_fingers_on_a_small_screen(visit, stage, edition, scheme):
    name = f"gpt-{edition}"
    with visit(stage(WriteExplorer(name), lang=edition, scheme=scheme), width=390, scheme=scheme, touch=True) as page:
        driver = Page(page, WriteExplorer(name), edition=edition)
        driver.root.locator(".llm-gate button").tap()
        driver.root.locator(".llm-text").wait_for()
        for _ in range(4):
            driver.button("next").tap()
            driver.settle()
            driver.twin.step()
        driver.agrees()
        chip = driver.root.locator(".llm-text .llm-chip").nth(2)
        chip.tap()
        assert driver.numbers(".llm-readout-line .llm-p") == [pytest.approx(driver.twin.tokens[2].p, abs=1e-10)]
        driver.root.locator("summary").tap()
        driver.root.locator(".llm-panel").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert min(driver.root.evaluate(CONTRAST)) >= 4.5
        assert driver.root.locator("[id]").count() == 0


def test_the_arrow_keys_go_from_token_to_token(visit, stage):
    with visit(stage(WriteExplorer(written=[300]))) as page:
        driver = Page(page, WriteExplorer(written=[300])).open()
        chips = driver.root.locator(".llm-text .llm-chip")
        assert chips.evaluate_all("all => all.filter((c) => c.tabIndex === 0).length") == 1
        chips.first.focus()
        for key, place in (("End", -1), ("ArrowLeft", -2), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1)):
            page.keyboard.press(key)
            assert chips.nth(place).evaluate("c => c === document.activeElement")
        assert driver.numbers(".llm-readout-line .llm-rank") == [driver.twin.tokens[1].rank]
        page.keyboard.press("Enter")
        driver.settle()
        assert chips.nth(1).get_attribute("aria-pressed") == "true"


def test_a_piece_that_does_not_come_is_asked_for_again(chromium, stage):
    context = chromium.new_context()
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    page.route("**/models/gpt-en/3.js", lambda route: route.abort())
    page.goto(stage(WriteExplorer()))
    driver = Page(page)
    driver.root.locator(".llm-gate button").click()
    again = driver.root.get_by_role("button", name="Try again")
    again.wait_for()
    assert "could not be loaded" in driver.root.inner_text() and "models/gpt-en/3.js" in driver.root.inner_text()
    page.unroute("**/models/gpt-en/3.js")
    again.click()
    driver.root.locator(".llm-text").wait_for()
    driver.agrees()
    assert errors == []
    context.close()


def test_it_speaks_with_a_kernel_and_leaves_nothing_behind(kernel):
    driver = kernel(WriteExplorer())
    page = driver.page
    page.locator(".llm-gate button").click()
    page.locator(".llm-text").wait_for()
    driver.settle()
    assert page.evaluate("stage.saved") == [] and page.evaluate("stage.custom.size") == 0
    driver.button("next").click()
    driver.twin.step()
    driver.button("anew").click()
    assert page.evaluate("stage.saved") == [{"written": driver.twin.written}, {"seed": 1, "written": []}]
    driver.agrees(seed=1, written=[])
    changes = {"text": "And he", "written": [300, 9], "off": [(2, 2)], "temperature": 0.5}
    page.evaluate("(changes) => stage.kernel(changes)", changes)
    driver.agrees(**changes)
    assert driver.prompt.input_value() == "And he"
    page.evaluate("stage.kernel({ lang: 'zh' })")  # the model that is there stays
    driver.labels = LABELS["zh"]
    driver.agrees()
    page.evaluate("stage.kernel({ lang: '', model: 'gpt-zh' })")
    driver.labels = LABELS["en"]
    driver.open()
    driver.agrees(model="gpt-zh")
    driver.button("go").click()
    page.evaluate("stage.remove()")
    saved = page.evaluate("stage.saved.length")
    page.wait_for_timeout(450)
    assert page.evaluate("stage.saved.length") == saved
    assert page.evaluate(LEFT, "button") == [0, 0, 0] and page.evaluate("stage.custom.size") == 0


def test_two_on_a_page_do_not_disturb_each_other(visit, stage):
    twins = [WriteExplorer(), WriteExplorer(seed=9, top_k=5)]
    with visit(stage(*twins)) as page:
        first, second = (Page(page, twin, i).open() for i, twin in enumerate(twins))
        first.press("next")
        twins[0].step()
        second.press("next")
        second.press("next")
        twins[1].write(2)
        first.agrees()
        second.agrees()

"""JourneyExplorer: every number of a trained model is torch's, was made as the page says, and can be walked to."""

import base64
import math
import random
import re

import pytest
import torch
from driver import CONTRAST, KERNEL, MOUNT, RENDER, Driver, displayed, state
from test_page_network import add
from traitlets import TraitError

import llmbook
from llmbook.capture import capture
from llmbook.mlm import mlm_loss
from llmbook.text import MASK
from llmbook.widgets import JourneyExplorer
from llmbook.widgets.base import bundle
from llmbook.widgets.journey import BLOCK, HEAD, SENTENCES
from llmbook.widgets.live import loaded
from llmbook.widgets.network import pieces

MODELS = sorted(SENTENCES)
LONG = (
    "She has been waiting for the bus since this morning, and it is still not here, so she has to walk to the station."
)
both = pytest.mark.parametrize("model", MODELS)


# --- in Python


@both
def test_the_stages_are_those_of_the_model(model):
    shown = JourneyExplorer(model)
    net, seen = loaded(model)[0], [MASK if i in shown.masked else id for i, id in enumerate(shown.ids)]
    with torch.no_grad(), capture(net) as maps:
        logits = net(torch.tensor([seen]))[0]
        h = net.encoder(torch.tensor([seen]))[0]
    config, n = net.config, len(seen)
    for i, weights in enumerate(maps, 1):
        assert torch.allclose(shown.value(f"{i}.weights"), weights[0], atol=1e-12, rtol=0)
    assert torch.allclose(shown.value("head.norm"), h, atol=1e-10, rtol=0)
    assert torch.allclose(shown.value("head.logits"), logits, atol=1e-10, rtol=0)
    assert shown.value("tokens")[:, 0].tolist() == seen
    targets = torch.tensor([[id if i in shown.masked else -100 for i, id in enumerate(shown.ids)]])
    assert shown.loss == pytest.approx(mlm_loss(logits[None], targets).item(), abs=1e-12)
    assert shown.value("loss").isnan().sum() == n - len(shown.masked)
    assert len(shown.stages) == 3 + len(BLOCK) * config.n_layers + len(HEAD)
    for stage in shown.stages:
        values, (_, _, step) = shown.value(stage), stage.rpartition(".")
        columns = {"tokens": 1, "loss": 1, "hidden": config.d_ff, "logits": config.vocab_size,
                   "probabilities": config.vocab_size}.get(step, config.d_model)  # fmt: skip
        heads = {"qkv": 96, "rotate": 64, "scores": n, "weights": n, "heads": 32}
        assert values.shape == ((config.n_heads, n, heads[step]) if step in heads else (n, columns))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "gpt-en"}, "model: expected one of mlm-en, mlm-zh, got 'gpt-en'"),
        ({"model": "bert"}, "model: expected one of mlm-en, mlm-zh, got 'bert'"),
        ({"text": "a" * 10_001}, "text: expected at most 10000 characters, got 10001"),
        ({"text": "To be", "masked": [0]}, r"masked: expected numbers of ordinary tokens, \[1, 2\], got 0"),
        ({"text": "To be", "masked": [3]}, r"masked: expected numbers of ordinary tokens, \[1, 2\], got 3"),
        ({"text": "To [MASK]", "masked": [2]}, r"masked: expected numbers of ordinary tokens, \[1\], got 2"),
        ({"masked": [True]}, r"masked"),
        ({"stage": "5.scores"}, "stage: expected one of tokens, embedding, 1.attention_norm, .*, got '5.scores'"),
        ({"token": 24}, "token: expected a whole number from 0 to 23, got 24"),
        ({"head": 6}, "head: expected a whole number from 0 to 5, got 6"),
        ({"component": -1}, "component: expected a whole number from 0 to 4095, got -1"),
        ({"component": True}, "component: expected a whole number from 0 to 4095, got True"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        JourneyExplorer(**arguments)


def test_a_refused_change_leaves_everything_as_it_was():
    shown, wrong = (
        JourneyExplorer(),
        {"model": "gpt-en", "text": "a" * 10_001, "masked": [0], "stage": "x", "token": 24},
    )
    before = shown.to_html()
    for name, value in (wrong | {"head": 6, "component": 4096}).items():
        with pytest.raises(TraitError, match=name):
            setattr(shown, name, value)
    assert shown.to_html() == before


def test_a_stage_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"stage: expected one of tokens, embedding, .*, loss, got 'x'"):
        JourneyExplorer().value("x")


def test_only_24_tokens_are_read_and_hidden_ones_stay_where_a_token_is():
    shown = JourneyExplorer(text=LONG, masked=[21, 3])
    assert len(shown.ids) == len(shown.tokens) == 24 and shown.tokens[-1] == "[SEP]" and shown.masked == [3, 21]
    shown.text = "It [MASK] so."
    assert shown.masked == [3] and shown.ids[2] == MASK
    shown.text = "\ud800 \udfff"
    assert shown.text == "\ufffd \ufffd" and 1 <= len(shown.ids) <= 24
    shown.text = ""
    assert shown.tokens == ["[CLS]", "[SEP]"] and shown.masked == [] and shown.loss is None
    assert all(shown.value(stage).shape[-2] == 2 for stage in shown.stages)


def test_it_is_displayed_the_same_every_time():
    display = displayed(lambda: JourneyExplorer(stage="2.scores", head=3))
    assert display["text/plain"] == (
        "JourneyExplorer('mlm-en', 12 tokens, masked=[7], stage='2.scores', token=7, head=3, component=0)"
    )
    assert "<td>1.730</td><td>␣coffee 0.177</td>" in display["text/html"]
    assert list(state(JourneyExplorer())) == list(JourneyExplorer.state)
    assert llmbook.JourneyExplorer is JourneyExplorer
    assert "<b>" not in JourneyExplorer(text="</script><b>", masked=[1]).to_html()


# --- the functions of explain.js in a browser


def made_of(e):
    """The number that an explanation's parts make, reckoned once more."""
    rest = sum(t["product"] for t in e.get("terms", [])) + e.get("rest", 0)
    if e["kind"] == "gelu":
        z = rest + e["bias"]
        assert z == pytest.approx(e["z"], abs=1e-12) and e["phi"] == pytest.approx(0.5 * math.erfc(-z / 2**0.5))
        return z * e["phi"]
    if e["kind"] == "rotation":
        assert e["angle"] == pytest.approx(e["position"] * e["frequency"])
        turn = (math.sin(e["angle"]), math.cos(e["angle"])) if e["isSecond"] else (e["cos"], -e["sin"])
        return e["first"]["x"] * turn[0] + e["second"]["x"] * turn[1]
    if e["kind"] == "norm":
        return (e["x"]["x"] - e["mean"]) / math.sqrt(e["variance"] + e["eps"]) * e["gain"] + e["bias"]
    if e["kind"] == "softmax":
        assert e["power"] == pytest.approx(math.exp(e["x"]["x"] - e["max"]["x"]))
        return e["power"] / e["sum"]
    return {
        "token": lambda: e["id"],
        "lookup": lambda: e["x"],
        "linear": lambda: rest + e["bias"],
        "scores": lambda: rest / e["root"],
        "mix": lambda: rest,
        "sum": lambda: e["first"]["x"] + e["second"]["x"],
        "loss": lambda: -math.log(e["p"]["x"]),
        "none": lambda: math.nan,
    }[e["kind"]]()


def operands(e):
    """The numbers of earlier stages that an explanation names, with their places."""
    found = [e[name] for name in ("first", "second", "max", "p", "x") if isinstance(e.get(name), dict)]
    return [*found, *(t[side] for t in e.get("terms", []) for side in ("x", "w") if isinstance(t[side], dict))]


def at(values, place):
    numbers = values[place["stage"]]
    return numbers[(place["head"],) * (numbers.ndim == 3) + (place["token"], place["component"])].item()


@both
def test_every_number_is_torch_s_and_was_made_as_is_said(visit, stage, model):
    """All numbers of all stages; of each stage some are explained, and from the terms come out again."""
    twin, draw = JourneyExplorer(model), random.Random(0)
    functions = bundle("explain").replace("export ", "") + "\nreturn { journey, explain, network, unpack };"
    with visit(stage()) as page:
        page.evaluate(f"() => {{ window.f = new Function({functions!r} + '')(); window.nets = {{}}; }}")
        add(page, model, b"".join(pieces(model)))
        seen = [MASK if i in twin.masked else id for i, id in enumerate(twin.ids)]
        keys, numbers = page.evaluate(
            """([name, ids, truths]) => {
              window.all = f.journey(nets[name], ids, truths);
              const bytes = new Uint8Array(Float64Array.from(all.stages.flatMap(({ parts }) => parts.flat(2))).buffer);
              const text = btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));
              return [all.stages.map(({ key }) => key), text]; }""",
            [model, seen, {str(i): twin.ids[i] for i in twin.masked}],
        )
        values = {key: twin.value(key) for key in twin.stages}
        got = torch.frombuffer(bytearray(base64.b64decode(numbers)), dtype=torch.float64)
        assert keys == twin.stages
        for key, part in zip(keys, got.split([values[key].numel() for key in keys]), strict=True):
            assert torch.allclose(part, values[key].flatten(), atol=1e-9, rtol=0, equal_nan=True), key
        places = [
            {"stage": key, "token": token, "head": head, "component": draw.randrange(values[key].shape[-1])}
            for key in twin.stages
            for token in draw.sample(range(len(seen)), 4) + twin.masked
            for head in (range(6) if values[key].ndim == 3 else [0])
        ]
        explained = page.evaluate("(places) => places.map((place) => f.explain(all, place))", places)
    kinds = set()
    for place, e in zip(places, explained, strict=True):
        kinds.add(e["kind"])
        assert made_of(e) == pytest.approx(at(values, place), abs=1e-9, rel=0, nan_ok=True), place
        terms = e.get("terms", [])
        assert len(terms) <= 6
        sizes = [abs(t["product"]) for t in terms]
        assert sizes == sorted(sizes, reverse=True)
        for t in terms:
            w = t["w"]["x"] if isinstance(t["w"], dict) else t["w"]
            assert t["product"] == pytest.approx(t["x"]["x"] * w, abs=1e-14)
        for operand in operands(e):
            assert operand["x"] == pytest.approx(at(values, operand["at"]), abs=1e-9), (place, operand)
            assert twin.stages.index(operand["at"]["stage"]) < twin.stages.index(place["stage"])
    assert kinds == {
        "token",
        "lookup",
        "norm",
        "linear",
        "rotation",
        "scores",
        "softmax",
        "mix",
        "sum",
        "gelu",
        "loss",
        "none",
    }


# --- in a browser: the site's loader, module and styles

LABELS = {
    "en": {"back": "Previous stage", "on": "Next stage", "reset": "Reset", "hide": "Hide “{}”", "show": "Show “{}”",
           "sentence": "sentence", "examples": "examples"},
    "zh": {"back": "上一站", "on": "下一站", "reset": "复位", "hide": "遮住“{}”", "show": "显示“{}”",
           "sentence": "句子", "examples": "例句"},
}  # fmt: skip
HOSTILE = [
    "", " ", "x " * 5000, "👩‍👩‍👧‍👦 <script>alert(1)</script> </script>", "[MASK] [SEP] a [CLS]",
    "مرحبا بالعالم", "\ufffd", "a" * 10_000, "他[MASK]",
]  # fmt: skip


class Page(Driver):
    LABELS = LABELS

    def default(self):
        return JourneyExplorer()

    def settle(self):
        self.page.wait_for_function("(root) => !root.ariaBusy", arg=self.root.element_handle())

    def stop(self, stage):
        return self.root.locator("g.llm-stop").nth(self.twin.stages.index(stage))

    def walk(self, stage):
        """Click a stage in the overview; where a stage has a number a token of the vocabulary, one is chosen."""
        self.stop(stage).click()
        self.settle()

    @property
    def column(self):
        return int(self.root.locator(".llm-column input").input_value())

    def agrees(self, **changes):
        """After ``changes`` the page shows the stage, the token and the number of the Python explorer."""
        self.settle()
        self.follow(changes)
        t = self.twin
        step = [stop.get_attribute("aria-label") for stop in self.root.locator("g.llm-stop[aria-current=step]").all()]
        assert step == [self.stop(t.stage).get_attribute("aria-label")]
        i, title = t.stages.index(t.stage) + 1, self.root.locator(".llm-walk b").inner_text()
        assert re.findall(r"\d+", title)[:2] == [str(i), str(len(t.stages))] and step[0] in title
        pressed = self.root.locator(".llm-chips .llm-chip").evaluate_all("all => all.map((c) => c.ariaPressed)")
        token = min(t.token, len(t.ids) - 1)
        assert pressed == [str(j == token).lower() for j in range(len(t.ids))]
        assert self.root.locator(".llm-chips .llm-true").all_inner_texts() == [t.tokens[j] for j in t.masked]
        value = self.root.locator(".llm-sum")
        assert value.is_visible() == (not math.isnan(t.number))
        if value.is_visible():
            assert self.numbers(".llm-value") == [pytest.approx(t.number, abs=1e-9)]
            result = self.root.locator(".llm-result data").last
            if result.count():
                assert float(result.get_attribute("value")) == pytest.approx(t.number, abs=1e-9)
        if self.root.locator(".llm-choices").is_visible():
            heads = self.root.locator(".llm-headof").evaluate_all("all => all.map((h) => h.ariaPressed)")
            assert heads == [str(j == t.head).lower() for j in range(6)]


def opened(page, twin=None, **kwargs):
    page.evaluate(MOUNT)
    return Page(page, twin, **kwargs)


@pytest.mark.parametrize(("edition", "width", "scheme"), [("en", 1280, "light"), ("zh", 390, "dark")])
def test_the_whole_way_by_mouse_and_keyboard(visit, stage, edition, width, scheme):
    twin = JourneyExplorer(f"mlm-{edition}")
    url = stage(twin, lang={"en": "en", "zh": "zh-CN"}[edition], scheme=scheme)
    with visit(url, width=width, scheme=scheme, touch=width < 400) as page:
        driver = opened(page, twin, edition=edition)
        driver.agrees()
        assert page.locator(".llm-fallback").count() == 0
        driver.press("back")  # there is none before the first
        driver.agrees(stage="tokens")
        driver.button("on").focus()
        looked_at = ("1.rotate", "2.weights", "3.hidden", "head.logits", "loss")
        for key in twin.stages[1:] if width > 400 else looked_at:
            if width > 400:
                page.keyboard.press("ArrowRight")
            else:
                driver.walk(key)
            driver.settle()
            vocabulary = key in ("head.logits", "head.probabilities")
            driver.agrees(stage=key, **({"component": driver.column} if vocabulary else {"component": 0}))
            if key in looked_at:
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert min(driver.root.evaluate(CONTRAST)) >= 4.5
        assert driver.button("on").get_attribute("aria-disabled") == "true"
        driver.press("on")
        driver.agrees()
        driver.walk("head.logits")
        truth = twin.ids[twin.masked[0]]
        assert driver.column == truth
        driver.agrees(stage="head.logits", component=truth)
        driver.walk("2.scores")
        driver.agrees(stage="2.scores", component=0)
        driver.root.locator(".llm-headof").nth(4).click()
        driver.agrees(head=4)
        driver.root.locator(".llm-headof").nth(4).press("ArrowRight")
        driver.agrees(head=5)
        box, n = driver.root.locator(".llm-box").bounding_box(), len(twin.ids)
        at = {"x": box["width"] * 3.5 / n, "y": box["height"] * 4.5 / n}
        tap = driver.root.locator(".llm-box").tap if width < 400 else driver.root.locator(".llm-box").click
        tap(position=at)
        driver.agrees(token=4, component=3)
        if width > 400:
            said = driver.root.locator(".llm-readout").inner_text().replace("−", "-")
            assert float(said.rsplit(" ", 1)[1]) == pytest.approx(twin.number, abs=5.01e-4)
        driver.root.locator(".llm-names button").nth(6).click()
        driver.agrees(token=6)
        driver.walk("2.qkv")
        driver.agrees(stage="2.qkv")
        driver.root.locator(".llm-column input").fill("64")
        driver.agrees(component=64)
        assert driver.root.locator(".llm-meaning").inner_text() == "v[0]"
        bars = driver.root.locator(".llm-bars").bounding_box()
        driver.root.locator(".llm-bars").click(position={"x": bars["width"] * 40.5 / 96, "y": 20})
        driver.agrees(component=40)
        driver.stop("2.qkv").focus()
        page.keyboard.press("ArrowRight")
        driver.agrees(stage="2.rotate")
        page.keyboard.press("End")
        driver.agrees(stage="loss")
        driver.root.locator(".llm-chips .llm-chip").nth(1).click()
        driver.agrees(token=1)
        driver.root.locator(".llm-stage .llm-line").first.click()
        driver.agrees(token=twin.masked[0])


def test_tokens_are_hidden_and_texts_are_written(visit, stage):
    twin = JourneyExplorer(stage="head.probabilities", component=0)
    with visit(stage(twin)) as page:
        driver = opened(page, twin)
        driver.agrees()
        name = twin.tokens[7]
        driver.root.get_by_role("button", name=driver.labels["show"].format(name)).click()
        driver.agrees(masked=[])
        driver.root.get_by_role("button", name=driver.labels["hide"].format(name)).click()
        driver.agrees(masked=[7])
        driver.root.locator(".llm-chips .llm-chip").nth(9).click()
        driver.root.get_by_role("button", name=driver.labels["hide"].format("␣tea")).click()
        driver.agrees(token=9, masked=[7, 9])
        p, top = twin.value("head.probabilities")[9], driver.root.locator(".llm-lists section").first
        got = top.locator("data").evaluate_all("all => all.map((d) => Number(d.value))")
        assert got[:12] == pytest.approx(p.topk(12).values.tolist(), abs=1e-9)
        assert got[12:] == [
            pytest.approx(p[i].item(), abs=1e-9) for i in (twin.ids[9], 0) if p[i] < p.topk(12).values[-1]
        ]
        driver.root.locator(".llm-lists section").nth(1).locator("button").nth(2).click()
        driver.agrees(token=7, component=int(twin.value("head.probabilities")[7].topk(3).indices[2]))
        field = driver.root.get_by_label(driver.labels["sentence"], exact=True)
        field.fill("Would you like")
        driver.agrees(text="Would you like", masked=[])
        for text in HOSTILE:
            field.fill(text)
            driver.agrees(text=text)
            assert driver.root.locator(".llm-note").first.is_visible() == (len(twin.ids) == 24)
            labels = driver.root.locator(".llm-chips bdi:first-child").all_text_contents()
            assert labels == twin.tokens
        assert driver.root.locator("script").count() == 0
        field.evaluate("f => { f.value = 'a\\ud800b'; f.dispatchEvent(new InputEvent('input')); }")
        driver.agrees(text="a\ud800b")
        assert "\ufffd" in twin.text
        driver.root.get_by_role("combobox", name=driver.labels["examples"]).select_option("1")
        driver.agrees(text="The train leaves at eight o'clock in the morning.", masked=[2, 11], token=2)
        driver.walk("loss")
        driver.agrees(stage="loss", component=0)
        losses = driver.root.locator(".llm-stage data").evaluate_all("all => all.map((d) => Number(d.value))")
        assert losses == pytest.approx([*twin.value("loss")[[2, 11], 0].tolist(), twin.loss], abs=1e-9)
        driver.press("reset")
        driver.agrees(text=SENTENCES["mlm-en"][0], masked=[7], token=7, stage="head.probabilities", component=0)


def test_it_speaks_with_a_kernel_and_leads_every_number_back_to_the_ids(visit, stage):
    """A kernel gives the pieces; from the loss the last number of each calculation leads back to an embedding."""
    twin, sent = JourneyExplorer(stage="loss"), []
    twin.send = lambda content, buffers=None: sent.append(
        [content, base64.b64encode(buffers[0]).decode() if buffers else None]
    )
    refused = iter([True])

    def ask(content):
        twin._answer(twin, content | ({"piece": 999} if content["piece"] == 2 and next(refused, False) else {}), [])
        return sent.pop()

    with visit(stage()) as page:
        page.expose_function("ask", ask)
        page.evaluate(RENDER, [twin.files, state(twin)])
        page.evaluate(KERNEL)
        page.evaluate("() => { stage.remove = stage.explorer.render(stage); stage.el.className = 'llm-explorer'; }")
        page.locator(".llm-gate button").click()
        page.get_by_role("button", name="Try again").click()
        page.locator(".llm-walk").wait_for()
        assert page.evaluate("[stage.saved, stage.custom.size]") == [[], 0]
        driver = Page(page, twin)
        driver.agrees()
        way = []
        while (link := driver.root.locator(".llm-link").last).count():
            shown = link.inner_text().replace("−", "-")
            link.click()
            driver.settle()
            driver.follow(page.evaluate("stage.saved.at(-1)"))
            assert driver.numbers(".llm-value") == [pytest.approx(twin.number, abs=1e-9)]
            assert "×" in shown or twin.number == pytest.approx(float(shown), abs=5.01e-4)
            way.append(twin.stage)
        driver.agrees()
        assert way[:2] == ["head.probabilities", "head.logits"] and way[-1] == "embedding" and len(way) > 20
        changes = {
            "text": "She opened the door with her key.",
            "masked": [4],
            "token": 4,
            "stage": "3.heads",
            "head": 2,
        }
        page.evaluate("(changes) => stage.kernel(changes)", changes)
        driver.agrees(**changes)
        page.evaluate("stage.kernel({ lang: 'zh' })")  # the model that is there stays
        driver.labels = LABELS["zh"]
        driver.agrees()
        assert driver.root.get_attribute("aria-label") == "一句话穿过模型的旅程"
        page.evaluate("stage.kernel({ lang: '', model: 'mlm-zh', text: '他在家。', masked: [1], token: 1 })")
        assert page.locator(".llm-gate button").inner_text().count("mlm-zh") == 1
        page.evaluate("stage.remove()")
        left = page.evaluate("[stage.listeners.size, stage.custom.size, stage.el.childNodes.length]")
        assert left == [0, 0, 0]

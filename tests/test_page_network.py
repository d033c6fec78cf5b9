"""The shipped models on the page: unpacked and run in plain JavaScript, they are torch's."""

import base64
import json
import re

import pytest
import torch
from conftest import ROOT
from helpers import cut

from llmbook import zoo
from llmbook.capture import capture
from llmbook.decoder import CausalLM
from llmbook.transformer import Encoder, EncoderConfig
from llmbook.widgets.base import _needed, _source, bundle
from llmbook.widgets.live import loaded
from llmbook.widgets.network import pack, pieces, scripts

NAMES = re.findall(r"^export (?:async )?(?:const|function) (\w+)", "".join(map(_source, _needed("network"))), re.M)
TEXTS = {
    "mlm-en": "She has been waiting for the bus since this morning, and it is still not here.",
    "mlm-zh": "他昨天晚上没有睡好，所以今天早上起得很晚。",
    "gpt-en": "In the beginning God created the heavens and the earth, and",
    "gpt-zh": "春风又绿江南岸，明月何时",
}


@pytest.fixture
def js(visit, stage):
    """``js(code, **values)``: what an expression in the functions of network.js gives; `net(name)` is a model."""
    with visit(stage()) as page:
        page.evaluate(f"() => {{ window.f = new Function({functions()!r} + '')(); window.nets = {{}}; }}")

        def evaluate(code, **values):
            for name in zoo.available():
                if f"net('{name}')" in code and not page.evaluate("(name) => name in nets", name):
                    add(page, name, b"".join(pieces(name)))
            return page.evaluate(
                f"({{ {', '.join(values)} }}) => {{ const net = (name) => nets[name]; return {code}; }}", values
            )

        evaluate.page = page
        yield evaluate


def functions():
    return re.sub(r"^export ", "", bundle("network"), flags=re.M) + f"\nreturn {{ {', '.join(NAMES)} }};"


def add(page, name, packed):
    page.evaluate(
        """async ([name, text]) => {
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          nets[name] = f.network(await f.unpack(bytes)); }""",
        [name, base64.b64encode(packed).decode()],
    )


def ids_of(name, text=None):
    tokenizer = loaded(name)[1]
    ids = tokenizer.encode(text or TEXTS[name], add_special_tokens=False).ids
    return [1, *ids, 2] if name.startswith("mlm") else [1, *ids]


@pytest.mark.parametrize("off", [[], [[0, 1], [0, 4], [3, 5]]])
@pytest.mark.parametrize("name", sorted(TEXTS))
def test_logits_and_attention_are_torch_s(js, name, off):
    model, ids = cut(loaded(name)[0], off), ids_of(name)
    with torch.no_grad(), capture(model) as maps:
        logits = model(torch.tensor([ids]))[0]
    got = js(
        f"(() => {{ const r = f.run(net('{name}'), ids, {{ off }}); const s = f.head(net('{name}'), r.h);"
        " return [s.find((x) => x.key === 'logits').made[0].m, f.maps(r)]; })()",
        ids=ids,
        off=off,
    )
    assert (torch.tensor(got[0], dtype=torch.float64) - logits).abs().max() <= 1e-10
    assert (torch.tensor(got[1], dtype=torch.float64) - torch.stack([m[0] for m in maps])).abs().max() <= 1e-12


@pytest.mark.parametrize("name", ["gpt-en", "gpt-zh"])
def test_with_a_memory_the_logits_are_the_same(js, name):
    ids = ids_of(name)
    whole, parts = js(
        f"(() => {{ const gpt = net('{name}'), logits = (h) => f.head(gpt, h)[1].made[0].m;"
        " const memory = f.remember(gpt), cuts = [ids.slice(0, 5), ids.slice(5, 6), ids.slice(6)];"
        " return [logits(f.run(gpt, ids).h), cuts.flatMap((part) => logits(f.run(gpt, part, { memory }).h))]; })()",
        ids=ids,
    )
    assert (torch.tensor(whole) - torch.tensor(parts)).abs().max() <= 1e-12


def test_what_the_page_cannot_run_is_refused():
    sizes = {"vocab_size": 9, "d_model": 4, "n_heads": 2, "n_layers": 1, "d_ff": 8, "max_len": 6}
    tokenizer = loaded("mlm-zh")[1]
    with pytest.raises(TypeError, match="model: expected a MaskedLM or a CausalLM, got Encoder"):
        pack(Encoder(EncoderConfig(**sizes)), tokenizer)
    with pytest.raises(ValueError, match="model: expected positions='rotary' in its config, got 'learned'"):
        pack(CausalLM(EncoderConfig(**sizes)), tokenizer)
    with pytest.raises(ValueError, match="name: expected one of gpt-en, gpt-zh, mlm-en, mlm-zh, got 'bert'"):
        pieces("bert")


def test_bytes_are_the_same_each_time_and_few():
    for name in zoo.available():
        assert b"".join(pieces(name)) == pack(*zoo.load(name))
        assert 5e6 < sum(len(script) for script in scripts(name)) < 6e6


@pytest.mark.parametrize("edition", ["", "zh/"])
def test_what_the_chapter_shows_is_what_runs(edition):
    chapter = (ROOT / f"{edition}notebooks/05_3_on_the_page.ipynb").read_text("utf8")
    prose = "\n".join(
        "".join(cell["source"]) for cell in json.loads(chapter)["cells"] if cell["cell_type"] == "markdown"
    )
    source = re.sub(r"^export ", "", "".join(map(_source, ("forward", "network"))), flags=re.M)
    shown = re.findall(r"^```js\n(.*?)^```$", prose, re.M | re.S)
    assert len(shown) == 8
    for code in shown:
        assert code in source
    assert f"{len(pieces('mlm-en'))} " in prose

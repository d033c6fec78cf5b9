"""Every displayed equation of the book has a label and an entry in book/equations.toml: its code, and its test."""

import ast
import json
import math
import pkgutil
import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bs4 import BeautifulSoup
from helpers import assert_close, shake
from parity import DISPLAY, INLINE_CODE, unfence

from llmbook import reference
from llmbook.mlm import MaskedLM
from llmbook.transformer import Encoder, EncoderConfig

ROOT = Path(__file__).parents[1]
EDITIONS = {"en": ROOT, "zh": ROOT / "zh"}
ENTRIES = tomllib.loads((ROOT / "book" / "equations.toml").read_text("utf8"))["equation"]

editions = pytest.mark.parametrize("edition", EDITIONS)
entries = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["label"])

# the displayed equations of the source document: section (which of its equations)
DOCUMENT = ["3.1 (1)", "3.2 (1)", "4.1 (1)", "4.1 (2)", "4.2 (1)", "4.2 (2)", "4.2 (3)", "4.3 (1)"]


def prose(edition):
    """The text of every page, and that of every markdown cell, of an edition: (its place, text)."""
    for path in sorted(EDITIONS[edition].glob("book/*.md")):
        yield path.name, path.read_text("utf8")
    for path in sorted(EDITIONS[edition].glob("notebooks/*.ipynb")):
        for cell in cells(path):
            if cell["cell_type"] == "markdown":
                yield f"{path.name}: cell {cell['id']}", "".join(cell["source"])


@cache
def cells(notebook):
    return json.loads(notebook.read_text("utf8"))["cells"]


def equations(text):
    """The displayed equations of a text: (label or None, equation)."""
    for match in DISPLAY.finditer(INLINE_CODE.sub(r"\1", unfence(text, []))):
        label = re.search(r"\$\$[ \t]*\(([\w:.-]+)\)$|:label:[ \t]*(\S+)|\\label\{([^}]+)\}", match[0])
        yield label and next(filter(None, label.groups())), match[0]


def labels(edition):
    return [label for _, text in prose(edition) for label, _ in equations(text)]


@cache
def functions(path):
    """The names of a test file's functions, those in classes too."""
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf8"))) if isinstance(node, ast.FunctionDef)}


# ---- Labels and entries


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$$\na = b\n$$ (eq-a)", ["eq-a"]),
        ("so that $$a = b$$ and $$c$$ (eq-c)", [None, "eq-c"]),
        ("```{math}\n:label: eq-a\na = b\n```", ["eq-a"]),
        (":::{math}\na = b\n:::", [None]),
        ("\\begin{align}\na &= b\n\\end{align}", [None]),
        ("$$\n\\begin{aligned} a &= b \\end{aligned}\n$$ (eq-a)", ["eq-a"]),
        ("```python\nprice = '$$1$$'\n```\nand `$$2$$`, $3$", []),
        (":::{note}\n$$a$$\n:::", [None]),
    ],
)
def test_equations_are_found_where_they_are(text, found):
    assert [label for label, _ in equations(text)] == found


@editions
def test_every_displayed_equation_has_a_label(edition):
    bare = [f"{place}: {tex}" for place, text in prose(edition) for label, tex in equations(text) if not label]
    assert bare == []


@editions
def test_every_label_has_an_entry_and_stands_once_in_the_edition(edition):
    assert Counter(labels(edition)) == Counter(entry["label"] for entry in ENTRIES)


def test_every_equation_of_the_document_has_its_entry():
    assert sorted({place for entry in ENTRIES for place in entry["document"]}) == DOCUMENT


# ---- Code and tests


@entries
def test_every_entry_is_code_or_a_derivation(entry):
    assert ("code" in entry) != entry.get("derivation", False)
    assert {"en", "zh", "document"} <= entry.keys()
    for name in (entry[key] for key in ("code", "uses") if key in entry):
        assert callable(pkgutil.resolve_name(name))


@entries
def test_every_entry_names_a_test_that_is_there_and_speaks_of_the_code(entry):
    if "cell" in entry:
        assert "code" not in entry and "test" not in entry
        notebook, _, cell = entry["cell"].partition("#")
        assert cell in [c["id"] for c in cells(ROOT / notebook) if c["cell_type"] == "code"]
        return
    path, _, test = entry["test"].partition("::")
    assert test.startswith("test_") and test in functions(ROOT / path)
    name = entry.get("code", "").rpartition(".")[2]
    assert re.search(rf"\b{name}\b", (ROOT / path).read_text("utf8"))


# ---- Equations that no other test computes as they are printed


@editions
def test_worked_example_is_what_attention_computes(edition):
    (tex,) = [tex for _, text in prose(edition) for label, tex in equations(text) if label == "eq-example"]
    printed = [
        [[float(x) for x in row.split("&")] for row in matrix.split(r"\\")]
        for matrix in re.findall(r"\\begin\{bmatrix\}(.*?)\\end\{bmatrix\}", tex)
    ]
    (q, k_transposed, scores, again, scaled, weights, used, v, output) = map(np.array, printed)
    expected = reference.attention(q, k_transposed.T, v)
    np.testing.assert_allclose(scores, q @ k_transposed, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scaled, q @ k_transposed / 2**0.5, rtol=0, atol=5e-4)
    np.testing.assert_allclose(weights, expected[1], rtol=0, atol=5e-4)
    np.testing.assert_allclose(output, expected[0], rtol=0, atol=5e-4)
    assert (again == scores).all() and (used == weights).all()


def test_head_of_the_masked_lm():
    config = EncoderConfig(vocab_size=19, d_model=12, n_heads=3, n_layers=2, d_ff=17, max_len=7, norm="post")
    model, ids = shake(MaskedLM(config).double()).eval(), torch.tensor([[3, 18, 0, 5, 7], [1, 1, 2, 11, 4]])
    state = {name: p.detach().numpy() for name, p in model.named_parameters()}
    h = model.encoder(ids).detach().numpy()  # (B, T, d_model)
    a = reference.gelu(h @ state["transform.weight"].T + state["transform.bias"])
    x = reference.layer_norm(a, state["norm.weight"], state["norm.bias"])
    z = x @ state["encoder.embedding.tokens.weight"].T + state["bias"]  # (B, T, V)
    assert_close(model(ids), torch.tensor(z))


@pytest.mark.parametrize(("d_model", "sigma"), [(128, 0.05), (192, 0.05), (768, 0.02)])
def test_scores_at_birth(d_model, sigma):
    torch.manual_seed(0)
    config = EncoderConfig(vocab_size=500, d_model=d_model, n_heads=4, n_layers=1, d_ff=8, max_len=64, init_std=sigma)
    encoder = Encoder(config)
    x = F.layer_norm(torch.randn(8, 64, d_model), (d_model,))
    with torch.no_grad():
        q, k, _ = encoder.blocks[0].attention.W_qkv(x).unflatten(-1, (3, 4, -1)).unbind(2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / (d_model / 4) ** 0.5
    different = ~torch.eye(64, dtype=torch.bool)  # a token and itself share x: their score has another mean
    assert scores[..., different].std().item() == pytest.approx(d_model * sigma**2, rel=0.05)


def test_no_guess_by_frequency_does_better_than_the_entropy():
    p = torch.tensor([5.0, 3.0, 1.0, 1.0]) / 10
    entropy = torch.distributions.Categorical(p).entropy()
    other = torch.rand(1000, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert (-(p * other.log()).sum(-1) >= entropy).all() and entropy <= math.log(4)


# ---- The built page


@editions
def test_table_has_a_row_for_each_entry_and_every_link_leads_somewhere(site, edition):
    page = BeautifulSoup((site / edition / "book" / "equations.html").read_text("utf8"), "html.parser")
    rows = page.select(".equations tbody tr")
    assert len(rows) == len(ENTRIES)
    for row, entry in zip(rows, ENTRIES, strict=True):
        equation, document, code, test = row.find_all("td")
        assert equation.a["href"].endswith(f"#equation-{entry['label']}") and entry[edition] in equation.text
        assert document.text.replace("§", "").split(", ") == (entry["document"] or [""])
        assert not code.a or code.a["href"] == f"api.html#{entry['code']}"
        assert bool(code.a) == ("code" in entry) and entry.get("uses", "") in code.text
        assert entry.get("test") == test.text or entry.get("cell", "#").partition("#")[2] == test.code.text
        for link in row.find_all("a"):
            name, _, anchor = link["href"].partition("#")
            target = site / edition / "book" / (name or "equations.html")
            assert not anchor or f'id="{anchor}"' in target.read_text("utf8")

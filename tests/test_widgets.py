"""The explorers in Python: typed state, refusals that name the argument, and a display that never changes."""

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from ipywidgets import FloatSlider, HBox, link
from traitlets import HasTraits, TraitError

from llmbook.attention import attention
from llmbook.widgets import EXPLORERS, AttentionExplorer, BPEExplorer
from llmbook.widgets.base import STATIC, Arrays, Matrix, bundle

Q, K, V = [0.1, 0.2], [[0.3, 0.4], [0.5, 0.6]], [[1.0, 1.1], [2.0, 2.1]]


def state(explorer):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', explorer.to_html())[1])


def test_it_opens_with_the_example_of_the_document():
    explorer = AttentionExplorer()
    assert (explorer.q, explorer.K, explorer.V) == (Q, K, V)
    assert np.allclose(explorer.output, [1.5106, 1.6106], atol=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("scaled", [True, False])
def test_weights_and_output_are_torch_s(temperature, scaled):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, d, generator=g, dtype=torch.float64) for n, d in ((1, 3), (5, 3), (5, 2)))
    mask = torch.tensor([True, False, True, True, True])
    explorer = AttentionExplorer(q[0], k, v, mask=mask, temperature=temperature, scaled=scaled)
    scale = (3**-0.5 if scaled else 1.0) / temperature
    output, weights = attention(q, k, v, mask, scale=scale)
    assert np.allclose(explorer.weights, weights[0])
    assert np.allclose(explorer.output, output[0])


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda x: torch.tensor(x).half(), tuple])
def test_lists_arrays_and_tensors_are_taken(make):
    explorer = AttentionExplorer(make([1.0, 2.0]), make([[1.0, 2.0]]), make([[3.0]]), mask=torch.tensor([True]))
    assert (explorer.q, explorer.K, explorer.V, explorer.mask) == ([1.0, 2.0], [[1.0, 2.0]], [[3.0]], [True])


def test_a_tensor_that_needs_gradients_or_lies_elsewhere_is_taken():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    k = torch.eye(2, device=device, requires_grad=True)
    assert AttentionExplorer(k[0], k, k).K == [[1.0, 0.0], [0.0, 1.0]]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": [NAN, 0.2], "K": K, "V": V}, r"q: expected finite numbers, got nan"),
        ({"q": Q, "K": [[INF, 0.4], [0.5, 0.6]], "V": V}, r"K: expected finite numbers, got inf"),
        ({"q": Q, "K": [[0.3, 0.4], [0.5]], "V": V}, r"K: expected rows of one length, got lengths \[2, 1\]"),
        ({"q": Q, "K": K, "V": [[1.0], [2.0, 2.1]]}, r"V: expected rows of one length, got lengths \[1, 2\]"),
        ({"q": Q, "K": [], "V": V}, r"K: expected rows, got none"),
        ({"q": Q, "K": [[], []], "V": V}, r"K: expected numbers in each row, got none"),
        ({"q": [], "K": K, "V": V}, r"q: expected numbers, got none"),
        ({"q": np.zeros((0,)), "K": K, "V": V}, r"q: expected numbers, got none"),
        ({"q": ["a", "b"], "K": K, "V": V}, r"q: expected finite numbers, got 'a'"),
        ({"q": "ab", "K": K, "V": V}, r"q: expected numbers, got 'ab'"),
        ({"q": 3.0, "K": K, "V": V}, r"q: expected numbers, got 3.0"),
        ({"q": [True, False], "K": K, "V": V}, r"q: expected finite numbers, got True"),
        ({"q": [1, 2, 3], "K": K, "V": V}, r"q: expected d_k=2 numbers as in the keys K \(2, 2\), got 3"),
        ({"q": Q, "K": K, "V": V[:1]}, r"V: expected one entry for each of the 2 keys K, got 1"),
        ({"mask": [True]}, r"mask: expected one entry for each of the 2 keys K, got 1"),
        ({"tokens": ["a", "b", "c"]}, r"tokens: expected one entry for each of the 2 keys K, got 3"),
        ({"q": Q}, r"q, K, V: expected all three or none, got only q"),
        ({"temperature": 0}, r"temperature: expected a finite number above 0, got 0.0"),
        ({"temperature": NAN}, r"temperature: expected a finite number above 0, got nan"),
        ({"temperature": INF}, r"temperature: expected a finite number above 0, got inf"),
        ({"lang": "fr"}, r"lang"),
        ({"mask": [1.5, True]}, r"mask"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        AttentionExplorer(**arguments)


def test_a_refused_change_leaves_everything_as_it_was():
    explorer = AttentionExplorer()
    before = explorer.to_html()
    for name, value in (("q", [NAN, 0]), ("K", [[1], [2, 3]]), ("V", []), ("mask", [True]), ("temperature", -1)):
        with pytest.raises(TraitError):
            setattr(explorer, name, value)
    with pytest.raises(TraitError), explorer.hold_trait_notifications():
        explorer.K = [[1.0, 2.0, 3.0]]
        explorer.V = [[1.0]]
    assert explorer.to_html() == before


def test_shapes_change_together():
    explorer = AttentionExplorer()
    with explorer.hold_trait_notifications():
        explorer.q, explorer.K, explorer.V = [1.0], [[1.0], [2.0], [3.0]], [[1.0], [2.0], [3.0]]
        explorer.mask, explorer.tokens = [True] * 3, ["a", "b", "c"]
    assert len(explorer.weights) == 3


def test_a_query_that_may_attend_nowhere_gives_zeros():
    explorer = AttentionExplorer(mask=[False, False])
    assert not explorer.weights.any() and not explorer.output.any()


def test_it_is_observed_and_linked_like_any_widget():
    explorer, slider, seen = AttentionExplorer(), FloatSlider(min=0.1, max=5, value=2.0), []
    explorer.observe(lambda change: seen.append(change["new"]), "temperature")
    link((slider, "value"), (explorer, "temperature"))
    slider.value = 3.0
    assert explorer.temperature == 3.0 and seen == [2.0, 3.0]
    HBox([explorer, slider])


def test_the_display_is_the_same_every_time_and_has_no_address():
    displays = [AttentionExplorer()._repr_mimebundle_()[0] for _ in range(2)]
    for mime in ("text/plain", "text/html"):
        assert displays[0][mime] == displays[1][mime]
    assert (
        displays[0]["text/plain"]
        == repr(AttentionExplorer())
        == "AttentionExplorer(2 keys, d_k=2, weights=[0.489, 0.511])"
    )
    assert "application/vnd.jupyter.widget-view+json" in displays[0]


def test_markup_in_tokens_stays_text():
    explorer = AttentionExplorer(tokens=["</script><script>alert(1)</script>", "<b>&"])
    html = explorer.to_html()
    assert html.count("<script") == 1 == html.count("</script>") and "<b>" not in html
    assert state(explorer)["tokens"] == explorer.tokens


def test_the_chinese_notebooks_label_in_chinese(tmp_path, monkeypatch):
    (tmp_path / "zh" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "zh" / "notebooks")
    assert AttentionExplorer().lang == "zh"
    assert "lang" not in state(
        AttentionExplorer()
    )  # the page says its own language: outputs are equal in both editions
    monkeypatch.chdir(tmp_path)
    assert AttentionExplorer().lang == ""


def merge(word, pair):
    """The rule as the chapter writes it."""
    result = []
    for symbol in word:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return tuple(result)


def learn(seen, n):
    """The first n merges: the most frequent pair; in a tie, the one whose symbols have the smaller numbers."""
    words = {tuple(word): count for word, count in seen.items()}
    number = {c: i for i, c in enumerate(sorted(set("".join(seen))))}
    merges = []
    for _ in range(n):
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], number[pair[0]], number[pair[1]]))
        merges.append(best)
        number.setdefault("".join(best), len(number))
        words = {merge(word, best): count for word, count in words.items()}
    return merges


LEARNT = learn({"low": 5, "lower": 2, "newest": 6, "widest": 3}, 10)


def test_bpe_opens_with_the_merges_of_the_four_words():
    explorer = BPEExplorer()
    assert explorer.merges == LEARNT and explorer.step == 0
    assert explorer.tokens == [list(word) for word in ("low", "lower", "newest", "widest")]
    explorer.step = 10
    assert explorer.tokens == [["low"], ["low", "e", "r"], ["newest"], ["widest"]]


def test_bpe_applies_the_merges_in_order_by_the_rule_of_the_chapter():
    g = np.random.default_rng(0)
    for _ in range(200):
        letters = list("abc\u0301字")
        text = "".join(g.choice([*letters, " "], 40))
        symbols = [*letters, "ab", "aa", "bc", "e\u0301"]
        merges = [tuple(map(str, g.choice(symbols, 2))) for _ in range(12)]
        step = int(g.integers(13))
        words = [tuple(word) for word in text.split()]
        for pair in merges[:step]:
            words = [merge(word, pair) for word in words]
        assert BPEExplorer(merges, text, step).tokens == [list(word) for word in words]


def test_bpe_joins_from_the_left_and_no_symbol_twice():
    assert BPEExplorer([("a", "a")], "aaa aaaa", 1).tokens == [["aa", "a"], ["aa", "aa"]]


@pytest.mark.parametrize("make", [list, tuple, np.array, iter, lambda pairs: [list(pair) for pair in pairs]])
def test_bpe_takes_pairs_however_they_are_listed(make):
    assert BPEExplorer(make([("a", "b"), ("ab", "c")])).merges == [("a", "b"), ("ab", "c")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merges": []}, r"merges: expected pairs of strings, got none"),
        ({"merges": "es"}, r"merges: expected pairs of strings, got 'es'"),
        ({"merges": 3}, r"merges: expected pairs of strings, got 3"),
        ({"merges": {("e", "s"): 9}}, r"merges: expected pairs of strings, got {\('e', 's'\): 9}"),
        ({"merges": ["es", "lo"]}, r"merges: expected pairs of non-empty strings, got 'es'"),
        ({"merges": [("e", "s"), ("e", "s", "t")]}, r"merges: expected pairs .*, got \('e', 's', 't'\)"),
        ({"merges": [("e",)]}, r"merges: expected pairs of non-empty strings, got \('e',\)"),
        ({"merges": [("e", "")]}, r"merges: expected pairs of non-empty strings, got \('e', ''\)"),
        ({"merges": [("e", 1)]}, r"merges: expected pairs of non-empty strings, got \('e', 1\)"),
        ({"merges": [None]}, r"merges: expected pairs of non-empty strings, got None"),
        ({"step": 11}, r"step: expected a whole number from 0 to 10, the number of merges, got 11"),
        ({"step": -1}, r"step: expected a whole number from 0 to 10, the number of merges, got -1"),
        ({"step": True}, r"step: expected a whole number from 0 to 10, the number of merges, got True"),
        ({"merges": [("e", "s")], "step": 2}, r"step: expected a whole number from 0 to 1, .*, got 2"),
        ({"step": 1.5}, r"'step' trait .* expected an int, not the float 1.5"),
        ({"text": "x" * 201}, r"text: expected at most 200 characters, got 201"),
        ({"text": 3}, r"'text' trait .* expected a unicode string, not the int 3"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bpe_refuses_bad_arguments_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        BPEExplorer(**arguments)


def test_bpe_holds_what_it_held_when_a_change_is_refused_and_changes_together():
    explorer = BPEExplorer(step=5)
    before = explorer.to_html()
    for name, value in (("merges", [("a", "b")]), ("merges", ["es"]), ("step", 11), ("text", "x" * 201)):
        with pytest.raises(TraitError):
            setattr(explorer, name, value)
    assert explorer.to_html() == before
    with explorer.hold_trait_notifications():
        explorer.merges, explorer.step = [("e", "r")], 1
    assert explorer.tokens[1] == ["l", "o", "w", "er"]


def test_bpe_takes_any_unicode_and_no_text():
    text = "e\u0301tude \U0001f468\u200d\U0001f469 שלום مرحبا 字节 " + "👍" * 150
    explorer = BPEExplorer([("e", "\u0301"), ("ש", "ל")], text, 2)
    assert explorer.tokens[0][:2] == ["e\u0301", "t"] and explorer.tokens[1] == ["\U0001f468", "\u200d", "\U0001f469"]
    assert explorer.tokens[2] == ["של", "ו", "ם"] and len(explorer.tokens[5]) == 150
    assert BPEExplorer(text=" \n").tokens == [] == BPEExplorer(text="", step=10).tokens


def test_bpe_is_displayed_the_same_every_time():
    displays = [BPEExplorer(step=4)._repr_mimebundle_()[0] for _ in range(2)]
    for mime in ("text/plain", "text/html"):
        assert displays[0][mime] == displays[1][mime]
    assert displays[0]["text/plain"] == repr(BPEExplorer(step=4)) == "BPEExplorer(10 merges, step=4, 12 tokens)"
    assert state(BPEExplorer()) == {"merges": [list(m) for m in LEARNT], "text": "low lower newest widest", "step": 0}
    assert BPEExplorer(text="low <b>", step=4).to_html().endswith(
        '<table class="llm-fallback"><tr><th>4 / 10</th><th>lo + w → low</th></tr>'
        "<tr><th>low</th><td>low</td></tr><tr><th>&lt;b&gt;</th><td>&lt; b &gt;</td></tr></table></div>"
    )  # fmt: skip


def test_bpe_keeps_markup_as_text():
    explorer = BPEExplorer([("</script>", "<script>")], "</script><script>alert(1)</script>")
    html = explorer.to_html()
    assert html.count("<script") == 1 == html.count("</script>") and state(explorer)["text"] == explorer.text


@pytest.mark.parametrize("name", [explorer.files for explorer in EXPLORERS.values()])
def test_a_module_stands_alone(name):
    code = bundle(name)
    assert not re.search(r"^\s*import\b|\bimport\(|https?://(?!www\.w3\.org)", code, re.M)
    assert re.findall(r"^export .*", code, re.M) == ["export default { render };"]


@pytest.mark.parametrize("name", sorted(path.stem for path in STATIC.glob("*.js")))
def test_what_a_module_imports_is_there_to_be_imported(name):
    for names, file in re.findall(
        r'^import \{([^}]*)\} from "\./(\w+)\.js";$', (STATIC / f"{name}.js").read_text("utf8"), re.M
    ):
        code = (STATIC / f"{file}.js").read_text("utf8")
        exported = re.findall(r"^export (?:async )?(?:const|function) (\w+)", code, re.M)
        assert set(names.replace(" ", "").split(",")) <= set(exported), file


@pytest.mark.parametrize("name", [explorer.files for explorer in EXPLORERS.values()])
def test_no_two_files_of_a_module_define_the_same_name(name):
    defined = re.findall(r"^(?:const|let|function|class) (\w+)", bundle(name), re.M)
    assert [name for name, n in Counter(defined).items() if n > 1] == []


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.stem)
def test_no_module_uses_the_class_of_another_explorer(path):
    own = {explorer.files for explorer in EXPLORERS.values()} - {path.stem}
    used = {name for names in re.findall(r'class: "([^"]*)"', path.read_text("utf8")) for name in names.split()}
    assert used & {f"llm-{name}" for name in own} == set()  # whose style sheet would reach in here


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Small modules that import each other: d from b and c, which both import a."""
    monkeypatch.setattr("llmbook.widgets.base.STATIC", tmp_path)
    imports = {
        "a": "",
        "b": 'import { a } from "./a.js";\n',
        "d": 'import { b } from "./b.js";\nimport { c } from "./c.js";\n',
    }
    imports["c"] = 'import {\n  a,\n} from "./a.js";\n'
    for name, lines in imports.items():
        (tmp_path / f"{name}.js").write_text(f"// {name}\n{lines}export const {name} = 1;\nexport default {name};\n")


def test_a_bundle_has_each_file_once_after_what_it_imports(files):
    code = bundle("d")
    assert re.findall(r"^// (\w)", code, re.M) == ["a", "b", "c", "d"] and "import" not in code
    assert re.findall(r"^export .*", code, re.M) == ["export const d = 1;", "export default d;"]
    assert bundle("a") == "// a\nexport const a = 1;\nexport default a;\n"


def test_a_bundle_of_a_file_that_is_not_there_says_so(files):
    with pytest.raises(FileNotFoundError, match=r"e\.js"):
        bundle("e")


WEIGHTS = {"W": torch.tensor([[1.23456, 2], [3, 4e-9]]), "b": [0.333333, -1]}


class Holder(HasTraits):
    weights = Arrays(digits=4)
    exact = Arrays({})
    matrix = Matrix([[0.0]], digits=2)


def test_arrays_by_name_are_kept_to_some_digits():
    held = Holder(weights=WEIGHTS, exact=WEIGHTS, matrix=[[1.26, 1234]])
    assert held.weights == {"W": [[1.235, 2.0], [3.0, 4e-9]], "b": [0.3333, -1.0]}
    assert held.exact["b"] == [0.333333, -1.0] and held.matrix == [[1.3, 1200.0]]
    assert Holder(weights=held.weights).weights == held.weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"weights: expected arrays by name, got \[1.0\]"),
        ({"W": 3}, r"weights: W: expected numbers or rows, got 3"),
        ({"W": []}, r"weights: W: expected numbers or rows, got none"),
        ({"W": [1.0, NAN]}, r"weights: W: expected finite numbers, got nan"),
        ({"W": [[1.0], [INF]]}, r"weights: W: expected finite numbers, got inf"),
        ({"W": [[1.0], [1.0, 2.0]]}, r"weights: W: expected rows of one length, got lengths \[1, 2\]"),
        ({"W": [[1.0], 2.0]}, r"weights: W: expected numbers in each row, got 2.0"),
        ({"W": torch.zeros(2, 2, 2)}, r"weights: W: expected finite numbers, got \[0.0, 0.0\]"),
        ({"W": [None]}, r"weights: W: expected finite numbers, got None"),
        ({"W": ["a"]}, r"weights: W: expected numbers in each row, got 'a'"),
    ],
)
def test_arrays_that_are_none_are_refused_by_name(weights, message):
    with pytest.raises(TraitError, match=message):
        Holder(weights=weights)

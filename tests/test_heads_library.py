"""HeadsExplorer over anybody's attention, long texts and cross-attention; and its maps as parts of other explorers."""

import re
from typing import ClassVar

import numpy as np
import pytest
import torch
from driver import LEFT, RENDER, Driver, shades, state
from helpers import ids_of
from torch import nn
from traitlets import TraitError
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from llmbook.capture import capture
from llmbook.decoder import EncoderDecoder
from llmbook.transformer import EncoderConfig
from llmbook.widgets import HeadsExplorer
from llmbook.widgets.base import STATIC, bundle, styles

B, LAYERS, H, T, T_K = 2, 2, 3, 5, 7
V = 19
QUERIES, KEYS = list("abcde"), list("stuvwxy")
IDS = ids_of(B, T, vocab_size=V)
KINDS = ("encoder", "cross")
SIZES = {"vocab_size": V, "d_model": 12, "n_heads": H, "n_layers": LAYERS, "d_ff": 17, "max_len": 11}


def weights(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)


def shows(explorer, expected):
    """The explorer holds the weights (L, H, T_q, T_k), to three decimals."""
    held, expected = np.array(explorer.weights), np.asarray(expected.detach().cpu().double())
    assert held.shape == expected.shape and np.abs(held - expected).max() <= 0.000501


# --- the weights of other people's models, in three lines


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BertModel, BertConfig(vocab_size=V, hidden_size=12, num_hidden_layers=LAYERS, num_attention_heads=H,
                               intermediate_size=17, attn_implementation="eager")),
        (GPT2Model, GPT2Config(vocab_size=V, n_embd=12, n_layer=LAYERS, n_head=H, n_positions=11, bos_token_id=0,
                               eos_token_id=0, attn_implementation="eager")),
    ],
)  # fmt: skip
def test_hugging_face(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    maps = model(IDS, output_attentions=True).attentions
    explorer = HeadsExplorer(maps, QUERIES, row=1)

    assert isinstance(maps, tuple) and maps[0].requires_grad
    shows(explorer, torch.stack(maps)[:, 1])
    shows(HeadsExplorer(maps, QUERIES), torch.stack(maps)[:, 0])
    assert (np.triu(explorer.weights, 1) == 0).all() == (kind is GPT2Model)


def test_torch_multihead_attention(device):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, H, batch_first=True, device=device)
    x, memory = torch.randn(B, T, 12, device=device), torch.randn(B, T_K, 12, device=device)

    _, maps = layer(x, x, x, average_attn_weights=False)
    explorer = HeadsExplorer(maps, QUERIES, row=1)
    shows(explorer, maps[None, 1])

    _, crossed = layer(x, memory, memory, average_attn_weights=False)
    shows(HeadsExplorer(crossed, QUERIES, keys=KEYS, row=0), crossed[None, 0])
    shows(HeadsExplorer(crossed[1], QUERIES, keys=KEYS), crossed[None, 1])
    _, mean = layer(x, memory, memory)  # one map for each of the batch
    shows(HeadsExplorer(mean[0], QUERIES, keys=KEYS), mean[None, None, 0])


def test_capture():
    torch.manual_seed(0)
    model = EncoderDecoder(EncoderConfig(**SIZES)).eval()
    with capture(model) as maps:
        model(ids_of(B, T_K, vocab_size=V), IDS)

    encoder, crossed = ([w for name, w in zip(maps.names, maps, strict=True) if kind in name] for kind in KINDS)
    shows(HeadsExplorer(encoder, KEYS, row=1), torch.stack(encoder)[:, 1])
    shows(HeadsExplorer(crossed, QUERIES, keys=KEYS), torch.stack(crossed)[:, 0])
    with pytest.raises(TraitError, match=r"weights: expected layers of one shape, got \[.*\(3, 7, 7\), \(3, 5, 5\)"):
        HeadsExplorer(maps, KEYS)


# --- what is taken


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_any_precision_on_any_device_with_a_gradient(device, dtype):
    maps = weights(LAYERS, B, H, T, T).to(device, dtype).requires_grad_()
    shows(HeadsExplorer(list(maps), QUERIES), maps[:, 0])
    shows(HeadsExplorer(maps, QUERIES), maps[:, 0])  # all as one tensor of five dimensions


def nested(w):
    """Tuples of lists of tensors."""
    return tuple(map(list, w))


@pytest.mark.parametrize("make", [torch.clone, torch.Tensor.numpy, torch.Tensor.tolist, list, nested])
@pytest.mark.parametrize("shape", [(LAYERS, H, T, T_K), (1, H, T, T_K), (1, 1, T, T_K)])
def test_all_layers_one_layer_and_one_head_are_taken(shape, make):
    maps = weights(*shape)
    given = maps if len(maps) > 1 else maps[0] if shape[1] > 1 else maps[0, 0]
    shows(HeadsExplorer(make(given), QUERIES, keys=KEYS), maps)


@pytest.mark.parametrize("make", [torch.clone, torch.Tensor.numpy, lambda w: [w], lambda w: (w.tolist(),)])
def test_one_layer_of_a_batch_is_taken_and_its_row_chosen(make):
    maps = weights(B, H, T, T)
    for row in range(B):
        shows(HeadsExplorer(make(maps), QUERIES, row=row), maps[None, row])


def test_rows_that_are_all_zero_are_taken():
    maps = weights(LAYERS, H, T, T)
    maps[1, :, 3:] = 0
    shows(HeadsExplorer(maps, QUERIES), maps)
    shows(HeadsExplorer(maps * 0, QUERIES), maps * 0)


def test_keys_are_held_shown_and_put_in_again_and_without_them_the_state_is_as_it_was():
    crossed = HeadsExplorer(weights(LAYERS, H, T, T_K), QUERIES, keys=KEYS, layer=1)
    assert repr(crossed) == "HeadsExplorer(2 layers, 3 heads, 5 tokens, 7 keys, layer=1, head=0)"
    assert crossed.fallback().startswith('<table class="llm-fallback"><tr><th>weights[1][0]</th><th>s</th><th>t</th>')
    assert state(crossed)["key_tokens"] == KEYS
    assert HeadsExplorer(**state(crossed)).to_html() == crossed.to_html()

    with crossed.hold_trait_notifications():
        crossed.weights, crossed.key_tokens = weights(LAYERS, H, T, T), None
    assert list(state(crossed)) == ["weights", "tokens", "layer", "head", "compare", "view", "query"]


BATCH = [weights(B, H, T, T_K)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"keys: expected one for each of the 7 columns of the weights \(2, 3, 5, 7\), got none, and 5 tokens"),
        ({"keys": QUERIES}, r"keys: expected one for each of the 7 columns of the weights \(2, 3, 5, 7\), got 5"),
        ({"keys": []}, r"keys: expected one for each of the 7 columns of the weights \(2, 3, 5, 7\), got 0"),
        ({"keys": KEYS, "query": 5}, r"query: expected a whole number from 0 to 4, got 5"),
        ({"weights": weights(5, 65)}, r"weights: expected at most 64 tokens, got 65"),
        ({"weights": weights(3, 5, 7), "row": 0}, r"row: expected none for weights without a batch \(3, 5, 7\), got 0"),
        ({"weights": BATCH, "row": 2}, r"row: expected a whole number from 0 to 1, got 2"),
        ({"weights": BATCH, "row": -1}, r"row: expected a whole number from 0 to 1, got -1"),
        ({"weights": BATCH, "row": 0.5}, r"row: expected a whole number from 0 to 1, got 0.5"),
        (
            {"weights": weights(5, 7) * 2},
            r"weights: expected rows that sum to 1 or are all 0, got 2 in layer 0",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        HeadsExplorer(**({"weights": weights(LAYERS, H, T, T_K), "tokens": QUERIES} | arguments))


def test_the_style_sheets_of_what_an_explorer_imports_come_once_and_before_its_own():
    sheets, files = styles("heads", "softmax", "heads"), ("base", "maps", "heads", "softmax")
    assert sheets == "\n".join((STATIC / f"{name}.css").read_text("utf8") for name in files)
    assert HeadsExplorer._css == styles("heads") == sheets[: len(styles("heads"))]
    with pytest.raises(FileNotFoundError, match=r"counts\.css"):
        styles("counts")  # what is asked for has to be there


# --- in a browser


class Page(Driver):
    """One explorer, of which the tests look at the first head that is large."""

    LABELS: ClassVar[dict] = {"en": {}}

    def __init__(self, page, twin=None):
        super().__init__(page, twin)
        self.panel = self.root.locator(".llm-panel.llm-first")
        self.words, self.cells = self.panel.locator(".llm-words"), self.panel.locator(".llm-heat")

    def default(self):
        """The parts alone have no twin."""

    def small(self, k):
        return self.root.locator(".llm-small").nth(k)

    def drawn(self, k, shape, size=1):
        """The weights that a small map shows, which has blocks of that size; a row of blocks a row."""
        return shades(self.small(k).locator("path"), shape, size)

    def said(self):
        return self.cells.evaluate_all("all => all.map((cell) => cell.ariaLabel)")

    def shades_are_behind_the_cells(self):
        box = "(e) => { const { x, y, right, bottom } = e.getBoundingClientRect(); return [x, y, right, bottom]; }"
        first, last = (cell.evaluate(box) for cell in (self.cells.first, self.cells.last))
        picture = self.panel.locator("[role=rowgroup] svg").evaluate(box)
        assert picture == pytest.approx([*first[:2], *last[2:]], abs=0.1)

    def lines(self):
        strokes = "all => all.map((line) => Number(line.getAttribute('stroke-opacity')))"
        return self.panel.locator("line").evaluate_all(strokes)


def spoken(map, queries, keys):
    """What the cells of a map say."""
    return [f"{q} \u2192 {k}: {map[i, j]:.3f}" for i, q in enumerate(queries) for j, k in enumerate(keys)]


def effective_keys(map):
    return float(torch.special.entr(map).sum(-1).exp().mean())


@pytest.mark.parametrize("view", ["matrix", "lines"])
def test_cross_attention_has_other_keys_than_queries(visit, stage, view):
    maps = weights(LAYERS, H, T, T_K)
    maps[0, 0, 2] = 0
    crossed = HeadsExplorer(maps, QUERIES, keys=KEYS, view=view)
    with visit(stage(crossed)) as page:
        shown = Page(page, crossed)
        if view == "matrix":
            assert shown.panel.locator("[role=columnheader] bdi").all_inner_texts() == KEYS
            assert shown.panel.locator("[role=rowheader] bdi").all_inner_texts() == QUERIES
            assert shown.said() == spoken(maps[0, 0], QUERIES, KEYS)
            assert (shades(shown.panel.locator("path"), (T, T_K)) - maps[0, 0]).abs().max() <= 0.0101
            shown.shades_are_behind_the_cells()
            shown.cells.nth(1 * T_K + 6).click()
        else:
            assert shown.panel.locator("button.llm-token").all_inner_texts() == QUERIES
            assert shown.panel.locator("span.llm-token").all_inner_texts() == KEYS
            assert shown.lines() == pytest.approx(np.array(crossed.weights)[0, 0].flatten())
            shown.panel.locator("button.llm-token").nth(1).click()
        most = maps[0, 0, 1].argmax()
        assert f"“b” attends most to “{KEYS[most]}” ({maps[0, 0, 1, most]:.3f})" in shown.words.inner_text()
        shown.root.locator("select").last.select_option("2")
        assert shown.words.inner_text() == "“c” attends to no key."
        assert shown.panel.locator(".llm-measures span").all_inner_texts() == ["mean effective number of keys"]
        assert shown.numbers(".llm-first .llm-measure") == pytest.approx(
            [effective_keys(maps[0, 0, [0, 1, 3, 4]])], abs=1e-2
        )
        assert (shown.drawn(0, (T, T_K)) - maps[0, 0]).abs().max() <= 0.051


def test_measures_leave_out_rows_that_are_all_zero(visit, stage):
    maps = torch.stack([torch.eye(T), torch.zeros(T, T)])
    maps[0, 3:] = 0
    with visit(stage(twin := HeadsExplorer(maps, QUERIES))) as page:
        shown = Page(page, twin)
        for head, known in enumerate([["1.000", "0.000", "0.000", "1.0"], ["–"] * 4]):
            shown.small(head).click()
            assert shown.panel.locator(".llm-measure").all_inner_texts() == known


def test_keys_come_and_go_with_the_kernel(visit, stage):
    square, crossed = weights(LAYERS, H, T, T).tolist(), weights(LAYERS, H, T, T_K).tolist()
    with visit(stage()) as page:
        page.evaluate(RENDER, ["heads", state(HeadsExplorer(square, QUERIES))])
        page.evaluate("() => { stage.remove = stage.explorer.render(stage); }")
        cells = page.locator(".llm-first .llm-heat")
        for change, n in (({"weights": crossed}, T * T),  # half of a change
                          ({"key_tokens": KEYS}, T * T_K),
                          ({"key_tokens": KEYS[::-1]}, T * T_K),
                          ({"weights": square, "key_tokens": None}, T * T),
                          ({"key_tokens": KEYS}, T * T),  # and half of another
                          ({"weights": crossed}, T * T_K)):  # fmt: skip
            page.evaluate("changes => stage.kernel(changes)", change)
            assert cells.count() == n
            if n == T * T_K:
                heads = page.locator(".llm-first [role=columnheader] bdi").all_inner_texts()
                assert heads == page.evaluate("stage.model.get('key_tokens')")


@pytest.mark.parametrize("n", [32, 33, 64])
def test_a_small_map_of_many_tokens_shows_what_its_blocks_of_keys_get(visit, stage, n):
    maps = torch.stack([weights(n, n), torch.eye(n, dtype=torch.float64)])
    size = 1 if n == 32 else 2
    ends = list(range(size, n + size, size))
    expected = torch.stack([torch.stack([rows.sum(-1).mean(-1) for rows in columns.split(size, 1)], -1)
                            for columns in maps.split(size, 2)], -1)  # fmt: skip
    with visit(stage(twin := HeadsExplorer(maps, [str(i) for i in range(n)]))) as page:
        shown = Page(page, twin)
        for head in range(2):
            drawn = shown.drawn(head, (len(ends), len(ends)), size)
            assert (drawn - expected[head]).abs().max() <= 0.052


@pytest.mark.parametrize("view", ["matrix", "lines"])
@pytest.mark.parametrize("width", [390, 1280])
def test_as_much_as_it_takes_of_everything(visit, stage, width, view):
    many = HeadsExplorer(weights(12, 12, 64, 64), [f"token{i}" for i in range(64)], view=view, query=63)
    with visit(stage(many), width=width) as page:
        shown = Page(page, many)
        shown.small(143).click()
        map = torch.tensor(many.weights)[11, 11]
        if view == "matrix":
            assert shown.said() == spoken(map, many.tokens, many.tokens)
            room = shown.panel.locator(".llm-scroll").evaluate("box => box.clientWidth - box.scrollWidth")
            assert room == 0 or width == 390  # a wide page shows all columns at once
            assert (shades(shown.panel.locator("path"), (64, 64)) - map).abs().max() <= 0.0101
            shown.shades_are_behind_the_cells()
        else:
            assert shown.lines() == pytest.approx(map.flatten().tolist())
        assert page.evaluate("document.documentElement.scrollWidth") <= width


# --- the maps as parts of another explorer

PARTS = bundle("maps") + "\nwindow.maps = { headsOverview, headPanel, MAP_TEXT };"
ASSEMBLE = """(plain) => {
  const text = maps.MAP_TEXT.en, tokens = ["a", "b", "c", "d"], causal = true, told = [];
  const tell = (what) => (...where) => told.push([what, ...where]);
  const weights = plain.map((layer) => layer.map((head) => head.map((row) => Float64Array.from(row))));
  const all = maps.headsOverview({ text, layers: 2, heads: 3, causal, pick: tell("pick"), onCut: tell("cut") });
  const panel = maps.headPanel({ text, tokens, causal, className: "llm-first", choose: tell("choose"),
    point: (i, j) => panel.point(i, j) });
  const root = document.createElement("div"), host = document.createElement("div");
  [root.className, host.className] = ["llm llm-maps", "llm-explorer"];
  root.append(all.node, panel.node);
  host.append(root);
  document.body.append(host);
  const draw = (changes) => {
    const now = { weights, view: "matrix", query: null, layer: 0, head: 0, ...changes };
    all.draw(now);
    panel.draw(now, [now.layer, now.head]);
  };
  window.parts = { draw, weights, told: () => told.splice(0) };
  draw({});
}"""


@pytest.fixture
def parts(visit, stage):
    """A page with the parts, for two layers of three causal heads; the weights."""
    maps = weights(2, 3, 4, 4).tril()
    maps /= maps.sum(-1, keepdim=True)
    with visit(stage()) as page:
        page.add_script_tag(content=PARTS, type="module")
        page.wait_for_function("window.maps")
        page.evaluate(ASSEMBLE, maps.tolist())
        yield Page(page), maps


def test_heads_are_cut_by_mouse_keys_and_button(parts):
    shown, _ = parts
    page, small = shown.page, shown.root.locator(".llm-small")
    small.nth(4).dblclick()
    assert page.evaluate("parts.told()") == [["pick", 1, 1, False], ["pick", 1, 1, False], ["cut", 1, 1]]
    small.nth(2).focus()
    for key in ("Delete", "Backspace", "d"):
        page.keyboard.press(key)
    assert page.evaluate("parts.told()") == [["cut", 0, 2], ["cut", 0, 2]]
    page.evaluate("parts.draw({ layer: 1, head: 2 })")
    shown.root.get_by_role("button", name="Cut this head").click()
    assert page.evaluate("parts.told()") == [["cut", 1, 2]]

    page.evaluate("parts.draw({ layer: 1, head: 2, cut: [[0, 1], [1, 2]] })")
    labels = small.evaluate_all("all => all.map((cell) => cell.ariaLabel)")
    assert labels == [f"layer {k // 3}, head {k % 3}" + " (cut)" * (k in (1, 5)) for k in range(6)]
    crossed = small.evaluate_all("all => all.map((cell) => getComputedStyle(cell, '::after').content !== 'none')")
    assert crossed == [k in (1, 5) for k in range(6)]
    assert shown.panel.locator("figcaption span").first.inner_text() == "layer 1, head 2 (cut)"
    shown.root.get_by_role("button", name="Restore this head").click()
    assert page.evaluate("parts.told()") == [["cut", 1, 2]]
    page.evaluate("parts.draw({})")
    assert shown.root.locator(".llm-cut").count() == 0


def test_a_causal_map_is_a_triangle_of_what_a_query_may_see(parts):
    shown, maps = parts
    map, hidden = maps[0, 0], torch.ones(4, 4).triu(1).bool()
    expected = [re.sub(r"0\.000$", "masked", label) if masked else label
            for label, masked in zip(spoken(map, "abcd", "abcd"), hidden.flatten(), strict=True)]  # fmt: skip
    assert shown.said() == expected
    greyed = shown.cells.evaluate_all("all => all.map((cell) => cell.classList.contains('llm-masked'))")
    assert greyed == hidden.flatten().tolist()
    assert shown.numbers(".llm-measure") == pytest.approx(
        [float(map.diagonal().mean()), float(map.diagonal(-1).mean()), effective_keys(map)]
    )
    inside = "path => [.5, 1.5, 2.5, 3.5].map((y, _, at) => at.map((x) => path.isPointInFill(new DOMPoint(x, y))))"
    assert shown.small(0).locator("path.llm-masked").evaluate(inside) == hidden.tolist()
    shown.cells.nth(1).hover()
    assert shown.panel.locator(".llm-readout").inner_text() == "a \u2192 b: masked"


def test_new_weights_are_drawn(parts):
    shown, maps = parts
    for view in ("matrix", "lines"):
        shown.page.evaluate("view => parts.draw({ view, query: 3 })", view)
    before = [shown.drawn(k, (4, 4)) for k in range(6)]
    assert all((drawn - map).abs().max() <= 0.051 for drawn, map in zip(before, maps.flatten(0, 1), strict=True))
    assert f"({maps[0, 0, 3].max():.3f})" in shown.words.inner_text()
    shown.page.evaluate("""() => { const row = (i) => Float32Array.from([0, 1, 2, 3], (j) => Number(i === j));
      parts.weights[0][0] = [0, 1, 2, 3].map(row);
      for (const view of ["lines", "matrix"]) parts.draw({ view, query: 3 }); }""")
    after = [shown.drawn(k, (4, 4)) for k in range(6)]
    assert torch.equal(after[0], torch.eye(4).double()) and all(map(torch.equal, after[1:], before[1:]))
    assert shown.lines() == torch.eye(4).flatten().tolist()
    assert shown.cells.nth(5).get_attribute("aria-label") == "b \u2192 b: 1.000"
    assert shown.words.inner_text() == "“d” attends most to “d” (1.000)."


def test_heads_explorer_cuts_none(visit, stage):
    with visit(stage(twin := HeadsExplorer(weights(LAYERS, H, T, T), QUERIES))) as page:
        shown = Page(page, twin)
        shown.small(1).dblclick()
        page.keyboard.press("Delete")
        assert shown.root.locator(".llm-overview button, .llm-cut, .llm-masked").count() == 0


def test_it_leaves_nothing_behind(visit, stage):
    with visit(stage()) as page:
        page.evaluate(RENDER, ["heads", state(HeadsExplorer(weights(LAYERS, H, T, T_K), QUERIES, keys=KEYS))])
        assert page.evaluate(LEFT, ".llm-small") == [0, 0, 0]

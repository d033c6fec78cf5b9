"""BlockExplorer in Python: typed state, refusals that name the argument, and steps that are torch's."""

import json
import re

import numpy as np
import pytest
import torch
from driver import displayed, state
from helpers import normal, shake
from traitlets import TraitError

import llmbook
from llmbook.transformer import Block, EncoderConfig
from llmbook.widgets import BlockExplorer

TOKENS = ["the", "cat", "drank", "the", "milk", "."]


def block(**kwargs):
    sizes = {"vocab_size": 9, "d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 12, "max_len": 12} | kwargs
    torch.manual_seed(0)
    return shake(Block(EncoderConfig(**sizes)))


X = normal(6, 8).detach()


def explorer(activation="gelu", **kwargs):
    return BlockExplorer(block(activation=activation), X, TOKENS, **kwargs)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_a_block_says_all_itself_and_the_last_step_is_torch_s(norm, activation):
    shown, torch_s = BlockExplorer(block(norm=norm, activation=activation, norm_eps=0.01), X, TOKENS, times=3), block()
    assert (shown.norm, shown.activation, shown.n_heads, shown.eps) == (norm, activation, 2, 0.01)
    torch_s = block(norm=norm, activation=activation, norm_eps=0.01).double()
    torch_s.load_state_dict({name: torch.tensor(w, dtype=torch.float64) for name, w in shown.weights.items()})
    x = torch.tensor(shown.x, dtype=torch.float64)[None]
    for _ in range(3):
        x = torch_s(x)
    assert np.abs(list(shown.steps.values())[-1][0] - x[0].detach().numpy()).max() < 1e-12


def test_weights_by_name_are_taken_and_all_is_kept_to_four_digits():
    arrays = {name: p.numpy() for name, p in block().state_dict().items()}
    by_name = BlockExplorer(arrays, X.tolist(), TOKENS, n_heads=2)
    assert (
        by_name.to_html()
        == explorer().to_html()
        == BlockExplorer(block=arrays, x=X, tokens=TOKENS, n_heads=2).to_html()
    )
    for name, kept in by_name.weights.items():
        assert np.abs(np.array(kept) / arrays[name] - 1).max() <= 5e-4 + 1e-9
    assert np.abs(np.array(by_name.x) / X.numpy() - 1).max() <= 5e-4 + 1e-9
    assert not re.search(r"\d\.\d*[1-9]\d{4}", json.dumps([by_name.weights, by_name.x]).replace("0.0", "."))


def test_what_it_shows_may_be_put_in_again():
    shown = explorer(norm="post", residual=False, step=4, token=2, times=5)
    given = state(shown)
    assert list(given) == list(BlockExplorer.state)
    assert BlockExplorer(given.pop("weights"), **given).to_html() == shown.to_html()


W = {name: p.numpy() for name, p in block().state_dict().items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": 3}, r"weights: expected arrays by name, got 3"),
        ({"block": torch.nn.Linear(2, 2)}, r"block: expected a Block, or its weights by name, got Linear"),
        ({"block": block(positions="rotary")}, r"block: expected one without cross-attention and rotary positions"),
        (
            {"block": Block(EncoderConfig(9, 8, 2, 1, 12, 9), cross=True)},
            r"block: expected one without cross-attention",
        ),
        ({"block": {}}, r"weights: expected attention.W_qkv.weight, .*, got $"),
        ({"block": W | {"W": [1.0]}}, r"weights: expected attention.W_qkv.weight, .*, got .*, W$"),
        (
            {"block": W | {"attention.W_o.weight": X}},
            r"attention.W_o.weight \(8, 8\) with d_model=8 and d_ff=12, got \(6, 8\)",
        ),
        ({"block": W | {"attention.W_o.bias": [np.inf] * 8}}, r"attention.W_o.bias: expected finite numbers, got inf"),
        ({"block": block(d_model=18)}, r"weights: expected d_model of at most 16, got 18"),
        ({"block": block(d_ff=65)}, r"weights: expected d_ff of at most 64, got 65"),
        ({"x": X[:, :7]}, r"x: expected \(T, d_model=8\) as in the block, got \(6, 7\)"),
        ({"x": X[None]}, r"x: expected finite numbers, got \["),
        ({"x": [[np.nan] * 8] * 6}, r"x: expected finite numbers, got nan"),
        ({"x": np.ones((13, 8)), "tokens": ["x"] * 13}, r"x: expected at most 12 tokens, got 13"),
        ({"tokens": TOKENS[:5]}, r"tokens: expected one for each of the 6 rows of x, got 5"),
        ({"n_heads": 3}, r"n_heads: expected a divisor of d_model=8, got 3"),
        ({"n_heads": 0}, r"n_heads: expected a divisor of d_model=8, got 0"),
        ({"eps": -1}, r"eps: expected a finite number not below 0, got -1"),
        ({"activation": "tanh"}, r"'activation' trait"),
        ({"norm": "before"}, r"'norm' trait"),
        ({"step": 12}, r"step: expected a whole number from 0 to 11, got 12"),
        ({"step": 8, "norm": "none", "residual": False}, r"step: expected a whole number from 0 to 7, got 8"),
        ({"step": True}, r"step: expected a whole number from 0 to 11, got True"),
        ({"token": 6}, r"token: expected a whole number from 0 to 5, got 6"),
        ({"times": 0}, r"times: expected a whole number from 1 to 8, got 0"),
        ({"times": 9}, r"times: expected a whole number from 1 to 8, got 9"),
        ({"lang": "fr"}, r"lang"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(TraitError, match=message):
        BlockExplorer(**({"block": block(), "x": X, "tokens": TOKENS} | arguments))


def test_a_refused_change_leaves_all_as_it_was_and_what_the_browser_sends_is_seen():
    shown, seen = explorer(step=11), []
    before = shown.to_html()
    for name, value in (("residual", False), ("norm", "none"), ("x", X[:2]), ("step", 12), ("weights", {})):
        with pytest.raises(TraitError):
            setattr(shown, name, value)
    assert shown.to_html() == before
    shown.observe(lambda change: seen.append((change["name"], change["new"])), ["residual", "step"])
    shown.set_state({"residual": False, "step": 9})
    assert sorted(seen) == [("residual", False), ("step", 9)]


def test_it_is_displayed_the_same_every_time():
    display = displayed(lambda: explorer(step=4, token=1))
    plain = "BlockExplorer(6 tokens, d_model=8, 2 heads, d_ff=12, norm='pre', step=4, token=1)"
    assert display["text/plain"] == plain and "residual=False" in repr(explorer(residual=False))
    assert "application/vnd.jupyter.widget-view+json" in display and llmbook.BlockExplorer is BlockExplorer


def test_the_fallback_is_the_row_of_the_token_and_markup_stays_text():
    shown = BlockExplorer(block(), X, ["</script><script>alert(1)</script>", *TOKENS[1:]])
    html = shown.to_html()
    assert html.count("<script") == 1 == html.count("</script>") and html.count("<tr>") == 13
    v = shown.steps["qkv"][2][0]
    assert f"| {' '.join(f'{x:.2f}' for x in v)}</td>" in html and "<th>attention_norm</th>" in html

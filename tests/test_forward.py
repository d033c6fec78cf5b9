"""forward.js, the Transformer's forward pass on the page: each function is torch's, in double precision."""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers import normal

from llmbook.attention import attention
from llmbook.widgets.base import STATIC

SOURCE = (STATIC / "forward.js").read_text("utf8")
NAMES = re.findall(r"^export (?:const|function) (\w+)", SOURCE, re.M)
PURE = re.sub(r"^export ", "", SOURCE, flags=re.M) + f"\nreturn {{ {', '.join(NAMES)} }};"


@pytest.fixture
def js(visit, stage):
    """``js(code, **values)``: what an expression in the functions of the file and in tensors gives, as a tensor."""
    with visit(stage()) as page:

        def evaluate(code, **values):
            lists = {name: value.tolist() for name, value in values.items()}
            script = f"([source, {{ {', '.join(lists)} }}]) => {{ const f = new Function(source)(); return {code}; }}"
            return torch.tensor(page.evaluate(script, [PURE, lists]), dtype=torch.float64)

        yield evaluate


def close(actual, expected, tolerance=1e-14):
    assert actual.shape == expected.shape and (actual - expected).abs().max() <= tolerance


def test_it_stands_alone_and_touches_no_page():
    assert not re.search(r"^import|\bdocument\b|\bwindow\b", SOURCE, re.M)


def test_erf_is_torch_s_to_the_last_digits_and_keeps_its_sign(js):
    x = torch.cat(
        [torch.linspace(-8, 8, 4001, dtype=torch.float64), torch.tensor([1e-300, -1e-12, 5.999, 6.001, 40.0])]
    )
    close(js("x.map(f.erf)", x=x), torch.erf(x), 5e-15)
    small = torch.tensor([1e-300, 1e-20, -1e-8], dtype=torch.float64)  # the series keeps its relative precision
    assert ((js("x.map(f.erf)", x=small) / torch.erf(small)) - 1).abs().max() <= 1e-15
    edge = js("[0, Infinity, -Infinity, NaN].map(f.erf).map((x) => (Number.isNaN(x) ? 2 : x))")
    assert edge.tolist() == [0, 1, -1, 2]


@pytest.mark.parametrize(
    ("name", "torch_s"), [("gelu", F.gelu), ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")), ("relu", F.relu)]
)
def test_activations(js, name, torch_s):
    x = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    close(js(f"x.map(f.activations.{name})", x=x), torch_s(x))


def test_products_norm_and_linear_layer(js):
    a, b, w, bias = (normal(*shape).detach() for shape in ((3, 5), (5, 7), (11, 5), (11,)))
    close(js("f.matmul(a, b)", a=a, b=b), a @ b)
    close(js("f.transpose(a)", a=a), a.T)
    close(js("f.plus(a, f.apply((x) => 2 * x, a))", a=a), 3 * a)
    close(js("f.linear(a, w, bias)", a=a, w=w, bias=bias), F.linear(a, w, bias))
    gain, shift = normal(5, seed=1).detach(), normal(5, seed=2).detach()
    for eps in (1e-5, 0.1):
        made = js(f"f.layerNorm(a, gain, shift, {eps})", a=a, gain=gain, shift=shift)
        close(made, F.layer_norm(a, (5,), gain, shift, eps))
    close(js("a.map((x) => [f.moments(x).mean, f.moments(x).variance])", a=a),
          torch.stack([a.mean(-1), a.var(-1, correction=0)], -1))  # fmt: skip


def test_matrices_are_cut_and_put_together(js):
    a = normal(3, 12).detach()
    close(js("f.split(a, 4)", a=a), torch.stack(a.chunk(4, -1)))
    close(js("f.concatenate(f.split(a, 4))", a=a), a)


@pytest.mark.parametrize("mask", [None, "some", "nowhere"])
def test_attention_and_softmax(js, mask):
    q, k, v = (normal(n, d, seed=n).detach() for n, d in ((3, 5), (7, 5), (7, 2)))
    allowed = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    allowed[1] = mask == "some"
    given = {} if mask is None else {"mask": allowed}
    output, weights = attention(q, k, v, given.get("mask"))
    call = f"f.attention(q, k, v{', mask' if given else ''})"
    close(js(f"{call}.weights", q=q, k=k, v=v, **given), weights)
    close(js(f"{call}.output", q=q, k=k, v=v, **given), output)
    close(js(f"{call}.scores", q=q, k=k, v=v, **given), q @ k.T / 5**0.5)
    close(js("f.softmax(x)", x=1000 * q[0]), (1000 * q[0]).softmax(-1))  # nothing overflows

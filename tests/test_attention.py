"""Attention against numpy, torch's kernel and torch's layer; its properties; and what it refuses.

Every size is a different prime, so that a swapped axis cannot pass.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers import TOLERANCE, assert_close, gradients, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmbook import reference
from llmbook.attention import MultiHeadAttention, attention, attention_weights, fused_attention, tiled_attention

B, H, T_Q, T_K, D_K, D_V = 2, 3, 5, 7, 11, 13
D_MODEL = H * D_K

PATHS = {
    "explicit": lambda q, k, v, mask=None: attention(q, k, v, mask)[0],
    "fused": fused_attention,
    "tiled": lambda q, k, v, mask=None: tiled_attention(q, k, v, mask, tile=(2, 3)),
}
LIVE_MASKS = {  # every query may attend somewhere
    "none": lambda t_q, t_k: None,
    "all": lambda t_q, t_k: torch.tensor(True),
    "keys": lambda t_q, t_k: torch.arange(t_k) % 3 != 1,
    "causal": lambda t_q, t_k: torch.ones(t_q, t_k, dtype=torch.bool).tril(),
    "padding": lambda t_q, t_k: torch.arange(t_k) < torch.tensor([t_k, t_k - 3]).view(B, 1, 1, 1),
    "heads": lambda t_q, t_k: torch.stack([torch.ones(t_q, t_k, dtype=torch.bool).triu(-h) for h in range(H)]),
    "full": lambda t_q, t_k: (torch.arange(B * H * t_q * t_k) % 11 % 3 != 1).view(B, H, t_q, t_k),
}
MASKS = LIVE_MASKS | {
    "nowhere": lambda t_q, t_k: torch.tensor(False),
    "queries": lambda t_q, t_k: torch.arange(t_q)[:, None] % 2 == 0,
    "strictly causal": lambda t_q, t_k: torch.ones(t_q, t_k, dtype=torch.bool).tril(-1),
}
paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
live_masks = pytest.mark.parametrize("mask", LIVE_MASKS.values(), ids=LIVE_MASKS)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
exact_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
quick = settings(deadline=None, derandomize=True, max_examples=40)


def qkv(**options):
    return normal(B, H, T_Q, D_K, **options), normal(B, H, T_K, D_K, **options), normal(B, H, T_K, D_V, **options)


def make(mask, t_q=T_Q, t_k=T_K, device="cpu"):
    mask = mask(t_q, t_k)
    return mask if mask is None else mask.to(device)


def numpy_attention(q, k, v, mask=None):
    arrays = [None if x is None else x.detach().cpu().double().numpy() for x in (q, k, v)]
    results = reference.attention(*arrays, None if mask is None else mask.cpu().numpy())
    return [torch.from_numpy(x).to(q.device, q.dtype) for x in results]


# ---- Oracles: numpy, finite differences, torch's kernel


@paths
@masks
@dtypes
def test_output_matches_numpy(path, mask, dtype, device):
    q, k, v = qkv(dtype=dtype, device=device)
    mask = make(mask, device=device)
    assert_close(path(q, k, v, mask), numpy_attention(q, k, v, mask)[0])


@masks
@dtypes
def test_weights_match_numpy(mask, dtype, device):
    q, k, v = qkv(dtype=dtype, device=device)
    mask = make(mask, device=device)
    expected = numpy_attention(q, k, v, mask)[1]
    assert_close(attention_weights(q, k, mask), expected)
    assert_close(attention(q, k, v, mask)[1], expected)


@paths
@masks
def test_gradients_match_finite_differences(path, mask, device):
    mask = make(mask, device=device)
    inputs = qkv(device=device)
    assert torch.autograd.gradcheck(lambda q, k, v: path(q, k, v, mask), inputs, fast_mode=True)


@paths
@live_masks
@dtypes
def test_output_and_gradients_match_torchs_kernel(path, mask, dtype, device):
    inputs = qkv(dtype=dtype, device=device)
    mask = make(mask, device=device)
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask if mask is None else torch.atleast_2d(mask))
    output = path(*inputs, mask)
    assert_close(output, expected)
    assert_close(gradients(output, inputs), gradients(expected, inputs), slack=4)


@paths
@pytest.mark.parametrize(
    "leading",
    [((), (), ()), ((2,), (2,), (2,)), ((), (2, 3), (3,)), ((2, 1), (3,), (1, 1)), ((1,), (1, 1, 1), (5, 2, 3))],
    ids=str,
)
def test_leading_axes_broadcast(path, leading, device):
    q, k, v = (normal(*lead, *x.shape[-2:], device=device) for lead, x in zip(leading, qkv(), strict=True))
    mask = make(MASKS["strictly causal"], device=device)
    assert_close(path(q, k, v, mask), numpy_attention(q, k, v, mask)[0])


@paths
def test_strides_do_not_matter(path, device):
    inputs = qkv(device=device)
    strided = [x.detach().mT.contiguous().mT for x in inputs]
    mask = make(MASKS["full"], device=device)
    assert not any(x.is_contiguous() for x in strided)
    assert_close(path(*strided, mask.mT.contiguous().mT), path(*inputs, mask))


@dtypes
def test_causal_is_the_causal_mask_for_the_kernel_and_for_the_layer(dtype, device):
    inputs = [x[..., :T_Q, :] for x in qkv(dtype=dtype, device=device)]
    mask = make(MASKS["causal"], T_Q, T_Q, device)
    expected, output = attention(*inputs, mask)[0], fused_attention(*inputs, causal=True)
    assert_close(output, expected)
    assert_close(gradients(output, inputs), gradients(expected, inputs), slack=4)
    layer = MultiHeadAttention.from_torch(torch_layer(dtype, device))
    x = normal(B, T_Q, D_MODEL, dtype=dtype, device=device)
    expected = layer(x, mask=mask)
    assert_close(layer(x, causal=True), expected)
    heard = listen(layer)
    assert_close(layer(x, causal=True), expected)
    assert torch.equal(heard[0], heard[0].tril())


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.0, -2.0])
def test_scale_replaces_one_over_root_d(scale, device):
    q, k, v = qkv(device=device)
    expected, expected_weights = numpy_attention(q * scale * D_K**0.5, k, v)
    output, weights = attention(q, k, v, scale=scale)
    assert_close(weights, expected_weights)
    assert_close(output, expected)
    assert_close(attention_weights(q, k, scale=scale), expected_weights)


# ---- No queries, no keys


@paths
@masks
def test_no_queries_give_no_rows(path, mask):
    q, k, v = normal(B, H, 0, D_K), normal(B, H, T_K, D_K), normal(B, H, T_K, D_V)
    assert path(q, k, v, make(mask, 0)).shape == (B, H, 0, D_V)


@paths
@pytest.mark.parametrize("mask", [None, torch.tensor(True), torch.ones(T_Q, 1, dtype=torch.bool)], ids=str)
def test_no_keys_give_zeros(path, mask):
    q, k, v = normal(B, H, T_Q, D_K), normal(B, H, 0, D_K), normal(B, H, 0, D_V)
    assert torch.equal(path(q, k, v, mask), torch.zeros(B, H, T_Q, D_V, dtype=q.dtype))


# ---- Properties


@st.composite
def cases(draw):
    """Queries, keys, values and a mask that is anything from empty to full."""
    h, t_q, t_k, d_k, d_v = (draw(st.integers(1, 6)) for _ in range(5))
    seed = draw(st.integers(0, 2**16))
    share = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    mask = torch.rand(h, t_q, t_k, generator=torch.Generator().manual_seed(seed)) < share
    return normal(h, t_q, d_k, seed=seed), normal(h, t_k, d_k, seed=seed + 1), normal(h, t_k, d_v, seed=seed + 2), mask


sizes = st.sampled_from([1.0, 1e6])  # at 1e6 a mask of -1e9 or so would leak


def permutation(n, seed):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@quick
@given(cases(), sizes)
def test_weights_are_a_distribution_over_the_allowed_keys(case, size):
    q, k, _, mask = case
    weights = attention_weights(q * size, k, mask)
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()
    assert_close(weights.sum(-1), mask.any(-1).double())


@paths
@quick
@given(cases())
def test_query_that_may_attend_nowhere_gives_zeros_and_no_gradient(path, case):
    *inputs, mask = case
    mask[:, 0] = False
    output = path(*inputs, mask)
    assert not output.isnan().any()
    assert (output[:, 0] == 0).all()
    assert all((g == 0).all() for g in gradients(output[:, 0], inputs))
    assert not any(g.isnan().any() for g in gradients(path(*inputs, mask), inputs))


@paths
@quick
@given(cases(), st.integers(0, 99))
def test_permuted_queries_permute_the_output(path, case, seed):
    q, k, v, mask = case
    order = permutation(q.shape[-2], seed)
    assert_close(path(q[:, order], k, v, mask[:, order]), path(q, k, v, mask)[:, order])


@paths
@quick
@given(cases(), st.integers(0, 99))
def test_order_of_the_keys_does_not_matter(path, case, seed):
    q, k, v, mask = case
    order = permutation(k.shape[-2], seed)
    assert_close(path(q, k[:, order], v[:, order], mask[..., order]), path(q, k, v, mask))


@paths
@quick
@given(cases(), sizes)
def test_output_lies_between_the_allowed_values(path, case, size):
    q, k, v, mask = case
    output = path(q * size, k, v, mask)
    forbidden, live = ~mask[..., None], mask.any(-1)
    least = v[:, None].masked_fill(forbidden, torch.inf).amin(-2)
    most = v[:, None].masked_fill(forbidden, -torch.inf).amax(-2)
    assert (least - 1e-12 <= output)[live].all()
    assert (output <= most + 1e-12)[live].all()


@quick
@given(cases(), st.tuples(st.integers(1, 8), st.integers(1, 8)), st.booleans())
def test_every_tile_size_gives_the_explicit_output_and_gradients(case, tile, masked):
    *inputs, mask = case
    mask = mask if masked else None
    tiled, explicit = tiled_attention(*inputs, mask, tile=tile), attention(*inputs, mask)[0]
    assert_close(tiled, explicit)
    assert_close(gradients(tiled, inputs), gradients(explicit, inputs))


def test_default_tiles_give_the_explicit_output():
    q, k, v = normal(300, D_K), normal(1100, D_K), normal(1100, D_V)
    mask = make(MASKS["strictly causal"], 300, 1100)
    assert_close(tiled_attention(q, k, v, mask), attention(q, k, v, mask)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_tiled_attention_rounds_half_precision_only_at_the_end(dtype):
    inputs = [x.to(dtype) for x in qkv()]
    tiled, exact = PATHS["tiled"](*inputs), attention(*(x.double() for x in inputs))[0]
    torch.testing.assert_close(tiled, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@paths
@quick
@given(cases())
def test_inputs_stay_as_they_were(path, case):
    before = [x.detach().clone() for x in case]
    gradients(path(*case), case[:3])
    assert all(torch.equal(x, y) for x, y in zip(case, before, strict=True))


@paths
@masks
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_huge_scores_stay_finite(path, mask, dtype):
    inputs = with_largest_score(1e4, dtype)
    output = path(*inputs, make(mask))
    assert all(x.isfinite().all() for x in (output, *gradients(output, inputs)))


def with_largest_score(size, dtype):
    q, k, v = (x.detach() for x in qkv())
    factor = (size / (q @ k.mT / D_K**0.5).abs().max()).sqrt()
    return [x.to(dtype).requires_grad_() for x in (q * factor, k * factor, v)]


# ---- Memory


class PeakMemory(TorchDispatchMode):
    """The most numbers that the tensors made inside the block ever held at one time."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.alive = {ref: size for ref, size in self.alive.items() if not ref.expired()}
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                self.alive[StorageWeakRef(storage)] = storage.nbytes() // x.element_size()
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def peak_memory(path, length, mask):
    inputs = [normal(length, 2, seed=seed) for seed in range(3)]
    with PeakMemory() as memory:
        gradients(path(*inputs, mask), inputs)
    return memory.peak


@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "padding"])
def test_memory_of_tiled_attention_grows_with_the_length_not_its_square(masked):
    def tiled(q, k, v, mask):
        return tiled_attention(q, k, v, mask, tile=(64, 64))

    def growth(path):
        short, long = (peak_memory(path, t, torch.arange(t) < t - 9 if masked else None) for t in (512, 1024))
        return long / short

    assert growth(tiled) < 2.1
    assert growth(PATHS["explicit"]) > 3.8


# ---- The layer


def torch_layer(dtype=torch.float64, device="cpu", **options):
    """torch's layer, with biases that are not 0 as they are at birth."""
    layer = nn.MultiheadAttention(D_MODEL, H, batch_first=True, **options)
    for seed, p in enumerate(layer.parameters()):
        p.data = normal(*p.shape, seed=seed).detach() * D_MODEL**-0.5
    return layer.to(device, dtype)


def torch_masks(mask, t_q, t_k):
    """Our mask as torch's layer takes it: True = may *not* attend."""
    if mask is None:
        return {}
    if mask.shape == (B, 1, 1, t_k):
        return {"key_padding_mask": ~mask[:, 0, 0]}
    return {"attn_mask": ~mask.expand(B, H, t_q, t_k).flatten(0, 1)}


def listen(layer):
    """What passes the tap from now on."""
    heard = []
    layer.weights.register_forward_hook(lambda module, args, weights: heard.append(weights))
    return heard


layers = pytest.mark.parametrize("options", [{}, {"bias": False}], ids=["bias", "no bias"])
crossing = pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])


@layers
@crossing
@live_masks
@exact_dtypes
@pytest.mark.parametrize("listening", [False, True], ids=["fused", "explicit"])
def test_layer_matches_torchs_layer(options, cross, mask, dtype, listening, device):
    theirs = torch_layer(dtype, device, **options)
    ours = MultiHeadAttention.from_torch(theirs)
    heard = listen(ours) if listening else None
    t_k = T_K if cross else T_Q
    x = normal(B, T_Q, D_MODEL, dtype=dtype, device=device)
    context = normal(B, T_K, D_MODEL, dtype=dtype, device=device) if cross else None
    mask = make(mask, T_Q, t_k, device)
    inputs = [x, context] if cross else [x]

    read = inputs[-1]
    expected, weights = theirs(x, read, read, average_attn_weights=False, **torch_masks(mask, T_Q, t_k))
    output = ours(x, context, mask)

    assert_close(output, expected)
    actual, wanted = (gradients(y, [*inputs, *m.parameters()]) for y, m in ((output, ours), (expected, theirs)))
    assert_close(actual, wanted, slack=4)
    if listening:
        assert_close(heard, [weights])


@crossing
@masks
def test_tap_changes_nothing_about_the_output(cross, mask, device):
    layer = MultiHeadAttention.from_torch(torch_layer(device=device))
    x = normal(B, T_Q, D_MODEL, device=device)
    context = normal(B, T_K, D_MODEL, device=device) if cross else None
    mask = make(mask, T_Q, T_K if cross else T_Q, device)
    quiet = layer(x, context, mask)
    heard = listen(layer)
    assert_close(layer(x, context, mask), quiet)
    assert [w.shape for w in heard] == [(B, H, T_Q, T_K if cross else T_Q)]


def test_nothing_passes_the_tap_while_nobody_listens(monkeypatch):
    layer = MultiHeadAttention(D_MODEL, H)
    monkeypatch.setattr(layer.weights, "forward", lambda weights: pytest.fail("weights were computed"))
    x = normal(B, T_Q, D_MODEL, dtype=torch.float32)
    layer(x)
    hook = layer.weights.register_forward_hook(lambda *args: None)
    hook.remove()
    layer(x)


def test_layer_without_a_batch_axis_equals_a_batch_of_one():
    layer = MultiHeadAttention.from_torch(torch_layer())
    x, context = normal(T_Q, D_MODEL), normal(T_K, D_MODEL)
    assert_close(layer(x, context), layer(x[None], context[None])[0])


def test_state_dict_round_trip():
    layer, other = MultiHeadAttention(D_MODEL, H), MultiHeadAttention(D_MODEL, H)
    other.load_state_dict(layer.state_dict())
    x = normal(B, T_Q, D_MODEL, dtype=torch.float32)
    assert torch.equal(layer(x), other(x))


def test_parameters_have_the_names_of_the_book():
    names = [name for name, _ in MultiHeadAttention(D_MODEL, H).named_parameters()]
    assert names == ["W_qkv.weight", "W_qkv.bias", "W_o.weight", "W_o.bias"]


@pytest.mark.parametrize("n_heads", [1, 3, 11, 33])
def test_number_of_parameters_does_not_depend_on_the_heads(n_heads):
    def count(**options):
        return sum(p.numel() for p in MultiHeadAttention(D_MODEL, n_heads, **options).parameters())

    assert count() == 4 * D_MODEL**2 + 4 * D_MODEL
    assert count(bias=False) == 4 * D_MODEL**2


@dtypes
@pytest.mark.parametrize("training", [True, False])
def test_from_torch_keeps_dtype_and_mode(dtype, training, device):
    layer = MultiHeadAttention.from_torch(torch_layer(dtype, device).train(training))
    assert {(p.dtype, p.device.type) for p in layer.parameters()} == {(dtype, device.type)}
    assert {m.training for m in layer.modules()} == {training}


def test_from_torch_copies_the_weights():
    theirs = torch_layer()
    ours = MultiHeadAttention.from_torch(theirs)
    theirs.in_proj_weight.data.zero_()
    assert (ours.W_qkv.weight != 0).all()


# ---- What is refused


Q, K, V = (x.detach() for x in qkv())
TRUE = torch.ones(T_Q, T_K, dtype=torch.bool)
REFUSED = [
    ({"q": Q.numpy()}, TypeError, "q: expected a floating-point tensor, got ndarray"),
    ({"k": K.tolist()}, TypeError, "k: expected a floating-point tensor, got list"),
    ({"v": None}, TypeError, "v: expected a floating-point tensor, got NoneType"),
    ({"q": Q.long()}, TypeError, "q: expected a floating-point tensor, got torch.int64 tensor"),
    ({"v": V.bool()}, TypeError, "v: expected a floating-point tensor, got torch.bool tensor"),
    ({"k": K.float()}, TypeError, "k: expected the dtype of q, torch.float64, got torch.float32"),
    ({"v": V.float()}, TypeError, "v: expected the dtype of q, torch.float64, got torch.float32"),
    ({"q": Q[0, 0, 0]}, ValueError, "q: expected at least 2 axes (..., T, d), got shape (11,)"),
    ({"k": K[0, 0, 0]}, ValueError, "k: expected at least 2 axes (..., T, d), got shape (11,)"),
    ({"v": V.sum()}, ValueError, "v: expected at least 2 axes (..., T, d), got shape ()"),
    ({"k": K[..., 4:]}, ValueError, "k: expected d_k=11 > 0 as in q (2, 3, 5, 11), got shape (2, 3, 7, 7)"),
    (
        {"q": Q[..., :0], "k": K[..., :0]},
        ValueError,
        "k: expected d_k=0 > 0 as in q (2, 3, 5, 0), got shape (2, 3, 7, 0)",
    ),
    ({"v": V[..., 2:, :]}, ValueError, "v: expected T_k=7 rows as in k (2, 3, 7, 11), got shape (2, 3, 5, 13)"),
    (
        {"k": K[:, :2]},
        ValueError,
        "q, k, v: leading axes do not broadcast together, got shapes (2, 3, 5, 11), (2, 2, 7, 11), (2, 3, 7, 13)",
    ),
    ({"mask": TRUE.float()}, TypeError, "mask: expected a boolean tensor (True = may attend), got torch.float32"),
    ({"mask": TRUE.int()}, TypeError, "mask: expected a boolean tensor (True = may attend), got torch.int32"),
    ({"mask": TRUE.numpy()}, TypeError, "mask: expected a boolean tensor (True = may attend), got ndarray"),
    ({"mask": TRUE.mT}, ValueError, "mask: expected a shape that broadcasts to (2, 3, 5, 7), got (7, 5)"),
    ({"mask": TRUE[:, 0]}, ValueError, "mask: expected a shape that broadcasts to (2, 3, 5, 7), got (5,)"),
    (
        {"mask": TRUE.expand(1, B, H, T_Q, T_K)},
        ValueError,
        "mask: expected a shape that broadcasts to (2, 3, 5, 7), got (1, 2, 3, 5, 7)",
    ),
    (
        {"q": Q[0], "k": K[0], "mask": TRUE.expand(B, 1, T_Q, T_K)},
        ValueError,
        "mask: expected a shape that broadcasts to (3, 5, 7), got (2, 1, 5, 7)",
    ),
    (
        {"q": Q[0, 0], "k": K[0, 0], "mask": TRUE.expand(H, T_Q, T_K)},
        ValueError,
        "mask: expected a shape that broadcasts to (5, 7), got (3, 5, 7)",
    ),
]
refused = pytest.mark.parametrize(("wrong", "error", "message"), REFUSED, ids=[message for *_, message in REFUSED])


@pytest.mark.parametrize("function", [attention, fused_attention, tiled_attention])
@refused
def test_what_does_not_fit_is_refused_by_name_and_shape(function, wrong, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(**{"q": Q, "k": K, "v": V, **wrong})


@pytest.mark.parametrize(
    ("wrong", "error", "message"), [case for case in REFUSED if "v" not in case[0] and "q, k, v" not in case[2]]
)
def test_attention_weights_refuse_the_same(wrong, error, message):
    with pytest.raises(error, match=re.escape(message)):
        attention_weights(**{"q": Q, "k": K, **wrong})


@pytest.mark.parametrize(
    ("mask", "keys", "end"), [(None, K, "T_k=7 and no mask"), (TRUE[:, :T_Q], Q, "T_k=5 and a mask")]
)
def test_causal_goes_with_equal_lengths_and_without_a_mask(mask, keys, end):
    message = f"causal: expected no mask and T_q = T_k, got T_q=5, {end}"
    with pytest.raises(ValueError, match=message):
        fused_attention(Q, keys, keys, mask, causal=True)


@pytest.mark.parametrize("name", ["x", "context"])
def test_layer_names_the_input_that_is_no_float(name):
    inputs = {"x": torch.zeros(B, T_Q, D_MODEL), name: torch.zeros(B, T_Q, D_MODEL, dtype=torch.int64)}
    with pytest.raises(TypeError, match=f"{name}: expected a floating-point tensor, got torch.int64 tensor"):
        MultiHeadAttention(D_MODEL, H)(**inputs)


@pytest.mark.parametrize("tile", [(0, 4), (4, -1), (1.5, 4), (1, 2, 3), (4,), 64, None, "ab"])
def test_tile_must_be_two_positive_integers(tile):
    message = re.escape(f"tile: expected two positive integers (queries, keys), got {tile!r}")
    with pytest.raises(ValueError, match=message):
        tiled_attention(Q, K, V, tile=tile)


@pytest.mark.parametrize(("d_model", "n_heads"), [(33, 2), (33, 0), (33, -3), (0, 3), (-33, 3)])
def test_heads_must_divide_the_width(d_model, n_heads):
    message = f"d_model: expected a positive multiple of n_heads={n_heads}, got d_model={d_model}"
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(d_model, n_heads)


@pytest.mark.parametrize("name", ["x", "context"])
@pytest.mark.parametrize("shape", [(B, T_Q, D_K), (D_MODEL,)], ids=str)
def test_layer_names_the_input_of_the_wrong_shape(name, shape):
    inputs = {"x": torch.zeros(B, T_Q, D_MODEL), name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=re.escape(f"{name}: expected shape (..., T, d_model=33), got {shape}")):
        MultiHeadAttention(D_MODEL, H)(**inputs)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask": torch.ones(B, T_Q, dtype=torch.bool)}, "broadcasts to (2, 3, 5, 5), got (2, 5)"),
        ({"context": torch.zeros(B + 1, T_K, D_MODEL)}, "leading axes do not broadcast together, got shapes (2, 3, 5"),
    ],
    ids=["mask", "context"],
)
def test_layer_refuses_what_attention_refuses(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MultiHeadAttention(D_MODEL, H)(torch.zeros(B, T_Q, D_MODEL), **wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kdim": 7}, "layer: expected kdim = vdim = embed_dim = 33, got kdim=7, vdim=33"),
        ({"vdim": 13}, "layer: expected kdim = vdim = embed_dim = 33, got kdim=33, vdim=13"),
        ({"add_bias_kv": True}, "layer: expected add_bias_kv=False and add_zero_attn=False"),
        ({"add_zero_attn": True}, "layer: expected add_bias_kv=False and add_zero_attn=False"),
    ],
)
def test_from_torch_refuses_what_the_layer_has_not(options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention.from_torch(nn.MultiheadAttention(D_MODEL, H, **options))

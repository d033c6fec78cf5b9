"""Recurrent networks against torch's own, with its weights.

Every size is a different prime, so that a swapped axis cannot pass.
"""

import re

import pytest
import torch
from helpers import normal
from torch import Tensor, nn

from llmbook.recurrent import CELLS, GRUCell, LSTMCell, Recurrent, RecurrentLM, RNNCell

B, T, D_IN, D_HIDDEN, V = 2, 7, 3, 5, 11
TORCH = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

cells = pytest.mark.parametrize("cell", CELLS)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
depths = pytest.mark.parametrize("n_layers", [1, 3])


def tokens(*shape, seed=0, device="cpu"):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed)).to(device)


def torch_layer(cell, n_layers=1, dtype=torch.float64, device="cpu", **options):
    layer = TORCH[cell](D_IN, D_HIDDEN, n_layers, **{"batch_first": True, **options})
    for seed, p in enumerate(layer.parameters()):
        p.data = normal(*p.shape, seed=seed).detach() * 0.7
    return layer.to(device, dtype)


def start(cell, n_layers, **options):
    """A state of numbers, as the layers take it and as torch's take it ``(n_layers, B, D_HIDDEN)``."""
    n_states = 2 if cell == "lstm" else 1
    states = [normal(n_layers, B, D_HIDDEN, seed=50 + i, **options) for i in range(n_states)]
    ours = [tuple(s[i] for s in states) for i in range(n_layers)]
    return states, ours, tuple(states) if cell == "lstm" else states[0]


def gradients(outputs, inputs):
    """The gradients of a weighted sum of ``outputs``, with a different weight for every entry."""
    flat = torch.cat([x.flatten() for x in outputs])
    weights = torch.arange(len(flat), device=flat.device).cos().to(flat.dtype)
    return torch.autograd.grad((flat * weights).sum(), inputs)


def assert_close(actual, expected):
    """Equal to within ``TOLERANCE``, relative to the largest entry where that is above 1."""
    if isinstance(actual, Tensor):
        actual, expected = [actual], [expected]
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=TOLERANCE[x.dtype] * max(1.0, y.abs().max().item()))


def parameters(ours):
    """The parameters of a :class:`Recurrent` in torch's order."""
    return [p for cell in ours.cells for p in (cell.W_x.weight, cell.W_h.weight, cell.W_x.bias, cell.W_h.bias)]


# ---- Oracles: torch's layers, finite differences


@cells
@depths
@dtypes
@pytest.mark.parametrize("given_state", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
def test_outputs_states_and_gradients_match_torch(cell, n_layers, dtype, given_state, device):
    theirs = torch_layer(cell, n_layers, dtype, device)
    ours = Recurrent.from_torch(theirs)
    x = normal(B, T, D_IN, seed=40, dtype=dtype, device=device)
    states, our_start, their_start = start(cell, n_layers, dtype=dtype, device=device)
    inputs = [x, *states] if given_state else [x]

    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected, after = theirs(x, their_start if given_state else None)
        after = after if cell == "lstm" else (after,)
        wanted = gradients([expected, *after], [*inputs, *theirs.parameters()])
    output, state = ours(x, our_start if given_state else None)
    stacked = [torch.stack(layers) for layers in zip(*state, strict=True)]

    assert_close([output, *stacked], [expected, *after])
    assert_close(gradients([output, *stacked], [*inputs, *parameters(ours)]), wanted)


@pytest.mark.parametrize("cell", [RNNCell, GRUCell, LSTMCell])
def test_gradients_of_a_step_match_finite_differences(cell):
    layer = cell(D_IN, D_HIDDEN).double()
    states = [normal(B, D_HIDDEN, seed=1 + i) for i in range(layer.n_states)]
    z = normal(B, layer.n_gates * D_HIDDEN)
    assert torch.autograd.gradcheck(lambda z, *state: layer.step(z, state), (z, *states))
    assert torch.autograd.gradcheck(lambda x, *state: layer(x, state)[0], (normal(B, T, D_IN), *states))


@pytest.mark.parametrize(
    ("cell", "torch_cell"), [(RNNCell, nn.RNNCell), (GRUCell, nn.GRUCell), (LSTMCell, nn.LSTMCell)]
)
def test_step_matches_torchs_cell(cell, torch_cell):
    ours, theirs = cell(D_IN, D_HIDDEN).double(), torch_cell(D_IN, D_HIDDEN).double()
    theirs.load_state_dict({"weight_ih": ours.W_x.weight, "weight_hh": ours.W_h.weight,
                            "bias_ih": ours.W_x.bias, "bias_hh": ours.W_h.bias})  # fmt: skip
    x, state = normal(B, D_IN), tuple(normal(B, D_HIDDEN, seed=1 + i) for i in range(ours.n_states))
    expected = theirs(x, state if cell is LSTMCell else state[0])
    assert_close(ours.step(ours.W_x(x), state), expected if cell is LSTMCell else [expected])


# ---- The layer


@cells
@depths
def test_two_halves_are_the_whole(cell, n_layers):
    layer = Recurrent(cell, D_IN, D_HIDDEN, n_layers).double()
    x = normal(B, T, D_IN)
    whole, end = layer(x)
    first, state = layer(x[:, :3])
    second, last = layer(x[:, 3:], state)
    assert_close(torch.cat([first, second], 1), whole)
    assert_close([s for layer in last for s in layer], [s for layer in end for s in layer])


@cells
def test_number_of_parameters(cell):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    layer = Recurrent(cell, D_IN, D_HIDDEN, n_layers=2)
    expected = gates * D_HIDDEN * (D_IN + D_HIDDEN + 2) + gates * D_HIDDEN * (2 * D_HIDDEN + 2)
    assert sum(p.numel() for p in layer.parameters()) == expected


@cells
def test_state_dict_round_trip(cell):
    layer, other = Recurrent(cell, D_IN, D_HIDDEN, 2), Recurrent(cell, D_IN, D_HIDDEN, 2)
    other.load_state_dict(layer.state_dict())
    x = normal(B, T, D_IN, dtype=torch.float32)
    assert torch.equal(layer(x)[0], other(x)[0])


def test_dropout_acts_between_layers_in_training_alone():
    x = normal(B, T, D_IN, dtype=torch.float32)

    def outputs(n_layers, training):
        layer = Recurrent("lstm", D_IN, D_HIDDEN, n_layers, dropout=0.5).train(training)
        return layer(x)[0], layer(x)[0]

    assert torch.equal(*outputs(1, training=True))
    assert torch.equal(*outputs(2, training=False))
    assert not torch.equal(*outputs(2, training=True))
    everything = Recurrent("rnn", D_IN, D_HIDDEN, 2, dropout=1.0)
    assert (everything(x)[1][0][0] != 0).all()  # the first layer reads its input whole


@dtypes
@pytest.mark.parametrize("training", [True, False])
def test_from_torch_keeps_dtype_mode_and_dropout(dtype, training, device):
    theirs = torch_layer("gru", 2, dtype, device, dropout=0.25).train(training)
    ours = Recurrent.from_torch(theirs)
    assert {(p.dtype, p.device.type) for p in ours.parameters()} == {(dtype, device.type)}
    assert {m.training for m in ours.modules()} == {training}
    assert ours.dropout.p == 0.25
    theirs.weight_ih_l1.data.zero_()
    assert (ours.cells[1].W_x.weight != 0).all()


# ---- The recurrent language model


@cells
@depths
@pytest.mark.parametrize("pieces", [[1] * T, [3, 4], [1, 5, 1]], ids=str)
def test_cache_continues_where_it_stopped(cell, n_layers, pieces, device):
    model = RecurrentLM(V, D_HIDDEN, n_layers, cell).double().to(device)
    ids, cache = tokens(B, T, device=device), model.new_cache()
    assert cache.length == 0
    parts, read = [], 0
    for piece in ids.split(pieces, 1):
        parts.append(model(piece, cache=cache))
        read += piece.shape[1]
        assert cache.length == read
    assert_close(torch.cat(parts, 1), model(ids))


@cells
def test_reordered_cache_continues_the_rows_that_were_kept(cell):
    model = RecurrentLM(V, D_HIDDEN, 2, cell).double()
    ids, more, index = tokens(3, T), tokens(4, 2, seed=1), torch.tensor([2, 0, 0, 1])
    cache = model.new_cache()
    cache.reorder(index)  # nothing is there yet
    model(ids, cache=cache)
    cache.reorder(index)
    assert cache.length == T
    assert_close(model(more, cache=cache), model(torch.cat([ids[index], more], 1))[:, T:])


def test_caches_do_not_know_of_each_other():
    model, ids = RecurrentLM(V, D_HIDDEN), tokens(B, T)
    model(ids, cache=model.new_cache())
    assert torch.equal(model(ids, cache=model.new_cache()), model(ids))
    assert torch.equal(model(ids), model(ids))


@cells
def test_language_model_is_embedding_network_and_head(cell):
    model = RecurrentLM(V, D_HIDDEN, 2, cell).double()
    ids = tokens(B, T)
    hidden, _ = model.recurrent(model.embedding.weight[ids])
    assert_close(model(ids), hidden @ model.head.weight.T + model.head.bias)


def test_tied_matrices_are_one():
    tied, free = (RecurrentLM(V, D_HIDDEN, tie=tie) for tie in (True, False))
    assert tied.embedding.weight is tied.head.weight
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == V * D_HIDDEN


def test_dropout_acts_before_and_after_the_network_in_training_alone():
    model, ids = RecurrentLM(V, D_HIDDEN, dropout=0.5), tokens(B, T)
    seen = []
    model.recurrent.register_forward_hook(lambda module, args, output: seen.append((args[0], output[0])))
    model.head.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model(ids)
    (embedded, hidden), shown = seen
    for dropped, whole in ((embedded, model.embedding(ids)), (shown, hidden)):
        assert 0 < (dropped == 0).sum() < dropped.numel()
        assert_close(dropped[dropped != 0], 2 * whole[dropped != 0])
    model.eval()
    assert torch.equal(model(ids), model(ids))


# ---- What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recurrent("gated", D_IN, D_HIDDEN), "cell: expected one of rnn, gru, lstm, got 'gated'"),
        (lambda: Recurrent("rnn", 0, D_HIDDEN), "d_in: expected a positive integer, got 0"),
        (lambda: Recurrent("rnn", D_IN, -1), "d_hidden: expected a positive integer, got -1"),
        (lambda: Recurrent("rnn", D_IN, D_HIDDEN, 0), "n_layers: expected a positive integer, got 0"),
        (lambda: LSTMCell(D_IN, 2.5), "d_hidden: expected a positive integer, got 2.5"),
        (lambda: RecurrentLM(0, D_HIDDEN), "vocab_size: expected a positive integer, got 0"),
        (lambda: RecurrentLM(V, 0), "d_model: expected a positive integer, got 0"),
        (lambda: RecurrentLM(V, D_HIDDEN, cell=None), "cell: expected one of rnn, gru, lstm, got None"),
    ],
)
def test_sizes_and_names_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("shape", [(B, T, D_IN + 1), (T, D_IN), (B, 0, D_IN)], ids=str)
def test_layer_names_the_input_of_the_wrong_shape(shape):
    with pytest.raises(ValueError, match=re.escape(f"x: expected shape (B, T, d_in=3) with T >= 1, got {shape}")):
        Recurrent("rnn", D_IN, D_HIDDEN)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("state", "got"),
    [
        ([(torch.zeros(1, D_HIDDEN),) * 2] * 2, [[(1, 5), (1, 5)], [(1, 5), (1, 5)]]),
        ([(torch.zeros(B, D_HIDDEN),)] * 2, [[(2, 5)], [(2, 5)]]),
        ([(torch.zeros(B, D_HIDDEN),) * 2], [[(2, 5), (2, 5)]]),
        ([], []),
    ],
    ids=["batch", "no memory", "layers", "nothing"],
)
def test_layer_refuses_a_state_of_other_shapes(state, got):
    layer = Recurrent("lstm", D_IN, D_HIDDEN, n_layers=2)
    message = f"state: expected shapes [[(2, 5), (2, 5)], [(2, 5), (2, 5)]], got {got}"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(torch.zeros(B, T, D_IN), state)


def test_cache_of_another_batch_is_refused_and_stays():
    model = RecurrentLM(V, D_HIDDEN)
    cache = model.new_cache()
    model(tokens(1, T), cache=cache)
    with pytest.raises(
        ValueError, match=re.escape("state: expected shapes [[(2, 5), (2, 5)]], got [[(1, 5), (1, 5)]]")
    ):
        model(tokens(B, T), cache=cache)
    assert (cache.length, cache.state[0][0].shape) == (T, (1, D_HIDDEN))


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("lstm", {"batch_first": False}, "layer: expected batch_first=True, got batch_first=False"),
        ("gru", {"bidirectional": True}, "layer: expected bidirectional=False, got bidirectional=True"),
        ("rnn", {"bias": False}, "layer: expected bias=True, got bias=False"),
        ("lstm", {"proj_size": 2}, "layer: expected proj_size=0, got proj_size=2"),
        ("rnn", {"nonlinearity": "relu"}, "layer: expected nonlinearity='tanh', got nonlinearity='relu'"),
    ],
)
def test_from_torch_refuses_what_the_layer_has_not(cell, options, message):
    with pytest.raises(ValueError, match=message):
        Recurrent.from_torch(torch_layer(cell, **options))

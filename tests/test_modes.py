"""A mode for a while, and every part as it was afterwards."""

import pytest
from torch import nn

from llmbook.modes import in_mode


class Frozen(nn.Linear):
    """A layer that stays in evaluation mode, whatever is asked of it."""

    def train(self, mode=True):
        return super().train(False)


def mixed():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), Frozen(2, 2))
    model[1].eval()
    return model


def modes(model):
    return [m.training for m in model.modules()]


@pytest.mark.parametrize(("training", "inside"), [(True, [True, True, True, False]), (False, [False] * 4)])
def test_mode_is_set_and_every_part_gets_its_own_back(training, inside):
    model = mixed()
    before = modes(model)
    with in_mode(model, training=training):
        assert modes(model) == inside
    assert modes(model) == before
    with pytest.raises(ZeroDivisionError), in_mode(model, training=training):
        raise ZeroDivisionError
    assert modes(model) == before

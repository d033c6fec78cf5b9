"""The package's public face: it costs nothing to import, and every name it promises is there."""

import subprocess
import sys

import pytest
import torch

import llmbook


def test_import_costs_nothing():
    heavy = "{'torch', 'numpy', 'matplotlib', 'anywidget'}"
    code = f"import sys, llmbook; dir(llmbook); print({heavy} & set(sys.modules) or 'nothing')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "nothing"


@pytest.mark.parametrize("name", llmbook.__all__)
def test_public_name_resolves(name):
    assert getattr(llmbook, name) is not None
    assert name in dir(llmbook)


def test_class_is_the_one_of_its_module():
    assert llmbook.MultiHeadAttention is llmbook.attention.MultiHeadAttention


def test_attention_is_the_module_not_the_function():
    assert llmbook.__getattr__("attention") is sys.modules["llmbook.attention"]


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'llmbook' has no attribute 'attentoin'"):
        _ = llmbook.attentoin


@pytest.mark.parametrize("name", ["cpu", "cuda:1", "meta"])
def test_environment_names_the_device(monkeypatch, name):
    monkeypatch.setenv("LLMBOOK_DEVICE", name)
    assert llmbook.device() == torch.device(name)


def test_environment_with_an_unknown_device_is_refused(monkeypatch):
    monkeypatch.setenv("LLMBOOK_DEVICE", "gpu")
    with pytest.raises(ValueError, match="LLMBOOK_DEVICE='gpu': expected a torch device such as 'cpu' or 'cuda:0'"):
        llmbook.device()


@pytest.mark.parametrize("unset", [None, ""], ids=["unset", "empty"])
@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_device_is_the_best_there_is(monkeypatch, unset, cuda, mps, expected):
    monkeypatch.delenv("LLMBOOK_DEVICE", raising=False)
    if unset is not None:
        monkeypatch.setenv("LLMBOOK_DEVICE", unset)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert llmbook.device() == torch.device(expected)

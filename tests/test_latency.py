"""The page on the explorers says what was measured."""

import json
import re

import pytest
from conftest import ROOT

STUDY = json.loads((ROOT / "llmbook/studies/latency.json").read_text("utf8"))
ROWS = [
    ("a", "AttentionExplorer, 16 keys: slider q1"),
    ("b", "HeadsExplorer, 16 tokens x 12 heads x 4 layers, matrix: another head"),
    ("e", "BertViz, 16 tokens x 12 heads x 4 layers: another layer"),
    ("e", "BertViz, 16 tokens x 12 heads x 4 layers: a head on or off"),
    ("b", "HeadsExplorer, 64 tokens x 12 heads x 1 layers, matrix: another head"),
    ("e", "BertViz, 64 tokens x 12 heads x 1 layers: a head on or off"),
    ("c", "FillExplorer: Sentence"),
    ("d", "JupyterLab, AttentionExplorer, 16 keys: slider q1"),
    ("d", "JupyterLab, interact and matplotlib, 16 keys: slider q1"),
]
QUERIES = [
    ("b", "HeadsExplorer, 64 tokens x 12 heads x 1 layers, matrix: another query"),
    ("e", "BertViz, 64 tokens x 12 heads x 1 layers: another query"),
]


@pytest.mark.parametrize("edition", ["", "zh/"])
def test_the_page_has_the_numbers_of_the_study(edition):
    page = (ROOT / f"{edition}book/explorers.md").read_text("utf8")
    measured, beside = ([next(row["dom_ms"] for row in STUDY[part] if row["what"] == what) for part, what in rows]
                        for rows in (ROWS, QUERIES))  # fmt: skip
    told = re.findall(r"\| (\d+\.\d) \| (\d+\.\d) \|$", page, re.M)
    assert told == [(f"{x['median']:.1f}", f"{x['p95']:.1f}") for x in measured]
    assert re.findall(r"(\d+\.\d) (?:ms|毫秒)", page) == [f"{x['median']:.1f}" for x in beside]


@pytest.mark.parametrize("edition", ["", "zh/"])
def test_the_page_has_the_sizes_of_the_study(edition):
    page = (ROOT / f"{edition}book/explorers.md").read_text("utf8")
    sizes = {True: [], False: []}  # of explorers with a model, and of those without
    for row in STUDY["c"]:
        parts = row["bytes"]
        sizes["scripts" in parts].append((parts["module"]["gzip"] + parts["style"]["gzip"]) / 1000)
    told = [(int(a), int(b)) for a, b in re.findall(r"(\d+) (?:to|到) (\d+) KB", page)]
    assert told == [(round(min(found)), round(max(found))) for found in (sizes[False], sizes[True])]

"""How long explorers take from an input to the changed page, beside what readers would use otherwise.

python tools/latency.py [PARTS]     PARTS of "abcd", all unless given; writes them to llmbook/studies/latency.json

a  AttentionExplorer, a slider           b  HeadsExplorer: a head, a query; bytes, time until it is drawn
c  every explorer: bytes, first control  d  ipywidgets.interact with matplotlib in JupyterLab, ours beside it
e  BertViz's head_view; only with --bertviz FOLDER (made by pip install --target FOLDER --no-deps bertviz==1.4.1) and
   --scripts FOLDER, which holds the require.js, d3.js and jquery.js that its page would load from a CDN
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from latency_page import SITE, Row, bytes_of, chromium, inputs, loads, opened, ours
from latency_peers import PEER, SIZES, SLIDER, bertviz, interact, keys, maps
from playwright.sync_api import Browser, Error
from traitlets import TraitError

from llmbook.widgets import EXPLORERS, HeadsExplorer
from llmbook.widgets.base import Explorer

ROOT = Path(__file__).parents[1]
OUT = ROOT / "llmbook" / "studies" / "latency.json"
PACKAGES = ("anywidget", "ipywidgets", "jupyterlab", "matplotlib", "numpy", "playwright", "torch")
NOTES = {
    "dom_ms": "milliseconds from the dispatch of an event to the changed DOM",
    "frame_ms": "from the same to the next frame painted (requestAnimationFrame, then a macrotask); frames come every "
    "16.7 ms and each input falls into another phase of one, so that 'floor', one text that changes, is the least",
    "observed": "whether a MutationObserver told the end of the change. It adds to the time where much changes: where "
    "each of the first inputs changed the DOM during its dispatch, and nothing later, the end of the dispatch is taken",
    "inputs": "dispatched by a script, n after 20 to warm up (10 for interact), in headless Chromium without a GPU, "
    "1280 x 900; the clock has steps of 5 µs, in JupyterLab of 100 µs",
    "load": "the machine's load average over the last minute at the end of a row, our own browser included; a run "
    "with --calmer keeps, whatever the times, rows that are there from when it was less",
    "load_ms": "from asking for a page to the frame with its figure, a new page each time; all that it asks for is "
    "answered from memory, so that a network would add to it",
    "page": "explorers: the one file of save_html, with every request to another address refused",
    "bytes": "of the text in UTF-8; gzip at level 9, file by file; a module and a style with what explorers share",
    "interact": "matplotlib's inline figure, 16 bars; the kernel is on the same machine",
    "bertviz": PEER,
}
# all that exclude each other, if the first control is one of such buttons; else the first alone
FIRST = """() => { const first = document.querySelector(".llm :is(input, select, textarea, button)");
  first.dataset.measured = "";
  return first.matches("[aria-pressed]") ? `button[aria-pressed][class="${first.className}"]` : "[data-measured]"; }"""
NAME = """() => { const { ariaLabel, labels, textContent } = document.querySelector("[data-measured]");
  return ariaLabel ?? labels?.[0]?.firstChild.textContent ?? textContent; }"""


def attention(browser: Browser) -> list[Row]:
    """Part a, and the floor."""
    text = {SITE: '<!DOCTYPE html><body><button onclick="this.textContent = Math.random()">text</button>'}
    with opened(browser, text, "button") as page:
        rows = [inputs(page, "floor: one text changes", "button")]
    for n in (2, 16, 64):
        with opened(browser, ours(keys(n)), ".llm") as page:
            rows.append(inputs(page, f"AttentionExplorer, {n} keys: slider q1", SLIDER))
    return rows


def heads(browser: Browser) -> list[Row]:
    """Part b."""
    rows: list[Row] = []
    for size in SIZES:
        what = "HeadsExplorer, {} tokens x {} heads x {} layers".format(*size)
        try:
            explorer = HeadsExplorer(*maps(*size))
        except TraitError as problem:
            rows.append({"what": what, "not measured": str(problem)})
            continue
        rows.append({"what": what, "bytes": bytes_of(explorer)})
        for view in ("matrix", "lines"):
            explorer.view = view
            with opened(browser, ours(explorer), ".llm") as page:
                query = page.locator(".llm-select", has_text="query token").locator("select")
                query.evaluate("control => { control.dataset.measured = ''; }")
                rows.append(inputs(page, f"{what}, {view}: another head", ".llm-overview [role=gridcell]"))
                rows.append(inputs(page, f"{what}, {view}: another query", "[data-measured]"))
            rows += loads(browser, f"{what}, {view}", ours(explorer), ".llm")
    return rows


def everything(browser: Browser) -> list[Row]:
    """Part c."""
    return [first(browser, name) for name in EXPLORERS]


def first(browser: Browser, name: str) -> Row:
    """Bytes of an explorer, and its first control."""
    try:
        explorer = example(name)
        with opened(browser, ours(explorer), ".llm") as page:
            if (door := page.locator(".llm-gate button")).count():  # it loads a model first
                door.click()
                door.wait_for(state="detached")
            control = page.evaluate(FIRST)
            what = f"{name}: {page.evaluate(NAME)}"
            return inputs(page, what, control) | {"bytes": bytes_of(explorer)}
    except (Error, TraitError, TypeError) as problem:
        return {"what": name, "not measured": str(problem).splitlines()[0]}


def example(name: str) -> Explorer:
    """The explorer that the tests show."""
    sys.path.append(str(ROOT / "tests"))
    from examples import EXAMPLES

    make: Any = EXAMPLES[name].make if name in EXAMPLES else EXPLORERS[name]
    made: Explorer = make()
    return made


def calmer(rows: list[Row], old: list[Row]) -> list[Row]:
    """Of each row the one from when the machine had less else to do."""
    before = {row["what"]: row for row in old}
    return [min(row, before.get(row["what"], row), key=lambda one: one.get("load", 0.0)) for row in rows]


def main() -> None:
    """Measure the parts asked for, and write them beside those that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="?", default="abcd", help="which parts (default abcd)")
    parser.add_argument("--bertviz", type=Path, help="the folder into which BertViz was installed")
    parser.add_argument("--scripts", type=Path, help="the folder with require.js, d3.js and jquery.js")
    parser.add_argument("--calmer", action="store_true", help="keep rows that are there from when the load was less")
    asked = parser.parse_args()
    if "e" in asked.parts and not (asked.bertviz and asked.scripts):
        parser.error("part e needs --bertviz and --scripts")
    study = json.loads(OUT.read_text("utf8")) if OUT.exists() else {}
    parts: dict[str, Callable[[Browser], list[Row]]] = {
        "a": attention, "b": heads, "c": everything, "d": interact,
        "e": lambda browser: bertviz(browser, asked.bertviz, asked.scripts),
    }  # fmt: skip
    print(f"{'':<72}{'DOM: median':>12}{'p95':>8}{'frame: median':>14}{'p95':>6}{'n':>6}{'load':>6}")
    with chromium() as browser:
        versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
        versions["chromium"] = browser.version
        for part in asked.parts:
            rows = parts[part](browser)
            rows = calmer(rows, study.get(part, [])) if asked.calmer else rows
            study |= {"notes": NOTES, "versions": versions, "cores": os.cpu_count(), part: rows}
            OUT.write_text(json.dumps(dict(sorted(study.items())), indent=1, ensure_ascii=False) + "\n", "utf8")


if __name__ == "__main__":
    main()

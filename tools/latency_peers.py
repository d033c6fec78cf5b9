"""What readers would use instead of an explorer: ipywidgets.interact with matplotlib, and BertViz."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import torch
from latency_page import SITE, Row, blank, inputs, loads, opened, size
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Page

from llmbook.widgets import AttentionExplorer

SIZES = ((16, 12, 4), (64, 12, 1))  # tokens, heads, layers
CDN = "https://cdnjs.cloudflare.com/ajax/libs/"
SCRIPTS = {
    "require.js": f"{CDN}require.js/2.3.6/require.min.js",
    "d3.js": f"{CDN}d3/5.7.0/d3.min.js",
    "jquery.js": f"{CDN}jquery/2.0.0/jquery.min.js",
}
PEER = (
    "head_view(..., html_action='return') of bertviz 1.4.1 on a page of its own, with the weights that HeadsExplorer "
    "shows. It loads three scripts from cdnjs.cloudflare.com, which here come from memory: require.js 2.3.6 (npm, "
    "minified by its own r.js), d3 5.7.0 (npm, d3.min.js) and jQuery 2.1.0 (npm, jquery.min.js; it asks for 2.0.0, "
    "which npm has not). Another layer, a head on or off, and a token under the pointer are its three inputs. It draws "
    "the lines of all heads of a layer over one another, and all digits of the weights are in its page; HeadsExplorer "
    "shows one head large, beside small maps of all that are drawn once, and keeps three decimals. With one layer the "
    "choice of a layer draws the same again."
)
SLIDER = '[type=range][aria-label$="q₁"]'  # of AttentionExplorer
CELLS = (
    """import matplotlib.pyplot as plt
from ipywidgets import FloatSlider, interact
from llmbook import AttentionExplorer
from llmbook.reference import attention
K, V = {K}, {V}
def bars(q1):
    plt.bar(range(len(K)), attention([[q1, 0.2]], K, V)[1][0])
    plt.show()
interact(bars, q1=FloatSlider(min=-3, max=3, step=0.05, value=-3));""",
    "AttentionExplorer([-3.0, 0.2], K, V)",
)


def keys(n: int) -> AttentionExplorer:
    """AttentionExplorer with so many keys."""
    K, V = np.random.default_rng(0).normal(size=(2, n, 2)).round(2)
    return AttentionExplorer([-3.0, 0.2], K, V)


def maps(n: int, heads: int, layers: int) -> tuple[list[torch.Tensor], list[str]]:
    """Random attention, a tensor ``(1, heads, n, n)`` a layer, and tokens."""
    scores = torch.randn(layers, 1, heads, n, n, generator=torch.Generator().manual_seed(0))
    return list((2 * scores).softmax(-1)), [f"token{i}" for i in range(n)]


# --- JupyterLab


def interact(browser: Browser) -> list[Row]:
    """The weights of 16 keys as bars by matplotlib, a slider moved; and the explorer with the same, in one notebook."""
    shown = keys(16)
    with (
        lab([cell.replace("{K}", str(shown.K)).replace("{V}", str(shown.V)) for cell in CELLS]) as url,
        blank(browser) as page,
    ):
        page.set_default_timeout(120_000)
        page.goto(url)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        run(page, 0, ".widget-output img")
        run(page, 1, ".llm-attention")
        keyed = {"root": ".jp-OutputArea:has(img)", "image": True, "patience": 5000, "warm": 10}
        return [
            inputs(page, "JupyterLab, interact and matplotlib, 16 keys: slider q1", "[role=slider]", 50, **keyed),
            inputs(page, "JupyterLab, AttentionExplorer, 16 keys: slider q1", SLIDER, root=".llm"),
        ]


def run(page: Page, index: int, shown: str) -> None:
    """Run one cell, and wait for what it shows."""
    page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    page.locator(shown).wait_for()


@contextmanager
def lab(cells: list[str]) -> Iterator[str]:
    """The address of a notebook in a JupyterLab of its own."""
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        nbformat.write(new_notebook(cells=list(map(new_code_cell, cells)), metadata=metadata), f"{folder}/try.ipynb")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
                   "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
                   "--LabApp.extension_manager=readonly", "--LabApp.news_url="]  # fmt: skip
        places = {f"JUPYTER_{name}_DIR": folder for name in ("CONFIG", "DATA", "RUNTIME")}
        process = subprocess.Popen(
            command, env=os.environ | places, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/api", process)
            yield f"http://127.0.0.1:{port}/lab/tree/try.ipynb"
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    for _ in range(120):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError("JupyterLab did not start")


# --- BertViz


def bertviz(browser: Browser, package: Path, scripts: Path) -> list[Row]:
    """Its head_view of the maps that HeadsExplorer shows."""
    served = {url: (scripts / name).read_text("utf8") for name, url in SCRIPTS.items()}
    rows: list[Row] = []
    for sizes in SIZES:
        what = "BertViz, {} tokens x {} heads x {} layers".format(*sizes)
        html = head_view(package, *maps(*sizes))
        files = {SITE: html} | served
        rows.append({"what": what, "bytes": {"html": size(html), "scripts": size(*served.values())}})
        with opened(browser, files, "#vis line") as page:
            rows.append(inputs(page, f"{what}: another layer", "#layer"))
            rows.append(inputs(page, f"{what}: a head on or off", "#vis svg > g:last-of-type > rect:first-of-type"))
            rows.append(inputs(page, f"{what}: another query", "#left > g:last-of-type > g", name="mouseover"))
        rows += loads(browser, what, files, "#vis line")
    html = head_view(package, *maps(*SIZES[0]), copies=2)
    return [*rows, without_network(browser, html), two_on_a_page(browser, {SITE: html} | served)]


def head_view(package: Path, *shown: Any, copies: int = 1) -> str:
    """A page with BertViz's figure, once or more often."""
    sys.path.append(str(package))
    from bertviz import head_view as view

    figures = "".join(view(*shown, html_action="return").data for _ in range(copies))
    return f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><body>{figures}</html>'


def without_network(browser: Browser, html: str) -> Row:
    """What of BertViz's page is there when none of its scripts can be had."""
    errors: list[str] = []
    with blank(browser) as page:
        page.route("**/*", lambda route: route.fulfill(body=html) if route.request.url == SITE else route.abort())
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(SITE)
        page.wait_for_timeout(2000)
        lines, text = page.locator("line").count(), page.locator("body").evaluate("body => body.innerText.trim()")
    return {"what": "BertViz without a network", "lines drawn": lines, "text": text, "errors": sorted(set(errors))}


def two_on_a_page(browser: Browser, files: dict[str, str]) -> Row:
    """Whether two of BertViz's figures on a page leave each other alone."""
    with opened(browser, files, "#vis line") as page:
        page.wait_for_function("document.querySelectorAll('#vis svg').length === 2")
        layers, figures, changed = page.locator("#layer"), page.locator("#vis"), []
        for i in range(2):
            before = figures.evaluate_all("all => all.map((figure) => figure.innerHTML)")
            layers.nth(i).select_option(index=2)
            after = figures.evaluate_all("all => all.map((figure) => figure.innerHTML)")
            changed.append([x != y for x, y in zip(before, after, strict=True)])
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    twice = sorted(name for name in set(ids) if ids.count(name) > 1)
    return {
        "what": "two BertViz figures on a page",
        "figures changed by the layer of each": changed,
        "ids that are there twice": twice,
    }

"""Pages in a real browser, and how long they take: to be drawn, and from an input to the changed page."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import browser as browser_tool
import numpy as np
from playwright.sync_api import Browser, Page, Route, sync_playwright

from llmbook.widgets.base import Explorer, bundle, styles

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from conftest import CHROMIUM

Row = dict[str, Any]
SITE = "https://llmbook.test/"
HEADERS = {  # the page has its process for itself, and so a clock with steps of 5 µs
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
WARM, INPUTS, LOADS = 20, 200, 20
QUIET, WAIT = 1.2, 60  # load average below which a row is begun, and the seconds to wait for it
BOTH = ("dom_ms", "frame_ms")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that the tests use."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_tool.find(), args=CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def blank(browser: Browser) -> Iterator[Page]:
    """An empty page on which latency_page.js is run before anything else."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(Path(__file__).with_suffix(".js").read_text("utf8"))
    page = context.new_page()
    try:
        yield page
    finally:
        context.close()


@contextmanager
def opened(browser: Browser, files: dict[str, str], drawn: str) -> Iterator[Page]:
    """A page at ``SITE`` that can load only ``files``, by address, as soon as an element fits ``drawn``."""

    def answer(route: Route) -> None:
        kind = "text/html" if route.request.url == SITE else "text/javascript"
        if route.request.url in files:
            route.fulfill(body=files[route.request.url], content_type=kind, headers=HEADERS)
        else:
            route.abort()

    with blank(browser) as page:
        page.route("**/*", answer)
        page.add_init_script(f"watchFor({json.dumps(drawn)})")
        page.goto(SITE)
        page.wait_for_function("window.drawn")
        yield page


def ours(explorer: Explorer) -> dict[str, str]:
    """A page with an explorer, all in one file."""
    with TemporaryDirectory() as folder:
        explorer.save_html(f"{folder}/page.html")
        return {SITE: Path(folder, "page.html").read_text("utf8")}


def bytes_of(explorer: Explorer) -> dict[str, Row]:
    """Bytes of what an explorer consists of."""
    state = json.dumps({name: getattr(explorer, name) for name in explorer.state}, ensure_ascii=False)
    parts = {"module": size(bundle(explorer.files)), "style": size(styles(explorer.files)), "state": size(state)}
    return parts | ({"scripts": size(*explorer.scripts())} if explorer.scripts() else {})


def size(*texts: str) -> Row:
    """Bytes of files together, and when each is compressed."""
    raw = [text.encode() for text in texts]
    return {"raw": sum(map(len, raw)), "gzip": sum(len(gzip.compress(x, mtime=0)) for x in raw)}


def inputs(page: Page, what: str, control: str, n: int = INPUTS, **options: Any) -> Row:
    """What ``n`` inputs take on the controls that fit, in turns."""
    asked = {"root": "body", "control": control, "name": "click", "n": n, "warm": WARM, "patience": 1000} | options
    settle()
    found = page.evaluate("latency", asked)
    return row(what, BOTH, found["times"]) | {"observed": not found["direct"]}


def loads(browser: Browser, what: str, files: dict[str, str], drawn: str) -> list[Row]:
    """How long it takes until the page is drawn, and of that the explorer on it, if there is one."""
    settle()
    times, mounts = [], []
    for _ in range(LOADS):
        with opened(browser, files, drawn) as page:
            times.append([page.evaluate("drawn")])
            mounts.append(page.evaluate("window.mounted"))
    return [row(f"{what}: load", ("load_ms",), times), *([row(f"{what}: mount", BOTH, mounts)] if mounts[0] else [])]


def settle() -> None:
    """Wait, but not for ever, until the machine has little else to do."""
    for _ in range(WAIT):
        if os.getloadavg()[0] < QUIET:
            return
        time.sleep(1)


def row(what: str, names: tuple[str, ...], measured: Sequence[list[float] | None]) -> Row:
    """Medians and 95th percentiles, printed as a line; what was measured is ``None`` where nothing changed."""
    seen = [times for times in measured if times]
    made = {name: spread(times) for name, times in zip(names, np.array(seen).T, strict=True)} if seen else {}
    rest = {"n": len(seen), "nothing_changed": len(measured) - len(seen), "load": round(os.getloadavg()[0], 2)}
    numbers = "".join(f"{x:>10.2f}" for one in made.values() for x in one.values())
    print(f"{what:<72}{numbers:<40}{rest['n']:>6}{rest['load']:>6}", flush=True)
    return {"what": what} | made | rest


def spread(times: Any) -> dict[str, float]:
    """Median and 95th percentile, to 10 µs."""
    return {"median": round(float(np.median(times)), 2), "p95": round(float(np.percentile(times, 95)), 2)}

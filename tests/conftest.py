"""What tests share: the built site, a real browser, and pages that report what goes wrong on them."""

import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import browser as browser_tool
import pytest
import torch
import website
from filelock import FileLock
from helpers import no_cuda

from llmbook.widgets import EXPLORERS
from llmbook.widgets.base import STATIC, classic, styles
from llmbook.widgets.network import scripts

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)

# as root, in a container, and with no network that Chromium might ask for updates
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=no_cuda)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="session")
def site(tmp_path_factory, testrun_uid):
    """The folder of the built site; only what changed since the last build is built again, and once a run.

    A second process of the same run must not build: it would write files that the first one's browser reads.
    """
    built = tmp_path_factory.getbasetemp().parent / f"site-{testrun_uid}"
    with FileLock(f"{built}.lock"):
        if not built.exists():
            subprocess.run([sys.executable, ROOT / "tools" / "website.py", "build"], cwd=ROOT, check=True)
            built.touch()
    return website.SITE


@pytest.fixture(scope="session")
def http(site):
    """The address at which the site is served."""
    with website.server(0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=["http", "file"])
def address(request, site, http):
    """The site's address: served, and straight from the disk."""
    return http if request.param == "http" else site.as_uri()


@pytest.fixture(scope="session")
def chromium():
    """A real browser; without one the test is skipped, or fails where LLMBOOK_REQUIRE_BROWSER=1."""
    path = browser_tool.find()
    if path is None:
        (pytest.fail if browser_tool.required() else pytest.skip)(browser_tool.MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """``with visit(url) as page``: a page of its own; on leaving, nothing may have gone wrong on it."""

    @contextmanager
    def open_page(url, *, width=1280, scheme="light", touch=False, **options):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch, **options
        )
        page, problems, host = context.new_page(), [], urlsplit(url).netloc
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        if options.get("java_script_enabled", True):  # without scripts Chromium gives up those it had begun to load
            page.on("requestfailed", lambda r: None if left(r) else problems.append(f"failed: {r.url} {r.failure}"))
        page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("request", lambda r: problems.append(f"elsewhere: {r.url}") if elsewhere(r.url, host) else None)
        page.set_default_timeout(15_000)
        try:
            page.goto(url, wait_until="load")
            yield page
            page.wait_for_timeout(50)
            assert problems == []
        finally:
            context.close()

    return open_page


def left(request):
    """Whether a page was left before it had arrived, as the front door is when it leads to an edition."""
    return request.is_navigation_request() and request.failure == "net::ERR_ABORTED"


def elsewhere(url, host):
    """Whether a request leaves the site."""
    return urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != host


PAGE = """<!DOCTYPE html><html lang="{lang}" data-theme="{scheme}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>t</title>
<style>html {{ background: #fff; color: #222832 }} html[data-theme="dark"] {{ background: #14181e; color: #ced6dd }}
</style>
<link rel="stylesheet" href="explorers/explorers.css">
<script src="explorers/loader.js"></script><body>{body}</body></html>"""


@pytest.fixture
def stage(tmp_path):
    """``stage(explorer, …)``: the address of a page of their own, with the site's loader, modules and styles."""
    files = [explorer.files for explorer in EXPLORERS.values()]
    (tmp_path / "explorers").mkdir()
    for name in files:
        (tmp_path / "explorers" / f"{name}.js").write_text(classic(name), "utf8")
    (tmp_path / "explorers" / "explorers.css").write_text(styles(*files), "utf8")
    shutil.copy(STATIC / "loader.js", tmp_path / "explorers")

    def address(*explorers, lang="en", scheme="light"):
        for model in {explorer.model for explorer in explorers if hasattr(explorer, "model")}:
            folder = tmp_path / "explorers" / "models" / model
            folder.mkdir(parents=True, exist_ok=True)
            for i, script in enumerate(scripts(model)):
                (folder / f"{i}.js").write_text(script, "utf8")
        body = "".join(explorer.to_html() for explorer in explorers)
        (tmp_path / "index.html").write_text(PAGE.format(lang=lang, scheme=scheme, body=body), "utf8")
        return (tmp_path / "index.html").as_uri()

    return address

"""Explorers as one file: it opens anywhere with no network, whatever the state holds, and is written whole or not."""

import os
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from driver import CONTRAST, MOUNT, drawn, use
from examples import example

from llmbook.widgets import EXPLORERS, AttentionExplorer, BPEExplorer, SoftmaxExplorer, save_html

HOSTILE = ["</script><script>document.title = 'run'</script>", "<!--<script>", "\u2028\u2029", "</style></main>&lt;"]


class Quiet(SimpleHTTPRequestHandler):
    """A server that writes no log."""

    def log_message(self, *args):
        pass


@pytest.fixture(params=["file", "http"])
def address(request, tmp_path):
    """The address of a folder: on the disk, and served."""
    if request.param == "file":
        yield tmp_path.as_uri()
        return
    with ThreadingHTTPServer(("localhost", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def test_all_in_one_file_ask_for_nothing_and_answer(visit, tmp_path, address):
    explorers = [example(name).make() for name in EXPLORERS]
    save_html(tmp_path / "all.html", *explorers)
    with visit(f"{address}/all.html", width=390) as page:
        page.evaluate(MOUNT)
        for root in page.locator(".llm").all():
            before = drawn(root)
            use(root)
            assert drawn(root) != before
        assert page.locator(".llm").count() == len(explorers) and page.locator(".llm-fallback").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)") == []


@pytest.mark.parametrize("name", EXPLORERS)
def test_each_has_all_that_it_needs(visit, tmp_path, name):
    example(name).make().save_html(tmp_path / "one.html")
    with visit((tmp_path / "one.html").as_uri()) as page:
        assert page.title() == name and page.locator("h1").count() == 0
        page.evaluate(MOUNT)
        assert page.locator(".llm").count() == 1


def test_the_explorer_is_as_it_is_now(visit, tmp_path):
    explorer = AttentionExplorer(lang="zh")
    explorer.save_html(tmp_path / "before.html")
    explorer.temperature = 2.5
    explorer.save_html(str(tmp_path / "after.html"))
    for file, temperature in (("before", "1"), ("after", "2.5")):
        with visit((tmp_path / f"{file}.html").as_uri()) as page:
            assert page.locator("html").get_attribute("lang") == "zh-CN"
            assert page.get_by_role("spinbutton", name="温度 τ").input_value() == temperature


def test_it_is_light_or_dark_as_the_system_is_and_fits_a_reader_s_means(visit, tmp_path):
    save_html(tmp_path / "two.html", AttentionExplorer(), SoftmaxExplorer([1.0, 2.0]), title="Two", lang="zh")
    with visit((tmp_path / "two.html").as_uri(), scheme="light") as page:
        page.evaluate(MOUNT)
        page.evaluate(AXE_SCRIPT)
        grounds = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.locator(f"html[data-theme={scheme}]").wait_for()
            assert min(page.locator("body").evaluate(CONTRAST)) >= 4.5
            found = page.evaluate("axe.run({ preload: false, resultTypes: ['violations'] })")["violations"]
            assert [rule["id"] for rule in found if rule["impact"] != "minor"] == []
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 30)"]
    with visit((tmp_path / "two.html").as_uri(), scheme="dark", java_script_enabled=False) as page:
        assert page.get_by_role("heading").all_inner_texts() == ["Two"]
        assert page.locator(".llm-fallback").first.locator("td").all_inner_texts() == ["0.489", "0.511"]


def test_hostile_text_stays_text(visit, tmp_path, address):
    n, title = len(HOSTILE), "".join(HOSTILE)
    rows = [[0.1, 0.2]] * n
    explorers = [AttentionExplorer([0.1, 0.2], rows, rows, tokens=HOSTILE), BPEExplorer(text=f"{title} \ud83d")]
    save_html(tmp_path / "page.html", *explorers, title=title)
    with visit(f"{address}/page.html") as page:
        page.evaluate(MOUNT)
        assert page.title() == " ".join(title.split()) or page.title() == title
        assert page.locator("h1").text_content() == title
        assert page.locator(".llm-attention tbody label span").all_text_contents() == HOSTILE
        assert page.locator("textarea").input_value() == f"{title} \ufffd"
        assert page.locator("body > main > *").count() == 3 and page.locator("body > script").count() == 3


def test_it_opens_inside_another_page(visit, tmp_path):
    AttentionExplorer().save_html(tmp_path / "inner.html")
    frame = (tmp_path / "inner.html").read_text("utf8").replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "outer.html").write_text(f'<!DOCTYPE html><iframe srcdoc="{frame}"></iframe>', "utf8")
    with visit((tmp_path / "outer.html").as_uri()) as page:
        page.frame_locator("iframe").locator(".llm-attention").wait_for()


def test_each_part_stands_in_it_once_and_no_address(tmp_path):
    class Told(AttentionExplorer):
        def scripts(self):
            return ["llmExplorers.told = '</script>';\n"]

    save_html(
        tmp_path / "x.html", AttentionExplorer(), Told(), SoftmaxExplorer([1.0, 2.0]), AttentionExplorer(), Told()
    )
    text = (tmp_path / "x.html").read_text("utf8")
    parts = ["<style>", "window.llmExplorers =", 'define("attention"', 'define("softmax"', "told = '\\x3c/script>'"]
    assert [text.count(part) for part in parts] == [1] * 5
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    assert "<title>AttentionExplorer, Told, SoftmaxExplorer</title>" in text and ".llm-bpe" not in text
    assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}


def refused(error, message, path, *explorers, **kwargs):
    with pytest.raises(error, match=message):
        save_html(path, *explorers, **kwargs)


def test_what_cannot_be_written_is_refused_by_name(tmp_path):
    explorer, file = AttentionExplorer(), tmp_path / "x.html"
    nowhere = f"path: expected a file in a folder that exists, got {tmp_path}/a/b; there is no {tmp_path}/a"
    refused(FileNotFoundError, nowhere, tmp_path / "a" / "b", explorer)
    refused(IsADirectoryError, f"path: expected a file, got the folder {tmp_path}", tmp_path, explorer)
    refused(ValueError, "explorers: expected one or more, got none", file)
    refused(TypeError, "explorers: expected explorers, got 'x'", file, explorer, "x")
    refused(TypeError, "title: expected a string, got 3", file, explorer, title=3)
    refused(ValueError, "lang: expected 'en' or 'zh', got 'fr'", file, explorer, lang="fr")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_whole_when_the_new_one_fails(tmp_path, monkeypatch):
    file = tmp_path / "x.html"
    file.write_text("before")

    def fail(*args):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        refused(OSError, "no space", file, AttentionExplorer())
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
    AttentionExplorer().save_html(file)
    assert file.read_text("utf8").endswith("</html>\n") and list(tmp_path.iterdir()) == [file]

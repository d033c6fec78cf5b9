"""The explorer in JupyterLab, with a kernel: Python sees what the reader moves, and the reader what Python sets."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from driver import use
from nbformat.v4 import new_code_cell, new_notebook

from llmbook.reference import attention
from llmbook.widgets import EXPLORERS

ROOT = Path(__file__).parent
CELLS = [
    "from llmbook import AttentionExplorer\nw = AttentionExplorer(tokens=['<b>one</b>', 'two'])\nw",
    "print('python sees', w.q[0], [round(float(x), 6) for x in w.weights])",
    "w.temperature = 0.02\nw.mask = [True, True]",
    "AttentionExplorer()",
]


EVERY = [
    f"""import json, sys
sys.path.insert(0, {str(ROOT)!r})
from examples import EXAMPLES
made, heard = {{}}, []
def show(name):
    explorer = made[name] = EXAMPLES[name].make()
    explorer.observe(lambda change: heard.append(name), list(explorer.state))
    return explorer""",
    *(f"show({name!r})" for name in EXPLORERS),
    "print(json.dumps(heard))",
    """old = {name: {trait: getattr(made[name], trait) for trait in EXAMPLES[name].change} for name in made}
for name in made:
    for trait, value in EXAMPLES[name].change.items():
        setattr(made[name], trait, value)""",
    """for name in made:
    for trait, value in old[name].items():
        setattr(made[name], trait, value)""",
    """import ipywidgets, llmbook
boxed, tau = llmbook.AttentionExplorer(), ipywidgets.FloatSlider(min=0.1, max=5, value=2)
ipywidgets.link((tau, "value"), (boxed, "temperature"))
ipywidgets.HBox([boxed, tau])""",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of its own, on notebooks that are not yet run."""
    folder = tmp_path_factory.mktemp("lab")
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for name, cells in (("try", CELLS), ("every", EVERY)):
        notebook = new_notebook(cells=[new_code_cell(source) for source in cells], metadata=metadata)
        nbformat.write(notebook, folder / f"{name}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
               "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
               "--LabApp.extension_manager=readonly", "--LabApp.news_url="]  # fmt: skip
    places = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    log = (folder / "log").open("w")
    process = subprocess.Popen(command, env=os.environ | places, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, folder / "log")
        yield f"{url}/lab/tree"
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(120):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{url}/api", timeout=1)
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(log.read_text())


def test_kernel_and_explorer_speak_to_each_other(lab, chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)
    cells = notebook(page, lab, "try.ipynb")
    run(page, cells, 0)

    explorer = cells.nth(0).locator(".llm-attention")
    explorer.wait_for()
    assert "<b>one</b>" in explorer.inner_text()  # shown as text
    field = explorer.locator("input[type=number]").first
    field.fill("-2.5")
    weights = attention([[-2.5, 0.2]], [[0.3, 0.4], [0.5, 0.6]], [[1.0], [2.0]])[1][0]
    shown = explorer.locator(".llm-weight").evaluate_all("all => all.map((data) => Number(data.value))")
    assert np.allclose(shown, weights, atol=1e-6)

    explorer.locator("tbody input[type=checkbox]").first.uncheck()
    run(page, cells, 1)
    output = cells.nth(1).locator(".jp-OutputArea-output")
    output.wait_for()
    assert output.inner_text().strip() == "python sees -2.5 [0.0, 1.0]"

    run(page, cells, 2)
    page.wait_for_function("document.querySelectorAll('.llm-attention input[type=number]')[2].value === '0.02'")
    weights = attention([[-2.5 / 0.02, 0.2 / 0.02]], [[0.3, 0.4], [0.5, 0.6]], [[1.0], [2.0]])[1][0]
    shown = explorer.locator(".llm-weight").evaluate_all("all => all.map((data) => Number(data.value))")
    assert np.allclose(shown, weights, atol=1e-6)

    run(page, cells, 3)
    second = cells.nth(3).locator(".llm-attention")
    second.locator("input[type=number]").first.fill("3")
    assert field.input_value() == "-2.5"  # two explorers in one notebook do not disturb each other
    page.context.close()


# what a figure says and what its controls hold; and the same, once nothing changes any more
SAID = """(root) => JSON.stringify([root.textContent,
  ...[...root.querySelectorAll("input, select, textarea")].map((control) => [control.value, control.checked])])"""
SETTLED = f"""async (root) => {{
  const said = {SAID};
  let before;
  for (; before !== said(root); await new Promise((done) => setTimeout(done, 300))) before = said(root);
  return before;
}}"""


def test_every_explorer_and_the_kernel_speak_to_each_other(lab, chromium):
    page, problems, n = chromium.new_page(viewport={"width": 1280, "height": 1000}), [], len(EXPLORERS)
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(120_000)
    cells = notebook(page, lab, "every.ipynb")
    run(page, cells, 0)
    shown = [cells.nth(i + 1).locator(".llm") for i in range(n)]
    for i, root in enumerate(shown):
        run(page, cells, i + 1)
        root.wait_for()
    page.evaluate("document.querySelectorAll('.llm-gate button').forEach((button) => button.click())")
    page.wait_for_function("!document.querySelector('.llm-gate')")

    for root in shown:
        use(root)
    before = [root.evaluate(SETTLED) for root in shown]
    run(page, cells, n + 1)
    output = cells.nth(n + 1).locator(".jp-OutputArea-output")
    output.wait_for()
    assert set(json.loads(output.inner_text())) == set(EXPLORERS)

    for index, relation in ((n + 2, "!=="), (n + 3, "===")):
        run(page, cells, index)
        for root, old in zip(shown, before, strict=True):
            said = f"([root, old]) => ({SAID})(root) {relation} old"
            page.wait_for_function(said, arg=[root.element_handle(), old])

    run(page, cells, n + 4)
    boxed = cells.nth(n + 4)
    tau, readout = boxed.get_by_role("spinbutton", name="temperature τ"), boxed.locator(".widget-readout")
    readout.wait_for()
    assert (tau.input_value(), readout.inner_text()) == ("2", "2.00")
    assert boxed.locator(".llm").bounding_box()["width"] > 500  # it takes what the slider leaves
    tau.fill("3.5")
    boxed.locator(".widget-readout", has_text="3.50").wait_for()
    boxed.locator(".noUi-handle").press("ArrowRight")
    page.wait_for_function("(tau) => tau.value === '3.6'", arg=tau.element_handle())
    assert problems == []
    page.context.close()


def notebook(page, lab, name):
    """Open a notebook, without those of other tests; its cells, once JupyterLab has its kernel.

    The page calls a notebook idle before that; to run a cell then opens a dialog that asks for a kernel.
    """
    page.goto(f"{lab}/{name}?reset")
    for _ in range(240):
        sessions = page.request.get(lab.replace("/lab/tree", "/api/sessions")).json()
        if any(s["path"] == name and s["kernel"]["connections"] and s["kernel"]["execution_state"] == "idle"
               for s in sessions):  # fmt: skip
            return page.locator(".jp-Notebook .jp-CodeCell")
        page.wait_for_timeout(500)
    pytest.fail(f"no kernel: {sessions}")


def run(page, cells, index):
    """Run one cell."""
    cells.nth(index).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")

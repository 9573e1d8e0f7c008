"""The widgets in a real JupyterLab with a real kernel."""

from __future__ import annotations

import pytest
from lab import Lab, jupyterlab

LOAD = "import steerwidgets as sw\nmodel = sw.load()"


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    with jupyterlab(tmp_path_factory.mktemp("lab")) as (base, folder):
        context = chromium.new_context(viewport={"width": 1200, "height": 1000})
        yield Lab(base, folder, context)
        context.close()


@pytest.fixture
def notebook(lab, request):
    opened = []

    def show(*cells: str):
        opened.append(lab.open(request.node.name, cells))
        return opened[-1]

    yield show
    for shown in opened:
        shown.close()
        assert shown.heard == []


# A widget without a model's cost: what is tested is the way from the page to the thread and back.
COUNTER = """
import time, traitlets as t
from steerwidgets.widgets.base import STATIC, StudyWidget
import sys; sys.path.insert(0, TESTS)
from conftest import byte_tokenizer, tiny_module, tiny_sae

class Counter(StudyWidget):
    _esm = STATIC / "comparator.js"
    text = t.Unicode("a").tag(sync=True)
    def _compute(self, job):
        for i in range(400):
            job.check()
            time.sleep(0.025)
            job.report(i, 400, f"step {i}")
"""


def test_a_widget_works_beside_a_running_cell(notebook):
    """Progress shows and Stop works while a cell runs and touches the widget (see `_route_beside_cells`)."""
    from pathlib import Path

    tests = repr(str(Path(__file__).parent))
    model = "model = sw.load(tiny_module('llama'), sae=tiny_sae(), tokenizer=byte_tokenizer(), check=False)"
    shown = notebook(
        f"TESTS = {tests}\nimport steerwidgets as sw\n{COUNTER}\n{model}",
        "w = Counter(model)\nw",
        "for i in range(60):\n    w._about = dict(w._about)\n    time.sleep(0.1)",
    )
    page = shown.page
    shown.run_cell(0)
    shown.run_cell(1)
    page.locator(".sw-widget").get_by_text("step").wait_for()
    shown.run_cell(2, wait=False)
    page.wait_for_timeout(300)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped").wait_for(timeout=2_000)
    assert page.evaluate("() => Promise.race([window.running.then(() => true), Promise.resolve(false)])") is False

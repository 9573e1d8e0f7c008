"""The widgets in a real JupyterLab with a real kernel."""

from __future__ import annotations

from pathlib import Path

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
import sys
sys.path.insert(0, TESTS)
import time
import traitlets as t
import steerwidgets as sw
from conftest import byte_tokenizer, tiny_module, tiny_sae
from steerwidgets.widgets.base import STATIC, StudyWidget

class Counter(StudyWidget):
    INPUTS = ("text",)
    _esm = STATIC / "comparator.js"
    text = t.Unicode("a").tag(sync=True)
    _sum = t.Int(0).tag(sync=True)
    def _compute(self, job):
        for i in range(400):
            job.check()
            time.sleep(0.025)
            job.report(i, 400, f"step {i}")
            self._publish(_sum=i)

model = sw.load(tiny_module("llama"), sae=tiny_sae(), tokenizer=byte_tokenizer(), check=False)
"""


def test_a_widget_works_beside_a_running_cell_and_outlives_the_page_but_not_the_kernel(notebook, lab):
    """Stop is served while a cell runs and touches the widget: see `_route_beside_cells`."""
    shown = notebook(
        f"TESTS = {str(Path(__file__).parent)!r}\n{COUNTER}",
        "w = Counter(model)\nw",
        "for i in range(60):\n    w._about = dict(w._about)\n    time.sleep(0.1)",
    )
    page, widget = shown.page, shown.page.locator(".sw-widget")
    shown.run_cell(0)
    shown.run_cell(1)
    widget.get_by_text("step").wait_for()
    shown.run_cell(2, wait=False)
    page.wait_for_timeout(300)
    widget.get_by_role("button", name="Stop").click()
    widget.get_by_text("Stopped").wait_for(timeout=2_000)
    assert page.evaluate("() => Promise.race([window.running.then(() => 1), Promise.resolve(0)])") == 0
    page.evaluate("() => window.running")

    # The page goes and comes back: the same widget in the same state, nothing computed again.
    shown.command("docmanager:save")
    kept = shown.evaluate("w._sum")
    page.wait_for_timeout(300)
    lab.show(shown, shown.name)
    widget.get_by_text("Stopped").wait_for(timeout=20_000)
    assert shown.evaluate("w._sum") == kept

    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.wait_for_timeout(500)
    page.evaluate("() => document.querySelector('.sw-widget button').click()")
    widget.get_by_text("The kernel does not answer").wait_for(timeout=10_000)

"""Run the example notebooks, all in one kernel, and keep what they show.

    python docs/notebooks.py OUT [NAME ...]

A kernel takes longer to start than most lessons take to run: imports and the embedded default are loaded once, and
every notebook starts with an empty namespace. Widgets show as snapshots (`STEERWIDGETS_DISPLAY`), which need no kernel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
# Needs the Hub; a site built without it shows this one without outputs.
NEEDS_HUB = ("07_gpt2_and_gemma",)
# `sw.load()` gives the same model to every notebook; anything else is loaded as the notebook says.
SHARE = """
import plotly.io
import steerwidgets as sw
from plotly.io.base_renderers import MimetypeRenderer

class Figure(MimetypeRenderer):
    def to_mimebundle(self, figure):
        import plotly.io

        # One copy of plotly for the site, found from a page in tutorials/.
        return {"text/html": plotly.io.to_html(figure, full_html=False, include_plotlyjs="../_static/plotly.min.js")}

plotly.io.renderers["site"] = Figure()
plotly.io.renderers.default = "site"

def shared(load):
    kept = []
    def again(*args, **options):
        if args or options:
            return load(*args, **options)
        if not kept:
            kept.append(load())
        return kept[0]
    return again

sw.load = shared(sw.load)
%reset -f
"""
FORGET = "import ipywidgets\nipywidgets.Widget.close_all()\n%reset -f\n"


class Kernel:
    """A running kernel in a folder of its own."""

    def __init__(self, manager: KernelManager, folder: Path) -> None:
        self.manager, self.folder = manager, folder
        self.cell(SHARE)

    def run(self, path: Path, after: str = "", timeout: int = 600) -> Any:
        """The notebook with its outputs.

        Args:
            after: code to run in its namespace at its end, which leaves no trace in it.

        Raises:
            CellExecutionError: a cell, or `after`, has failed.
        """
        notebook = nbformat.read(path, as_version=4)
        try:
            self._execute(notebook, timeout)
            if after:
                self.cell(after)
        finally:
            self.cell(FORGET)
        return notebook

    def cell(self, code: str) -> None:
        """Run some code."""
        self._execute(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), 120)

    def _execute(self, notebook: Any, timeout: int) -> None:
        where = {"metadata": {"path": str(self.folder)}}
        client = NotebookClient(
            notebook, km=self.manager, timeout=timeout, startup_timeout=300, resources=where, store_widget_state=False
        )
        try:
            client.execute()
        finally:
            if client.kc is not None:
                client.kc.stop_channels()


@contextmanager
def kernel(environment: Mapping[str, str] | None = None) -> Iterator[Kernel]:
    """A kernel that ends with the block."""
    manager = KernelManager(kernel_name="python3")
    with TemporaryDirectory() as folder:
        # Progress bars of other packages are live widgets, which a page cannot show.
        own = {"STEERWIDGETS_DISPLAY": "snapshot", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        env = os.environ | own | dict(environment or {})
        # It warns on stderr that its traffic, all on this machine, is not encrypted.
        manager.start_kernel(env=env, cwd=folder, stderr=subprocess.DEVNULL)
        try:
            yield Kernel(manager, Path(folder))
        finally:
            manager.shutdown_kernel(now=True)


def main(out: Path, names: Sequence[str]) -> None:
    """Write every notebook with its outputs into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [EXAMPLES / f"{name}.ipynb" for name in names] or sorted(EXAMPLES.glob("*.ipynb"))
    with kernel() as running:
        for path in paths:
            begun = time.monotonic()
            without = path.stem in NEEDS_HUB and not names
            notebook = nbformat.read(path, as_version=4) if without else running.run(path)
            nbformat.write(notebook, out / path.name)
            print(f"{time.monotonic() - begun:6.1f} s  {path.name}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""Run the example notebooks, all in one kernel, and keep what they show.

    python docs/notebooks.py OUT [--hub] [NAME ...]

A kernel takes longer to start than most lessons take to run: imports and the embedded default are loaded once, and
every notebook starts with an empty namespace. Widgets show as snapshots (`STEERWIDGETS_DISPLAY`), which need no kernel.
A lesson that was run already, with the very same package, is left as it is. Cells tagged `needs-hub` download; they
run with `--hub` only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NEEDS_HUB = "needs-hub"
# `sw.load()` gives the same model to every notebook; anything else is loaded as the notebook says.
SHARE = """
import warnings

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
# Without the line that warned, which names a file of this machine.
warnings.formatwarning = lambda message, category, *_, **__: f"{category.__name__}: {message}\\n"

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

    def run(self, path: Path, after: str = "", hub: bool = True, timeout: int = 600) -> Any:
        """The notebook with its outputs.

        Args:
            after: code to run in its namespace at its end, which leaves no trace in it.
            hub: run the cells that download, too.

        Raises:
            CellExecutionError: a cell, or `after`, has failed.
        """
        notebook = nbformat.read(path, as_version=4)
        try:
            self._execute(notebook, timeout, "" if hub else NEEDS_HUB)
            if after:
                self.cell(after)
        finally:
            self.cell(FORGET)
        return notebook

    def cell(self, code: str) -> None:
        """Run some code."""
        self._execute(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), 120)

    def _execute(self, notebook: Any, timeout: int, skip: str = "") -> None:
        client = NotebookClient(
            notebook,
            km=self.manager,
            timeout=timeout,
            startup_timeout=300,
            resources={"metadata": {"path": str(self.folder)}},
            store_widget_state=False,
            skip_cells_with_tag=skip,
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
        own = {"STEERWIDGETS_DISPLAY": "snapshot", "HF_HUB_OFFLINE": "1"}
        # A page would keep every step of a bar.
        own |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        env = os.environ | own | dict(environment or {})
        # It warns on stderr that its traffic, all on this machine, is not encrypted.
        manager.start_kernel(env=env, cwd=folder, stderr=subprocess.DEVNULL)
        try:
            yield Kernel(manager, Path(folder))
        finally:
            manager.shutdown_kernel(now=True)


def fingerprint(path: Path, hub: bool) -> str:
    """What the outputs of a notebook follow from: itself, this file, and everything in the package."""
    package = sorted(p for p in (ROOT / "steerwidgets").rglob("*") if p.is_file() and p.suffix != ".pyc")
    found = hashlib.sha256(str(hub).encode())
    for part in (path, Path(__file__), ROOT / "constraints.txt", *package):
        found.update(part.read_bytes())
    return found.hexdigest()


def main(out: Path, names: Sequence[str], hub: bool) -> None:
    """Write every notebook with its outputs into `out`, those that are named anew."""
    out.mkdir(parents=True, exist_ok=True)
    stale = {}
    for path in [EXAMPLES / f"{name}.ipynb" for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        found, there = fingerprint(path, hub), out / path.name
        if names or not there.exists() or nbformat.read(there, as_version=4)["metadata"].get("from") != found:
            stale[path] = found
    if not stale:
        print(f"{out}: every lesson is as its source and the package are")
        return
    with kernel({"HF_HUB_OFFLINE": "0" if hub else "1"}) as running:
        for path, found in stale.items():
            begun = time.monotonic()
            notebook = running.run(path, hub=hub)
            notebook["metadata"]["from"] = found
            nbformat.write(notebook, out / path.name)
            print(f"{time.monotonic() - begun:6.1f} s  {path.name}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the example notebooks and keep what they show.")
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--hub", action="store_true", help="run the cells that download as well")
    given = parser.parse_args()
    main(given.out, given.names, given.hub)

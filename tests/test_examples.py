"""Every cell of every example notebook runs on the embedded default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import steerwidgets as sw

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))


def test_there_are_examples():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path, default, tmp_path, monkeypatch):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sw, "load", lambda: default, raising=False)
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"{path.name}, cell {number}", "exec"), names)
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "commit notebooks without output"
    assert names["result"].accuracy()["mean"].min() > 0.3

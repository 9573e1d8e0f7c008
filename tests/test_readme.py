"""The README's own lines run, and say what their comments say."""

from __future__ import annotations

import re
from pathlib import Path

import steerwidgets as sw

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_five_minutes_runs_as_written(default, tmp_path, monkeypatch, capsys):
    [code] = re.findall(r"## Five minutes\n\n```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sw, "load", lambda: default, raising=False)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    add = names["add"]
    prompt = "May, June, July, August,"
    assert default.next_tokens(prompt, k=1)["token"].item() == " September"
    assert default.next_tokens(prompt, [add], k=1)["token"].item() == " nine"
    # The vector that steers it was built without it.
    assert prompt not in add.vector.recipe["negative"]
    assert (tmp_path / "sweep.html").stat().st_size > 1_000_000
    printed = capsys.readouterr().out
    assert "January, February, March, April, | one, two, three, four," in printed
    assert "held-out accuracy" in printed

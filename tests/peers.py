"""The libraries whose formats are read and written here, from the folder that `make test` fills."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / ".test-peers"


def peer(module: str):
    """A module of a peer; they pin old versions of what this project uses, so they are installed without those."""
    assert FOLDER.is_dir(), "run `make test` once, which fills .test-peers"
    if str(FOLDER) not in sys.path:
        # At the end: nothing of this project's may be taken from there.
        sys.path.append(str(FOLDER))
    # repeng 0.4 names this in annotations, and NumPy 2 has taken it away.
    np.float_ = np.float64
    return importlib.import_module(module)

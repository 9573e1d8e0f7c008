"""How far long work is: told to whoever asks, and in a plain cell or a terminal shown as a bar."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Called with (done, in all, what is running).
Progress = Callable[[int, int, str], Any]
# Seconds: shorter work needs no bar.
DELAY = 2.0


@contextmanager
def shown(progress: Progress | None, name: str) -> Iterator[Progress | None]:
    """`progress`, or where nobody asked a bar that comes after two seconds and goes at the end.

    None where it would be seen by no one, as in a script that writes to a file or a notebook that is run to be read;
    `TQDM_DISABLE=1` leaves it out.
    """
    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    if progress is not None or not seen or os.environ.get("STEERWIDGETS_DISPLAY") == "snapshot":
        yield progress
        return
    from tqdm import tqdm

    # In a notebook what went to stderr leaves a red strip behind.
    file = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    with tqdm(desc=name, delay=DELAY, leave=False, file=file) as bar:
        began = time.monotonic()

        def tell(done: int, total: int, message: str) -> None:
            bar.total = total
            bar.set_postfix_str(message, refresh=False)
            bar.update(done - bar.n)
            # The queue of a server moves while nothing is done.
            if time.monotonic() - began > DELAY:
                bar.refresh()

        yield tell

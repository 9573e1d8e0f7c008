"""Interleaved timing: A B C, B C A, C A B; CPU seconds, medians, and ratios within a round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Method:
    """Something to time.

    Args:
        run: does the work.
        scale: whole work over the sample that `run` does.
        repeat: how often to call `run` in a round; the mean counts.
        note: what a reader must know, such as the size of the sample.
    """

    name: str
    run: Callable[[], object]
    scale: float = 1.0
    repeat: int = 1
    note: str = ""


class Timings:
    """CPU and wall seconds of each method in each round."""

    def __init__(self, methods: Sequence[Method], rounds: int) -> None:
        self.methods, self.rounds = list(methods), rounds
        self.cpu: dict[str, list[float]] = {method.name: [] for method in methods}
        self.wall: dict[str, list[float]] = {method.name: [] for method in methods}
        for method in methods:
            if method.repeat > 1:
                method.run()
        for start in range(rounds):
            # Each round begins with another method, so that none always follows the same one.
            for i in range(len(methods)):
                self._time(self.methods[(start + i) % len(methods)])

    def _time(self, method: Method) -> None:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(method.repeat):
            method.run()
        self.cpu[method.name].append((time.process_time() - cpu) * method.scale / method.repeat)
        self.wall[method.name].append((time.perf_counter() - wall) * method.scale / method.repeat)

    def seconds(self, name: str) -> float:
        """Median CPU seconds."""
        return median(self.cpu[name])

    def ratio(self, name: str, over: str) -> float:
        """How many times the CPU seconds of `over` those of `name` are: the median of the rounds' ratios."""
        return median(a / b for a, b in zip(self.cpu[name], self.cpu[over], strict=True))

    def spread(self, name: str, over: str) -> tuple[float, float]:
        """The smallest and the largest of the rounds' ratios."""
        found = [a / b for a, b in zip(self.cpu[name], self.cpu[over], strict=True)]
        return min(found), max(found)

    def rows(self, ours: str, unit: float = 1.0) -> list[list[str]]:
        """Table rows: method, CPU, wall, times ours (and the range over the rounds), note."""
        rows = []
        for method in self.methods:
            low, high = self.spread(method.name, ours)
            over = "1" if method.name == ours else f"{self.ratio(method.name, ours):.2f} ({low:.2f}-{high:.2f})"
            cpu, wall = self.seconds(method.name) * unit, median(self.wall[method.name]) * unit
            rows.append([method.name, f"{cpu:.4g}", f"{wall:.4g}", over, method.note])
        return rows

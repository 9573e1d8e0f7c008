"""Rows and cells packed into batches, so that few forward passes do much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import torch

from steerwidgets.engine.batches import Batch
from steerwidgets.engine.model import MAX_TOKENS
from steerwidgets.study.scoring import Rows

# More rows than this make no product faster.
MAX_ROWS = 512
GIB = 2**30


class HasRows(Protocol):
    """One cell: the rows of a chunk that score it."""

    @property
    def rows(self) -> list[int]: ...


Cell = TypeVar("Cell", bound=HasRows)


def chunks_by_item(rows: Rows) -> Iterator[tuple[list[int], Batch]]:
    """Chunks of rows of like length that never divide an item."""
    width = rows.batch.attention_mask.sum(1)
    by_item: dict[int, list[int]] = {}
    for row, owner in enumerate(rows.owner):
        by_item.setdefault(owner, []).append(row)
    chosen: list[int] = []
    for owned in sorted(by_item.values(), key=lambda owned: max(int(width[r]) for r in owned)):
        together = [*chosen, *owned]
        longest = int(width[together].max())
        padding = longest * len(together) - int(width[together].sum())
        # Few large batches beat many small ones, as long as little of them is padding.
        if chosen and (padding > 0.2 * longest * len(together) or longest * len(together) > MAX_TOKENS):
            yield chosen, rows.batch.rows(torch.tensor(chosen))
            chosen = []
        chosen += owned
    yield chosen, rows.batch.rows(torch.tensor(chosen))


def parts(cells: Sequence[Cell], size: int) -> Iterator[list[Cell]]:
    """Pack cells into forward passes of at most `size` rows, never dividing a cell."""
    part: list[Cell] = []
    rows = 0
    for cell in cells:
        if part and rows + len(cell.rows) > size:
            yield part
            part, rows = [], 0
        part.append(cell)
        rows += len(cell.rows)
    if part:
        yield part

"""Prompts scored under many interventions, from residuals that are captured once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from steerwidgets.core.edits import Edit
from steerwidgets.core.hooks import HookPoint
from steerwidgets.core.interventions import Ablate, Add, bind_ablates, bind_adds
from steerwidgets.core.positions import Positions
from steerwidgets.core.sae import SAE
from steerwidgets.engine.batches import Batch
from steerwidgets.engine.model import MAX_TOKENS, SteeredModel
from steerwidgets.engine.trunk import Trunk, column_bytes
from steerwidgets.study.packing import GIB, MAX_COLUMNS, MAX_ROWS, chunks_by_item, parts
from steerwidgets.study.scoring import Item, Rows, Score, score_cells

# One intervention a hook point, all of one kind; most conditions have one.
Condition = Sequence[Add] | Sequence[Ablate]
Taken = TypeVar("Taken")


@dataclass(frozen=True)
class _Cell:
    """One condition on one item: the rows of a chunk that score it."""

    condition: int
    item: int
    rows: list[int]


class Panel:
    """Items of a suite, to be scored under one condition after another.

    Prompts run once up to the hook point; conditions run in batches from there (see `Trunk`).

    Args:
        items: what to score.
        positions: what conditions change.
        each: about how many conditions there will be.
        memory: GiB to take besides the model: half for what conditions share, half for a batch.
    """

    def __init__(
        self, model: SteeredModel, items: Sequence[Item], positions: Positions, each: int = 1, memory: float = 2.0
    ) -> None:
        if memory <= 0:
            raise ValueError(f"memory={memory} is out of range; give the GiB that the work may take.")
        self.model = model
        self.rows = Rows.of(model, items)
        # Log-probabilities at each prompt's end that KL divergences are taken from; none before they are known.
        self.reference: list[Tensor] = []
        self._budget = memory * GIB / 2
        most = min(MAX_TOKENS, int(self._budget // column_bytes(model.traces)))
        self._chunks = list(chunks_by_item(self.rows, positions, each, most))
        self._trunks: dict[tuple[HookPoint, int], Trunk] = {}

    @property
    def items(self) -> tuple[Item, ...]:
        """What is scored."""
        return self.rows.items

    def rename(self, items: Sequence[Item]) -> None:
        """Score the same prompts by other answers, which may be one token each."""
        if [item.forced for item in items] != [item.forced for item in self.items]:
            raise ValueError("the new items do not read the same tokens as the old ones.")
        self.rows = replace(self.rows, items=tuple(items))

    def ends(self, condition: Condition) -> list[Tensor]:
        """Log-probabilities at the end of each item's prompt, [vocab] each."""

        def take(numbers: list[int], logits: Tensor) -> Iterator[Tensor]:
            row = 0
            for forced in (self.items[n].forced for n in numbers):
                # Left padding: the scored columns are the rightmost ones.
                yield logits[row, -1 - len(forced[0])].float().log_softmax(-1)
                row += len(forced)

        [ends] = self._taken([condition], take)
        return ends

    def scores(
        self,
        conditions: Iterable[Condition],
        stop: Callable[[], bool] | None = None,
        told: Callable[[int], object] | None = None,
    ) -> Iterator[list[Score]]:
        """The scores of every item, one list a condition, in order; ends early once `stop` says so.

        Args:
            conditions: alike in hook points, kind, positions and space; taken as they are needed.
            told: called with the number of cells that each batch has finished.
        """
        known: Sequence[Tensor | None] = self.reference or [None] * len(self.items)

        def take(numbers: list[int], logits: Tensor) -> list[Score]:
            return score_cells(self.model, [self.items[n] for n in numbers], logits, [known[n] for n in numbers])

        return self._taken(conditions, take, stop, told)

    def seconds_per_cell(self, condition: Condition) -> float:
        """Measured on one batch of this condition, as full as batches get."""
        several = [condition] * self.together(condition)
        for _ in self.scores([condition]):
            # The first batch also captures what the others share.
            pass
        start = time.perf_counter()
        for _ in self.scores(several):
            pass
        return (time.perf_counter() - start) / (len(several) * len(self.items))

    def together(self, condition: Condition) -> int:
        """How many conditions fill the batches of the largest chunk."""
        number = max(range(len(self._chunks)), key=lambda n: len(self._chunks[n][0]))
        return max(1, self._batch_size(condition, number) // len(self._chunks[number][0]))

    def _taken(
        self,
        conditions: Iterable[Condition],
        take: Callable[[list[int], Tensor], Iterable[Taken]],
        stop: Callable[[], bool] | None = None,
        told: Callable[[int], object] | None = None,
    ) -> Iterator[list[Taken]]:
        """For each condition, what `take` makes of every item; it is given the items' numbers and their logits."""
        queue = iter(conditions)
        block = list(islice(queue, 1))
        # The first condition says how many of them are worth gathering.
        size = self.together(block[0]) if block else 1
        block += islice(queue, size - 1)
        while block:
            found: list[dict[int, Taken]] = [{} for _ in block]
            for number, (rows, _) in enumerate(self._chunks):
                owned: dict[int, list[int]] = {}
                for r, row in enumerate(rows):
                    owned.setdefault(self.rows.owner[row], []).append(r)
                cells = [_Cell(n, item, own) for n in range(len(block)) for item, own in owned.items()]
                for part in parts(cells, self._batch_size(block[0], number)):
                    if stop is not None and stop():
                        return
                    logits = self._logits(block, number, part)
                    for cell, taken in zip(part, take([cell.item for cell in part], logits), strict=True):
                        found[cell.condition][cell.item] = taken
                    if told is not None:
                        told(len(part))
            yield from ([taken[item] for item in range(len(self.items))] for taken in found)
            block = list(islice(queue, size))

    def _logits(self, block: list[Condition], number: int, part: list[_Cell]) -> Tensor:
        """Logits of the rows of some cells, in their order, [r, last, vocab]."""
        batch = self._chunks[number][1]
        rows = torch.tensor([row for cell in part for row in cell.rows])
        by_row = [block[cell.condition] for cell in part for _ in cell.rows]
        first = by_row[0]
        edits = [_bound([condition[n] for condition in by_row], self.model.sae) for n in range(len(first))]
        hooks, positions = [each.hook(self.model.sae) for each in first], first[0].positions
        last = self._last(number)
        if len(hooks) == 1:
            return self._trunk(hooks[0], number).logits(rows, edits[0], positions, last)
        several = Batch(batch.input_ids[rows], batch.attention_mask[rows], batch.lengths[rows])
        placed = [(hook, edit, positions) for hook, edit in zip(hooks, edits, strict=True)]
        return self.model.traces.logits(several, placed, last)

    def _trunk(self, hook: HookPoint, number: int) -> Trunk:
        """A chunk up to a hook point; kept for the next conditions where the budget allows."""
        trunk = self._trunks.get((hook, number)) or Trunk(self.model.traces, self._chunks[number][1], hook)
        held = sum(other.nbytes for other in self._trunks.values())
        if (hook, number) in self._trunks or held + trunk.nbytes <= self._budget:
            self._trunks[hook, number] = trunk
        return trunk

    def _last(self, number: int) -> int:
        """How many columns, from the right, hold logits that are scored."""
        return 1 + max(len(self.rows.forced[row]) for row in self._chunks[number][0])

    def _batch_size(self, condition: Condition, number: int) -> int:
        """Rows a batch: no more than gains speed, and no more than there is memory for."""
        batch, first = self._chunks[number][1], condition[0]
        columns, last = batch.input_ids.shape[1], self._last(number)
        d_sae = self.model.sae.d_sae if self.model.sae is not None and getattr(first, "space", "sae") == "sae" else 0
        if len(condition) == 1:
            trunk = self._trunk(first.hook(self.model.sae), number)
            columns, row = trunk.columns(first.positions, last), trunk.row_bytes(first.positions, last, d_sae)
        else:
            vocab = self.model.traces.lm.config.get_text_config().vocab_size
            row = columns * (column_bytes(self.model.traces) + 12 * d_sae) + 12 * last * vocab
        # Half of what a sweep takes: whoever asks to stop waits for the batch that runs, and it costs 2 % of the pace.
        most = MAX_COLUMNS.get(self.model.traces.device.type, MAX_ROWS) // 2
        return max(1, min(MAX_ROWS, most // columns, int(self._budget // row)))


def _bound(interventions: Sequence[Add | Ablate], sae: SAE | None) -> Edit:
    """Row i under `interventions[i]`."""
    adds = [each for each in interventions if isinstance(each, Add)]
    return bind_adds(adds, sae) if adds else bind_ablates([e for e in interventions if isinstance(e, Ablate)], sae)

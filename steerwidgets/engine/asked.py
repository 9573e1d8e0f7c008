"""What is asked of batches under edits: one after another on this machine, many in one job on NDIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from steerwidgets.core.answers import reduced
from steerwidgets.core.edits import Chain
from steerwidgets.engine import ndif
from steerwidgets.engine.batches import Batch
from steerwidgets.engine.beside import ends
from steerwidgets.engine.traces import PlacedEdit, Traces
from steerwidgets.engine.trunk import Trunk


@dataclass(frozen=True, eq=False)
class Asked:
    """Rows of a batch under edits, and what of their logits is wanted.

    Args:
        trunk: the batch at a hook point. It is continued from there if all edits are there, at the same positions; else
            the whole model runs.
        rows: of the batch, [r]; a row may stand several times.
        edits: in order; an edit's own row dimension, if it has one, follows `rows`.
        want: as `core.answers.reduced` takes it; None for the logits themselves.
        last: how many columns of logits, from the right.
        reference: what divergences are taken from.
    """

    trunk: Trunk
    rows: Tensor
    edits: Sequence[PlacedEdit]
    want: dict[str, Any] | None = None
    last: int = 1
    reference: Reference | None = None

    def logits(self) -> Tensor:
        """Float [r, last, vocab]."""
        if self._together:
            return self.trunk.logits(self.rows, self._chain, self.edits[0][2], self.last)
        return self.trunk.traces.logits(self._batch, self.edits, self.last)

    def here(self) -> Any:
        """What is wanted, found on this machine."""
        return reduced(self.logits(), self.want, () if self.reference is None else self.reference.here)

    def packed(self, want: dict[str, Any] | None) -> dict[str, Any]:
        """The same as data that travel."""
        part: dict[str, Any] = {"rows": self.rows, "last": self.last, "want": want, "plan": None, "branches": None}
        if self._together and self.trunk.shared:
            return part | self.trunk.packed(self.rows, self._chain, self.edits[0][2], self.last)
        return part | {"plan": self.trunk.traces.plan(self._batch, self.edits)}

    @property
    def columns(self) -> int:
        """How many columns run anew."""
        width = self.trunk.columns(self.edits[0][2], self.last) if self._together else self.trunk.width
        return len(self.rows) * width

    @cached_property
    def _together(self) -> bool:
        places = {(hook, repr(positions)) for hook, _, positions in self.edits}
        return len(places) == 1 and self.edits[0][0] == self.trunk.hook

    @property
    def _chain(self) -> Any:
        edits = tuple(edit for _, edit, _ in self.edits)
        return edits[0] if len(edits) == 1 else Chain(edits)

    @property
    def _batch(self) -> Batch:
        batch = self.trunk.batch
        return Batch(batch.input_ids[self.rows], batch.attention_mask[self.rows], batch.lengths[self.rows])


@dataclass(frozen=True, eq=False)
class Reference:
    """Next-token distributions that divergences are taken from, one a row of `asked`.

    Args:
        columns: of each row, counted from the right, [r].
    """

    asked: Asked
    columns: Tensor

    @cached_property
    def here(self) -> Tensor:
        """Log-probabilities [r, vocab], found on this machine."""
        return ends(self.asked.logits(), self.columns)

    def packed(self) -> dict[str, Any]:
        """The same as data that travel."""
        return self.asked.packed({"columns": self.columns})


def answered(
    traces: Traces,
    asked: Iterable[Asked],
    stop: Callable[[], bool] | None = None,
    tell: Callable[[str], Any] | None = None,
) -> Iterator[Any]:
    """What each asks for, in order.

    On this machine they are run as their answers are taken. On NDIF they go together: in as few jobs as `ndif.MAX_SENT`
    and `ndif.MAX_JOB_COLUMNS` allow, where a batch runs once up to its hook point and logits are reduced before they
    come back.

    Args:
        stop: asked before each; True ends the work. On NDIF it ends the waiting too.
        tell: called with the status of a job in words.

    Raises:
        ndif.StoppedWaiting: a widget's work was stopped while it waited for a job.
    """
    halted = stop or (lambda: False)
    if not traces.remote:
        for each in asked:
            if halted():
                return
            yield each.here()
        return
    for job in _jobs(asked):
        if halted():
            return
        yield from _sent(traces, job, halted, tell)


def _jobs(asked: Iterable[Asked]) -> Iterator[list[tuple[Asked, dict[str, Any]]]]:
    """Packed, in jobs that stay within NDIF's limits as far as a single part does."""
    job: list[tuple[Asked, dict[str, Any]]] = []
    sent = columns = 0
    for each in asked:
        part = each.packed(each.want)
        more, wide = ndif.weight(part), each.columns
        if job and (sent + more > ndif.MAX_SENT or columns + wide > ndif.MAX_JOB_COLUMNS):
            yield job
            job, sent, columns = [], 0, 0
        job.append((each, part))
        sent, columns = sent + more, columns + wide
    if job:
        yield job


def _sent(
    traces: Traces,
    job: list[tuple[Asked, dict[str, Any]]],
    halted: Callable[[], bool],
    tell: Callable[[str], Any] | None,
) -> list[Any]:
    """The answers of one job; none if it was stopped."""
    groups: dict[tuple[int, int], list[int]] = {}
    for n, (each, _) in enumerate(job):
        groups.setdefault((id(each.trunk), id(each.reference)), []).append(n)
    chunks, order = [], []
    for numbers in groups.values():
        first = job[numbers[0]][0]
        before = [] if first.reference is None else [first.reference.packed()]
        chunks.append(_chunk(first.trunk, [*before, *(job[n][1] for n in numbers)]))
        order += [-1] * len(before) + numbers

    def said(_phase: str, message: str, job_id: str) -> None:
        if tell is not None:
            tell(f"NDIF: {message} (job {job_id})")

    watched = ndif.watched()
    try:
        with ndif.watching(None if tell is None else said, halted):
            found = traces.variants(chunks)
    except ndif.StoppedWaiting:
        # Who watches has to say which job goes on.
        if watched or not halted():
            raise
        return []
    return [answer for _, answer in sorted(zip(order, found, strict=True), key=lambda each: each[0])][-len(job) :]


def _chunk(trunk: Trunk, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch and its parts as `Traces.variants` takes them."""
    batch = trunk.batch
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "index": batch.index,
        "shared": any(part["plan"] is None for part in parts),
        "cached": any(part["branches"] is not None for part in parts),
        "site": trunk.traces.site(trunk.hook),
        "blocks": trunk.traces.blocks(trunk.hook),
        "parts": parts,
    }

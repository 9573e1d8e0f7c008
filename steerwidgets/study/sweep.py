"""Vectors x multipliers x prompts, with controls, and the multiplier chosen on prompts it is not scored on."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from steerwidgets.core.edits import Edit
from steerwidgets.core.hooks import HookPoint
from steerwidgets.core.interventions import Add, bind_adds
from steerwidgets.core.positions import Positions, position_mask
from steerwidgets.core.vectors import SteeringVector
from steerwidgets.engine import ndif
from steerwidgets.engine.memory import allowed
from steerwidgets.engine.model import MAX_TOKENS, SteeredModel
from steerwidgets.engine.trunk import Trunk, column_bytes
from steerwidgets.study.controls import LeaveOut, Variant, controls_for, held_out, reconstruction
from steerwidgets.study.packing import GIB, MAX_COLUMNS, MAX_ROWS, chunks_by_item, parts
from steerwidgets.study.recipes import Replayer, source_prompts
from steerwidgets.study.results import COLUMNS, SweepResult, choose_multipliers
from steerwidgets.study.results import OFF_TARGET as OFF_TARGET_TASK
from steerwidgets.study.scoring import Item, Rows, Score, asked_of, off_target_items, score_cells, scores_of, task_items
from steerwidgets.study.tasks import OFF_TARGET, Task, TaskSuite

Progress = Callable[[int, int, str], Any]
Job = tuple[Variant, Mapping[int, Sequence[float]]]


def sweep(
    model: SteeredModel,
    suite: TaskSuite | Task,
    vectors: Mapping[str, SteeringVector | Add],
    multipliers: Sequence[float] | float | None = None,
    positions: Positions | None = None,
    controls: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
    draws: int = 20,
    leave_out: LeaveOut = "overlap",
    stop: Callable[[], bool] | None = None,
    memory: float = 2.0,
) -> SweepResult:
    """Steer every prompt of a suite with every vector at every multiplier, and score it honestly.

    Nothing that built a vector, or chose its multiplier, is scored: an item is scored with the vector made again
    without the source prompts that are the item's prompt or say its answer, and without their partners; and at the
    multiplier that does best on the *other* items of its task. Controls run at that same multiplier, on the same
    items; they do not choose one of their own.

    Args:
        suite: what to ask.
        vectors: by name. A `SteeringVector` is added to the residual stream; give `sw.Add(vector,
            space="sae", ...)` to add it otherwise (its multiplier and positions do not count).
        multipliers: the grid; the model's preset if left out.
        positions: where to add; the model's preset if left out.
        controls: run unsteered, reconstruction only, random directions, shuffled pairs, random features, and
            off-target prompts.
        progress: called with (cells done, cells in all, what is running).
        draws: random directions a vector; a quarter as many shuffled pairs and random features.
        leave_out: `"overlap"` as above; `"prompt"` leaves out the scored prompt and its partner only; False scores
            vectors on prompts that built them, as published studies have done. What cannot be known is listed in
            `about["sources_unknown"]`: vectors given as numbers, without a recipe.
        stop: asked between batches; True ends the sweep and keeps what is finished.
        memory: GiB that the sweep may take besides the model. Half is for what prompts share, which is computed
            again where it does not fit, half for the batches, which become smaller.

    Raises:
        ValueError: no vectors or multipliers, a multiplier twice, vectors at an unknown hook point or of
            another width.

    Warns:
        UserWarning: there is less memory than `memory`, or one row by itself takes more; the sweep is then planned
            for what is there, or row by row.
    """
    suite = TaskSuite([suite]) if isinstance(suite, Task) else suite
    if not isinstance(suite, TaskSuite) or not isinstance(vectors, Mapping):
        raise TypeError(
            f"sweep needs a Task or TaskSuite and vectors by name, such as {{'mean': vector}}; found "
            f"{type(suite).__name__} and {type(vectors).__name__}."
        )
    if any(task.name == OFF_TARGET_TASK for task in suite):
        raise ValueError(f"a task cannot be called {OFF_TARGET_TASK!r}: that is the name of the control.")
    if isinstance(multipliers, int | float):
        multipliers = (multipliers,)
    multipliers = tuple(model.preset.multipliers if multipliers is None else multipliers)
    positions = model.preset.positions if positions is None else positions
    if not vectors or not multipliers:
        raise ValueError("a sweep needs at least one vector and one multiplier.")
    if len(set(multipliers)) != len(multipliers):
        raise ValueError(f"a multiplier stands twice in {multipliers}.")
    if draws < 1:
        raise ValueError(f"draws={draws} is out of range; give 1 or more (20 give p-values down to 0.048).")
    if memory <= 0:
        raise ValueError(f"memory={memory} is out of range; give the GiB that the sweep may take.")
    if leave_out not in ("overlap", "prompt", False):
        raise ValueError(f'leave_out={leave_out!r} is not understood; give "overlap", "prompt" or False.')
    items = [item for task in suite for item in task_items(model, task)]
    _check_positions(model, positions, items)
    if controls:
        unrelated = off_target_items(model, OFF_TARGET, items)
        items += [item for item in unrelated if _fits(model, positions, item)]
    replayer = Replayer(model)
    studied = []
    for name, given in vectors.items():
        add = given if isinstance(given, Add) else Add(given)
        model.bind(add)
        add = replace(add, positions=positions)
        studied.append(Variant(name, "none", 0, add, held_out(add, items, replayer, leave_out)))

    n = len(items)
    standing_in = [
        (variant, list(controls_for(model, variant, items, replayer, draws, seed, leave_out)) if controls else [])
        for variant in studied
    ]
    reconstructed = controls and model.sae is not None
    each = 1 + len(studied) * len(multipliers) + reconstructed + sum(len(c) for _, c in standing_in)
    plan = _Plan(positions, each, allowed(memory, model.traces.device) / 2)
    run = _Run(model, Rows.of(model, items), stop or (lambda: False), progress, plan)
    everywhere = dict.fromkeys(range(n), multipliers)
    run.unsteered(studied[0])
    run.cells([(variant, everywhere) for variant in studied])
    run.flush()
    if controls and not run.stopped:
        if reconstructed:
            run.cells([(reconstruction(model, studied[0]), dict.fromkeys(range(n), (0.0,)))])
        chosen = choose_multipliers(run.table())
        for variant, stand_ins in standing_in:
            at = {i: (float(chosen[variant.vector, item.task, item.prompt]),) for i, item in enumerate(items)}
            run.cells([(control, at) for control in stand_ins])
        run.flush()
    about = {
        "model": model.name,
        "hook": ", ".join(dict.fromkeys(str(variant.add.vector.hook) for variant in studied)),
        "positions": str(positions),
        "seed": seed,
        "draws": draws if controls else 0,
        "leave_out": leave_out,
        "sources_unknown": [v.vector for v in studied if not source_prompts(v.add.vector.recipe)],
        "finished": not run.stopped,
        **({"jobs": [job.id for job in run.jobs], "sent": sum(job.sent for job in run.jobs)} if run.jobs else {}),
    }
    return SweepResult(run.table(), about)


def _check_positions(model: SteeredModel, positions: Positions, items: Sequence[Item]) -> None:
    """Ask for every item's positions before anything runs."""
    for item in items:
        batch = model.pad([item.tokens])
        position_mask(positions, batch.index, batch.lengths)


def _fits(model: SteeredModel, positions: Positions, item: Item) -> bool:
    """Whether a prompt is long enough for the positions."""
    try:
        _check_positions(model, positions, [item])
    except ValueError:
        return False
    return True


@dataclass
class _Cell:
    """One variant at one multiplier on one item, and the rows of a chunk that score it."""

    order: int
    variant: Variant
    item: int
    multiplier: float
    rows: list[int]


@dataclass
class _Chunk:
    """Rows of like length, run once up to one hook point."""

    rows: list[int]
    trunk: Trunk


@dataclass(frozen=True, eq=False)
class Packed:
    """Cells of one chunk as data that travel, see `Trunk.remote_part`."""

    chunk: _Chunk
    cells: list[_Cell]
    part: dict[str, Any]
    last: int
    baselines: list[int]


def packed_jobs(packed: Iterable[Packed]) -> Iterator[list[Packed]]:
    """Packed cells in jobs that stay within NDIF's limits, as far as a single one does."""
    job: list[Packed] = []
    bytes_, columns = 0, 0
    for each in packed:
        more, wide = ndif.weight(each.part), each.part["mask"].numel()
        if job and (bytes_ + more > ndif.MAX_SENT or columns + wide > ndif.MAX_JOB_COLUMNS):
            yield job
            job, bytes_, columns = [], 0, 0
        job.append(each)
        bytes_, columns = bytes_ + more, columns + wide
    if job:
        yield job


@dataclass(frozen=True)
class _Plan:
    """What all cells have in common: positions, how many an item has, and bytes for trunks and for each batch."""

    positions: Positions
    each: int
    budget: float


class _Run:
    """The cells of one sweep, computed from residuals that are captured once."""

    def __init__(
        self, model: SteeredModel, rows: Rows, stop: Callable[[], bool], progress: Progress | None, plan: _Plan
    ) -> None:
        self.model, self.rows, self.stop, self.plan = model, rows, stop, plan
        self.told, self.progress = progress is not None, progress or (lambda *_: None)
        self.records: list[tuple[tuple[int, int], tuple[Any, ...]]] = []
        self.variants = 0
        self.baseline: dict[int, Tensor] = {}
        self.done, self.total = 0, len(rows.items) * plan.each
        self.stopped = False
        most = min(MAX_TOKENS, int(plan.budget // column_bytes(model.traces)))
        self._chunks = list(chunks_by_item(rows, plan.positions, plan.each, most))
        self._trunks: dict[tuple[HookPoint, int], Trunk] = {}
        # On NDIF cells wait here until they are sent together.
        self._queue: list[tuple[_Chunk, list[_Cell]]] = []
        self.jobs: list[ndif.Job] = []

    def unsteered(self, example: Variant) -> None:
        """Score every item without steering, and remember its next-token distribution."""
        hook = HookPoint.parse(example.add.vector.hook)
        nothing = replace(example.add, space="residual", error_term="keep")
        zero = SteeringVector(torch.zeros_like(example.add.vector.direction), hook, "nothing")
        variant = Variant("unsteered", "unsteered", 0, nothing, lambda item: zero)
        self.cells([(variant, dict.fromkeys(range(len(self.rows.items)), (0.0,)))])

    def cells(self, jobs: Sequence[Job]) -> None:
        """Compute variants, each at the multipliers of each item number; those added alike share batches."""
        alike: dict[tuple[Any, ...], list[tuple[int, Variant, Mapping[int, Sequence[float]]]]] = {}
        for order, (variant, multipliers) in enumerate(jobs, start=self.variants):
            add = variant.add
            key = (HookPoint.parse(add.vector.hook), add.space, add.error_term, add.clamp)
            alike.setdefault(key, []).append((order, variant, multipliers))
        self.variants += len(jobs)
        for (hook, *_), group in alike.items():
            for chunk in self._shared(hook):
                owned: dict[int, list[int]] = {}
                for r, row in enumerate(chunk.rows):
                    owned.setdefault(self.rows.owner[row], []).append(r)
                cells = [
                    _Cell(order, variant, item, m, rows)
                    for order, variant, multipliers in group
                    for item, rows in owned.items()
                    for m in multipliers[item]
                ]
                for part in parts(cells, self._batch_size(group[0][1], chunk)):
                    self.stopped = self.stopped or self.stop()
                    if self.stopped:
                        return
                    if chunk.trunk.remote:
                        self._queue.append((chunk, part))
                        continue
                    self._part(chunk, part)
                    self.progress(self.done, self.total, f"{part[0].variant.vector}, {part[0].variant.control}")

    def table(self) -> pd.DataFrame:
        """Every cell computed so far: variants in the order they were run, items in the suite's order."""
        ordered = sorted(self.records, key=lambda record: record[0])
        return pd.DataFrame([cell for _, cell in ordered], columns=COLUMNS)

    def flush(self) -> None:
        """Send the cells that wait, as few jobs as their limits allow, and score what comes back."""

        def tell(phase: str, message: str, job: str) -> None:
            self.progress(self.done, self.total, f"NDIF: {message} (job {job})")

        queue, self._queue = self._queue, []
        with ndif.counting() as jobs, ndif.watching(tell if self.told else None, self.stop):
            try:
                for hook in dict.fromkeys(chunk.trunk.hook for chunk, _ in queue):
                    for packed in packed_jobs(self._packed(*each) for each in queue if each[0].trunk.hook == hook):
                        if self.stop():
                            raise ndif.StoppedWaiting("stopped between two jobs")
                        self._sent(hook, packed)
            except ndif.StoppedWaiting:
                self.stopped = True
        self.jobs += jobs

    def _packed(self, chunk: _Chunk, part: list[_Cell]) -> Packed:
        """Cells as data that travel."""
        items = [self.rows.items[cell.item] for cell in part]
        diverging = [item.off_target for item in items]
        last = self._last(chunk)
        unrelated = [r for r, row in enumerate(chunk.rows) if self.rows.items[self.rows.owner[row]].off_target]
        ask = asked_of(items, last, diverging)
        ask["baselines"] = torch.tensor(
            [unrelated.index(cell.rows[0]) for cell, item in zip(part, items, strict=True) if item.off_target],
            dtype=torch.long,
        )
        rows, edit, positions = self._bound(part)
        return Packed(chunk, part, chunk.trunk.remote_part(rows, edit, positions, last, ask), last, unrelated)

    def _sent(self, hook: HookPoint, packed: list[Packed]) -> None:
        """One job, and its scores."""
        chunks, order = [], []
        for key in dict.fromkeys(id(each.chunk) for each in packed):
            own = [each for each in packed if id(each.chunk) == key]
            chunks.append(own[0].chunk.trunk.remote_chunk([each.part for each in own], own[0].last, own[0].baselines))
            order += own
        found = self.model.traces.variants(hook, chunks)
        for each, answer in zip(order, found, strict=True):
            items = [self.rows.items[cell.item] for cell in each.cells]
            self._score(each.cells, scores_of(self.model, items, answer, each.part["ask"]))
        self.progress(self.done, self.total, f"{packed[-1].cells[0].variant.vector}, on NDIF")

    def _bound(self, part: list[_Cell]) -> tuple[Tensor, Edit, Positions]:
        adds = []
        for cell in part:
            vector = cell.variant.vector_for(self.rows.items[cell.item])
            adds += [replace(cell.variant.add, vector=vector, multiplier=cell.multiplier)] * len(cell.rows)
        rows = torch.tensor([row for cell in part for row in cell.rows])
        return rows, bind_adds(adds, self.model.sae), adds[0].positions

    def _part(self, chunk: _Chunk, part: list[_Cell]) -> None:
        rows, edit, positions = self._bound(part)
        logits = chunk.trunk.logits(rows, edit, positions, self._last(chunk))
        items = [self.rows.items[cell.item] for cell in part]
        if part[0].variant.control == "unsteered":
            # An off-target item has one row, which forces nothing.
            first = itertools.accumulate((len(cell.rows) for cell in part), initial=0)
            for cell, item, row in zip(part, items, first):  # noqa: B905
                if item.off_target:
                    self.baseline[cell.item] = logits[row, -1].float().log_softmax(-1)
        self._score(part, score_cells(self.model, items, logits, [self.baseline.get(cell.item) for cell in part]))

    def _score(self, part: list[_Cell], scores: list[Score]) -> None:
        for cell, score in zip(part, scores, strict=True):
            item = self.rows.items[cell.item]
            self.records.append(((cell.order, cell.item), _record(item, cell.variant, cell.multiplier, score)))
            self.done += 1

    def _shared(self, hook: HookPoint) -> Iterator[_Chunk]:
        """Every chunk of rows at a hook point; trunks that fit in the budget are kept for the next variant."""
        for n, (rows, batch) in enumerate(self._chunks):
            trunk = self._trunks.get((hook, n)) or Trunk(self.model.traces, batch, hook)
            held = sum(other.nbytes for other in self._trunks.values())
            if (hook, n) in self._trunks or held + trunk.nbytes <= self.plan.budget:
                self._trunks[hook, n] = trunk
            yield _Chunk(rows, trunk)

    def _batch_size(self, variant: Variant, chunk: _Chunk) -> int:
        sae = self.model.sae if variant.add.space == "sae" else None
        trunk, last = chunk.trunk, self._last(chunk)
        row = trunk.row_bytes(variant.add.positions, last, 0 if sae is None else sae.d_sae)
        if row > self.plan.budget:
            warnings.warn(
                f"one row of {trunk.width} tokens takes about {row / GIB:.2g} GiB, but half of memory is "
                f"{self.plan.budget / GIB:.2g} GiB; such rows run one by one. Give memory={2 * row / GIB:.2g} or more, "
                "or shorten the prompts.",
                stacklevel=2,
            )
        columns = MAX_COLUMNS.get(self.model.traces.device.type, MAX_ROWS) // trunk.columns(self.plan.positions, last)
        return max(1, min(MAX_ROWS, columns, int(self.plan.budget // row)))

    def _last(self, chunk: _Chunk) -> int:
        """How many columns, from the right, hold logits that are scored."""
        return 1 + max(len(self.rows.forced[row]) for row in chunk.rows)


def _record(item: Item, variant: Variant, multiplier: float, score: Score) -> tuple[Any, ...]:
    return (
        item.task,
        item.prompt,
        item.answer,
        variant.vector,
        variant.control,
        variant.draw,
        multiplier,
        str(variant.add.positions),
        score.top_token,
        score.correct,
        score.p_answer,
        score.logit_diff,
        score.kl,
    )

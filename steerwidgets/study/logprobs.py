"""One prompt under many variants of one intervention, the others standing fast beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steerwidgets.core.answers import BLOCK
from steerwidgets.core.edits import AddDirection, Chain
from steerwidgets.core.hooks import HookPoint
from steerwidgets.core.interventions import Add, Intervention, bind_adds
from steerwidgets.engine.model import SteeredModel
from steerwidgets.engine.trunk import Trunk

# Logits held at once, in numbers: 2 ** 23 are 32 MiB, and three copies of them live for a moment.
MOST_LOGITS = 2**23


def next_logprobs(
    model: SteeredModel,
    prompt: str,
    adds: Sequence[Add],
    before: Sequence[Intervention] = (),
    after: Sequence[Intervention] = (),
    trunk: Trunk | None = None,
    stop: Callable[[], bool] | None = None,
) -> Tensor:
    """Next-token log-probabilities under `[*before, adds[i], *after]`, float32 [n, vocab] on the CPU.

    Equal to `model.logits` with that list, row by row. Where all of them edit one hook point at the same positions, the
    prompt runs once up to there; else the whole model runs, in batches.

    Args:
        adds: n of them, alike in everything but vector and multiplier.
        before: interventions applied before, where they share a hook point.
        after: interventions applied after.
        trunk: the prompt at the vectors' hook point (`trunk_of`).
        stop: asked between batches; True ends the work, and the rows so far come back.

    Raises:
        ValueError: the rows are not alike, or something does not fit the model.
    """
    first = adds[0]
    if len({(add.vector.hook, str(add.positions)) for add in adds}) > 1:
        raise ValueError("the rows of one batch must share hook point and positions.")
    for add in {id(add.vector): add for add in adds}.values():
        model.bind(add)
    hook = HookPoint.parse(first.vector.hook)
    earlier, later = model.bind(before), model.bind(after)
    beside = [*earlier, *later]
    together = all(place == hook and positions == first.positions for place, _, positions in beside)
    if together:
        trunk = trunk or trunk_of(model, prompt, hook)
    batch, size = model.batch(prompt), rows_at_once(model)
    found = []
    for start in range(0, len(adds), size):
        if stop is not None and stop():
            break
        part = adds[start : start + size]
        edit = bind_adds(part, model.sae)
        rows = torch.zeros(len(part), dtype=torch.long)
        if together and trunk is not None:
            chain = Chain((*(e for _, e, _ in earlier), edit, *(e for _, e, _ in later))) if beside else edit
            logits = trunk.logits(rows, chain, first.positions)
        else:
            logits = model.traces.logits(batch.rows(rows), [*earlier, (hook, edit, first.positions), *later])
        found.append(_log_softmax(logits[:, -1]).cpu())
    if len(found) == 1:
        return found[0]
    return torch.cat(found) if found else torch.empty(0, 0)


def unsteered(model: SteeredModel, prompt: str, trunk: Trunk | None = None) -> Tensor:
    """Next-token log-probabilities of the model as it is, float32 [vocab]."""
    if trunk is None:
        return model.logits(prompt)[0].log_softmax(-1)
    nothing = AddDirection(torch.zeros(1))
    return trunk.logits(torch.zeros(1, dtype=torch.long), nothing, "last")[0, -1].float().log_softmax(-1).cpu()


def _log_softmax(logits: Tensor) -> Tensor:
    """In float32, over the logits themselves: a second table of the vocabulary's width would cost as much again."""
    table = logits.float()
    for block in table.split(BLOCK):
        block.sub_(block.logsumexp(-1, keepdim=True))
    return table


def divergence(logprobs: Tensor, baseline: Tensor) -> Tensor:
    """KL(row || baseline) in nats of each row of log-probabilities [..., vocab], [...]."""
    rows = logprobs.reshape(-1, logprobs.shape[-1])
    # Row by row: what is on the way stays in the caches.
    kl = [(row.exp() * (row - baseline)).sum() for row in rows]
    return torch.stack(kl).clamp(min=0).view(logprobs.shape[:-1])


def rows_at_once(model: SteeredModel) -> int:
    """How many rows of logits fit."""
    vocab = model.traces.lm.config.get_text_config().vocab_size
    return max(1, MOST_LOGITS // vocab)


def trunk_of(model: SteeredModel, prompt: str, hook: HookPoint | str) -> Trunk:
    """A prompt run once up to a hook point."""
    return Trunk(model.traces, model.batch(prompt), HookPoint.parse(hook))

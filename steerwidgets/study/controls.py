"""What a steering vector must be compared with: vectors of the same dose that should do nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from steerwidgets.core.interventions import Add
from steerwidgets.core.vectors import SteeringVector
from steerwidgets.engine.model import SteeredModel
from steerwidgets.study.recipes import NotReplayable, Replayer, source_prompts
from steerwidgets.study.scoring import Item

VectorFor = Callable[[Item], SteeringVector]
LeaveOut = Literal["overlap", "prompt", False]


@dataclass(frozen=True)
class Variant:
    """One thing to add: a vector under study, or a control for it.

    Args:
        vector: name of the vector under study.
        control: "none" for the vector itself, else the kind of control.
        draw: number of the random draw.
        add: how it is added; the vector and the multiplier in it are replaced cell by cell.
        vector_for: the vector for an item, made without that item's prompt.
    """

    vector: str
    control: str
    draw: int
    add: Add
    vector_for: VectorFor


def held_out(add: Add, items: Sequence[Item], replayer: Replayer, leave_out: LeaveOut) -> VectorFor:
    """The vector for each item, made again without the source prompts that would give it away.

    Raises:
        NotReplayable: such a prompt is in the recipe, and the recipe cannot be replayed without it.
    """
    return _made(add.vector, items, leave_out, lambda without: replayer(add.vector.recipe or {}, without))


def withheld(item: Item, sources: Collection[str], leave_out: LeaveOut) -> frozenset[str]:
    """The source prompts that may not build the vector that an item is scored with.

    "overlap": the item's own prompt and every source prompt that says one of its answers as a word. "prompt": the
    prompt alone, which leaves its answer in neighbouring windows of the same list.
    """
    if leave_out is False:
        return frozenset()
    answers = set(re.findall(r"\w+", item.answer.lower())) if leave_out == "overlap" and not item.off_target else set()
    return frozenset(
        source for source in sources if source == item.prompt or answers & set(re.findall(r"\w+", source.lower()))
    )


def _made(
    vector: SteeringVector,
    items: Sequence[Item],
    leave_out: LeaveOut,
    make: Callable[[frozenset[str]], SteeringVector],
) -> VectorFor:
    """A vector for each item, made at once, so that what cannot be made is known before anything runs."""
    sources = source_prompts(vector.recipe)
    made: dict[frozenset[str], SteeringVector] = {}
    for item in items:
        without = withheld(item, sources, leave_out)
        if without not in made:
            made[without] = make(without) if without else vector
    return lambda item: made[withheld(item, sources, leave_out)]


def controls_for(
    model: SteeredModel,
    studied: Variant,
    items: Sequence[Item],
    replayer: Replayer,
    draws: int,
    seed: int,
    leave_out: LeaveOut,
) -> Iterator[Variant]:
    """Controls of one vector, each with the norm of the vector it stands in for.

    random: a direction drawn from a sphere, added to the residual stream (`draws` of them).
    shuffled pairs: the recipe with positive and negative swapped in a random half of the pairs (`draws` // 4).
    random features: the same coefficients on as many other features (`draws` // 4), if the vector has any; added as
        a direction, since a clamp would swallow what is subtracted from features that are not active.
    """
    base = studied.add.vector
    residual = replace(studied.add, space="residual", error_term="keep")
    few = max(1, draws // 4)
    for draw in range(draws):
        vector = random_direction(base, draw, seed)
        yield replace(studied, control="random", draw=draw, add=residual, vector_for=_matched(studied, _always(vector)))
    for draw in range(few):
        shuffled = _shuffled(studied, items, replayer, 1_000_003 * seed + 1_000 + draw, leave_out)
        if shuffled is not None:
            yield replace(studied, control="shuffled pairs", draw=draw, vector_for=_matched(studied, shuffled))
    if base.coefficients is None:
        return
    sae = model.need_sae("random features")
    own = base.coefficients[base.coefficients != 0]
    free = (base.coefficients == 0).nonzero()[:, 0]
    for draw in range(few if len(free) >= len(own) else 0):
        chosen = free[torch.randperm(len(free), generator=_random(seed, 2_000 + draw))[: len(own)]]
        direction = (own @ sae.W_dec[chosen.to(sae.W_dec.device)].cpu()) if len(own) else base.direction
        vector = SteeringVector(direction, base.hook, f"random features {draw}")
        yield replace(
            studied, control="random features", draw=draw, add=residual, vector_for=_matched(studied, _always(vector))
        )


def random_direction(vector: SteeringVector, draw: int, seed: int = 0) -> SteeringVector:
    """A unit direction drawn from a sphere, at a vector's hook point; times its norm it is a control for it."""
    x = torch.randn(vector.direction.numel(), generator=_random(seed, draw))
    return SteeringVector(torch.nn.functional.normalize(x, dim=0), vector.hook, f"random {draw}")


def unsteered(studied: Variant) -> Variant:
    """Nothing is added."""
    base = studied.add.vector
    zero = SteeringVector(torch.zeros_like(base.direction), base.hook, "nothing")
    add = replace(studied.add, space="residual", error_term="keep")
    return Variant("unsteered", "unsteered", 0, add, _always(zero))


def reconstruction(model: SteeredModel, studied: Variant) -> Variant:
    """SAE in, SAE out: nothing is added, and the error term is dropped."""
    sae = model.need_sae("the reconstruction control")
    zero = SteeringVector(torch.zeros(sae.d_model), sae.hook, "nothing", torch.zeros(sae.d_sae))
    add = Add(zero, 0.0, studied.add.positions, space="sae", error_term="drop")
    return Variant("reconstruction only", "reconstruction", 0, add, _always(zero))


def _shuffled(
    studied: Variant, items: Sequence[Item], replayer: Replayer, seed: int, leave_out: LeaveOut
) -> VectorFor | None:
    recipe = studied.add.vector.recipe
    if recipe is None:
        return None
    try:
        plain = replayer(recipe, (), seed)
        return _made(replace(plain, recipe=recipe), items, leave_out, lambda without: replayer(recipe, without, seed))
    except NotReplayable:
        return None


def _always(vector: SteeringVector) -> VectorFor:
    return lambda item: vector


def _matched(studied: Variant, vector_for: VectorFor) -> VectorFor:
    """Scaled to the norm of the vector that it stands in for."""

    def matched(item: Item) -> SteeringVector:
        vector, wanted = vector_for(item), studied.vector_for(item).norm
        return vector if vector.norm == 0 else vector * (wanted / vector.norm)

    return matched


def _random(seed: int, draw: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + draw)

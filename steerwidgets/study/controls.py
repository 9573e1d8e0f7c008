"""What a steering vector must be compared with: vectors of the same dose that should do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from steerwidgets.core.interventions import Add
from steerwidgets.core.vectors import SteeringVector
from steerwidgets.engine.model import SteeredModel
from steerwidgets.study.recipes import NotReplayable, Replayer, source_prompts
from steerwidgets.study.scoring import Item

VectorFor = Callable[[Item], SteeringVector]


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


def held_out(model: SteeredModel, add: Add, replayer: Replayer, leave_out: bool) -> VectorFor:
    """The vector for each item, made again without the item's prompt where the recipe used it.

    Raises:
        NotReplayable: a scored prompt is in the recipe, and the recipe cannot be replayed without it.
    """
    sources = source_prompts(add.vector.recipe) if leave_out else set()
    made: dict[str, SteeringVector] = {}

    def vector_for(item: Item) -> SteeringVector:
        if item.prompt not in sources:
            return add.vector
        if item.prompt not in made:
            assert add.vector.recipe is not None
            made[item.prompt] = replayer(add.vector.recipe, without={item.prompt})
        return made[item.prompt]

    return vector_for


def controls_for(
    model: SteeredModel, studied: Variant, replayer: Replayer, draws: int, seed: int, leave_out: bool
) -> Iterator[Variant]:
    """Controls of one vector, each with the norm of the vector it stands in for.

    random: a direction drawn from a sphere, added to the residual stream (`draws` of them).
    shuffled pairs: the recipe with positive and negative swapped in a random half of the pairs (`draws` // 4).
    random features: the same coefficients on as many other features (`draws` // 4), if the vector has any.
    """
    base = studied.add.vector
    residual = replace(studied.add, space="residual", error_term="keep")
    few = max(1, draws // 4)
    for draw in range(draws):
        unit = torch.nn.functional.normalize(torch.randn(base.direction.numel(), generator=_random(seed, draw)), dim=0)
        vector = SteeringVector(unit, base.hook, f"random {draw}")
        yield replace(studied, control="random", draw=draw, add=residual, vector_for=_matched(studied, _always(vector)))
    for draw in range(few):
        shuffled = _shuffled(studied, replayer, 1_000_003 * seed + 1_000 + draw, leave_out)
        if shuffled is not None:
            yield replace(studied, control="shuffled pairs", draw=draw, vector_for=_matched(studied, shuffled))
    if base.coefficients is None:
        return
    sae = model.need_sae("random features")
    for draw in range(few):
        order = torch.randperm(sae.d_sae, generator=_random(seed, 2_000 + draw))
        coefficients = base.coefficients[order]
        rows = sae.W_dec[coefficients.nonzero()[:, 0].to(sae.W_dec.device)]
        direction = sae.decode_direction(coefficients.to(sae.W_dec)).cpu()
        vector = SteeringVector(direction, base.hook, f"random features {draw}", coefficients, rows=rows)
        yield replace(studied, control="random features", draw=draw, vector_for=_matched(studied, _always(vector)))


def reconstruction(model: SteeredModel, studied: Variant) -> Variant:
    """SAE in, SAE out: nothing is added, and the error term is dropped."""
    sae = model.need_sae("the reconstruction control")
    zero = SteeringVector(torch.zeros(sae.d_model), sae.hook, "nothing", torch.zeros(sae.d_sae))
    add = Add(zero, 0.0, studied.add.positions, space="sae", error_term="drop")
    return Variant("reconstruction only", "reconstruction", 0, add, _always(zero))


def _shuffled(studied: Variant, replayer: Replayer, seed: int, leave_out: bool) -> VectorFor | None:
    recipe = studied.add.vector.recipe
    if recipe is None:
        return None
    sources = source_prompts(recipe) if leave_out else set()
    made: dict[frozenset[str], SteeringVector] = {}

    def vector_for(item: Item) -> SteeringVector:
        without = frozenset(sources & {item.prompt})
        # The generator starts anew each time, so that a vector does not depend on the order of the items.
        if without not in made:
            made[without] = replayer(recipe, without, torch.Generator().manual_seed(seed))
        return made[without]

    try:
        replayer(recipe, (), torch.Generator().manual_seed(seed))
    except NotReplayable:
        return None
    return vector_for


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

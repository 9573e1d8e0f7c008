"""How a vector was made, as JSON, and making it again, without some prompts if need be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steerwidgets.core.vectors import SteeringVector
from steerwidgets.engine.model import Read, SteeredModel

Recipe = Mapping[str, Any]


class NotReplayable(ValueError):
    """A recipe cannot be replayed as asked; the message says why."""


def contrasts(recipe: Recipe | None) -> Iterator[Recipe]:
    """Every contrast inside a recipe."""
    if recipe is None:
        return
    if recipe["construction"] == "contrast":
        yield recipe
    for inner in (recipe.get("of"), *(term["of"] for term in recipe.get("terms", ()))):
        yield from contrasts(inner)


def source_prompts(recipe: Recipe | None) -> set[str]:
    """Every prompt that a recipe was made from."""
    return {p for made in contrasts(recipe) for p in (*made["positive"], *(made["negative"] or ()))}


class Replayer:
    """Makes vectors from recipes; each prompt is read once, however often it is used.

    Args:
        model: the model to read with.
    """

    def __init__(self, model: SteeredModel) -> None:
        self.model = model
        self._read: dict[tuple[str, str, Read], Tensor] = {}

    def __call__(
        self, recipe: Recipe, without: Collection[str] = (), signs: torch.Generator | None = None
    ) -> SteeringVector:
        """Make a recipe's vector.

        Args:
            recipe: what `SteeringVector.recipe` holds.
            without: prompts to leave out, in pairs where the recipe pairs them.
            signs: swap positive and negative in a random half of the pairs (of each set, where they are not
                paired): the null of "shuffled pairs". Permuting *partners* would leave a mean difference
                unchanged, and be no control at all.

        Raises:
            NotReplayable: the vector was not made by this library, nothing is left of its prompts, or signs
                are asked of a set without negatives.
        """
        construction = recipe["construction"]
        if construction == "contrast":
            return self._contrast(recipe, frozenset(without), signs)
        if construction == "sum":
            terms = [term["multiplier"] * self._inner(term, without, signs) for term in recipe["terms"]]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            return replace(total, recipe=recipe)
        vector = self._inner(recipe, without, signs)
        match construction:
            case "unit":
                return vector.unit()
            case "decompose":
                return vector.decompose(self.model, recipe["method"], recipe["k"], recipe["remainder"])
            case "keep":
                return vector.keep(recipe["features"])
            case "drop":
                return vector.drop(recipe["features"])
            case "distinct":
                kept = self._distinct(recipe, frozenset(without))
                return replace(vector.keep(kept), recipe=recipe)
        raise NotReplayable(f"the construction {construction!r} is not known to this version.")

    def _inner(self, recipe: Recipe, without: Collection[str], signs: torch.Generator | None) -> SteeringVector:
        if recipe["of"] is None:
            raise NotReplayable("the vector was given as numbers, without a recipe, and cannot be made again.")
        return self(recipe["of"], without, signs)

    def _contrast(self, recipe: Recipe, without: frozenset[str], signs: torch.Generator | None) -> SteeringVector:
        positive, negative = recipe["positive"], recipe["negative"]
        if negative is None:
            if signs is not None:
                raise NotReplayable("a set without negatives has no pairs to shuffle.")
            kept = [p for p in positive if p not in without]
            values = self._reads(_some(kept), recipe).mean(0)
        elif recipe["paired"]:
            a, b = _sides(recipe, without)
            difference = self._reads(a, recipe) - self._reads(b, recipe)
            values = (_signs(len(a), signs)[:, None] * difference).mean(0)
        else:
            a, b = _sides(recipe, without)
            values = (_signs(len(a), signs)[:, None] * self._reads(a, recipe)).mean(0)
            values = values - (_signs(len(b), signs)[:, None] * self._reads(b, recipe)).mean(0)
        return self._vector(values, recipe)

    def _vector(self, values: Tensor, recipe: Recipe) -> SteeringVector:
        name = recipe["name"]
        if recipe["space"] == "residual":
            return SteeringVector(values, recipe["hook"], name, recipe=recipe)
        sae = self.model.need_sae("a contrast in SAE space")
        rows = sae.W_dec[values.nonzero()[:, 0].to(sae.W_dec.device)]
        direction = sae.decode_direction(values.to(sae.W_dec)).cpu()
        return SteeringVector(direction, recipe["hook"], name, values, recipe, rows)

    def _distinct(self, recipe: Recipe, without: frozenset[str]) -> list[int]:
        made = next(contrasts(recipe["of"]), None)
        if made is None or made["negative"] is None:
            raise NotReplayable("distinct features need a contrast of two prompt sets.")
        in_sae = {**made, "space": "sae"}
        tops = []
        for prompts in _sides(made, without):
            means = self._reads(prompts, in_sae).mean(0)
            values, ids = means.topk(min(recipe["k"], means.numel()))
            tops.append(set(ids[values > 0].tolist()))
        return sorted(tops[0] ^ tops[1])

    def _reads(self, prompts: Sequence[str], recipe: Recipe) -> Tensor:
        """Activations or features of prompts, [n, d]."""
        space, read = recipe["space"], recipe["read"]
        new = [p for p in dict.fromkeys(prompts) if (p, space, read) not in self._read]
        if new:
            if space == "sae":
                values = self.model.features(new, read)
            else:
                values = self.model.activations(new, read, recipe["hook"])
            self._read |= {(p, space, read): value for p, value in zip(new, values, strict=True)}
        return torch.stack([self._read[p, space, read] for p in prompts])


def _signs(n: int, generator: torch.Generator | None) -> Tensor:
    """Ones; or with a generator as many +1 as -1 in random order, and one 0 if n is odd.

    The balance matters: with six of eight signs alike, the "shuffled" mean is half the vector itself, and scaled
    to its norm no control.
    """
    if generator is None:
        return torch.ones(n)
    half = n // 2
    signs = torch.cat([torch.ones(half), -torch.ones(half), torch.zeros(n % 2)])
    return signs[torch.randperm(n, generator=generator)]


def _sides(recipe: Recipe, without: Collection[str]) -> tuple[list[str], list[str]]:
    """Positive and negative prompts without some; where they are paired, a prompt takes its partner along."""
    positive, negative = recipe["positive"], recipe["negative"]
    if recipe["paired"]:
        left = [pair for pair in zip(positive, negative, strict=True) if not set(without) & set(pair)]
        positive, negative = [p for p, _ in left], [n for _, n in left]
    a, b = (_some([p for p in side if p not in without]) for side in (positive, negative))
    return list(a), list(b)


def _some(prompts: Sequence[Any]) -> Sequence[Any]:
    if not prompts:
        raise NotReplayable("no source prompt is left when those that are scored are taken out.")
    return prompts

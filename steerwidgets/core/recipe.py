"""What a recipe that comes from a file may hold, for it is replayed, put in words and written as code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, float) or _whole(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _all(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


_ORIGIN = {"model": _text, "sae": _or_none(_text), "hook": _text, "name": _text}
_PROMPTS = _ORIGIN | {
    "space": _text, "read": lambda value: _text(value) or _whole(value), "paired": _flag, "positive": _all(_text),
    "negative": _or_none(_all(_text)),
}  # fmt: skip
_FIELDS: dict[str, dict[str, Check]] = {
    "contrast": _PROMPTS,
    "pca": _PROMPTS,
    "imported": {"file": _text, "format": _text, "entry": _text},
    "features": _ORIGIN | {"features": _all(_whole), "coefficients": _all(_number)},
    "decompose": {"method": _text, "k": _whole, "remainder": _flag},
    "keep": {"features": _all(_whole)},
    "drop": {"features": _all(_whole)},
    "weigh": {"features": _all(_whole), "weights": _all(_number)},
    "distinct": {"k": _whole},
    "unit": {},
    "carried": {"by": _text},
}
_CHANGES = ("decompose", "keep", "drop", "weigh", "distinct", "unit", "carried")


def check_recipe(recipe: Any) -> None:
    """Check every field that a construction of this library has, and the recipes inside; others stay as they are.

    Raises:
        ValueError: not a mapping, or a field is missing or of another type.
    """
    if recipe is None:
        return
    if not isinstance(recipe, Mapping):
        raise ValueError(f"its recipe is not a mapping: {recipe!r:.80}")
    construction = recipe.get("construction")
    if construction is not None and not _text(construction):
        raise ValueError(f"its recipe has construction={construction!r:.80}, which is not a name")
    fields = {"terms": _terms} if construction == "sum" else _FIELDS.get(construction or "", {})
    for key, check in fields.items():
        if key not in recipe or not check(recipe[key]):
            raise ValueError(f"its recipe, {construction!r}, has {key}={recipe.get(key)!r:.80}")
    for key in {"coefficients", "weights"} & fields.keys():
        if len(recipe[key]) != len(recipe["features"]) or (key == "coefficients" and not recipe[key]):
            raise ValueError(f"its recipe, {construction!r}, has not one of {key} for each feature")
    if construction in _CHANGES and "of" not in recipe:
        raise ValueError(f"its recipe, {construction!r}, does not say of what")
    terms = recipe["terms"] if construction == "sum" else ()
    for inner in (recipe.get("of"), *(term["of"] for term in terms)):
        check_recipe(inner)


def _terms(value: Any) -> bool:
    return _all(_term)(value) and bool(value)


def _term(value: Any) -> bool:
    return isinstance(value, Mapping) and _number(value.get("multiplier")) and "of" in value

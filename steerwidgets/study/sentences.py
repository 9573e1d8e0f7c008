"""How a vector was made, in a sentence or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steerwidgets.study.recipes import Recipe

METHOD_WORDS = {
    "sparse": "sparse, signed coefficients",
    "nonnegative": "sparse, non-negative coefficients",
    "projection": "projection on the best single matches",
    "published": "encoded as if it were an activation, and decoded with the bias (as published)",
}


def in_words(recipe: Recipe | None) -> str:
    """A recipe as prose."""
    if recipe is None:
        return "Given as numbers; how they were made is not known."
    return " ".join(_sentences(recipe))


def _sentences(recipe: Recipe) -> Iterator[str]:
    if recipe.get("construction") == "sum":
        parts = [f"{_times(term['multiplier'])}({in_words(term['of']).rstrip('.')})" for term in recipe["terms"]]
        yield f"Sum of {' and '.join(parts)}."
        return
    if "of" in recipe:
        yield in_words(recipe["of"])
    match recipe.get("construction"):
        case None:
            yield "Made as its recipe says, which is not one of this library."
        case "contrast" | "pca":
            yield _contrast(recipe)
        case "features":
            yield f"Sum of the decoder rows of {_features(recipe['features'])}, {_coefficients(recipe)}."
        case "imported":
            yield f"Read from {recipe['file']} ({recipe['format']}, entry {recipe['entry']})."
        case "unit":
            yield "Scaled to length one."
        case "decompose":
            rest = "the remainder kept" if recipe["remainder"] else "the remainder left out"
            rest = "" if recipe["method"] == "published" and not recipe["remainder"] else f"; {rest}"
            many = "" if recipe["method"] == "published" else f"at most {recipe['k']} "
            yield f"Written in {many}features: {METHOD_WORDS.get(recipe['method'], recipe['method'])}{rest}."
        case "keep":
            yield f"Only {_features(recipe['features'])} kept."
        case "drop":
            yield f"Without {_features(recipe['features'])}."
        case "weigh":
            yield _weighed(recipe)
        case "distinct":
            yield f"Only features that are in the top {recipe['k']} of one prompt set and not of the other."
        case "carried":
            yield f"Carried over from another model ({recipe['by']})."
        case other:
            yield f"Changed by {other!r}."


def _contrast(recipe: Recipe) -> str:
    positive, negative = recipe["positive"], recipe["negative"]
    what = "SAE features" if recipe["space"] == "sae" else "residual stream"
    read = {"mean": "read as the mean over each prompt's tokens", "last": "read at each prompt's last token"}.get(
        recipe["read"], f"read at position {recipe['read']}"
    )
    if negative is None:
        said = f"Mean {what} of {_count(positive, 'prompt')}"
    elif recipe["construction"] == "pca":
        said = f"First principal component of the differences of {_count(positive, 'prompt pair')} in the {what}"
    elif recipe["paired"]:
        said = f"Mean difference of {_count(positive, 'prompt pair')} in {'the ' * (recipe['space'] != 'sae')}{what}"
    else:
        said = f"Mean {what} of {_count(positive, 'prompt')} minus that of {_count(negative, 'prompt')}"
    return f"{said}, {read}, at {recipe['hook']}."


def _weighed(recipe: Recipe) -> str:
    pairs = list(zip(recipe["features"], recipe["weights"], strict=True))
    out = [i for i, weight in pairs if weight == 0]
    rest = [f"{i} times {weight:g}" for i, weight in pairs if weight not in (0, 1)]
    parts = [f"without {_features(out)}"] if out else []
    parts += [f"feature {', '.join(rest[:6])}{f' and {len(rest) - 6} more' if len(rest) > 6 else ''}"] if rest else []
    said = "; ".join(parts) or "all features as they were"
    return f"{said[0].upper()}{said[1:]}."


def _coefficients(recipe: Recipe) -> str:
    values = set(recipe["coefficients"])
    return f"each times {values.pop():g}" if len(values) == 1 else "each with its own coefficient"


def _features(ids: Sequence[int]) -> str:
    if not ids:
        return "no features"
    shown = ", ".join(map(str, ids[:6])) + (f" and {len(ids) - 6} more" if len(ids) > 6 else "")
    return f"feature {shown}" if len(ids) == 1 else f"features {shown}"


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _times(multiplier: float) -> str:
    return "" if multiplier == 1 else "minus " if multiplier == -1 else f"{multiplier:g} times "

"""The similarity study on the embedded default model: layers, English and Spanish number words, a carried vector.

    python -m benchmarks.similarity_default [--text FILE] [--permutations 1000]

The text is Python's own help topics unless a file is given. Prints three markdown sections; a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from pathlib import Path

import numpy as np

import steerwidgets as sw
from steerwidgets.study import similarity
from steerwidgets.study.similarity.results import holm
from steerwidgets.study.tasks import analogues, successors

LAYERS = (1, 7, 13, 19, 25)
FROM, TO = "blocks.13.hook_resid_post", "blocks.17.hook_resid_post"
NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty"
).split()
NUMEROS = (
    "uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte treinta cuarenta cincuenta sesenta"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="plain text to read activations on")
    parser.add_argument("--permutations", type=int, default=1_000)
    options = parser.parse_args()
    model = sw.load()
    text = passages(options.text)
    started = time.time()
    layers(model, text, options.permutations)
    languages(model, 10 * options.permutations)
    carried(model, text)
    print(f"\n{time.time() - started:.0f} s in all, loading apart.")


def passages(path: Path | None, words: int = 80, most: int = 18) -> list[str]:
    if path is not None:
        text = path.read_text()
    else:
        from pydoc_data.topics import topics

        text = " ".join(topics[name] for name in sorted(topics))
    # Prose only: code and tables are mostly white space and symbols.
    kept = [word for word in text.split() if re.fullmatch(r"[A-Za-z][\w'’-]*[.,;:?!)]*", word)]
    return [" ".join(kept[i : i + words]) for i in range(0, min(len(kept), words * most), words)]


def layers(model: sw.SteeredModel, text: list[str], permutations: int) -> None:
    print(f"## Layers against layers, {len(text)} passages, {permutations:,} random pairings a pair\n")
    for metric, extra in (("svcca", {"threshold": 0.9}), ("cka", {"debiased": True}), ("rsa", {})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", similarity.SimilarityWarning)
            found = similarity.compare_models(
                model, model, text, LAYERS, metric, rows=1_500, permutations=permutations, **extra
            )
        table = found.table
        print(f"{metric} {extra or ''}, n = {table['n'].iloc[0]}\n")
        print("| layer | " + " | ".join(map(str, LAYERS)) + " |\n" + "|---" * (len(LAYERS) + 1) + "|")
        for name, row in found.scores.iterrows():
            print(f"| {str(name).split('.')[1]} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
        apart = table[table["a"] != table["b"]]
        print(
            f"\nOff the diagonal: null mean {apart['null_mean'].mean():.4f}, effect {apart['effect'].min():.0f} to "
            f"{apart['effect'].max():.0f} standard deviations, largest q {apart['q'].max():.2g}.\n",
            flush=True,
        )


def languages(model: sw.SteeredModel, permutations: int) -> None:
    print(f"## English against Spanish number words, {len(NUMBERS)} pairs, {permutations:,} random pairings\n")
    print("| layer | metric | score | null mean | p | p, Holm over layers |\n|---|---|---|---|---|---|")
    english, spanish = [f"Number: {word}" for word in NUMBERS], [f"Número: {word}" for word in NUMEROS]
    for metric, extra in (("rsa", {}), ("cka", {"debiased": True}), ("procrustes", {}), ("jaccard", {"k": 5})):
        tests = []
        for layer in LAYERS:
            found = similarity.compare_models(
                model, model, english, [layer], metric, text_b=spanish, permutations=permutations, **extra
            )
            tests += [result.test for result in found.pairs.values()]
        corrected = holm(np.array([test.p_value for test in tests]))
        for layer, test, p in zip(LAYERS, tests, corrected, strict=True):
            print(f"| {layer} | {metric} | {test.score:.3f} | {test.null.mean():.3f} | {test.p_value:.2g} | {p:.2g} |")
    print(flush=True)


def carried(model: sw.SteeredModel, text: list[str]) -> None:
    print(f"## The months-to-numbers vector of {FROM}, carried to {TO} by a Procrustes map fitted on the text\n")
    at_a, at_b, _ = similarity.places(model, model, text)
    rows = [similarity.read_rows(model, at, sw.HookPoint.parse(hook)) for at, hook in ((at_a, FROM), (at_b, TO))]
    good = rows[0][1] & rows[1][1]
    fit = similarity.procrustes_fit(*(x[good] for x, _ in rows))
    source, target = analogues("months", "number words")
    vector = sw.contrast(model, target, source, hook=FROM)
    native = sw.contrast(model, target, source, hook=TO)
    suite = successors("numbers", ("sentence",), ("months", "weekdays"))
    found = similarity.transfer_test(
        vector, fit, model, suite, native, to=TO, draws=5, positions=model.preset.positions
    )
    summary = found.summary()[["task", "vector", "n", "accuracy", "low", "high", "multiplier", "unsteered", "random"]]
    print(f"Map: {good.sum()} tokens, similarity {fit.similarity:.3f}, scale {fit.scale:.2f}.\n")
    print("| " + " | ".join(summary.columns) + " |\n|" + "---|" * len(summary.columns))
    for row in summary.itertuples(index=False):
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


if __name__ == "__main__":
    main()

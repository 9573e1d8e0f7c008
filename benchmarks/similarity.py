"""Similarity scores, their permutation nulls and feature pairing: ours beside the peers', as ratios in one run.

    python -m benchmarks.similarity --peers FOLDER [--rounds 5] [--full]

Writes sections of SIMILARITY.md with `--full` (a quarter of an hour), which also runs whole nulls outright; without it,
prints. FOLDER holds checkouts named `univ_feat_geom` (github.com/wlg1/univ_feat_geom) and `netrep`
(github.com/ahwillia/netrep); rsatoolbox comes from PyPI. A peer that is not there is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.machine import describe, pin
from benchmarks.results import SIMILARITY, SIMILARITY_HEAD, Section, write
from steerwidgets.study import similarity
from steerwidgets.study.similarity.null import prepare
from steerwidgets.study.similarity.permuted import permutation_blocks

ROWS = 2_000
WIDTHS = (512, 768)
BATCH = 64
TOKENS, FEATURES = 20_000, 2_048
WIDE, ACTIVE = 32_768, 64
NOTE = (
    "CPU seconds on one thread, medians of interleaved rounds; ratios are medians of per-round ratios. `difference` is "
    'that of the score from ours: "as published" and the CCA angle are other quantities, and the pairing\'s mean '
    "correlation differs by the peer's (n - 1) / n."
)
COLUMNS = ("what", "d", "method", "CPU s", "ratio", "1,000", "10,000", "difference")
# What `--full` runs from beginning to end: metric, permutations, width.
OUTRIGHT = (
    ("svcca", 1_000, 512),
    *((metric, 10_000, width) for metric in ("svcca", "rsa", "cka") for width in WIDTHS),
    *(("procrustes", 1_000, width) for width in WIDTHS),
)
DRAWS, STRENGTHS = 500, (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass
class Method:
    """`run(round)` returns a number to compare (NaN: none), having done `units` of work."""

    name: str
    run: Callable[[int], float]
    units: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder with checkouts of univ_feat_geom and netrep")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="run whole nulls outright, and write SIMILARITY.md")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    pin()
    threadpool_limits(1)
    if options.memory:
        wide_pairing()
        return
    warnings.simplefilter("ignore")
    study, netrep, toolbox = load_peers(options.peers)
    about = describe()
    speed = Section("similarity-speed", "Nulls and pairing beside the peers'", about)
    speed.text(f"n = {ROWS:,} paired rows, {options.rounds} rounds; a line's first method is ours. {NOTE}")
    lines: list[list[str]] = []
    for width in WIDTHS:
        x, y = data(width)
        for what, methods, null in workloads(x, y, study, netrep, toolbox):
            lines += report(what, width, methods, options.rounds, null)
    speed.table("One score, and one permutation of a null", COLUMNS, lines)
    pairing(speed, study, options.rounds)
    peak = subprocess.run(
        [sys.executable, "-m", "benchmarks.similarity", "--memory"], capture_output=True, text=True, check=True
    )
    speed.text(peak.stdout.strip())
    honest = Section("similarity-calibration", "Are the p-values honest?", about)
    calibration(honest)
    if options.full:
        outright(speed)
        write([speed, honest], SIMILARITY, SIMILARITY_HEAD)


def data(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices that share 64 directions beneath independent noise."""
    random = np.random.default_rng(width)
    shared = random.normal(size=(ROWS, 64))
    return tuple(shared @ random.normal(size=(64, width)) * 0.3 + random.normal(size=(ROWS, width)) for _ in "xy")  # type: ignore[return-value]


def load_peers(folder: Path | None) -> tuple[Any, Any, Any]:
    study = netrep = toolbox = None
    if folder is not None and (folder / "univ_feat_geom").exists():
        sys.path.insert(0, str(folder / "univ_feat_geom" / "run_pipeline"))
        study = argparse.Namespace(
            **{name: importlib.import_module(name) for name in ("sim_fns", "get_rand_fns", "correlation_fns")}
        )
    if folder is not None and (folder / "netrep").exists():
        sys.path.insert(0, str(folder / "netrep"))
        netrep = importlib.import_module("netrep.metrics")
    with contextlib.suppress(ImportError):
        toolbox = importlib.import_module("rsatoolbox")
    for name, peer in (("univ_feat_geom", study), ("netrep", netrep), ("rsatoolbox", toolbox)):
        if peer is None:
            print(f"{name} is not there; its lines are left out.", file=sys.stderr)
    return study, netrep, toolbox


def workloads(x: Any, y: Any, study: Any, netrep: Any, toolbox: Any) -> list[tuple[str, list[Method], bool]]:
    """(what, methods, whether it is a null); the first method of each is ours."""
    svcca = [Method("ours", lambda _: similarity.svcca(x, y))]
    rsa = [Method("ours", lambda _: similarity.rsa(x, y))]
    nulls = {name: [ours(x, y, name)] for name in ("svcca", "rsa", "procrustes", "cka")}
    if study is not None:
        published = study.sim_fns.top_k_pca_comps

        def repaired(values: np.ndarray, threshold: float = 0.99) -> int:
            return int(np.argmax(np.cumsum(values**2) / (values**2).sum() >= threshold)) + 1

        def loop(measure: Callable[..., float], rule: Callable[..., int], permute: bool) -> Callable[[int], float]:
            def run(turn: int) -> float:
                study.sim_fns.top_k_pca_comps = rule
                import random

                random.seed(turn)
                if permute:
                    return float(study.get_rand_fns.shuffle_rand(1, x, y, ROWS, measure, True)[0])
                return float(measure(x, y, "nd"))

            return run

        for permute, lines in ((False, svcca), (True, nulls["svcca"])):
            lines.append(Method("univ_feat_geom, repaired", loop(study.sim_fns.svcca, repaired, permute)))
            lines.append(Method("univ_feat_geom, as published", loop(study.sim_fns.svcca, published, permute)))
        measure = study.sim_fns.representational_similarity_analysis
        rsa.append(Method("univ_feat_geom", loop(measure, published, False)))
        nulls["rsa"].append(Method("univ_feat_geom", loop(measure, published, True)))
    if toolbox is not None:
        of = lambda m: toolbox.rdm.calc_rdm(toolbox.data.Dataset(m), method="correlation")  # noqa: E731
        rsa.append(Method("rsatoolbox", lambda _: float(toolbox.rdm.compare(of(x), of(y), method="spearman")[0, 0])))
        once = of(x), of(y)

        def reordered(turn: int) -> float:
            # The peer at its best: distances once, reordered by its own method.
            other = once[1].copy()
            other.reorder(np.random.default_rng(turn).permutation(ROWS))
            return float(toolbox.rdm.compare(once[0], other, method="spearman")[0, 0])

        nulls["rsa"].append(Method("rsatoolbox, distances once", reordered))
    if netrep is not None:
        svcca.append(Method("netrep LinearMetric(alpha=0), a CCA angle", lambda _: linear(netrep, 0.0, x, y)))
        order = lambda turn: np.random.default_rng(turn).permutation(ROWS)  # noqa: E731
        nulls["procrustes"].append(
            Method("netrep LinearMetric(alpha=1)", lambda turn: linear(netrep, 1.0, x, y[order(turn)]))
        )
        nulls["cka"].append(
            Method("netrep LinearCKA", lambda turn: float(np.cos(netrep.LinearCKA().score(x, y[order(turn)]))))
        )
    out = [("svcca, one score", svcca, False), ("rsa, one score", rsa, False)]
    return out + [(f"{name} null, a permutation", methods, True) for name, methods in nulls.items()]


def ours(x: Any, y: Any, name: str) -> Method:
    prepared = prepare(x, y, name)
    batch = BATCH if name in ("rsa", "cka") else 8
    prepared.permuted(next(permutation_blocks(ROWS, 1, 0)))
    run = lambda turn: float(prepared.permuted(next(permutation_blocks(ROWS, batch, turn))).mean())  # noqa: E731
    return Method("ours", run, batch)


def linear(netrep: Any, alpha: float, x: Any, y: Any) -> float:
    metric = netrep.LinearMetric(alpha=alpha, score_method="angular").fit(x, y)
    return float(np.cos(metric.score(x, y)))


def report(what: str, width: int, methods: list[Method], rounds: int, null: bool) -> list[list[str]]:
    """Time the methods; a line of the table each."""
    times: list[list[float]] = [[] for _ in methods]
    values = [0.0] * len(methods)
    for turn in range(rounds):
        for place in range(len(methods)):
            # In rotating order, so that no method always follows the same one.
            i = (place + turn) % len(methods)
            start = time.process_time()
            values[i] = methods[i].run(turn)
            times[i].append((time.process_time() - start) / methods[i].units)
    lines = []
    for i, method in enumerate(methods):
        seconds = statistics.median(times[i])
        ratio = statistics.median(theirs / own for theirs, own in zip(times[i], times[0], strict=True))
        many = [f"{1000 * seconds:,.1f} s", f"{10_000 * seconds:,.0f} s"] if null else ["", ""]
        # Each method of a null draws its own permutations: only scores can be compared.
        apart = "" if null or i == 0 or np.isnan(values[i]) else f"{abs(values[i] - values[0]):.1e}"
        lines.append([what, str(width), method.name, f"{seconds:.4f}", f"{ratio:.1f}x", *many, apart])
        print(" | ".join(lines[-1]), file=sys.stderr, flush=True)
    return lines


def pairing(section: Section, study: Any, rounds: int) -> None:
    torch.manual_seed(0)
    a = torch.randn(TOKENS, FEATURES).relu_()
    b = (0.5 * a[:, torch.randperm(FEATURES)] + torch.randn(TOKENS, FEATURES)).relu_()
    product = torch.zeros(FEATURES, FEATURES)

    def gemm(_: int) -> float:
        torch.mm(a.T, b, out=product)
        return float("nan")

    found: dict[str, Any] = {}

    def own(_: int) -> float:
        # The peer's direction: the best of a for each feature of b.
        found["own"] = similarity.pair_features(b, a, one_to_one=False)
        return float(found["own"].correlation.mean())

    methods = [Method("ours", own), Method("the matrix product alone", gemm)]
    if study is not None:

        def theirs(_: int) -> float:
            found["theirs"] = study.correlation_fns.batched_correlation(a, b)
            return float(found["theirs"][1].mean())

        methods.append(Method("univ_feat_geom batched_correlation", theirs))
    lines = report(f"pairing {TOKENS:,} tokens x {FEATURES:,}²", FEATURES, methods, rounds, False)
    section.table("Pairing by activation correlation", COLUMNS, lines)
    if study is not None:
        partners = dict(zip(found["own"].a.tolist(), found["own"].b.tolist(), strict=True))
        same = sum(partners[j] == i for j, i in enumerate(found["theirs"][0].tolist()))
        section.text(f"Pairing: {same} of {FEATURES} features get the same partner from both.")


def wide_pairing() -> None:
    """Two SAEs of 32,768 features, 64 of them active a token: time and peak memory beyond the activations."""
    from scipy.sparse import csr_matrix

    random = np.random.default_rng(0)
    sides = []
    ids = random.integers(0, WIDE, (TOKENS, ACTIVE))
    for shift in (0, 1):
        columns = (ids + shift) % WIDE
        columns[:, ACTIVE // 2 :] = random.integers(0, WIDE, (TOKENS, ACTIVE // 2))
        values = random.random((TOKENS, ACTIVE), dtype=np.float32) + 0.1
        sides.append(csr_matrix((values.ravel(), columns.ravel(), np.arange(TOKENS + 1) * ACTIVE), (TOKENS, WIDE)))
    similarity.pair_features(sides[0][:100], sides[1][:100], features_a=range(64), features_b=range(64))
    before, budget = peak_bytes(), 1 << 30
    start = time.process_time()
    pairs = similarity.pair_features(*sides, memory=budget)
    seconds = time.process_time() - start
    grown = (peak_bytes() - before) / 2**30
    right = int((pairs.b == (pairs.a + 1) % WIDE).sum())
    print(
        f"Pairing {WIDE:,} x {WIDE:,} one-to-one over {TOKENS:,} tokens, {ACTIVE} active, memory=1 GiB: "
        f"{seconds:.1f} CPU s, peak +{grown:.2f} GiB (the whole matrix is {4 * WIDE**2 / 2**30:.0f} GiB); {right:,} of "
        f"{len(pairs):,} pairs are the planted ones. A dense product of this size is "
        f"{2 * TOKENS * WIDE**2 / 1e12:.0f} TFLOP."
    )


def peak_bytes() -> int:
    """Most memory this process ever held; `ru_maxrss` would begin at its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def outright(section: Section) -> None:
    """Whole nulls, preparation included."""
    rows = []
    for metric, permutations, width in OUTRIGHT:
        x, y = data(width)
        start, wall = time.process_time(), time.time()
        test = similarity.null_test(x, y, metric, permutations)
        spent, wall = time.process_time() - start, time.time() - wall
        row = [metric, str(width), f"{permutations:,}", f"{spent:.1f}", f"{wall:.1f}", f"{test.score:.4f}"]
        rows.append([*row, f"{test.null.mean():.4f} ± {test.null.std():.4f}", f"{test.p_value:.2g}"])
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    columns = ("metric", "d", "permutations", "CPU s", "wall s", "score", "null", "p")
    section.table(f"`null_test` from beginning to end, n = {ROWS:,}", columns, rows)


def calibration(section: Section) -> None:
    """p-values without an effect, and power with one; 24 rows, 4 dimensions, 99 permutations."""
    from scipy import stats

    def draw(strength: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = random.normal(size=(24, 4))
        return x, strength * x @ random.normal(size=(4, 4)) / 2 + random.normal(size=(24, 4))

    rows = []
    for metric in ("svcca", "rsa", "procrustes", "cka", "jaccard"):
        options: dict[str, Any] = {"k": 4} if metric == "jaccard" else {}
        power, uniform = [], 0.0
        for strength in STRENGTHS:
            random = np.random.default_rng(0)
            tests = (similarity.null_test(*draw(strength, random), metric, 99, seed=i, **options) for i in range(DRAWS))
            p = np.array([test.p_value for test in tests])
            power.append(f"{np.mean(p <= 0.05):.2f}")
            if strength == 0:
                # p takes the values .01 ... 1: spread each over its hundredth. Ties make jaccard's larger, not smaller.
                side = "greater" if metric == "jaccard" else "two-sided"
                uniform = stats.kstest(p - random.uniform(0, 0.01, DRAWS), "uniform", alternative=side).pvalue
        rows.append([metric, f"{uniform:.2f}", *power])
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    section.text(
        f"{DRAWS} draws of 24 rows in 4 dimensions, 99 permutations each; y is `strength` times a linear map of x, "
        "plus noise. Without an effect p-values are uniform (Kolmogorov-Smirnov; of jaccard, whose few scores tie, not "
        "smaller than uniform), and the share of draws with p ≤ .05 is about .05."
    )
    columns = ("metric", "p of the KS test", *(f"p ≤ .05 at strength {strength:g}" for strength in STRENGTHS))
    section.table("Uniformity and power", columns, rows)


if __name__ == "__main__":
    main()

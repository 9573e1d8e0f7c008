"""Jaccard: whether a row has the same neighbours in both spaces."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steerwidgets.study.similarity.distances import Distance, pairwise
from steerwidgets.study.similarity.matrices import Floats, SimilarityWarning, paired_rows
from steerwidgets.study.similarity.permuted import Indices

if TYPE_CHECKING:
    from torch import Tensor


def jaccard(
    x: NDArray[np.generic] | Tensor, y: NDArray[np.generic] | Tensor, k: int = 10, distance: Distance = "cosine"
) -> float:
    """Mean overlap of each row's k nearest neighbours in the two spaces, in [0, 1].

    |A ∩ B| / |A ∪ B| averaged over rows (Schumacher et al. 2021, arXiv 2005.04169; Wang et al. 2022). Only the
    nearest rows matter, so it says nothing about how clusters lie to one another.

    Args:
        x: [n, d_x], row i paired with row i of y.
        y: [n, d_y].
        k: neighbours of a row, itself not counted.
        distance: as in `rsa`. Of rows equally far the one with the lower number is the nearer.

    Works with n < d and with any rank.

    Raises:
        ValueError: x and y cannot be paired; k below 1 or not below n - 1, where all rows are neighbours; a row
            for which the distance is not defined.

    Warns:
        SimilarityWarning: k is more than a quarter of n, so that chance alone makes the overlap large.
    """
    return prepare_jaccard(x, y, k, distance).score


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Neighbours of each row of x as numbers [n, k], of y as a table bool [n, n]."""

    x: NDArray[np.intp]
    y: NDArray[np.bool_]
    tolerance: float = 1e-9

    @cached_property
    def score(self) -> float:
        return float(self.permuted(np.arange(len(self.x), dtype=np.int32)[None])[0])

    def permuted(self, rows: Indices) -> Floats:
        k = self.x.shape[1]
        shared = np.arange(k + 1)
        share = shared / (2 * k - shared)
        return np.array([share[self.y[order[:, None], order[self.x]].sum(1)].mean() for order in rows])


def prepare_jaccard(
    x: NDArray[np.generic] | Tensor, y: NDArray[np.generic] | Tensor, k: int = 10, distance: Distance = "cosine"
) -> Neighbours:
    """Everything of `jaccard` that permuting rows leaves alone; arguments and errors as there."""
    a, b = paired_rows(x, y)
    n = len(a)
    if not 1 <= k < n - 1:
        raise ValueError(
            f"k={k} neighbours of {n} rows: give 1 to {n - 2}, since with more every row is everyone's neighbour."
        )
    if 4 * k > n:
        warnings.warn(
            f"k={k} of {n} rows: chance alone gives an overlap of about {_chance(k, n):.2f}; judge the score by its "
            "null, or lower k.",
            SimilarityWarning,
            stacklevel=3,
        )
    near_x, near_y = nearest(a, k, distance, "x"), nearest(b, k, distance, "y")
    table = np.zeros((n, n), dtype=bool)
    np.put_along_axis(table, near_y, True, axis=1)
    return Neighbours(near_x, table)


def nearest(x: Floats, k: int, distance: Distance = "cosine", name: str = "x") -> NDArray[np.intp]:
    """Numbers of each row's k nearest other rows, nearest first, [n, k]."""
    n = len(x)
    far = pairwise(x, distance, name)
    np.fill_diagonal(far, 2 * far.max() + 1)
    # Distances are whole numbers: with the row's number behind each, ties are settled and one partition is enough.
    keys = far.astype(np.int64) * n + np.arange(n)
    return np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1) % n


def _chance(k: int, n: int) -> float:
    shared = k * k / (n - 1)
    return shared / (2 * k - shared)

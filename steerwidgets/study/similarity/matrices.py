"""Checked inputs of every similarity measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]


class SimilarityWarning(UserWarning):
    """A similarity can be computed but says less than it seems to."""


def as_rows(x: NDArray[np.generic] | Tensor, name: str = "x") -> Floats:
    """An array or tensor as float64 [n, d].

    Raises:
        ValueError: it is not 2-D, it is empty, or holds NaN or infinity.
    """
    # numpy has no bfloat16, and a tensor may need gradients or live on another device.
    values = np.asarray(x.detach().cpu().double() if hasattr(x, "detach") else x, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} has shape {values.shape}; a similarity needs rows of features, [n, d].")
    if not np.isfinite(values).all():
        row = int(np.nonzero(~np.isfinite(values).all(1))[0][0])
        raise ValueError(f"{name} holds NaN or infinity, first in row {row}; drop such rows from both matrices.")
    return values


def paired_rows(
    x: NDArray[np.generic] | Tensor, y: NDArray[np.generic] | Tensor, least: int = 3
) -> tuple[Floats, Floats]:
    """Two matrices whose rows are paired, float64 [n, d_x] and [n, d_y].

    Raises:
        ValueError: as `as_rows`; different numbers of rows; fewer than `least` rows.
    """
    a, b = as_rows(x, "x"), as_rows(y, "y")
    if len(a) != len(b):
        raise ValueError(
            f"x has {len(a)} rows and y {len(b)}; row i of x is compared with row i of y, so pair them first "
            "(`pair_features`)."
        )
    if len(a) < least:
        raise ValueError(f"{len(a)} paired rows say nothing about a similarity; give {least} at the very least.")
    return a, b


def centred(x: Floats, name: str = "x") -> Floats:
    """Columns moved to mean zero.

    Raises:
        ValueError: all rows are the same, so nothing is left.
    """
    out = x - x.mean(0)
    # Column means are rounded: identical rows leave noise, not zeros.
    if np.abs(out).max() <= 1e-12 * np.abs(x).max():
        raise ValueError(f"all rows of {name} are the same; there is no geometry to compare.")
    return out

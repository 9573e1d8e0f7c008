"""What the benchmarks say about agreement: an order that the model determines is never excused as a tie."""

from __future__ import annotations

import torch

from benchmarks.results import Section
from benchmarks.sae import ACTIVE, sae_lens_sae
from benchmarks.work import Agreement


def rows() -> torch.Tensor:
    """Four cells of forty tokens; in the first two, two of the ten largest logits are 1e-5 apart."""
    reference = torch.arange(40.0, 0.0, -1.0).repeat(4, 1)
    reference[:2, 5] = reference[:2, 4] - 1e-5
    return reference


def swapped(reference: torch.Tensor, cell: int, a: int, b: int) -> torch.Tensor:
    found = reference.clone()
    found[cell, [a, b]] = reference[cell, [b, a]]
    return found


def test_ties_are_told_apart_from_other_orders():
    reference = rows()
    agreed = Agreement.of(reference + 1e-5, reference, noise=1e-5)
    assert (agreed.same, agreed.tied, agreed.ties, agreed.cells, agreed.share) == (4, 0, 2, 4, 1.0)
    agreed = Agreement.of(swapped(reference, 0, 4, 5), reference, noise=1e-5)
    assert (agreed.same, agreed.tied, agreed.ties, agreed.share) == (3, 1, 2, 1.0)
    assert agreed.row("x")[2:] == ["3 of 4", "1 of 2"]


def test_another_order_of_tokens_that_lie_apart_counts():
    """Also in a cell with a tie; and a method's own error never makes a tie."""
    reference = rows()
    for cell, a, b in ((2, 4, 5), (0, 0, 1), (1, 9, 10)):
        agreed = Agreement.of(swapped(reference, cell, a, b), reference, noise=1e-5)
        assert (agreed.same, agreed.tied, agreed.share) == (3, 0, 0.75)
    assert Agreement.of(swapped(reference, 0, 4, 5), reference).share == 0.75


def test_the_benchmarks_sae_fires_as_often_as_it_says():
    sae = sae_lens_sae(64, 2048)
    active = (sae.encode(torch.randn(200, 64, generator=torch.Generator().manual_seed(0))) > 0).float().sum(1).mean()
    assert 0.8 * ACTIVE < float(active) < 1.2 * ACTIVE


def test_a_target_that_is_missed_is_said():
    section = Section("s", "S", "a machine")
    section.targets([("a", 1.0, ">=", 2.0), ("b", 1.0, "<=", 2.0), ("c", float("nan"), ">=", 2.0)])
    assert [line.rstrip(" |").split("| ")[-1] for line in section.parts[0].splitlines()[-3:]] == [
        "missed",
        "met",
        "missed",
    ]

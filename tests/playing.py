"""What the playground's tests share: vectors and tasks of the tiny model, and hands on the sliders."""

from __future__ import annotations

import torch

import steerwidgets as sw

PROMPT = "one two three"
HOOK = "blocks.2.hook_resid_post"


def vector(seed: int, name: str, features: bool = True) -> sw.SteeringVector:
    random = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(40, generator=random) * (torch.rand(40, generator=random) < 0.2)
    return sw.SteeringVector(torch.randn(24, generator=random), HOOK, name, coefficients if features else None)


def suite() -> sw.TaskSuite:
    return sw.TaskSuite([sw.Task("echo", [PROMPT, "four five"], [" x", " y"], [" p", " q"])])


def percents(b, side: int) -> list[str]:
    """The numbers of the bars, 0 the baseline."""
    return b.page.eval_on_selector_all(
        ".sw-bars-row", f"rows => rows.map(r => r.querySelectorAll('.sw-bars-number')[{side}].textContent)"
    )


def slide(b, name: str, at: int) -> None:
    """Set a slider, as a pointer would."""
    b.page.get_by_label(f"Multiplier of {name}").evaluate(
        "(input, at) => { input.value = at; input.dispatchEvent(new Event('input', { bubbles: true })); }", at
    )

"""Part of a forward pass, without nnsight: activations of many tokens at the price of the blocks below."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from steerwidgets.core.hooks import HookPoint
from steerwidgets.engine.layouts import blocks, layout_of


class _StopForward(Exception):
    """Raised inside the hook: nothing above the hook point is computed."""


def run_until(module: nn.Module, hook: str, windows: Tensor) -> Tensor:
    """The tensor at a hook point for token ids [batch, position]: [batch, position, d]; stops the forward there."""
    caught: list[Tensor] = []
    path, side = layout_of(module).locate(HookPoint.parse(hook), len(blocks(module)))
    target = module.get_submodule(path)

    def keep(_module: nn.Module, args: Any, output: Any = None) -> None:
        value = args if side == "input" else output
        caught.append(value if torch.is_tensor(value) else value[0])
        raise _StopForward

    handle = target.register_forward_pre_hook(keep) if side == "input" else target.register_forward_hook(keep)
    try:
        with torch.inference_mode(), suppress(_StopForward):
            module(input_ids=windows, use_cache=False)
    finally:
        handle.remove()
    return caught[0]

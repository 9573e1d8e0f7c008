"""Prompts run once up to a hook point, and continued from there under any number of edits.

Attention is causal: what lies below the hook point, and the keys and values of every token before the first
steered one, are the same for all edits. Only the rest is computed again, exactly.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from steerwidgets.core.edits import Edit, apply_edit
from steerwidgets.core.hooks import HookPoint
from steerwidgets.core.positions import Positions, position_mask
from steerwidgets.engine.batches import Batch
from steerwidgets.engine.branches import Branches
from steerwidgets.engine.traces import Traces


class Trunk:
    """A batch at a hook point.

    Three plans, the cheapest exact one is taken: with the steered tokens at the end, only they run through the
    blocks above the hook point, with keys and values of the tokens before from the unsteered run; else all
    tokens run through the blocks above; and where nothing can be shared (a hook point inside a block) the whole
    model runs.

    Args:
        traces: forward passes of the model.
        batch: n rows.
        hook: the hook point that edits will change.
    """

    def __init__(self, traces: Traces, batch: Batch, hook: HookPoint) -> None:
        self.traces, self.batch, self.hook = traces, batch, hook
        self.width = batch.input_ids.shape[1]
        self._below = traces.blocks_below(hook)
        self._prefix: list[tuple[Tensor, Tensor]] | None = None
        self.residual: Tensor | None = None
        if not traces.can_continue_from(hook):
            return
        cache = _new_cache(traces) if not traces.remote else None
        self.residual = traces.capture(batch, hook, cache)
        layers = cache.layers if cache is not None else []
        # A sliding-window layer forgets the tokens that a shorter prefix would need.
        if layers and all(layer.keys.shape[-2] == self.width for layer in layers):
            self._prefix = [(layer.keys, layer.values) for layer in layers[self._below :]]

    def logits(self, rows: Tensor, edit: Edit, positions: Positions, last: int = 1) -> Tensor:
        """Logits of the `last` columns of `rows` [r] under an edit, float [r, last, vocab].

        A row may stand several times in `rows`; the edit's own row dimension, if it has one, follows `rows`.
        """
        batch = Batch(self.batch.input_ids[rows], self.batch.attention_mask[rows], self.batch.lengths[rows])
        if self.residual is None:
            return self.traces.logits(batch, [(self.hook, edit, positions)], last)
        mask = position_mask(positions, batch.index, batch.lengths)
        steered = mask.any(0)
        first = int(steered.long().argmax()) if steered.any() else self.width
        # At least the scored columns run; at least one token must stay behind for a prefix to exist.
        q = max(self.width - first, last)
        at = rows.to(self.residual.device)
        if self._prefix is None or q >= self.width:
            return self.traces.continue_from(batch, self.hook, apply_edit(self.residual[at], edit, mask), last)
        # The columns first: all of them for every variant would be a copy of width times the size.
        tail = apply_edit(self.residual[:, -q:][at], edit, mask[:, -q:])
        branches = Branches.of(self.batch, rows, q)
        cache = self._cache(branches.row, self.width - q)
        return self.traces.branch_from(self.hook, tail, branches, last, cache)

    @property
    def nbytes(self) -> int:
        """Memory that this trunk holds."""
        held = [tensor for pair in self._prefix or () for tensor in pair]
        held += [] if self.residual is None else [self.residual]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def row_bytes(self, positions: Positions, last: int, d_sae: int = 0) -> int:
        """Memory that one row of `logits` takes at its peak, estimated; `d_sae` features if the edit needs them."""
        config = self.traces.lm.config.get_text_config()
        mask = position_mask(positions, self.batch.index, self.batch.lengths).any(0)
        shared = self._prefix is not None and bool(mask.any())
        q = max(self.width - int(mask.long().argmax()), last) if shared else self.width
        # Logits, their float copy and log-probabilities; the widest activations of a block; copied keys and values.
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        floats = 3 * last * config.vocab_size + q * (6 * config.hidden_size + 3 * inner + 3 * d_sae)
        if q < self.width and self._prefix:
            keys, _ = self._prefix[0]
            floats += 4 * (self.traces.n_layers - self._below) * keys.shape[1] * keys.shape[3] * self.width
        return 4 * floats

    def _cache(self, rows: Tensor, length: int) -> Any:
        """A KV cache of the first `length` columns; that of the blocks below the hook point stays empty."""
        assert self._prefix is not None
        cache = _new_cache(self.traces)
        for layer, (keys, values) in enumerate(self._prefix, start=self._below):
            at = rows.to(keys.device)
            cache.update(keys[:, :, :length][at], values[:, :, :length][at], layer)
        return cache


def _new_cache(traces: Traces) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=traces.lm.config)

"""Prompts run once up to a hook point, and continued from there under any number of edits.

Attention is causal: what lies below the hook point, and the keys and values of every token before the first
steered one, are the same for all edits. Only the rest is computed again, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from steerwidgets.core.edits import Edit, apply_edit, holds_sae, outcome
from steerwidgets.core.hooks import HookPoint
from steerwidgets.core.positions import Positions, position_mask
from steerwidgets.engine.batches import Batch
from steerwidgets.engine.beside import copied
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
        # On NDIF a batch runs up to the hook point anew for each job, which costs less than to fetch what it gives.
        self.remote = bool(traces.remote) and traces.can_continue_from(hook)
        self._grown = self.remote and not any(
            getattr(layer, "is_sliding", False) for layer in _new_cache(traces).layers
        )
        if traces.remote or not traces.can_continue_from(hook):
            return
        cache = _new_cache(traces)
        self.residual = traces.capture(batch, hook, cache)
        layers = cache.layers
        # A sliding-window layer forgets the tokens that a shorter prefix would need.
        if layers and all(layer.keys.shape[-2] == self.width for layer in layers):
            self._prefix = [(layer.keys, layer.values) for layer in layers[self._below :]]

    def logits(self, rows: Tensor, edit: Edit, positions: Positions, last: int = 1) -> Tensor:
        """Logits of the `last` columns of `rows` [r] under an edit, float [r, last, vocab].

        A row may stand several times in `rows`; the edit's own row dimension, if it has one, follows `rows`.
        """
        if self.remote:
            part = self.remote_part(rows, edit, positions, last)
            [logits] = self.traces.variants(self.hook, [self.remote_chunk([part], last)])
            return cast(Tensor, logits)
        batch = Batch(self.batch.input_ids[rows], self.batch.attention_mask[rows], self.batch.lengths[rows])
        if self.residual is None:
            return self.traces.logits(batch, [(self.hook, edit, positions)], last)
        mask = position_mask(positions, batch.index, batch.lengths)
        at = rows.to(self.residual.device)
        q = self._columns(mask, last)
        if q == self.width:
            return self.traces.continue_from(batch, self.hook, apply_edit(self.residual[at], edit, mask), last)
        # The columns first: all of them for every variant would be a copy of width times the size.
        tail = apply_edit(self.residual[:, -q:][at], edit, mask[:, -q:])
        branches = Branches.of(self.batch, rows, q)
        cache = self._cache(branches.row, self.width - q)
        return self.traces.branch_from(self.hook, tail, branches, last, cache)

    def remote_part(self, rows: Tensor, edit: Edit, positions: Positions, last: int, ask: Any = None) -> dict[str, Any]:
        """`logits` of the same arguments as data that travel; `ask` says what of them comes back, if not all."""
        mask = position_mask(positions, self.batch.index[rows], self.batch.lengths[rows])
        q = self._columns(mask, last)
        edit = self._light(rows, edit, mask)
        return {
            "rows": rows,
            "edit": edit,
            "mask": mask[:, -q:],
            "q": q,
            "branches": Branches.of(self.batch, rows, q) if q < self.width else None,
            "ask": ask,
        }

    def remote_chunk(self, parts: list[dict[str, Any]], last: int, baselines: Sequence[int] = ()) -> dict[str, Any]:
        """This batch and its variants as data that travel.

        Args:
            baselines: rows whose unsteered next-token distribution divergences are taken from.
        """
        return {
            "input_ids": self.batch.input_ids,
            "attention_mask": self.batch.attention_mask,
            "index": self.batch.index,
            "cached": any(part["branches"] is not None for part in parts),
            "baselines": torch.tensor(list(baselines), dtype=torch.long),
            "last": last,
            "parts": parts,
        }

    def columns(self, positions: Positions, last: int = 1) -> int:
        """How many columns of a row run again for each of its edits."""
        return self._columns(position_mask(positions, self.batch.index, self.batch.lengths), last)

    @property
    def nbytes(self) -> int:
        """Memory that this trunk holds."""
        held = [tensor for pair in self._prefix or () for tensor in pair]
        held += [] if self.residual is None else [self.residual]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def row_bytes(self, positions: Positions, last: int, d_sae: int = 0) -> int:
        """Memory that one row of `logits` takes at its peak, estimated; `d_sae` features if the edit needs them."""
        vocab = self.traces.lm.config.get_text_config().vocab_size
        q = self.columns(positions, last)
        # Logits, their float copy and log-probabilities; the widest activations of a block; copied keys and values.
        floats = 3 * last * vocab + q * (_widest(self.traces) + 3 * d_sae)
        if q < self.width and self._prefix:
            keys, _ = self._prefix[0]
            floats += 4 * (self.traces.n_layers - self._below) * keys.shape[1] * keys.shape[3] * self.width
        return 4 * floats

    def _light(self, rows: Tensor, edit: Edit, mask: Tensor) -> Edit:
        """The edit itself, or where it would take a whole SAE along, what it makes of the columns it changes."""
        if not holds_sae(edit):
            return edit
        if self.residual is None:
            self.residual = self.traces.capture(self.batch, self.hook)
        return outcome(self.residual[rows], edit, mask)

    def _columns(self, mask: Tensor, last: int) -> int:
        if self._prefix is None and not self._grown:
            return self.width
        steered = mask.any(0)
        # At least the scored columns run; at least one token must stay behind for a prefix to exist.
        return min(max(self.width - int(steered.long().argmax()) if steered.any() else 0, last), self.width)

    def _cache(self, rows: Tensor, length: int) -> Any:
        """A KV cache of the first `length` columns; that of the blocks below the hook point stays empty."""
        assert self._prefix is not None
        return copied(_new_cache(self.traces), self._prefix, self._below, rows, length)


def _new_cache(traces: Traces) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=traces.lm.config)


def column_bytes(traces: Traces) -> int:
    """Memory that one token takes while a trunk is captured, estimated."""
    config = traces.lm.config.get_text_config()
    heads = config.num_attention_heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 4 * (2 * traces.n_layers * kv * d_head + _widest(traces))


def _widest(traces: Traces) -> int:
    """Numbers that one token has in memory where a block is widest."""
    config = traces.lm.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(6 * config.hidden_size + 3 * inner)

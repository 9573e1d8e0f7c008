"""The one place that opens nnsight traces, on this machine or on NDIF."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import torch
from nnsight import save
from nnsight.intervention.backends.local import LocalSimulationBackend
from nnsight.ndif import register
from torch import Tensor

from steerwidgets.core.answers import reduced
from steerwidgets.core.edits import Edit, apply_edit, holds_sae, outcome
from steerwidgets.core.hooks import HookPoint
from steerwidgets.core.positions import Positions, position_mask
from steerwidgets.engine.batches import Batch
from steerwidgets.engine.beside import columns, fill, part_inputs, start, told, trunk_inputs, whole_inputs
from steerwidgets.engine.branches import Branches
from steerwidgets.engine.layouts import layout_of, unembedding_path
from steerwidgets.engine.ndif import Waiting
from steerwidgets.engine.sites import edit_sites, read_site

if TYPE_CHECKING:
    from nnsight.modeling.transformers import TransformersModel

# The server has no steerwidgets: what a trace calls travels as source. None of it is more than torch.
for _module in ("core", "engine.sites", "engine.beside", "engine.branches", "engine.batches"):
    register(f"steerwidgets.{_module}")

Remote = bool | Literal["local"]
PlacedEdit = tuple[HookPoint, Edit, Positions]
RowEdits = Sequence[Sequence[PlacedEdit]]
# A model runs one trace at a time, and models may share a module: one lock round every trace of every model.
_LOCK = threading.RLock()


class Traces:
    """Forward passes of one model: capture, steer, continue from a layer, decode.

    Args:
        lm: the nnsight model.
        remote: False here; True on NDIF; "local" serialises as for NDIF and runs here.
    """

    def __init__(self, lm: TransformersModel, remote: Remote = False) -> None:
        self.lm = lm
        self.layout = layout_of(lm._module)
        self.head = self._module(unembedding_path(lm._module))
        self.remote = remote
        config = lm.config.get_text_config()
        self.n_layers: int = config.num_hidden_layers
        self.d_model: int = config.hidden_size

    @property
    def device(self) -> torch.device:
        return self.lm.device if not self.remote else torch.device("cpu")

    def check(self, hook: HookPoint) -> HookPoint:
        """Return a hook point that this model has.

        Raises:
            ValueError: the model has no such hook point.
        """
        self.layout.locate(hook, self.n_layers)
        return hook

    @torch.no_grad()
    def capture(self, batch: Batch, hook: HookPoint, cache: Any = None, edits: Sequence[PlacedEdit] = ()) -> Tensor:
        """Activations at a hook point under `edits` before it, float32 [n, T, d].

        Args:
            cache: filled with keys and values, if given.
        """
        envoy, side = self.site(hook)
        plan = self._plan(self._masked(edits, batch.index, batch.lengths))
        inputs, options = self._inputs(batch)
        device = self.device
        head = self.head
        with _LOCK, self.lm.trace(inputs, **options, past_key_values=cache, use_cache=cache is not None) as tracer:
            edit_sites(plan, apply_edit)
            x = read_site(envoy, side).float().to(device).save()
            if cache is None:
                tracer.stop()
            else:
                # Nobody asks for logits; the unembedding of one column is the least it can be given.
                head.input = head.input[:, -1:].contiguous()
        return x

    @torch.no_grad()
    def logits(self, batch: Batch, edits: Sequence[PlacedEdit] = (), last: int = 1, want: Any = None) -> Any:
        """Logits of the `last` columns under `edits`, [n, last, vocab], on the model's device.

        Args:
            want: what of them, as `core.answers.reduced` takes it; on NDIF nothing else comes back.
        """
        plan = self.plan(batch, edits)
        lm, head = self.lm, self.head
        inputs, options = self._inputs(batch)
        with _LOCK, lm.trace(inputs, **options, use_cache=False):
            edit_sites(plan, apply_edit)
            # contiguous: a strided view sends torch to one small product a row, ten times slower at 264 rows.
            head.input = head.input[:, -last:].contiguous()
            found = lm.output.logits.save() if want is None else save(reduced(lm.output.logits, want))
        return found

    @torch.no_grad()
    def continue_from(
        self, batch: Batch, hook: HookPoint, residual: Tensor, last: int = 1, cache: Any = None
    ) -> Tensor:
        """Logits of the `last` columns when the residual stream at `hook` is `residual`, [n, last, vocab].

        The blocks below the hook point do not run.

        Args:
            hook: a `hook_resid_pre` or `hook_resid_post`.
            residual: [n, q, d_model], of all columns, or with a `cache` of the last q.
            cache: keys and values of the columns before those.
        """
        blocks = self.blocks(hook)
        lm, head = self.lm, self.head
        inputs, options = self._inputs(batch, residual.shape[1])
        residual = residual.to(self.device, lm.dtype)
        with _LOCK, lm.trace(inputs, **options, past_key_values=cache, use_cache=cache is not None):
            for block in blocks:
                block.skip(residual)
            head.input = head.input[:, -last:].contiguous()
            logits = lm.output.logits.save()
        return logits

    @torch.no_grad()
    def variants(self, chunks: Sequence[dict[str, Any]]) -> list[Any]:
        """Many variants of batches as one job: each batch runs once, edits are applied and results reduced there.

        Args:
            chunks: as `asked.answered` packs them.

        Returns:
            for each part of each chunk, in order, what `beside.told` gives.
        """
        from transformers import DynamicCache

        lm, head = self.lm, self.head
        # nnsight finds the inner traces by their lines in the source written anew: one line a statement, no comment.
        # Lists hold what a trace gives, since a name bound inside one would be that trace's own.
        with _LOCK, lm.session(backend=self._backend()):
            found: Any = [].save()  # type: ignore[attr-defined]
            for chunk in chunks:
                trunk: list[Any] = []
                baselines: list[Any] = []
                blocks = chunk["blocks"]
                cache = DynamicCache(config=lm.config) if chunk["cached"] else None
                if chunk["shared"]:
                    inputs, options = trunk_inputs(chunk)
                    with lm.trace(inputs, **options, past_key_values=cache, use_cache=cache is not None):
                        trunk.append(read_site(*chunk["site"]))
                        head.input = head.input[:, -1:].contiguous()
                for part in chunk["parts"]:
                    if part["plan"] is not None:
                        inputs, options = whole_inputs(chunk, part)
                        with lm.trace(inputs, **options, use_cache=False):
                            edit_sites(part["plan"], apply_edit)
                            head.input = columns(head.input, part)
                            found.append(told(lm.output.logits, part, baselines))
                    else:
                        x = start(trunk[0], part)
                        inputs, options = part_inputs(chunk, part, x)
                        held = fill(DynamicCache(config=lm.config), cache, part) if part["branches"] else None
                        with lm.trace(inputs, **options, past_key_values=held, use_cache=held is not None):
                            for block in blocks:
                                block.skip(x)
                            head.input = columns(head.input, part)
                            found.append(told(lm.output.logits, part, baselines))
        return list(found)

    @torch.no_grad()
    def branch_from(self, hook: HookPoint, residual: Tensor, branches: Branches, last: int, cache: Any) -> Tensor:
        """Logits of the `last` columns of every branch, [r, last, vocab], with the blocks below skipped.

        Args:
            residual: of all branches' new columns, [r, q, d_model].
            branches: how they stand in sequences.
            cache: keys and values of the columns before, one row a sequence.
        """
        blocks = self.blocks(hook)
        lm, head, device = self.lm, self.head, self.device
        packed = branches.pack(residual.to(device, lm.dtype))
        inputs = {"input_ids": torch.zeros(packed.shape[:2], dtype=torch.long, device=device)}
        mask = branches.mask(lm.dtype).to(device)
        wanted = branches.columns(last).to(device)
        positions = branches.positions.to(device)
        with (
            _LOCK,
            lm.trace(inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True),
        ):
            for block in blocks:
                block.skip(packed)
            head.input = head.input.flatten(0, 1)[wanted]
            logits = lm.output.logits.save()
        return logits

    def plan(self, batch: Batch, edits: Sequence[PlacedEdit]) -> list[Any]:
        """Edits as `sites.edit_sites` takes them; on NDIF none takes a whole SAE along."""
        edits = self._light(batch, edits) if self.remote else edits
        return self._plan(self._masked(edits, batch.index, batch.lengths))

    def site(self, hook: HookPoint) -> tuple[Any, str]:
        """What `sites.read_site` reads at a hook point."""
        [(envoy, side, _)] = self._plan([(hook, [])])
        return envoy, side

    def blocks(self, hook: HookPoint) -> list[Any]:
        """The blocks below a hook point."""
        return [self._module(f"{self.layout.blocks}.{i}") for i in range(self.blocks_below(hook))]

    def blocks_below(self, hook: HookPoint) -> int:
        """How many blocks run before this hook point is reached."""
        return hook.layer + (hook.site == "hook_resid_post")

    def can_continue_from(self, hook: HookPoint) -> bool:
        """Whether `continue_from` can start at this hook point."""
        return hook.site == "hook_resid_post" or (hook.site == "hook_resid_pre" and hook.layer > 0)

    @torch.no_grad()
    def decode(
        self,
        batch: Batch,
        edits: RowEdits,
        max_new_tokens: int,
        choose: Callable[[Tensor], Tensor],
        proceed: Callable[[Tensor, Tensor], bool],
    ) -> None:
        """Generate token by token with a KV cache, row i of the batch under `edits[i]`.

        Args:
            choose: logits [n, vocab] to the next token ids [n].
            proceed: called with ids [n] and their log-probabilities [n]; returning False ends the loop.
        """
        if self.remote:
            self._decode_in_one_job(batch, edits, max_new_tokens, proceed)
            return
        from transformers import DynamicCache

        cache = DynamicCache(config=self.lm.config)
        lm, prompt = self.lm, batch.input_ids.shape[1]
        # Masks and positions of all columns at once: made anew each step they cost more than the sampling.
        batch = batch.extended(max_new_tokens)
        plan = self._plan(self._by_row(edits, batch.index, batch.lengths))
        inputs, options = self._inputs(batch)
        ids, attention, positions = inputs["input_ids"], inputs["attention_mask"], options["position_ids"]
        # A tensor, not the number 1: it takes the last column as a whole, and nnsight does not split the inputs by row.
        done, last = 0, torch.tensor([-1])
        for end in range(prompt, prompt + max_new_tokens):
            now = slice(done, end)
            planned = _within(plan, now)
            with (
                _LOCK,
                lm.trace(
                    {"input_ids": ids[:, now], "attention_mask": attention[:, :end], "position_ids": positions[:, now]},
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=last,
                ),
            ):
                edit_sites(planned, apply_edit)
                logits = lm.output.logits[:, -1].save()
            tokens = choose(logits)
            logprobs = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            ids[:, end], done = tokens, end
            if not proceed(tokens.cpu(), logprobs.cpu()):
                return

    def _decode_in_one_job(
        self,
        batch: Batch,
        edits: RowEdits,
        n: int,
        proceed: Callable[[Tensor, Tensor], bool],
    ) -> None:
        """Greedy generation as a single job; what `proceed` cuts off is computed all the same."""
        if any(holds_sae(edit) for row in edits for _, edit, _ in row):
            raise ValueError(
                "generating on NDIF under an intervention that needs the whole SAE (the error term dropped, most of "
                "its features, or a top-k SAE) would send it there; keep the error term, name fewer features, or read "
                "the next token's logits instead."
            )
        index, end = batch.index, batch.index[:, -1:]
        first = self._plan(self._by_row(edits, index, batch.lengths))
        later = [self._plan(self._by_row(edits, end + step, batch.lengths)) for step in range(1, n)]
        plans = [first, *later]
        lm = self.lm
        inputs, options = self._inputs(batch)
        # generate() makes its own position ids.
        del options["position_ids"]
        with (
            _LOCK,
            lm.generate(
                inputs, **options, max_new_tokens=n, min_new_tokens=n, do_sample=False, repetition_penalty=1.0
            ) as tracer,
        ):
            # The choice is read off the logits: min_new_tokens forbids the end token in what generate() emits, which
            # keeps the number of steps known but is not what the model says. After an end token nothing counts.
            ids: Any = [].save()  # type: ignore[attr-defined]
            logprobs: Any = [].save()  # type: ignore[attr-defined]
            for step in tracer.iter[:n]:
                edit_sites(plans[step], apply_edit)
                best = lm.output.logits[:, -1].float().log_softmax(-1).max(-1)
                ids.append(best.indices.cpu())
                logprobs.append(best.values.cpu())
        for step in range(n):
            if not proceed(ids[step], logprobs[step]):
                return

    def _light(self, batch: Batch, edits: Sequence[PlacedEdit]) -> list[PlacedEdit]:
        """Edits that take no whole SAE along: what such a one makes is found here, from activations fetched."""
        listed = sorted(edits, key=lambda placed: placed[0].order)
        for n, (hook, edit, positions) in enumerate(listed):
            if holds_sae(edit):
                x = self.capture(batch, hook, edits=listed[:n])
                mask = position_mask(positions, batch.index, batch.lengths)
                listed[n] = (hook, outcome(x, edit, mask), positions)
        return listed

    def _inputs(self, batch: Batch, fresh: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Model inputs; `fresh` columns are new, the others are in the cache."""
        device = self.device
        take = slice(None) if fresh is None else slice(-fresh, None)
        inputs = {
            "input_ids": batch.input_ids[:, take].to(device),
            "attention_mask": batch.attention_mask.to(device),
        }
        options: dict[str, Any] = {"position_ids": batch.index.clamp(min=0)[:, take].to(device)}
        if self.remote:
            options["backend"] = self._backend()
        return inputs, options

    def _backend(self) -> Any:
        """What runs a trace or a session: None for this machine."""
        if self.remote == "local":
            return LocalSimulationBackend(self.lm)
        return Waiting(self.lm, _LOCK) if self.remote else None

    def _masked(
        self, edits: Sequence[PlacedEdit], index: Tensor, lengths: Tensor
    ) -> list[tuple[HookPoint, list[tuple[Edit, Tensor]]]]:
        """Edits grouped by hook point in forward order, each with its mask; untouched hook points left out."""
        return _grouped(
            (self.check(hook), edit, position_mask(positions, index, lengths)) for hook, edit, positions in edits
        )

    def _by_row(
        self, edits: RowEdits, index: Tensor, lengths: Tensor
    ) -> list[tuple[HookPoint, list[tuple[Edit, Tensor]]]]:
        """As `_masked`, with row i under `edits[i]`."""
        found = []
        for row, placed in enumerate(edits):
            for hook, edit, positions in placed:
                mask = torch.zeros_like(index, dtype=torch.bool)
                mask[row] = position_mask(positions, index[row : row + 1], lengths[row : row + 1])[0]
                found.append((self.check(hook), edit, mask))
        return _grouped(found)

    def _plan(self, grouped: Sequence[tuple[HookPoint, list[tuple[Edit, Tensor]]]]) -> list[Any]:
        located = [(*self.layout.locate(hook, self.n_layers), steps) for hook, steps in grouped]
        return [(self._module(path), side, steps) for path, side, steps in located]

    def _module(self, path: str) -> Any:
        """The nnsight envoy at a dotted module path."""
        return reduce(
            lambda envoy, name: envoy[int(name)] if name.isdigit() else getattr(envoy, name),
            path.split("."),
            self.lm,
        )


def _within(plan: Sequence[Any], columns: slice) -> list[Any]:
    """What a plan says of some columns; hook points untouched there left out."""
    cut = [(envoy, side, [(edit, mask[:, columns]) for edit, mask in steps]) for envoy, side, steps in plan]
    found = [(envoy, side, [step for step in steps if step[1].any()]) for envoy, side, steps in cut]
    return [(envoy, side, steps) for envoy, side, steps in found if steps]


def _grouped(
    edits: Iterable[tuple[HookPoint, Edit, Tensor]],
) -> list[tuple[HookPoint, list[tuple[Edit, Tensor]]]]:
    grouped: dict[HookPoint, list[tuple[Edit, Tensor]]] = {}
    for hook, edit, mask in edits:
        if mask.any():
            grouped.setdefault(hook, []).append((edit, mask))
    return sorted(grouped.items(), key=lambda item: item[0].order)

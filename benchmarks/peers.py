"""Other libraries, each driven as its own documentation drives it: one forward pass a cell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.work import LAYER, Cell, Runner, Work

# steering-vectors and repeng pin versions of transformers and numpy that do not go with ours.
FOLDER = Path(__file__).parent.parent / ".bench-peers"
INSTALL = "pip install --no-deps --target .bench-peers steering-vectors==0.12.2 repeng==0.4.0"
# Token ids [1, T], vector [d_model], multiplier and positions in; logits [1, T, vocab] out.
Forward = Callable[[Tensor, Tensor, float, str], Tensor]


def per_cell(forward: Forward, work: Work) -> Runner:
    """A loop over cells."""

    def run(cells: Sequence[Cell]) -> Iterator[tuple[list[int], Tensor]]:
        for number, cell in enumerate(cells):
            ids = torch.tensor([work.prompts[cell.prompt]])
            logits = forward(ids, work.vectors[cell.vector], cell.multiplier, work.positions)
            yield [number], logits[:, -1]

    return run


def forwards(module: Any, tokenizer: Any) -> dict[str, Forward]:
    """One forward pass under a vector, by the name of the library; those not installed are left out.

    Args:
        module: a Hugging Face model that no library has touched.
    """
    from nnsight.modeling.transformers import TransformersModel

    # As nnsight makes it; ours watches fewer modules.
    lm = TransformersModel(deepcopy(module), tokenizer=tokenizer)
    found: dict[str, Forward] = {"raw Hugging Face": raw(module), "nnsight": nnsight(lm)}
    sys.path.append(str(FOLDER))
    # repeng 0.4 names this in annotations, and NumPy 2 has taken it away.
    np.float_ = np.float64  # type: ignore[attr-defined]
    for name, make in (("steering-vectors", steering_vectors), ("repeng", repeng)):
        try:
            found[name] = make(deepcopy(module))
        except ModuleNotFoundError as error:
            print(f"{name} is left out ({error}); {INSTALL}", flush=True)
    found["TransformerLens HookedTransformer"] = hooked_transformer(module)
    found["TransformerLens TransformerBridge"] = transformer_bridge(deepcopy(module), deepcopy(tokenizer))
    return found


def added(x: Tensor, delta: Tensor, positions: str) -> Tensor:
    """`x` [n, T, d] with `delta` added at the last token, or at all but the first; no padding."""
    x = x.clone()
    start = -1 if positions == "last" else 1
    x[:, start:] += delta
    return x


def raw(module: Any) -> Forward:
    """A forward hook."""

    def forward(ids: Tensor, vector: Tensor, multiplier: float, positions: str) -> Tensor:
        def steer(block: Any, args: Any, output: Any) -> Any:
            return added(output, multiplier * vector, positions)

        handle = module.model.layers[LAYER].register_forward_hook(steer)
        try:
            return module(ids).logits
        finally:
            handle.remove()

    return forward


def nnsight(lm: Any) -> Forward:
    """One trace."""

    def forward(ids: Tensor, vector: Tensor, multiplier: float, positions: str) -> Tensor:
        start = -1 if positions == "last" else 1
        with lm.trace(ids):
            lm.model.layers[LAYER].output[:, start:] += multiplier * vector
            logits = lm.output.logits.save()
        return logits

    return forward


def steering_vectors(module: Any) -> Forward:
    """`SteeringVector.apply`."""
    from steering_vectors import SteeringVector

    def forward(ids: Tensor, vector: Tensor, multiplier: float, positions: str) -> Tensor:
        where: dict[str, Any] = {"min_token_index": 1}
        if positions == "last":
            # `apply` sets min_token_index to 0 and then refuses token_indices beside it.
            where = {"min_token_index": None, "token_indices": [-1]}
        with SteeringVector({LAYER: vector}).apply(module, multiplier=multiplier, **where):
            return module(ids).logits

    return forward


def repeng(module: Any) -> Forward:
    """`ControlModel.set_control`, with an operator that adds where we want it."""
    from repeng import ControlModel, ControlVector

    model = ControlModel(module, [LAYER])

    def forward(ids: Tensor, vector: Tensor, multiplier: float, positions: str) -> Tensor:
        def operator(x: Tensor, control: Tensor) -> Tensor:
            # Where repeng masks padding, the control has a row a token.
            return added(x, control[:, -1:], positions)

        model.set_control(ControlVector("llama", {LAYER: vector.numpy()}), multiplier, operator=operator)
        return model(ids).logits

    return forward


def hooked_transformer(module: Any) -> Forward:
    """`HookedTransformer.run_with_hooks`; TransformerLens has no table entry for SmolLM2."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

    hf = module.config
    config = HookedTransformerConfig(
        d_model=hf.hidden_size,
        d_head=hf.hidden_size // hf.num_attention_heads,
        n_heads=hf.num_attention_heads,
        n_key_value_heads=hf.num_key_value_heads,
        d_mlp=hf.intermediate_size,
        n_layers=hf.num_hidden_layers,
        # Enough for the prompts here; the model's own 8,192 would take 2 GB of masks.
        n_ctx=512,
        eps=hf.rms_norm_eps,
        d_vocab=hf.vocab_size,
        act_fn="silu",
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=hf.hidden_size // hf.num_attention_heads,
        rotary_base=int(hf.rope_parameters["rope_theta"]),
        final_rms=True,
        gated_mlp=True,
        original_architecture="LlamaForCausalLM",
        device="cpu",
        init_weights=False,
    )
    model = HookedTransformer(config)
    weights = convert_llama_weights(module, config)
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return _with_hooks(model)


def transformer_bridge(module: Any, tokenizer: Any) -> Forward:
    """`TransformerBridge.run_with_hooks`."""
    from transformer_lens.model_bridge import TransformerBridge

    name = module.name_or_path
    return _with_hooks(TransformerBridge.boot_transformers(name, device="cpu", hf_model=module, tokenizer=tokenizer))


def _with_hooks(model: Any) -> Forward:
    def forward(ids: Tensor, vector: Tensor, multiplier: float, positions: str) -> Tensor:
        def steer(x: Tensor, hook: Any) -> Tensor:
            return added(x, multiplier * vector, positions)

        return model.run_with_hooks(ids, fwd_hooks=[(f"blocks.{LAYER}.hook_resid_post", steer)])

    return forward

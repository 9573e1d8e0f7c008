"""SAEs from a folder, from SAELens, or as objects, brought into one form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from steerwidgets.core.sae import SAE, Activation

ACTIVATIONS: dict[str, Activation] = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}
_ACCEPTED = (
    "give a folder with cfg.json and sae_weights.safetensors, a SAELens 'release/sae_id' such as "
    "'gpt2-small-res-jb/blocks.8.hook_resid_pre', or a SAELens SAE object"
)


def load_sae(source: Any) -> SAE | None:
    """An SAE from whatever the user has; None stays None.

    Args:
        source: a steerwidgets or SAELens SAE object, a folder in SAELens' format, or `release/sae_id` from
            SAELens' registry (the only form that uses the network).

    Raises:
        FileNotFoundError: a path with nothing there.
        ValueError: the SAE's architecture or normalisation is not supported, or `source` is none of these.
    """
    if source is None or isinstance(source, SAE):
        return source
    if hasattr(source, "cfg") and hasattr(source, "W_dec"):
        return _from_sae_lens(source)
    if not isinstance(source, str | Path):
        raise ValueError(f"sae={source!r} is not understood; {_ACCEPTED}.")
    folder = Path(source)
    if folder.is_dir():
        return _from_folder(folder)
    release, _, sae_id = str(source).partition("/")
    if not sae_id or str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no SAE folder at {source!r}; {_ACCEPTED}.")
    # Imported here: sae-lens takes up to 20 CPU seconds to import, and a folder does not need it.
    from sae_lens import SAE as SAELensSAE

    return _from_sae_lens(SAELensSAE.from_pretrained(release, sae_id))


def _from_folder(folder: Path) -> SAE:
    from safetensors.torch import load_file

    config, weights = folder / "cfg.json", folder / "sae_weights.safetensors"
    for file in (config, weights):
        if not file.exists():
            raise FileNotFoundError(f"{folder} holds no {file.name}; {_ACCEPTED}.")
    cfg = json.loads(config.read_text())
    return _build(cfg, cfg.get("metadata", {}), load_file(weights), str(folder.name))


def _from_sae_lens(sae: Any) -> SAE:
    cfg = sae.cfg.to_dict()
    metadata = cfg.get("metadata") or {}
    state = {key: value.detach() for key, value in sae.state_dict().items()}
    name = metadata.get("neuronpedia_id") or metadata.get("hook_name") or "SAE"
    return _build(cfg | {"architecture": sae.cfg.architecture()}, metadata, state, str(name))


def _build(cfg: Mapping[str, Any], metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> SAE:
    architecture = cfg.get("architecture", "standard")
    if architecture not in ACTIVATIONS:
        raise ValueError(
            f"{name}: the SAE architecture {architecture!r} is not supported; supported are {', '.join(ACTIVATIONS)}."
        )
    if cfg.get("normalize_activations", "none") not in ("none", None):
        raise ValueError(
            f"{name}: normalize_activations={cfg['normalize_activations']!r} is not supported; fold the "
            "scale into the weights first (SAELens: sae.fold_activation_norm_scaling_factor)."
        )
    hook = metadata.get("hook_name")
    if hook is None:
        raise ValueError(f"{name}: cfg.json names no hook point (metadata.hook_name).")
    weights = {key: tensors[key].float() for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
    model_kwargs = metadata.get("model_from_pretrained_kwargs") or {}
    sae = SAE(
        **weights,
        # hook_z of one head or all: the flattened heads are the input of the output projection here.
        hook=re.sub(r"attn\.hook_z.*", "attn.hook_z", hook),
        activation=ACTIVATIONS[architecture],
        threshold=tensors["threshold"].float() if architecture == "jumprelu" else None,
        k=cfg.get("k"),
        apply_b_dec_to_input=bool(cfg.get("apply_b_dec_to_input", True)),
        centre_input=bool(model_kwargs.get("center_writing_weights", False)),
        sink_norm=metadata.get("sink_norm"),
        name=name,
        metadata=dict(metadata),
    )
    return _rescaled(sae) if cfg.get("rescale_acts_by_decoder_norm") else sae


def _rescaled(sae: SAE) -> SAE:
    """Fold SAELens' `rescale_acts_by_decoder_norm` into the weights: same output, unit decoder rows."""
    from dataclasses import replace

    norm = sae.W_dec.norm(dim=1)
    return replace(sae, W_enc=sae.W_enc * norm, b_enc=sae.b_enc * norm, W_dec=sae.W_dec / norm[:, None])

"""EleutherAI's SAE folders (`cfg.json`, `sae.safetensors`), read by what their own package computes.

SAELens 6.54 reads them too, but turns `W_dec` on its side (it is [num_latents, d_in]) and does not subtract `b_dec`
from the input where `normalize_decoder` is set, which is the default.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from steerwidgets.core.sae import SAE

WEIGHTS = "sae.safetensors"
_SITES = {"": "hook_resid_post", "mlp": "hook_mlp_out"}
_SITES |= dict.fromkeys(("attention", "attn", "self_attn"), "hook_attn_out")


def read_folder(folder: Path, named: str | None = None) -> SAE:
    """Read one SAE.

    Args:
        folder: holds `cfg.json` and `sae.safetensors`.
        named: the module it was trained on (`layers.10`, `layers.10.mlp`, `h.3`, `embed_tokens`); default: the
            folder's name.

    Raises:
        FileNotFoundError: `cfg.json` is missing.
        ValueError: a transcoder, another activation than top-k, or a name that says no module.
    """
    from safetensors.torch import load_file

    config = folder / "cfg.json"
    if not config.exists():
        raise FileNotFoundError(f"{folder} holds {WEIGHTS} but no cfg.json, which says k.")
    cfg = json.loads(config.read_text())
    named = (named or folder.name).rstrip("/").split("/")[-1]
    if cfg.get("transcode") or cfg.get("skip_connection"):
        raise ValueError(f"{folder} is a transcoder: it reads a module's input and writes its output, so it is no SAE.")
    if cfg.get("signed") or cfg.get("activation", "topk") != "topk":
        raise ValueError(f"{folder} has the activation {cfg.get('activation', 'signed topk')!r}; topk is supported.")
    tensors = {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
    metadata = {"hook_name": _hook(named), "l0": cfg["k"], "layout": "sparsify"}
    return SAE(
        W_enc=tensors["encoder.weight"].T,
        b_enc=tensors["encoder.bias"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        hook=_hook(named),
        activation="topk",
        k=int(cfg["k"]),
        name=named,
        metadata=metadata,
    )


def _hook(named: str) -> str:
    if named == "embed_tokens":
        return "blocks.0.hook_resid_pre"
    match = re.fullmatch(r"(?:.*\.)?(?:layers|h)[._](\d+)(?:\.(\w+))?", named)
    if match is None or (match[2] or "") not in _SITES:
        raise ValueError(
            f"{named!r} says no module that is known here; EleutherAI's folders are named layers.L, layers.L.mlp, "
            "layers.L.attention, h.L or embed_tokens."
        )
    return f"blocks.{match[1]}.{_SITES[match[2] or '']}"

"""`sw.load`: from a name, a folder or a module to a `SteeredModel`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerwidgets.core.hooks import HookPoint
from steerwidgets.core.label_files import read_labels
from steerwidgets.core.labels import Labels
from steerwidgets.engine import bundled, transformer_lens
from steerwidgets.engine.health import assess
from steerwidgets.engine.model import Preset, SteeredModel
from steerwidgets.engine.saes import load_sae
from steerwidgets.engine.traces import Remote, Traces

if TYPE_CHECKING:
    import torch

# Steering the embedded default works at this layer, read and applied over all tokens but the first; a list's
# last token is a comma and knows little of the category.
BUNDLED_PRESET = Preset(read="mean", positions="all_but_first", multipliers=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0))
_UNSET: Any = object()


def load(
    model: Any = None,
    sae: Any = _UNSET,
    hook: HookPoint | str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    remote: Remote = False,
    tokenizer: Any = None,
    check: bool = True,
    labels: Any = None,
) -> SteeredModel:
    """Load a model and an SAE.

    Args:
        model: None for the embedded default (SmolLM2-135M-Instruct and the bundled SAE); a Hugging Face id or
            folder; a loaded Hugging Face module, which is put in evaluation mode, and moved if `device` or
            `dtype` say so; or a model of TransformerLens, whose Hugging Face module is then used (`unwrapped`).
        sae: a SAELens `release/sae_id`, a folder in SAELens' format, an SAE object, or None for the model
            alone. Left out, the embedded default brings its own and other models have none.
        hook: where to read and steer by default; the SAE's hook point if left out.
        device: default CUDA where there is one, else the CPU; a loaded module stays where it is.
        dtype: default float32 on the CPU, the checkpoint's own elsewhere.
        remote: True runs every forward pass on NDIF, and no weights are fetched: prompts, vectors and the rows of the
            features that are edited travel there, scores and asked activations back. What needs a whole SAE (the
            error term dropped, a top-k SAE) is decoded here from activations that are fetched once. The key is
            `NDIF_API_KEY`, a Colab secret of that name, or nnsight's; `sw.resume` fetches a job that was left.
            "local" does the same round trip on this machine.
        tokenizer: for a module whose tokenizer cannot be found by its name.
        check: run four sentences through the SAE and warn, in words, if it does not belong to the model's tensor
            (`model.health`); not done on NDIF.
        labels: texts of the SAE's features: a file or folder (see `read_labels`), a mapping, or `Labels`; the
            bundled SAE brings its own. None is fetched: `sw.Neuronpedia().labels(model)` does that.

    Raises:
        MissingModelError: the embedded default was asked for and its package is not installed.
        ValueError: an unknown architecture or hook point, or an SAE of another width.
    """
    if remote not in (False, True, "local"):
        raise ValueError(f'remote={remote!r} is not understood; give False, True or "local".')
    import torch

    labels = None if labels is None else read_labels(labels)
    preset = None
    origin = _origin(model, sae, hook=hook, device=device, dtype=dtype, remote=remote, tokenizer=tokenizer, check=check)
    if model is None:
        if remote is True:
            raise ValueError("the embedded default is not on NDIF; name a model that NDIF serves.")
        model, tokenizer = bundled.bundled_model()
        device = device or ("cuda" if torch.cuda.is_available() else None)
        name, preset = bundled.MODEL_NAME, BUNDLED_PRESET
        if hook is None and (sae is _UNSET or sae is None):
            hook = "blocks.13.hook_resid_post"
        if sae is _UNSET:
            sae = bundled.SAE_FOLDER
            labels = labels or Labels.load(bundled.SAE_FOLDER / "labels.json.gz")
    else:
        if transformer_lens.is_lens(model):
            tokenizer = tokenizer or model.tokenizer
            model = transformer_lens.unwrapped(model)
        name = str(model) if isinstance(model, str | Path) else getattr(model, "name_or_path", "") or "model"
    loaded = load_sae(None if sae is _UNSET else sae)
    lm = _language_model(model, tokenizer, device, dtype, remote)
    traces = Traces(lm, remote)
    steered = SteeredModel(traces, lm.tokenizer, loaded, hook, labels, preset, name)
    steered.origin = origin
    if check and remote is False:
        assess(steered)
    return steered


def _origin(model: Any, sae: Any, **options: Any) -> str:
    """The call as Python; objects stand there by the names of what they are (`module`, `tokenizer`, `sae`)."""

    def written(value: Any, name: str) -> str:
        if value is None or isinstance(value, bool):
            return repr(value)
        simple = isinstance(value, str | Path | HookPoint) or name in ("device", "dtype")
        return json.dumps(str(value).removeprefix("torch.")) if simple else name

    given = [] if model is None else [written(model, "module")]
    given += [] if sae is _UNSET else [f"sae={written(sae, 'sae')}"]
    defaults = {"remote": False, "check": True}
    given += [f"{key}={written(value, key)}" for key, value in options.items() if value != defaults.get(key)]
    return f"sw.load({', '.join(given)})"


def _language_model(model: Any, tokenizer: Any, device: Any, dtype: Any, remote: Remote) -> Any:
    import torch
    from nnsight.modeling.transformers import TransformersModel

    if not isinstance(model, str | Path):
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model={model!r} is not understood; give a Hugging Face id, a folder, or a loaded module.")
        if tokenizer is None and not getattr(model, "name_or_path", ""):
            raise ValueError("this module does not name its tokenizer; give sw.load(module, tokenizer=...).")
        if device is not None or dtype is not None:
            model = model.to(device=device, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return TransformersModel(model.eval(), task="text-generation", tokenizer=tokenizer)
    # A Hub id has at most one slash; what looks like a path should not be sent to the Hub.
    if not Path(model).exists() and (str(model).startswith((".", "/", "~")) or str(model).count("/") > 1):
        raise FileNotFoundError(f"there is no model folder at {str(model)!r}.")
    options = {} if tokenizer is None else {"tokenizer": tokenizer}
    if remote is True:
        return TransformersModel(str(model), task="text-generation", **options)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else "auto")
    return TransformersModel(
        str(model), task="text-generation", dispatch=True, device_map=device, dtype=dtype, **options
    )
